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
    began, a prompt was computed, which draws more than the floor: that is taken off first.

    Args:
        ticks: of one GPU, in the order of time.
        idle_watts: draw while no step runs.
        busy_watts: floor of the draw while one runs, above `idle_watts`.
        prompts: what began in the time of the ticks.
    """
    prompts = prompts or Prompts()
    quiet_watts = QUIET_RATIO * idle_watts
    if prompts.alone:
        return _idle_between_prompts(ticks, idle_watts, busy_watts, prompts)
    prompt_watts = max(busy_watts, prompts.watts)
    starts = sum(one.power_watts <= quiet_watts < two.power_watts for one, two in pairwise(ticks))
    # The prompt that began after quiet is known if it was the only one. Of several, the long ones make most of the mean
    # and are not done within their first tick: the mean by itself makes a day's idle energy 2 % too large.
    surplus_joules = prompts.surplus_joules / max(1.0, prompts.started, starts) ** 2
    powers = [0.0, *(tick.power_watts for tick in ticks), 0.0, 0.0]
    total_seconds = 0.0
    for tick, before, watts, after, next_one in zip(
        ticks, powers, powers[1:], powers[2:], powers[3:], strict=False
    ):
        seconds = tick.duration_seconds
        if watts <= quiet_watts:
            total_seconds += seconds
            continue
        begins, ends = before <= quiet_watts, after <= quiet_watts
        if begins or ends:
            full_watts = max(before, after, busy_watts)
        elif watts < DIP_RATIO * busy_watts:
            full_watts = busy_watts
        else:
            continue
        idle_part = seconds * (full_watts - watts) / (full_watts - idle_watts)
        if begins and surplus_joules > 0:
            # All of the prompt was computed in this tick and decoding began, or it was computed to the tick's end.
            full_watts = max(busy_watts, min(after, next_one))
            decoding = (seconds * (full_watts - watts) + surplus_joules) / (full_watts - idle_watts)
            computing_watts = max(prompt_watts, after)
            computing = seconds * (computing_watts - watts) / (computing_watts - idle_watts)
            idle_part = max(idle_part, min(decoding, computing))
        total_seconds += min(max(0.0, idle_part), seconds)
    return total_seconds


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
