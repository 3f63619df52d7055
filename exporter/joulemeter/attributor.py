"""A closed window of an owner group -> whose energy it was. Pure; holds what was learned of GPUs and models.

Idle is told from the counter's ticks (`busy`), what the engines did from the servers' counts (`engine_work`), what
that costs from all the windows before (`estimator`); then each GPU's energy is split (`attribution`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from joulemeter.attribution import GpuWindow, Use, split
from joulemeter.busy import PREFILL_SURPLUS_RATIO, BusyFloor, IdleDraw, Prompts, Tick, idle_seconds
from joulemeter.engine_work import EngineWork, engine_work, started_requests
from joulemeter.estimator import Estimate, Estimator
from joulemeter.history import Work
from joulemeter.model import Gpu, Phase, User
from joulemeter.priors import ENGINE_JOULES, Levels, levels

SHORTEST_STEP_SECONDS = 0.001
"""No engine step of a served model is shorter: steps that were counted were busy at least this long."""
SHORT_REPLY_TOKENS = 8.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One GPU's energy (finite, >= 0 J) over a stretch of time (> 0 s), and its counter's ticks in it."""

    gpu: Gpu
    energy_joules: float
    duration_seconds: float
    ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True, slots=True)
class Used:
    """What one model did in the same time, on all its GPUs together."""

    work: Work
    gpus: frozenset[str]
    has_phases: bool = True
    loaded: bool = True


@dataclass(frozen=True, slots=True)
class Attributed:
    """Joules by GPU, model and phase, and the engine work of each model."""

    parts: Mapping[str, Mapping[tuple[User, Phase], float]]
    works: Mapping[User, EngineWork]


@dataclass(slots=True)
class _Board:
    """What was learned of a GPU: its draw with and without steps."""

    idle: IdleDraw = field(default_factory=IdleDraw)
    floor: BusyFloor = field(default_factory=BusyFloor)

    def learned(self, ticks: tuple[Tick, ...], expected: Levels, *, floor_shows: bool) -> Levels:
        idle_watts = self.idle.advance(ticks, expected.idle_watts, expected.busy_watts)
        shown = ticks if floor_shows else ()  # steps of a few milliseconds, far apart, look like a low floor
        return Levels(idle_watts, self.floor.advance(shown, idle_watts, expected.busy_watts))


class Attributor:
    """Splits windows, and learns from each how to split the next."""

    def __init__(
        self,
        *,
        expected: Callable[[Gpu], Levels] = levels,
        engine_joules: tuple[float, ...] = ENGINE_JOULES,
    ) -> None:
        self._expected = expected
        self._boards: dict[str, _Board] = {}
        self._estimator = Estimator(engine_joules)

    def estimate(self, user: User) -> Estimate:
        """Return what is known of a model."""
        return self._estimator.estimate(user)

    def forget(self, user: User) -> None:
        """Drop a model that is long gone."""
        self._estimator.forget(user)

    def attribute(self, measured: Mapping[str, Measured], uses: Mapping[User, Used]) -> Attributed:
        """Split the windows of an owner group's GPUs, which end at the same edge.

        Args:
            measured: by UUID; each is used by one model at least.
            uses: every model of the group, with work or without.
        """
        prompts = {uuid: self._prompts_on(uuid, uses) for uuid in measured}
        watts = {
            uuid: self._boards.setdefault(uuid, _Board()).learned(
                window.ticks, self._expected(window.gpu), floor_shows=not prompts[uuid].alone
            )
            for uuid, window in measured.items()
        }
        idle = {
            uuid: _idle_seconds(
                window,
                _steps_on(uuid, uses, window.duration_seconds),
                watts[uuid],
                prompts[uuid],
            )
            for uuid, window in measured.items()
        }
        idle_joules = {
            uuid: min(window.energy_joules, watts[uuid].idle_watts * idle[uuid])
            for uuid, window in measured.items()
        }
        works = {user: self._work(user, uses, measured, idle, watts) for user in uses}
        self._learn(measured, works, idle_joules, watts)
        parts = {}
        for uuid, window in measured.items():
            of_gpu = {
                user: self._use(user, use, works[user], window, watts[uuid])
                for user, use in uses.items()
                if uuid in use.gpus
            }
            parts[uuid] = split(GpuWindow(window.energy_joules, idle_joules[uuid]), of_gpu)
        return Attributed(parts, works)

    def _learn(
        self,
        measured: Mapping[str, Measured],
        works: Mapping[User, EngineWork],
        idle_joules: Mapping[str, float],
        watts: Mapping[str, Levels],
    ) -> None:
        lengths = [window.duration_seconds for window in measured.values()]
        if max(lengths) - min(lengths) > 1.0:
            return  # a GPU has just joined: its energy is not of the same time as the work
        self._estimator.advance(
            works,
            math.fsum(window.energy_joules - idle_joules[uuid] for uuid, window in measured.items()),
            duration_seconds=max(lengths),
            busy_watts=math.fsum(level.busy_watts for level in watts.values()),
        )

    def _prompts_on(self, uuid: str, uses: Mapping[User, Used]) -> Prompts:
        """What requests that began cost a GPU above its busy floor, by what is known of their models."""
        started = surplus_joules = decoded = 0.0
        for user, use in uses.items():
            if uuid in use.gpus:
                of_user = started_requests(use.work)
                started += of_user
                decoded += max(0.0, use.work.generation_tokens - of_user)
                joules = self._estimator.estimate(user).joules_per_prompt_token * use.work.prompt_tokens
                surplus_joules += PREFILL_SURPLUS_RATIO * max(0.0, joules) / len(use.gpus)
        return Prompts(started, surplus_joules, decoded < SHORT_REPLY_TOKENS * started)

    def _work(
        self,
        user: User,
        uses: Mapping[User, Used],
        measured: Mapping[str, Measured],
        idle: Mapping[str, float],
        watts: Mapping[str, Levels],
    ) -> EngineWork:
        use = uses[user]
        windows = {uuid: measured[uuid] for uuid in use.gpus if uuid in measured}
        if not windows:
            return EngineWork()
        busy = [window.duration_seconds - idle[uuid] for uuid, window in windows.items()]
        floor_watts = math.fsum(watts[uuid].busy_watts for uuid in windows)
        prompt_joules = self._estimator.estimate(user).joules_per_prompt_token * use.work.prompt_tokens
        return engine_work(
            use.work,
            max(window.duration_seconds for window in windows.values()),
            math.fsum(busy) / len(busy),
            prefill_seconds=max(0.0, prompt_joules) * (1.0 - PREFILL_SURPLUS_RATIO) / floor_watts,
            shares=any(
                other.work.any and other.gpus & use.gpus for name, other in uses.items() if name != user
            ),
        )

    def _use(self, user: User, use: Used, work: EngineWork, window: Measured, watts: Levels) -> Use:
        prefill_joules, decode_joules = self._estimator.estimate(user).joules(work)
        if prefill_joules + decode_joules <= 0 and use.work.running_seconds > 0:
            # Requests run and no counter moved: prompts whose tokens are counted when they are done.
            seconds = min(use.work.running_seconds, window.duration_seconds)
            prefill_joules = seconds * watts.busy_watts * len(use.gpus)
        share = 1.0 / len(use.gpus)
        return Use(prefill_joules * share, decode_joules * share, use.has_phases, use.loaded)


def _idle_seconds(window: Measured, steps: float, watts: Levels, prompts: Prompts) -> float:
    """Time in which no step ran: from the counter's ticks, or from the energy where there are none.

    From the energy, with the draw at one of two levels: E = P_idle (T - B) + P_busy B, solved for B.
    """
    seconds = window.duration_seconds
    shortest_seconds = min(steps * SHORTEST_STEP_SECONDS, seconds)
    if window.ticks:
        known_seconds = math.fsum(tick.duration_seconds for tick in window.ticks)
        ratio = idle_seconds(window.ticks, watts.idle_watts, watts.busy_watts, prompts) / known_seconds
        return min(ratio * seconds, seconds - shortest_seconds)
    above_idle_joules = window.energy_joules - watts.idle_watts * seconds
    busy_seconds = above_idle_joules / (watts.busy_watts - watts.idle_watts)
    return seconds - min(max(busy_seconds, shortest_seconds), seconds)


def _steps_on(uuid: str, uses: Mapping[User, Used], seconds: float) -> float:
    """Engine steps on a GPU at least: counted, or one token per running request and step."""
    total = 0.0
    for use in uses.values():
        if uuid not in use.gpus:
            continue
        work = use.work
        if work.steps is not None:
            total += max(0.0, work.steps)
        else:
            total += work.generation_tokens / max(1.0, work.running_seconds / seconds)
    return total
