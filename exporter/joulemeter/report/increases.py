"""Increases of one exporter's counters from raw samples: subtract per series, then add. Pure.

All series of a page are scraped at once, so they share their timestamps, and what one of them says holds for all:
where a GPU's energy falls the daemon has restarted, and everything on the page counts from 0; where the page
was scraped without a series, that series had been dropped and starts at 0 when it returns. `increase()` knows neither,
and extrapolates besides.
"""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import le
from typing import Final

LEAST_GAP_SECONDS: Final = 300.0
MOST_GAP_SECONDS: Final = 3600.0
GAP_INTERVALS: Final = 3
USUAL_PAGES: Final = 1000


def longest_seconds(page_seconds: Sequence[float]) -> float:
    """Return how far apart pages may be: three usual intervals, at least five minutes and at most an hour."""
    some = page_seconds[:USUAL_PAGES]
    usual = statistics.median([after - before for before, after in pairwise(some)] or [0.0])
    return min(max(LEAST_GAP_SECONDS, GAP_INTERVALS * usual), MOST_GAP_SECONDS)


@dataclass(frozen=True, slots=True)
class Life:
    """When an exporter was scraped, and on which of these pages everything counts from 0 (Unix time, ascending).

    Pages further apart than `gap_seconds` have a gap between them. A series that pages lack for as long was dropped by
    the daemon (`series_ttl_seconds`); a shorter hole is the store's, and its counter went on.
    """

    page_seconds: Sequence[float]
    restart_seconds: tuple[float, ...] = ()
    gap_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gap_seconds", longest_seconds(self.page_seconds))

    def restarted(self, after_seconds: float, until_seconds: float) -> bool:
        """Say whether the daemon restarted later than the first and not later than the second instant."""
        restarts = self.restart_seconds
        return bisect_right(restarts, after_seconds) < bisect_right(restarts, until_seconds)

    def lacked(self, last_seconds: float, next_seconds: float) -> bool:
        """Say whether pages between two samples of a series show that it was dropped meanwhile."""
        before = bisect_left(self.page_seconds, next_seconds) - 1
        return before >= 0 and self.page_seconds[before] - last_seconds >= self.gap_seconds

    def pages(self, after_seconds: float, until_seconds: float) -> int:
        """Count the pages later than the first and not later than the second instant."""
        pages = self.page_seconds
        return bisect_right(pages, until_seconds) - bisect_right(pages, after_seconds)


class Increase:
    """What a series gained on the pages later than `begin_seconds`, from its samples in ascending order.

    A range thus begins with the last sample before it, and what a page brings belongs to the range that the page
    is in: the increases of successive ranges add up to that of the whole.

    Args:
        life: of the exporter that the series is from.
        begin_seconds: Unix time.
        gauge: it may fall (pending energy), so that only the page says where it begins anew.
    """

    __slots__ = ("_at_seconds", "_begin_seconds", "_gauge", "_life", "_value", "on_first_page", "total")

    def __init__(self, life: Life, begin_seconds: float, *, gauge: bool = False) -> None:
        self._life = life
        self._begin_seconds = begin_seconds
        self._gauge = gauge
        self._at_seconds: float | None = None
        self._value = 0.0
        self.total = 0.0
        self.on_first_page = 0.0
        """What it showed when the exporter was first seen, if in the range; whether that is ours, the page says."""

    def advance(self, at_seconds: Sequence[float], values: Sequence[float]) -> None:
        """Take in further samples; those not later than what was taken in before are known already."""
        begin = 0 if self._at_seconds is None else bisect_right(at_seconds, self._at_seconds)
        if begin:
            at_seconds, values = at_seconds[begin:], values[begin:]
        if not at_seconds:
            return
        if self._at_seconds is not None and self._calm(self._at_seconds, at_seconds, values):
            self.total += values[-1] - self._value
        else:
            for at, value in zip(at_seconds, values, strict=True):
                self._step(at, value)
        self._at_seconds, self._value = at_seconds[-1], values[-1]

    def _calm(self, last_seconds: float, at_seconds: Sequence[float], values: Sequence[float]) -> bool:
        """Say whether the counter only went on, so that the last sample says it all."""
        return (
            last_seconds >= self._begin_seconds
            and not self._life.restarted(last_seconds, at_seconds[-1])
            and self._life.pages(last_seconds, at_seconds[-1]) == len(at_seconds)
            and (self._gauge or (values[0] >= self._value and all(map(le, values, values[1:]))))
        )

    def _step(self, at_seconds: float, value: float) -> None:
        if at_seconds > self._begin_seconds:
            if self._at_seconds is None and at_seconds <= self._life.page_seconds[0]:
                self.on_first_page = value
            else:
                self.total += value - (0.0 if self._is_born(at_seconds, value) else self._value)
        self._at_seconds, self._value = at_seconds, value

    def _is_born(self, at_seconds: float, value: float) -> bool:
        """Say whether it counts from 0 since the last sample."""
        return (
            self._at_seconds is None
            or (value < self._value and not self._gauge)
            or self._life.restarted(self._at_seconds, at_seconds)
            or self._life.lacked(self._at_seconds, at_seconds)
        )


def falls(at_seconds: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the instants at which a series is less than before."""
    if all(map(le, values, values[1:])):
        return []
    samples = zip(at_seconds, values, strict=True)
    return [at for (_, before), (at, value) in pairwise(samples) if value < before]


@dataclass(frozen=True, slots=True)
class Coverage:
    """For how long of a range one exporter's energy is known, in seconds, which are all of the range together.

    `restart_seconds` ends a process that may have used more after its last page; `edge_seconds` lies before
    the first or after the last page; of `bridged_seconds`, a part of `known_seconds`, nothing was scraped, but the
    counters went on, so that their energy is known as a whole.
    """

    known_seconds: float
    restart_seconds: float
    edge_seconds: float
    bridged_seconds: float
    restarts: int


def coverage(life: Life, begin_seconds: float, end_seconds: float) -> Coverage:
    """Say for how long of a range (Unix time) an exporter's energy is known, from its pages in it and before.

    The end of the range may be as far from the last page as two pages may be from each other.
    """
    pages, gap_seconds = life.page_seconds, life.gap_seconds
    inside = pages[max(0, bisect_right(pages, begin_seconds) - 1) : bisect_right(pages, end_seconds)]
    if not inside:
        return Coverage(0.0, 0.0, end_seconds - begin_seconds, 0.0, 0)
    restart = bridged = 0.0
    restarts = 0
    for before, after in pairwise(inside):
        seconds = after - max(before, begin_seconds)
        if life.restarted(before, after):
            restart += seconds
            restarts += 1
        elif after - before > gap_seconds:
            bridged += seconds
    late = end_seconds - max(inside[-1], begin_seconds)
    edge = max(0.0, inside[0] - begin_seconds) + (late if end_seconds - inside[-1] > gap_seconds else 0.0)
    known = end_seconds - begin_seconds - restart - edge
    return Coverage(known, restart, edge, bridged, restarts)
