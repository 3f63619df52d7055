"""A closed window of an owner group -> whose energy it was. Pure; holds what was learned of GPUs and models.

Idle is told from the counter's ticks (`boards`), what the engines did from the servers' counts (`engine_work`), what
that costs from all the windows before (`estimator`); then each GPU's energy is split (`attribution`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from joulemeter.attribution import GpuWindow, Use, split
from joulemeter.boards import Boards, Drawn
from joulemeter.context_length import ContextLength
from joulemeter.engine_work import (
    EngineWork,
    StepSource,
    engine_work,
    phase_seconds,
    started_requests,
    step_source,
)
from joulemeter.equations import Equation, Equations, Prompts
from joulemeter.estimator import Estimator
from joulemeter.model import Gpu, Phase, User
from joulemeter.priors import ENGINE_JOULES, PHASE_WATTS, PREFILL_SURPLUS_RATIO, Levels, levels
from joulemeter.windows import Measured, Used
from joulemeter.work import Work

_ACTIVE = (Phase.PREFILL, Phase.DECODE, Phase.UNSPLIT)


@dataclass(frozen=True, slots=True)
class Attributed:
    """Joules by GPU, model and phase, how long steps ran on each GPU, and the engine work of each model."""

    parts: Mapping[str, Mapping[tuple[User, Phase], float]]
    busy_seconds: Mapping[str, float]
    works: Mapping[User, EngineWork]


@dataclass(frozen=True, slots=True)
class Insight:
    """What is known of a model: where the split of its phases comes from, and how sure it is.

    `steps` is where the engine's steps come from: the server's own count, the time between its tokens, or a guess from
    the requests that ran; none before it generated anything.
    Joules per token are marginal: of one more computed prompt token, and of one more generated token in a batch that
    runs anyway. Uncertainties are posterior standard deviations over values.
    """

    split: Literal["measured", "estimated", "prior"]
    joules_per_token: Mapping[Phase, float] = field(default_factory=dict)
    uncertainty_ratio: Mapping[Phase, float] = field(default_factory=dict)
    steps: StepSource = "none"


class Attributor:
    """Splits windows, and learns from each how to split the next.

    Args:
        expected: levels of a board's draw before anything was measured.
        engine_joules: what engines are believed to cost, in proportion; see `priors.ENGINE_JOULES`.
    """

    def __init__(
        self,
        *,
        expected: Callable[[Gpu], Levels] = levels,
        engine_joules: tuple[float, float, float, float] = ENGINE_JOULES,
    ) -> None:
        self._boards = Boards(expected)
        self._engines = Estimator(engine_joules)
        self._equations = Equations()
        self._contexts: dict[User, ContextLength] = {}
        self._steps: dict[User, StepSource] = {}
        self._phases = Estimator(PHASE_WATTS)
        """What each phase draws, where an engine measures how long each took."""

    def insight(self, user: User) -> Insight:
        """Return what is known of a model."""
        estimate, measured = self._engines.estimate(user), self._phases.estimate(user)
        per_token = {}
        if estimate.amounts:
            _, _, decoded, reads = estimate.amounts
            _, prompt, per_decoded, per_read = estimate.joules_per_unit
            context_tokens = reads / decoded if decoded > 0 else 0.0
            per_token = {Phase.PREFILL: prompt, Phase.DECODE: per_decoded + per_read * context_tokens}
        steps = self._steps.get(user, "none")
        if measured.amounts:
            return Insight("measured", per_token, measured.uncertainty_ratio, steps)
        split: Literal["estimated", "prior"] = "estimated" if estimate.known else "prior"
        return Insight(split, per_token, estimate.uncertainty_ratio, steps)

    def engine_joules(self, user: User) -> tuple[float, ...]:
        """Return what a step, a prompt token, a decoded token and a token of context read are held to cost a model."""
        return self._engines.estimate(user).joules_per_unit

    def forget(self, user: User) -> None:
        """Drop a model that is long gone."""
        self._equations.forget(user)
        self._contexts.pop(user, None)
        self._steps.pop(user, None)
        self._engines.forget(user)
        self._phases.forget(user)

    def attribute(self, measured: Mapping[str, Measured], uses: Mapping[User, Used]) -> Attributed:
        """Split the windows of an owner group's GPUs, which end at the same edge.

        Args:
            measured: by UUID; each is used by one model at least.
            uses: every model of the group, with work or without.
        """
        on = {uuid: {user: use for user, use in uses.items() if uuid in use.gpus} for uuid in measured}
        prompts = {user: self._prompt_joules(user, use) for user, use in uses.items()}
        drawn = {uuid: self._boards.look(window, on[uuid], prompts) for uuid, window in measured.items()}
        works = {user: self._work(user, uses, measured, drawn, prompts[user]) for user in uses}
        self._learn(measured, drawn, works, uses)
        parts = {}
        for uuid, window in measured.items():
            shares = {user: self._use(user, use, works[user], drawn[uuid]) for user, use in on[uuid].items()}
            parts[uuid] = split(GpuWindow(window.energy_joules, drawn[uuid].idle_joules), shares)
        for user, use in uses.items():
            self._learn_phases(user, use, measured, drawn, parts)
        busy_seconds = {uuid: of_gpu.busy_seconds for uuid, of_gpu in drawn.items()}
        return Attributed(parts, busy_seconds, works)

    def _prompt_joules(self, user: User, use: Used) -> float:
        _, per_prompt_token, *_ = self.engine_joules(user)
        return per_prompt_token * max(0.0, use.work.prompt_tokens)

    def _work(
        self,
        user: User,
        uses: Mapping[User, Used],
        measured: Mapping[str, Measured],
        drawn: Mapping[str, Drawn],
        prompt_joules: float,
    ) -> EngineWork:
        use = uses[user]
        if use.work.generation_tokens > 0:
            self._steps[user] = step_source(use.work)
        uuids = sorted(use.gpus & measured.keys())
        if not uuids:
            return EngineWork()
        floor_watts = math.fsum(drawn[uuid].busy_watts for uuid in uuids)
        duration_seconds = max(measured[uuid].duration_seconds for uuid in uuids)
        context = self._contexts.setdefault(user, ContextLength())
        return engine_work(
            _with_steps_under_way(user, uses),
            duration_seconds,
            math.fsum(drawn[uuid].busy_seconds for uuid in uuids) / len(uuids),
            context_tokens=context.advance(use.work, duration_seconds, use.page_seconds),
            prefill_seconds=_prompt_seconds(prompt_joules, floor_watts),
        )

    def _learn(
        self,
        measured: Mapping[str, Measured],
        drawn: Mapping[str, Drawn],
        works: Mapping[User, EngineWork],
        uses: Mapping[User, Used],
    ) -> None:
        lengths = [window.duration_seconds for window in measured.values()]
        gpus = frozenset(measured)
        if not lengths or max(lengths) - min(lengths) > 1.0:
            self._equations.drop(gpus)  # one has just joined: its energy is not of the same time as the work
            return
        window = Equation.of(
            works,
            math.fsum(window.energy_joules - drawn[uuid].idle_joules for uuid, window in measured.items()),
            max(lengths),
            math.fsum(one.busy_watts for one in drawn.values()),
        )
        opening = [self._opening(user, use, drawn) for user, use in uses.items()]
        opening += [
            self._unfinished(user, use, works[user]) for user, use in uses.items() if works[user].guessed
        ]
        equation = self._equations.add(gpus, window, opening)
        if equation is not None:
            self._engines.advance(
                equation.works,
                equation.active_joules,
                duration_seconds=equation.duration_seconds,
                busy_watts=equation.busy_watts,
            )

    def _opening(self, user: User, use: Used, drawn: Mapping[str, Drawn]) -> Prompts:
        """Estimate the prompts that were counted just after the window's beginning."""
        count = max(1.0, started_requests(use.opening))
        _, per_prompt_token, *_ = self.engine_joules(user)
        each_joules = per_prompt_token * max(0.0, use.opening.prompt_tokens) / count
        floor_watts = math.fsum(drawn[uuid].busy_watts for uuid in use.gpus & drawn.keys())
        return Prompts(count, each_joules, _prompt_seconds(each_joules, floor_watts))

    def _unfinished(self, user: User, use: Used, work: EngineWork) -> Prompts:
        """Estimate the requests that ran at the window's beginning, where only their end tells what they did."""
        joules = math.fsum(self._engines.estimate(user).joules(work))
        each_joules = joules / max(1.0, started_requests(use.work))
        return Prompts(max(0.0, use.opening.running_seconds), each_joules, 1.0)

    def _learn_phases(
        self,
        user: User,
        use: Used,
        measured: Mapping[str, Measured],
        drawn: Mapping[str, Drawn],
        parts: Mapping[str, Mapping[tuple[User, Phase], float]],
    ) -> None:
        seconds = phase_seconds(use.work)
        uuids = use.gpus & measured.keys()
        if seconds is None or not uuids:
            return
        self._phases.advance(
            {user: seconds},
            math.fsum(parts[uuid].get((user, phase), 0.0) for uuid in uuids for phase in _ACTIVE),
            duration_seconds=max(measured[uuid].duration_seconds for uuid in uuids),
            busy_watts=math.fsum(drawn[uuid].busy_watts for uuid in uuids),
        )

    def _use(self, user: User, use: Used, work: EngineWork, drawn: Drawn) -> Use:
        """Estimate what a model took of one of its GPUs: the energy of all its work, shared equally by them."""
        prefill_joules, decode_joules = self._engines.estimate(user).joules(work)
        if prefill_joules + decode_joules <= 0:
            # Requests run and no counter moved: prompts whose tokens are counted when they are done.
            seconds = min(use.work.running_seconds, drawn.busy_seconds)
            prefill_joules = max(0.0, seconds) * drawn.busy_watts * len(use.gpus)
        timed = phase_seconds(use.work)
        if timed is not None:  # a measured split wins over an estimated one
            joules = prefill_joules + decode_joules
            prefill, decode = self._phases.estimate(user).joules(timed)
            if prefill + decode > 0:
                prefill_joules = joules * (prefill / (prefill + decode))
                decode_joules = joules * (decode / (prefill + decode))
        share = 1.0 / len(use.gpus)
        return Use(prefill_joules * share, decode_joules * share, use.has_phases, use.loaded)


def _with_steps_under_way(user: User, uses: Mapping[User, Used]) -> Work:
    """Return a model's work with the half of a step that is done, on average, at an edge at which requests run.

    A step is counted when it ends. In steady traffic what a window lacks at its end it has too much at its beginning;
    a window with a request's beginning has only the end, and prompts would pay for it. Where several models run
    at an edge, they take turns. A count that is laid over time is no step behind, nor is a prompt that is being
    computed a step that decodes.
    """
    use = uses[user]
    work = use.work
    if work.generation_tokens <= 0 or (work.steps is None and work.inter_token_seconds is None):
        return work
    begun, ended = (
        0.5 / max(1, sum(other.running[edge] > 0 and bool(other.gpus & use.gpus) for other in uses.values()))
        for edge in (0, 1)
    )
    first, last = use.running
    steps = ended * (last > 0) - begun * (first > 0)
    return replace(
        work,
        generation_tokens=work.generation_tokens + ended * last - begun * first,
        steps=None if work.steps is None else work.steps + steps,
        timed_steps=work.timed_steps + steps if work.timed_steps > 0 else 0.0,
    )


def _prompt_seconds(prompt_joules: float, floor_watts: float) -> float:
    """Return about how long prompts of so many joules took, on GPUs with that busy floor together."""
    return prompt_joules * (1.0 - PREFILL_SURPLUS_RATIO) / floor_watts if floor_watts > 0 else 0.0
