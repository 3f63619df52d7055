"""Checks names and passwords against bcrypt hashes, which takes a tenth of a second of one core each."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

import bcrypt

from joulemeter.runtime.threads import in_daemon_thread

SCHEME: Final = "basic"
MAX_BYTES: Final = 72
"""What bcrypt looks at of a password; other programs ignore the rest, the library refuses it."""
MAX_KNOWN: Final = 100
MAX_WAITING: Final = 16
"""Checks run one after the other: wrong passwords cost at most one core, and those behind so many are turned away."""

Check = Callable[[bytes, bytes], bool]


class Verdict(Enum):
    """What became of a check."""

    RIGHT = auto()
    WRONG = auto()
    BUSY = auto()
    """Not checked: so many checks wait that it would take too long."""


class Passwords:
    """Remembers which passwords were right, by a keyed hash, so that a scraper's is checked once.

    Args:
        check: says whether a password belongs to a hash; slow.
    """

    def __init__(self, check: Check = bcrypt.checkpw) -> None:
        self._check = check
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def admit(self, users: Mapping[str, str], authorization: str) -> Verdict:
        """Say whether the header of a request names a user and that user's password.

        An unknown user takes as long as a known one with a wrong password.
        """
        named = _credentials(authorization)
        if named is None:
            return Verdict.WRONG
        user, password = named
        known = user in users
        hashed = users[user] if known else max(users.values(), key=_cost)
        token = self._token(user, hashed, password)
        if known and token in self._right:
            return Verdict.RIGHT
        if self._waiting >= MAX_WAITING:
            return Verdict.BUSY
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                if known and token in self._right:  # who asked at the same time found out
                    return Verdict.RIGHT
                secret, stored = password[:MAX_BYTES], hashed.encode()
                right = await in_daemon_thread(lambda: self._check(secret, stored))
        finally:
            self._waiting -= 1
        if not (known and right):
            return Verdict.WRONG
        self._remember(token)
        return Verdict.RIGHT

    def _token(self, user: str, hashed: str, password: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (user.encode(), hashed.encode(), password):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def _remember(self, token: bytes) -> None:
        if len(self._right) >= MAX_KNOWN:
            del self._right[next(iter(self._right))]
        self._right[token] = None


def _cost(hashed: str) -> str:
    return hashed[4:6]


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    """Take a Basic header apart (RFC 7617); None if it is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != SCHEME:
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode("utf-8"), password) if colon else None
    except (binascii.Error, ValueError):
        return None
