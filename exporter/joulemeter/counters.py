"""Cumulative readings to increases: first sight, resets, impossible jumps, late series, restarts. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from joulemeter.model import EnergyReading, Role, RoleReading
from joulemeter.remembered import FORGET_SECONDS, Remembered

UNKNOWN_BOARD_WATTS = 3000.0
"""Ceiling for a board that does not tell its limit; above any board sold, far below a counter's lifetime total."""

HEADROOM = 1.5
"""Boards exceed their limit for milliseconds, and a counter's tick may bring more than the gap's energy."""

TICK_SECONDS = 1.0
"""What a counter may bring beyond the time since it last moved: its first lump may be older than our first look."""

LONGEST_STRETCH_SECONDS = 10.0
"""Between two power readings; beyond it the mean of the two says nothing about what lay between them."""

WOBBLE = 0.99
"""A live count is a product of rounded numbers (llama.cpp prints six digits): so small a fall is no restart."""


@dataclass(frozen=True, slots=True)
class Increase:
    """What one energy reading adds: joules >= 0 over the gap since the reading before."""

    energy_joules: float
    gap_seconds: float
    reset: bool = False


class EnergyCounter:
    """A GPU's cumulative energy, made monotone.

    Law 2: a reading that goes backwards is a reset, and the increase counts from the new value; a rise (or a
    value after a reset) that no board could have drawn since the counter last moved is not energy: it is
    counted as a reset and adds nothing. The first reading is the baseline: what the counter held before is not ours.
    """

    def __init__(self, max_power_watts: float | None) -> None:
        self._max_watts = (max_power_watts or UNKNOWN_BOARD_WATTS) * HEADROOM
        self._last: EnergyReading | None = None
        self._moved_at_seconds = 0.0

    def advance(self, reading: EnergyReading) -> Increase | None:
        """Return the increase since the last reading, or None for the baseline.

        Raises:
            ValueError: the reading is not finite, negative, or older than the last one (a meter's bug).
        """
        if not (math.isfinite(reading.total_joules) and reading.total_joules >= 0):
            raise ValueError(f"{reading.uuid}: total_joules={reading.total_joules} is not >= 0")
        last, self._last = self._last, reading
        if last is None:
            self._moved_at_seconds = reading.at_seconds
            return None
        gap_seconds = reading.at_seconds - last.at_seconds
        if gap_seconds < 0:
            raise ValueError(
                f"{reading.uuid}: reading at {reading.at_seconds} is older than {last.at_seconds}"
            )
        still_seconds = reading.at_seconds - self._moved_at_seconds
        possible_joules = self._max_watts * (still_seconds + TICK_SECONDS)
        risen_joules = reading.total_joules - last.total_joules
        if risen_joules:
            self._moved_at_seconds = reading.at_seconds
        if 0 <= risen_joules <= possible_joules:
            return Increase(risen_joules, gap_seconds)
        fresh_joules = reading.total_joules if risen_joules < 0 else math.inf
        return Increase(fresh_joules if fresh_joules <= possible_joules else 0.0, gap_seconds, reset=True)


class PowerIntegral:
    """Joules from power by the trapezoid rule, for boards without an energy counter.

    What a board drew while it was not read for `LONGEST_STRETCH_SECONDS` is not known, and not made up: nothing
    is added for so long a silence.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self.total_joules = 0.0

    def advance(self, at_seconds: float, power_watts: float) -> float:
        """Add the stretch since the last reading and return the running total in joules."""
        if self._last is not None:
            last_at_seconds, last_watts = self._last
            seconds = at_seconds - last_at_seconds
            if seconds <= LONGEST_STRETCH_SECONDS:
                self.total_joules += (last_watts + power_watts) / 2 * seconds
        self._last = (at_seconds, power_watts)
        return self.total_joules


class SeriesCounters:
    """Increases of a server's counters, per series (subtract, then add).

    The first page is the baseline. A series that appears later in the same process counts from 0; so does
    every series after a restart, known by the process's start time or by a value that fell. One that comes back
    after it was absent for so long that it was dropped (`Remembered`) is a first look again, and adds nothing.
    """

    def __init__(self, forget_seconds: float = FORGET_SECONDS) -> None:
        self._last: Remembered[str, float] = Remembered(forget_seconds)
        self._start_time_seconds: float | None = None
        self._baseline_taken = False
        self.restarted: set[str] = set()
        """Series of the latest page that another process counts than before."""

    def advance(
        self, readings: Iterable[RoleReading], start_time_seconds: float | None, at_seconds: float
    ) -> list[tuple[RoleReading, float]]:
        """Return each reading with its increase (>= 0) since the page before, which is older than `at_seconds`."""
        known = self._start_time_seconds
        another = known is not None and start_time_seconds is not None and start_time_seconds != known
        if another:
            self._last.clear()
        self.restarted.clear()
        self._start_time_seconds = start_time_seconds if start_time_seconds is not None else known
        increases = []
        latest = []
        for reading in readings:
            before = self._before(reading)
            if reading.role is Role.LIVE_GENERATION and WOBBLE * before <= reading.value < before:
                increases.append((reading, 0.0))
                latest.append((reading.series, before))
                continue
            fell = reading.value < before
            if fell or another:
                self.restarted.add(reading.series)
            increases.append((reading, reading.value if fell else reading.value - before))
            latest.append((reading.series, reading.value))
        self._last.turn(at_seconds, latest)
        self._baseline_taken = True
        return increases

    def _before(self, reading: RoleReading) -> float:
        """Return what a series counted before: 0 if it is new, and all of it at a first look."""
        last = self._last.get(reading.series)
        if last is not None:
            return last
        known = not self._baseline_taken or self._last.dropped(reading.series)
        return reading.value if known else 0.0


class RunningTotal:
    """A hardware counter as ours: starts at 0 when first seen, survives restarts of the source."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.total = 0.0

    def advance(self, value: float) -> float:
        """Add the increase since the last reading and return the total."""
        if self._last is not None:
            self.total += value if value < self._last else value - self._last
        self._last = value
        return self.total
