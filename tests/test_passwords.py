"""Checks of passwords: how often, how many at once, and what is remembered. Real ones: test_web_access.py."""

import asyncio
import base64
import threading

from joulemeter.runtime.passwords import MAX_WAITING, Passwords, Verdict
from tests.web_files import hashed


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


class CountedCheck:
    """Counts checks, and how many run at once; can be held up."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.running = self.most = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, password: bytes, stored: bytes) -> bool:
        self.hashes.append(stored)
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.may_go_on.wait(10)
        self.running -= 1
        return stored == b"hash of " + password


async def test_a_password_is_checked_once_while_it_is_right():
    check = CountedCheck()
    passwords = Passwords(check)
    users = {"alice": "hash of a"}
    first = await asyncio.gather(*(passwords.admit(users, basic(b"alice:a")) for _ in range(9)))
    assert first == [Verdict.RIGHT] * 9
    assert check.hashes == [b"hash of a"]
    assert await passwords.admit({"alice": "hash of b"}, basic(b"alice:a")) is Verdict.WRONG, "it was changed"
    assert await passwords.admit({"bob": "hash of a"}, basic(b"alice:a")) is Verdict.WRONG, "she is gone"
    assert await passwords.admit(users, basic(b"alice:a")) is Verdict.RIGHT
    assert len(check.hashes) == 3
    for _ in range(2):
        assert await passwords.admit(users, basic(b"alice:b")) is Verdict.WRONG
    assert len(check.hashes) == 5, "a wrong one is checked each time"


async def test_no_password_can_be_found_in_the_memory_of_the_cache():
    passwords = Passwords(CountedCheck())
    assert await passwords.admit({"alice": "hash of abc"}, basic(b"alice:abc")) is Verdict.RIGHT
    remembered = b"".join(passwords._right)
    assert len(remembered) == 32
    assert b"abc" not in remembered
    again = Passwords(CountedCheck())
    assert await again.admit({"alice": "hash of abc"}, basic(b"alice:abc")) is Verdict.RIGHT
    assert b"".join(again._right) != remembered, "the key is another in each process"


async def test_an_unknown_user_costs_as_much_as_a_known_one():
    check = CountedCheck()
    users = {"alice": hashed("a", 4), "bob": hashed("b", 5)}
    assert await Passwords(check).admit(users, basic(b"mallory:a")) is Verdict.WRONG
    assert check.hashes == [users["bob"].encode()], "one check, of the costliest kind"
    assert await Passwords(lambda *_: True).admit(users, basic(b"mallory:a")) is Verdict.WRONG


async def test_right_passwords_are_forgotten_before_they_are_many():
    check = CountedCheck()
    passwords = Passwords(check)
    users = {f"user-{number}": "hash of a" for number in range(150)}
    for user in users:
        await passwords.admit(users, basic(f"{user}:a".encode()))
    assert len(passwords._right) == 100
    assert await passwords.admit(users, basic(b"user-149:a")) is Verdict.RIGHT
    assert len(check.hashes) == 150
    assert await passwords.admit(users, basic(b"user-0:a")) is Verdict.RIGHT
    assert len(check.hashes) == 151


async def test_many_wrong_passwords_hold_up_nobody_who_was_known():
    check = CountedCheck()
    passwords = Passwords(check)
    users = {"alice": "hash of a"}
    assert await passwords.admit(users, basic(b"alice:a")) is Verdict.RIGHT
    check.may_go_on.clear()
    try:
        flood = [asyncio.create_task(passwords.admit(users, basic(b"x:%d" % one))) for one in range(200)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(passwords.admit(users, basic(b"alice:a")), 1) is Verdict.RIGHT
        assert await asyncio.wait_for(passwords.admit(users, basic(b"bob:b")), 1) is Verdict.BUSY
    finally:
        check.may_go_on.set()
    verdicts = await asyncio.gather(*flood)
    assert verdicts.count(Verdict.WRONG) == MAX_WAITING
    assert verdicts.count(Verdict.BUSY) == 200 - MAX_WAITING
    assert check.most == 1, "one core at most"
    assert await passwords.admit(users, basic(b"x:1")) is Verdict.WRONG, "and it is over when it is over"
