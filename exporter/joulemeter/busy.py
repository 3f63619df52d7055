"""How long a GPU was idle, from the ticks of its own energy counter. Pure.

A tick is what the counter brought in one of its periods (about 100 ms). Gauges of running requests, read once a
second, miss short requests; a window's mean power hides idle ticks behind busy ones.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

QUIET_RATIO = 1.1
"""A tick up to a tenth above the idle draw is idle: sensors wobble, clocks relax slowly."""
DIP_RATIO = 0.9
"""A tick so far below the usual busy floor was idle for a part of it, also amid busy ones."""
STEADY_RATIO = 0.05
"""Ticks that differ by no more are alike: two that were idle for a part of them hardly ever are."""
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

    def change(self) -> None:
        """Say that other models are loaded: what was learned stands only until the next plateau."""
        self._plateaus_watts.clear()

    def advance(self, ticks: Sequence[Tick], idle_watts: float, busy_watts: float) -> float:
        """Take in a window's ticks, and return the idle draw in watts; the two levels are the prior's."""
        powers = sorted(tick.power_watts for tick in ticks)
        plateau = [watts for watts in powers if watts <= QUIET_RATIO * powers[0]]
        if len(plateau) >= PLATEAU_TICKS and median(plateau) < (idle_watts + busy_watts) / 2:
            self._plateaus_watts.append(median(plateau))
            self._watts = median(self._plateaus_watts)
        return idle_watts if self._watts is None else self._watts


class BusyFloor:
    """The draw of a GPU that runs steps for few requests, learned from ticks that are busy and like their neighbours.

    Amid short requests most ticks are idle for a part of them, and draw anything between the two levels; only those
    that are busy all through are alike. Of so many the lower tenth counts, of the last ones of these the lower
    quarter: more requests in a batch draw more. After an hour of large batches that is too much for a window of small
    ones, which shows its own.
    """

    def __init__(self) -> None:
        self._steady_watts: list[float] = []
        self._lows_watts: deque[float] = deque(maxlen=KEPT_WINDOWS)
        self._watts: float | None = None

    def advance(self, ticks: Sequence[Tick], idle_watts: float, busy_watts: float) -> float:
        """Take in a window's ticks, and return the floor in watts; `busy_watts` is the prior's."""
        powers = [tick.power_watts for tick in ticks]
        own = [powers[i] for i in range(2, len(powers) - 2) if _is_steady(powers[i - 2 : i + 3], idle_watts)]
        self._steady_watts += own
        if len(self._steady_watts) >= PLATEAU_TICKS:
            self._lows_watts.append(_low(self._steady_watts, 10))
            self._watts = _low(self._lows_watts, 4)
            self._steady_watts.clear()
        if self._watts is None:
            return busy_watts
        floor_watts = min(self._watts, _low(own, 4)) if len(own) >= PLATEAU_TICKS else self._watts
        return max(floor_watts, LOWEST_FLOOR_RATIO * busy_watts)


def _low(watts: Iterable[float], parts: int) -> float:
    """Return what one in so many is below."""
    ordered = sorted(watts)
    return ordered[len(ordered) // parts]


def _is_steady(watts: Sequence[float], idle_watts: float) -> bool:
    """Whether the middle one of five ticks is amid busy ones, and like those next to it."""
    _, before, here, after, _ = watts
    unlike_watts = STEADY_RATIO * here
    return (
        min(watts) > QUIET_RATIO * idle_watts
        and abs(before - here) < unlike_watts
        and abs(after - here) < unlike_watts
    )


@dataclass(frozen=True, slots=True)
class Prompts:
    """Requests that began in a window, and what their prefill took above the busy floor, all together.

    `alone` if hardly anything but prefill ran: replies of a few tokens.
    """

    started: float = 0.0
    watts: float = 0.0
    """Draw while a prompt is computed."""
    surplus_joules: float = 0.0
    alone: bool = False


def idle_seconds(
    ticks: Sequence[Tick], idle_watts: float, busy_watts: float, prompts: Prompts | None = None
) -> float:
    """Add up the time in which no engine step ran.

    A tick at the idle draw is idle. A tick in which work began or ended is idle for the part that its draw lacks
    to that of the busy tick next to it; amid busy ticks, for the part that it lacks to the busy floor. Where work
    began, a prompt was computed, which draws more than the floor: that is taken off first. What lies beyond the ticks
    is taken to be like the outermost.

    Args:
        ticks: of one GPU, in the order of time.
        idle_watts: draw while no step runs.
        busy_watts: floor of the draw while one runs, above `idle_watts`.
        prompts: what began in the time of the ticks.
    """
    prompts = prompts or Prompts()
    if prompts.alone or not ticks:
        return _idle_between_prompts(ticks, idle_watts, busy_watts, prompts)
    quiet_watts, dip_watts = QUIET_RATIO * idle_watts, DIP_RATIO * busy_watts
    starts = sum(one.power_watts <= quiet_watts < two.power_watts for one, two in pairwise(ticks))
    count = max(1.0, prompts.started, starts)
    surplus_joules = prompts.surplus_joules / count
    inner = [tick.power_watts for tick in ticks]
    powers = [inner[0], *inner, inner[-1], inner[-1]]
    total_seconds = 0.0
    for tick, before, watts, after, next_one in zip(
        ticks, powers, powers[1:], powers[2:], powers[3:], strict=False
    ):
        seconds = tick.duration_seconds
        if watts <= quiet_watts:
            total_seconds += seconds
            continue
        begins, ends = before <= quiet_watts, after <= quiet_watts
        if not (begins or ends or watts < dip_watts):
            continue
        full_watts = max(before, after, busy_watts) if begins or ends else busy_watts
        idle_part = seconds * (full_watts - watts) / (full_watts - idle_watts)
        if surplus_joules > 0 and (begins or not (ends or after < dip_watts)):
            full_watts = max(busy_watts, min(after, next_one)) if begins else busy_watts
            none = seconds * (full_watts - watts) / (full_watts - idle_watts)
            mean = surplus_joules / (full_watts - idle_watts)
            computing_watts = max(busy_watts, prompts.watts, after)
            most = seconds * (computing_watts - watts) / (computing_watts - idle_watts)
            idle_part = max(idle_part, none + _hidden_seconds(mean, most - none, known=count <= 1))
        total_seconds += min(max(0.0, idle_part), seconds)
    return total_seconds


def _hidden_seconds(mean: float, most: float, *, known: bool) -> float:
    """Return how much idle time the prompt hides with which a tick's work began.

    All of it was computed in the tick, and its surplus hides so much in the `mean`, or a part of it, which hides the
    `most`. Of several prompts it is not `known` which one began, and long ones make most of their mean: it is the mean
    of the lesser of the two, with prompts exponentially distributed.
    """
    if known or mean <= 0 or most <= 0:
        return min(mean, most)
    return mean * -math.expm1(-most / mean)


def _idle_between_prompts(
    ticks: Sequence[Tick], idle_watts: float, busy_watts: float, prompts: Prompts
) -> float:
    """No tick is busy all through: what all of them lack to the floor, the prompts' surplus taken off."""
    loud = [tick for tick in ticks if tick.power_watts > QUIET_RATIO * idle_watts]
    loud_seconds = sum(tick.duration_seconds for tick in loud)
    lacking_joules = prompts.surplus_joules + sum(
        tick.duration_seconds * (busy_watts - tick.power_watts) for tick in loud
    )
    quiet_seconds = sum(tick.duration_seconds for tick in ticks) - loud_seconds
    return quiet_seconds + min(max(0.0, lacking_joules / (busy_watts - idle_watts)), loud_seconds)
