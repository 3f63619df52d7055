"""How long a GPU was idle, from the ticks of its own energy counter. Pure.

A tick is what the counter brought in one of its periods (about 100 ms). Gauges of running requests, read once a
second, miss short requests; a window's mean power hides idle ticks behind busy ones.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

QUIET_RATIO = 1.1
"""A tick up to a tenth above the idle draw is idle: sensors wobble, clocks relax slowly."""
DIP_RATIO = 0.9
"""A tick so far below the usual busy floor was idle for a part of it, also amid busy ones."""
PLATEAU_TICKS = 5
KEPT_WINDOWS = 60
"""Ten minutes of windows that taught something."""
LOWEST_FLOOR_RATIO = 0.65
"""Of the floor that the hardware's prior expects: steps of a few milliseconds, far apart, look like a low floor."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One period of a counter: its length, and the mean draw in it."""

    duration_seconds: float
    power_watts: float


class IdleDraw:
    """A GPU's draw with its models loaded and no step running, learned from the ticks of its windows.

    A window's lowest ticks are a plateau if several agree; one that lies nearer to the idle than to the busy level
    that the hardware's prior expects is taken for idle. Of the last plateaus the median counts: a board
    that is never idle keeps what was learned before, and a new one the prior.
    """

    def __init__(self) -> None:
        self._plateaus_watts: deque[float] = deque(maxlen=KEPT_WINDOWS)
        self._watts: float | None = None

    def advance(self, ticks: Sequence[Tick], idle_watts: float, busy_watts: float) -> float:
        """Take in a window's ticks, and return the idle draw in watts; the two levels are the prior's."""
        powers = sorted(tick.power_watts for tick in ticks)
        plateau = [watts for watts in powers if watts <= QUIET_RATIO * powers[0]]
        if len(plateau) >= PLATEAU_TICKS and median(plateau) < (idle_watts + busy_watts) / 2:
            self._plateaus_watts.append(median(plateau))
            self._watts = median(self._plateaus_watts)
        return idle_watts if self._watts is None else self._watts


class BusyFloor:
    """The draw of a GPU that runs steps for few requests, learned from ticks that are busy on both sides.

    Of a window's such ticks the lower tenth counts, of the last windows the lower quarter: more requests in
    a batch draw more, and a tick that was idle for a part draws less.
    """

    def __init__(self) -> None:
        self._lows_watts: deque[float] = deque(maxlen=KEPT_WINDOWS)
        self._watts: float | None = None

    def advance(self, ticks: Sequence[Tick], idle_watts: float, busy_watts: float) -> float:
        """Take in a window's ticks, and return the floor in watts; `busy_watts` is the prior's."""
        loud = [tick.power_watts > QUIET_RATIO * idle_watts for tick in ticks]
        inner = sorted(ticks[i].power_watts for i in range(2, len(ticks) - 2) if all(loud[i - 2 : i + 3]))
        if len(inner) >= PLATEAU_TICKS:
            self._lows_watts.append(inner[len(inner) // 10])
            self._watts = sorted(self._lows_watts)[len(self._lows_watts) // 4]
        return busy_watts if self._watts is None else max(self._watts, LOWEST_FLOOR_RATIO * busy_watts)


def idle_seconds(ticks: Sequence[Tick], idle_watts: float, busy_watts: float) -> float:
    """Add up the time in which no engine step ran.

    A tick at the idle draw is idle. A tick in which work began or ended is idle for the part that its draw lacks
    to that of the busy tick next to it; amid busy ticks, for the part that it lacks to the busy floor.

    Args:
        ticks: of one GPU, in the order of time.
        idle_watts: draw while no step runs.
        busy_watts: floor of the draw while one runs, above `idle_watts`.
    """
    quiet_watts = QUIET_RATIO * idle_watts
    nothing = Tick(0.0, 0.0)
    total_seconds = 0.0
    padded = [nothing, *ticks, nothing]
    for (before, tick), (_, after) in zip(pairwise(padded[:-1]), pairwise(padded[1:]), strict=True):
        watts = tick.power_watts
        if watts <= quiet_watts:
            total_seconds += tick.duration_seconds
            continue
        near_watts = max(before.power_watts, after.power_watts)
        at_edge = min(before.power_watts, after.power_watts) <= quiet_watts
        if at_edge:
            full_watts = max(near_watts, busy_watts)
        elif watts < DIP_RATIO * busy_watts:
            full_watts = busy_watts
        else:
            continue
        if watts < full_watts:
            total_seconds += tick.duration_seconds * (full_watts - watts) / (full_watts - idle_watts)
    return total_seconds
