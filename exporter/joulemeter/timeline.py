"""Edges of a GPU's cumulative energy -> amount between two instants, by interpolation. Pure."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from statistics import median

from joulemeter.busy import Tick
from joulemeter.model import NOTHING, Amount

SHORTEST_STALL_SECONDS = 1.0
STALL_PERIODS = 5
"""A counter that has not moved for so many of its own periods stands still: its last reading is as good as an
edge. Most counters move every 20 to 100 ms, which is documented nowhere for most boards: the period is learned."""
LEARNED_GAPS = 64
LEARN_EVERY_GAPS = 16


@dataclass(frozen=True, slots=True)
class Edge:
    """The cumulative amount at the instant the counter moved (back-dated by half a reading interval)."""

    at_seconds: float
    total: Amount


class Timeline:
    """A bounded record of one GPU's cumulative amount.

    NVML's counter moves in lumps of about 100 ms; between two of its edges the amount is taken to grow
    linearly, which cuts the error of a 1 s window fourfold against the last reading (measured on synthetic
    serving power). Totals are cumulative, so dropping the oldest edges loses detail, never joules.
    """

    def __init__(self, at_seconds: float, *, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._edges = deque([Edge(at_seconds, NOTHING)])
        self._read_at_seconds = at_seconds
        self._moved_at_seconds: float | None = None
        self._gaps_seconds: deque[float] = deque(maxlen=LEARNED_GAPS)
        self._unlearned = 0
        self.period_seconds: float | None = None
        """How often the counter moves: the median of its last gaps, once it has moved a few times."""

    @property
    def _stall_seconds(self) -> float:
        return max(SHORTEST_STALL_SECONDS, STALL_PERIODS * (self.period_seconds or 0.0))

    @property
    def total(self) -> Amount:
        """All that was measured so far."""
        return self._edges[-1].total

    @property
    def read_at_seconds(self) -> float:
        """When the counter was last read, moved or not."""
        return self._read_at_seconds

    @property
    def covered_until_seconds(self) -> float:
        """Up to here `at` answers for good: later readings cannot change it."""
        last = self._edges[-1].at_seconds
        stalled = self._read_at_seconds - last > self._stall_seconds
        return self._read_at_seconds if stalled else last

    def append(self, edge_at_seconds: float, increase: Amount, *, read_at_seconds: float) -> None:
        """Record a reading: an edge where the counter moved, else only that it was read.

        An edge that would lie before the last one (back-dating across a late reading) is laid upon it.
        """
        previous_read_at_seconds = self._read_at_seconds
        self._read_at_seconds = max(previous_read_at_seconds, read_at_seconds)
        if increase == NOTHING:
            return
        last = self._edges[-1]
        if previous_read_at_seconds - last.at_seconds > self._stall_seconds:
            # It stood still until then, and `covered_until_seconds` has said so.
            last = Edge(previous_read_at_seconds, last.total)
            self._edges.append(last)
        self._learn_period(edge_at_seconds)
        self._edges.append(Edge(max(edge_at_seconds, last.at_seconds), last.total + increase))
        oldest = self._edges[-1].at_seconds - self._keep_seconds
        while len(self._edges) > 2 and self._edges[1].at_seconds < oldest:  # noqa: PLR2004 - two make a segment
            self._edges.popleft()

    def ticks(self, begin_seconds: float, end_seconds: float) -> list[Tick]:
        """The counter's ticks in (begin, end], each as long as whole periods: edges are seen up to a reading late."""
        period_seconds = self.period_seconds
        if period_seconds is None:
            return []
        ticks: list[Tick] = []
        after: Edge | None = None
        for before in reversed(self._edges):  # what is asked for lies near the end
            if after is not None and after.at_seconds <= end_seconds:
                periods = max(1, round((after.at_seconds - before.at_seconds) / period_seconds))
                seconds = periods * period_seconds
                energy_joules = after.total.energy_joules - before.total.energy_joules
                ticks.append(Tick(seconds, energy_joules / seconds))
            if before.at_seconds <= begin_seconds:
                break
            after = before
        ticks.reverse()
        return ticks

    def _learn_period(self, moved_at_seconds: float) -> None:
        before, self._moved_at_seconds = self._moved_at_seconds, moved_at_seconds
        if before is None:
            return
        self._gaps_seconds.append(moved_at_seconds - before)
        self._unlearned += 1
        if self._unlearned >= min(LEARN_EVERY_GAPS, len(self._gaps_seconds)):
            self._unlearned = 0
            self.period_seconds = median(self._gaps_seconds)

    def at(self, at_seconds: float) -> Amount:
        """Return the cumulative amount at an instant; before the oldest edge that edge's, after the last the last's."""
        edges = self._edges
        if at_seconds >= edges[-1].at_seconds:
            return edges[-1].total
        if at_seconds <= edges[0].at_seconds:
            return edges[0].total
        right = bisect_left(edges, at_seconds, key=lambda edge: edge.at_seconds)
        after, before = edges[right], edges[right - 1]
        ratio = (at_seconds - before.at_seconds) / (after.at_seconds - before.at_seconds)
        return before.total + (after.total - before.total).scaled(ratio)
