"""When each GPU of a window was idle, and what it drew then. Pure; holds what was learned of each board."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from joulemeter.busy import BusyFloor, IdleDraw, Prompts, idle_seconds
from joulemeter.engine_work import started_requests
from joulemeter.model import Gpu, User
from joulemeter.priors import PREFILL_SURPLUS_RATIO, Levels
from joulemeter.windows import Measured, Used

SHORTEST_STEP_SECONDS = 0.001
"""No engine step of a served model is shorter: steps that were counted were busy at least this long."""
SHORT_REPLY_TOKENS = 8.0
"""With fewer decoded tokens a request, hardly anything but prefill runs, and no tick is busy all through."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One GPU's window, apart by whether an engine step ran; and the floor of its draw while one does."""

    busy_seconds: float
    idle_joules: float
    busy_watts: float


@dataclass(slots=True)
class _Board:
    loaded: frozenset[User] = frozenset()
    idle: IdleDraw = field(default_factory=IdleDraw)
    floor: BusyFloor = field(default_factory=BusyFloor)


class Boards:
    """Tells idle time from the ticks of the energy counters, and learns each board's levels of draw from them."""

    def __init__(self, expected: Callable[[Gpu], Levels]) -> None:
        self._expected = expected
        self._boards: dict[str, _Board] = {}

    def look(self, window: Measured, uses: Mapping[User, Used], prompt_joules: Mapping[User, float]) -> Drawn:
        """Tell a GPU's idle time and energy.

        Args:
            window: what was measured of it.
            uses: the models that use it.
            prompt_joules: what the prompts of each took, about, on all its GPUs together.
        """
        board = self._boards.setdefault(window.gpu.uuid, _Board())
        expected = self._expected(window.gpu)
        loaded = frozenset(user for user, use in uses.items() if use.loaded)
        if loaded != board.loaded:
            board.loaded = loaded
            board.idle.change()
        started = {user: started_requests(use.work) for user, use in uses.items()}
        decoded = sum(max(0.0, use.work.generation_tokens - started[user]) for user, use in uses.items())
        alone = decoded < SHORT_REPLY_TOKENS * sum(started.values())
        idle_watts = board.idle.advance(window.ticks, expected.idle_watts, expected.busy_watts)
        # Steps of a few milliseconds, far apart, look like a low floor.
        busy_watts = board.floor.advance(() if alone else window.ticks, idle_watts, expected.busy_watts)
        surplus_joules = PREFILL_SURPLUS_RATIO * sum(
            prompt_joules[user] / len(use.gpus) for user, use in uses.items()
        )
        prompt_watts = busy_watts / (1.0 - PREFILL_SURPLUS_RATIO)
        prompts = Prompts(sum(started.values()), prompt_watts, surplus_joules, alone)
        idle = _idle_seconds(window, Levels(idle_watts, busy_watts), prompts, _shortest_seconds(window, uses))
        return Drawn(window.duration_seconds - idle, min(window.energy_joules, idle_watts * idle), busy_watts)


def _idle_seconds(window: Measured, watts: Levels, prompts: Prompts, shortest_seconds: float) -> float:
    """Time in which no step ran: from the counter's ticks, or from the energy where there are none.

    From the energy, with the draw at one of two levels: E = P_idle (T - B) + P_busy B, solved for B.
    """
    seconds = window.duration_seconds
    if window.ticks:
        known_seconds = math.fsum(tick.duration_seconds for tick in window.ticks)
        found = idle_seconds(window.ticks, watts.idle_watts, watts.busy_watts, prompts)
        return min(found / known_seconds * seconds, seconds - shortest_seconds)
    above_idle_joules = window.energy_joules - watts.idle_watts * seconds
    busy_seconds = above_idle_joules / (watts.busy_watts - watts.idle_watts)
    return seconds - min(max(busy_seconds, shortest_seconds), seconds)


def _shortest_seconds(window: Measured, uses: Mapping[User, Used]) -> float:
    """Time that the steps took at least: those counted, or one token per running request and step."""
    steps = 0.0
    for use in uses.values():
        work = use.work
        if work.steps is not None:
            steps += max(0.0, work.steps)
        else:
            steps += work.generation_tokens / max(1.0, work.running_seconds / window.duration_seconds)
    return min(steps * SHORTEST_STEP_SECONDS, window.duration_seconds)
