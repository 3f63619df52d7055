"""Keeps the grid's book: asks live sources when they are due, and remembers what they said over restarts."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from joulemeter.errors import GridError
from joulemeter.grid_book import GridBook
from joulemeter.grid_codec import decode, encode
from joulemeter.grid_polls import Polls
from joulemeter.grid_view import GridView, view
from joulemeter.grids import LiveSource
from joulemeter.model import GridAnswer
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.state import replace

log = logging.getLogger(__name__)

FILE: Final = "grid.json"
LOOK_SECONDS: Final = 5.0
"""How often to see whether a source is due, or has gone stale so that the next one is wanted."""
MAX_SKEW_SECONDS: Final = 300.0
MAX_FILE_BYTES: Final = 2**20


class GridKeeper:
    """One per daemon.

    Args:
        book: what it fills.
        client: asks.
        state_dir: where the last values are kept; None: nowhere.
        clock: monotonic seconds.
        wall_clock: Unix time.
        random_ratio: from 0 to 1, for the jitter.
    """

    name = "grid"

    def __init__(
        self,
        book: GridBook,
        client: GridClient,
        *,
        state_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        random_ratio: Callable[[], float] = random.random,
    ) -> None:
        self.book = book
        self._client = client
        self._file = None if state_dir is None else state_dir / FILE
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random_ratio
        self._skewed: set[str] = set()
        self.polls = {source.name: Polls(source.poll_seconds) for source in (*book.live, *book.shown)}

    def offset_seconds(self) -> float:
        """Unix time less monotonic time, now."""
        return self._wall_clock() - self._clock()

    def view(self) -> GridView:
        """What the page shows now."""
        return view(self.book, self.polls, self._clock(), self.offset_seconds())

    def relayed(self) -> str:
        """The text of `/grid.json`: what the live source in use knows, or no source."""
        at_seconds = self._clock()
        in_use = self.book.at(at_seconds, self.offset_seconds())
        answers = {
            name: answer
            for name in self.book.known
            if name == in_use.source and (answer := self.book.answer_of(name, at_seconds)) is not None
        }
        return encode(self.book.place.zone, answers)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask when it is time, until stopped."""
        await self.restore()
        while not stop.is_set():
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def look(self) -> None:
        """Ask what is due: sources in order until one is fresh, and those that are only shown."""
        for source in self.book.live:
            await self._ask_if_due(source)
            if self.book.is_fresh(source, self._clock()):
                break
        for source in self.book.shown:
            await self._ask_if_due(source)

    async def _ask_if_due(self, source: LiveSource) -> None:
        polls = self.polls[source.name]
        if not polls.is_due(self._clock()):
            return
        try:
            answer, said_timestamp = await self._client.converse(source, self._wall_clock())
        except GridError as error:
            if polls.failed(error, self._clock(), self._random()):
                left = "it is not asked again before a restart" if polls.off else "what was known is used on"
                log.warning("%s; %s", error, left)
            return
        now_seconds, timestamp = self._clock(), self._wall_clock()
        if polls.succeeded(now_seconds, timestamp, self._random()):
            newest = answer.intervals[-1]
            log.info("grid.%s answers: %s", source.name, newest.origin.dataset)
        offset_seconds = self._true_timestamp(source.name, timestamp, said_timestamp) - now_seconds
        self.book.take(source.name, answer, now_seconds, offset_seconds)
        await self._save()

    def _true_timestamp(self, source: str, timestamp: float, said_timestamp: float | None) -> float:
        """Our time, or the provider's where the two are far apart: ages then count from its clock."""
        if said_timestamp is None or abs(said_timestamp - timestamp) <= MAX_SKEW_SECONDS:
            self._skewed.discard(source)
            return timestamp
        if source not in self._skewed:
            self._skewed.add(source)
            log.warning(
                "grid.%s: this node's clock is %+.0f s off the provider's; tariffs and times shown are as wrong:"
                " synchronise it",
                source,
                timestamp - said_timestamp,
            )
        return said_timestamp

    # ------------------------------------------------------------------------------------------ over a restart

    async def restore(self) -> None:
        """Take in what was known before. A file that cannot be used is no loss, and said."""
        if self._file is None:
            return
        try:
            answers = decode(await asyncio.to_thread(_read, self._file), self.book.place.zone)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s: not used: %s; sources are asked anew", self._file, error)
            return
        for name in answers.keys() & self.book.known.keys():
            known = GridAnswer(answers[name].intervals)  # shares are of the moment
            self.book.take(name, known, self._clock(), self.offset_seconds())

    async def _save(self) -> None:
        if self._file is None:
            return
        found = {name: self.book.answer_of(name, self._clock()) for name in self.book.known}
        text = encode(self.book.place.zone, {name: answer for name, answer in found.items() if answer})
        try:
            await asyncio.to_thread(replace, self._file, text)
        except OSError as error:
            log.warning("%s: cannot be written: %s; make room, or check its permissions", self._file, error)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(MAX_FILE_BYTES)
