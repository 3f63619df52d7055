"""Keeps the node's baselines in the state directory while the daemon runs, and does what others ask for."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from joulemeter.baseline_file import decode, encode
from joulemeter.baselines import Baselines
from joulemeter.errors import BaselineError, JoulemeterError
from joulemeter.runtime.state import StateDirectory
from joulemeter.runtime.threads import in_daemon_thread

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 300.0
"""What a crash loses is learned again."""
LOOK_SECONDS: Final = 2.0
ALL: Final = "all"
LIST_THEM: Final = "`joulemeter baseline list` shows them"


def perform(baselines: Baselines, request: object) -> str:
    """Do what a request asks for, and say what was done.

    Raises:
        BaselineError: it is no request, or no baseline is what it names.
    """
    match request:
        case {"do": "accept", "id": str(one)}:
            if not baselines.accept(one):
                raise BaselineError(f"no baseline {one!r}; {LIST_THEM}")
            return f"{one} accepted: what is measured from now on is the new normal"
        case {"do": "reset", "id": str(one)}:
            count = baselines.reset(None if one == ALL else one)
            if one != ALL and not count:
                raise BaselineError(f"no baseline {one!r}; {LIST_THEM}")
            return f"{one} forgotten" if one != ALL else f"all {count} forgotten"
        case {"do": "import", "text": str(text), "source": str(source)}:
            taken = baselines.adopt(decode(text, source=source), replace=True)
            return f"imported {', '.join(one.id for one in taken) or 'none'}"
    raise BaselineError(f"not a request of this release: {request!r:.200}; use the same release for both")


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Say what the world did to us, and go on."""
    try:
        yield
    except (JoulemeterError, OSError) as error:
        log.warning("%s", error)


class BaselineKeeper:
    """Saves every few minutes and at the end; looks for requests every few seconds.

    Args:
        baselines: the node's; only touched between awaits of the one event loop.
        state: held by this process.
    """

    name = "baselines"

    def __init__(self, baselines: Baselines, state: StateDirectory) -> None:
        self._baselines = baselines
        self._state = state

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them until `stop`. What cannot be written is said, and tried again."""
        due_seconds = time.monotonic() + SAVE_SECONDS
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await stop.wait()
                with _said():
                    await self._take_requests()
                if time.monotonic() >= due_seconds:
                    due_seconds = time.monotonic() + SAVE_SECONDS
                    with _said():
                        await self._save()
        finally:
            with _said():
                await self._save()

    async def _save(self) -> None:
        text = encode(self._baselines.all(), self._state.clock())
        await in_daemon_thread(lambda: self._state.save(text))

    async def _take_requests(self) -> None:
        """Do what waits, save, and only then clear it away: who dies in between does it again."""
        requests = await in_daemon_thread(self._state.requests)
        refusals: dict[Path, str | None] = {}
        for path, request in requests:
            try:
                log.info("%s", perform(self._baselines, request))
                refusals[path] = None
            except BaselineError as error:
                log.warning("%s: refused: %s", path, error)
                refusals[path] = str(error)
        if refusals:
            await self._save()
            await in_daemon_thread(lambda: self._state.answer(refusals))
