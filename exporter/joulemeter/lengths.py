"""Histograms of finished requests' lengths -> which requests finished between two pages, by bucket. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from joulemeter.model import Length, LengthReading, Observation
from joulemeter.remembered import FORGET_SECONDS, Remembered

MOST_REQUESTS: Final = 20_000
"""On one page, of all its engines; more have not finished between two of them, and are left out."""
MOST_REQUESTS_PER_SECOND: Final = 2000.0
"""Page after page; so many of one server keep the daemon busy for a fiftieth of the time."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many requests had more than `above_tokens` and at most `at_most_tokens` (None: no limit)."""

    count: int
    above_tokens: int
    at_most_tokens: int | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """One length of the requests that finished between two pages; `sum_tokens` is exact."""

    buckets: tuple[Bucket, ...]
    sum_tokens: int

    @property
    def count(self) -> int:
        """Requests in all the buckets."""
        return sum(bucket.count for bucket in self.buckets)


@dataclass(frozen=True, slots=True)
class Finished:
    """Requests of one model on one engine that a page was the first to count."""

    at_seconds: float
    model: str
    lengths: dict[Length, Lengths]
    share: float = 1.0
    """Of the requests that the page was the first to count, of all its models and engines."""


@dataclass(slots=True)
class _Room:
    """How many more requests are believed, now and from second to second."""

    requests: float = MOST_REQUESTS
    at_seconds: float | None = None

    def grow(self, at_seconds: float) -> None:
        """Make room for what may have finished since the page before."""
        seconds = 0.0 if self.at_seconds is None else at_seconds - self.at_seconds
        self.requests = min(MOST_REQUESTS, self.requests + seconds * MOST_REQUESTS_PER_SECOND)
        self.at_seconds = at_seconds

    def take(self, count: int) -> bool:
        """Take so much of it if there is as much."""
        if count > self.requests:
            return False
        self.requests -= count
        return True


class FinishedRequests:
    """What finished, page by page, over the last minutes.

    The rules are those of counters (`counters.SeriesCounters`): the first page is the baseline; a histogram that
    appears later in the same process counts from 0, and so does each after a restart, known by the process's
    start time or by a number that fell.

    What one page tells is bounded, however many engines it has, for each request costs time: an engine whose
    requests are more than there is room for is left out of that page (MOST_REQUESTS, MOST_REQUESTS_PER_SECOND).
    """

    def __init__(self, *, keep_seconds: float, forget_seconds: float = FORGET_SECONDS) -> None:
        self._keep_seconds = keep_seconds
        self._last: Remembered[tuple[str, Length], LengthReading] = Remembered(forget_seconds)
        self._start_time_seconds: float | None = None
        self._baseline_taken = False
        self._finished: deque[Finished] = deque()
        self._room = _Room()
        self.models: frozenset[str] = frozenset()
        """Models whose requests' lengths the latest page told."""

    def observe(self, observation: Observation, *, default_model: str) -> None:
        """Take in a page, younger than the one before."""
        page = observation.page
        known, told = self._start_time_seconds, page.start_time_seconds
        if known is not None and told is not None and told != known:
            self._last.clear()
        self._start_time_seconds = known if told is None else told
        engines: dict[tuple[str, str], dict[Length, Lengths]] = {}
        for reading in page.lengths:
            key = (reading.series, reading.length)
            before = self._last.get(key)
            if before is not None or (self._baseline_taken and not self._last.dropped(key)):
                increase = _increase(reading, before)
                engine = engines.setdefault((reading.model or default_model, reading.series), {})
                if increase.buckets:
                    engine[reading.length] = increase
        self._last.turn(
            observation.at_seconds,
            (((reading.series, reading.length), reading) for reading in page.lengths),
        )
        self._baseline_taken = True
        self.models = frozenset(
            reading.model or default_model for reading in page.lengths if reading.length is Length.GENERATION
        )
        self._room.grow(observation.at_seconds)
        counted = [
            (model, lengths)
            for (model, _), lengths in engines.items()
            if Length.GENERATION in lengths and self._room.take(lengths[Length.GENERATION].count)
        ]
        total = sum(lengths[Length.GENERATION].count for _, lengths in counted)
        self._finished.extend(
            Finished(observation.at_seconds, model, lengths, lengths[Length.GENERATION].count / total)
            for model, lengths in counted
        )
        while self._finished and self._finished[0].at_seconds < observation.at_seconds - self._keep_seconds:
            self._finished.popleft()

    def between(self, after_seconds: float, until_seconds: float) -> list[Finished]:
        """Return what pages in (after, until] were the first to count, oldest first."""
        return [one for one in self._finished if after_seconds < one.at_seconds <= until_seconds]


def _increase(now: LengthReading, before: LengthReading | None) -> Lengths:
    """Return what came since the page before, or since the process began."""
    if before is not None and before.counts == now.counts and before.sum_tokens == now.sum_tokens:
        return Lengths((), 0)
    fresh = before is None or before.at_most_tokens != now.at_most_tokens
    if before is not None and not fresh:
        fresh = now.sum_tokens < before.sum_tokens or any(
            new < old for new, old in zip(now.counts, before.counts, strict=True)
        )
    old_counts: Iterable[int] = (0,) * len(now.counts) if fresh or before is None else before.counts
    old_tokens = 0 if fresh or before is None else before.sum_tokens
    risen = [new - old for new, old in zip(now.counts, old_counts, strict=True)]
    limits = (*now.at_most_tokens, None)
    buckets = tuple(
        Bucket(max(0, here - below), above, limit)
        for here, below, above, limit in zip(
            risen, (0, *risen), (0, *now.at_most_tokens), limits, strict=False
        )
        if here > below
    )
    return Lengths(buckets, now.sum_tokens - old_tokens)
