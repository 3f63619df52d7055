"""Blocking calls in threads that nobody waits for."""

import asyncio
import threading

import pytest

from joulemeter.errors import DiscoveryError
from joulemeter.runtime.threads import in_daemon_thread


async def test_result_is_returned_from_another_thread():
    thread = await in_daemon_thread(threading.current_thread)
    assert thread is not threading.main_thread()
    assert thread.daemon
    assert await in_daemon_thread(lambda: None) is None


async def test_error_is_raised_where_it_is_awaited():
    def fail() -> None:
        raise DiscoveryError("nobody listens")

    with pytest.raises(DiscoveryError, match="nobody listens"):
        await in_daemon_thread(fail)


async def test_loop_goes_on_meanwhile_and_cancelling_waits_for_nothing():
    release = threading.Event()
    try:
        task = asyncio.create_task(in_daemon_thread(lambda: release.wait(60)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()


def test_call_that_ends_after_the_loop_harms_nobody():
    release, ended = threading.Event(), threading.Event()

    def call() -> None:
        release.wait(60)
        ended.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await in_daemon_thread(call)

    asyncio.run(give_up())
    release.set()
    assert ended.wait(10)
