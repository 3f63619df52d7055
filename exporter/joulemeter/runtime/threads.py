"""Blocking calls beside the event loop that nobody waits for when the process ends."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise what it raises.

    For calls into a driver: one that hangs there cannot be ended. `asyncio.to_thread` would have the process
    wait for it at its end, whatever became of the task.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="joulemeter-call", daemon=True).start()
    return await asyncio.wrap_future(outcome)
