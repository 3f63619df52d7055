"""A virtual server's work in real time: runs the engine a little ahead, and shows what has happened.

The engine runs ahead by `AHEAD_SECONDS`, so that the power of each step is in the state file before its time
comes and an energy counter's tick is final once it has passed. Counters move when a step's end has passed.
The clock is an argument: nothing here sleeps or asks for the time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from joulemeter.simulation.draw import Slot
from joulemeter.simulation.engine import Engine, Request, StepResult
from joulemeter.simulation.vllm_page import Served, VllmPage
from joulemeter.simulation.workload import Arrival

WAKE_SECONDS: Final = 0.05
AHEAD_SECONDS: Final = 2 * WAKE_SECONDS
_IDLE_WAKE_SECONDS: Final = 0.5  # for the utilisation to fall
_MEMORY_OF_LAST_WAKE: Final = 0.9  # utilisation is smoothed over half a second or so

OnFinish = Callable[[Served], None]


@dataclass(slots=True)
class Truth:
    """What a server has done up to its last ended step, exactly. Energy by phase includes the busy floor.

    `busy_seconds` is the time that it had the GPUs to itself, and `drawn_joules` is what its slots drew: all
    of its energy less the GPUs' idle power in that time.
    """

    steps: int = 0
    busy_seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    prefill_tokens: int = 0
    """Computed prompt tokens, those of unfinished prompts included."""
    generation_tokens: int = 0
    prefill_joules: float = 0.0
    decode_joules: float = 0.0
    drawn_joules: float = 0.0


@dataclass(slots=True)
class _Ticket:
    arrived_seconds: float
    on_finish: OnFinish | None
    started_seconds: float = 0.0
    first_token_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Step:
    start_seconds: float
    end_seconds: float
    result: StepResult
    drawn_joules: float


class Serving:
    """One engine on its GPUs.

    Args:
        engine: with nothing submitted yet.
        page: shows the counters.
        slots: one per GPU of the server; energy is drawn in equal parts.
        idle_watts: what all those GPUs draw by themselves now.
        traffic: arrivals in seconds since `start_seconds`.
        sharers: servers on these GPUs, this one included. Each gets that part of the time in fine slices,
            whether the others use theirs or not: a step takes so much longer and draws so much less power.
        start_seconds: when the server begins, monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        page: VllmPage,
        slots: Sequence[Slot],
        *,
        idle_watts: Callable[[], float],
        traffic: Iterator[Arrival],
        sharers: int = 1,
        start_seconds: float,
    ) -> None:
        self._engine = engine
        self._page = page
        self._slots = slots
        self._idle_watts = idle_watts
        self._traffic = traffic
        self._sharers = sharers
        self._start_seconds = start_seconds
        self._next = next(traffic, None)
        self._ids = count()
        self._tickets: dict[int, _Ticket] = {}
        self._ahead: deque[_Step] = deque()
        self._engine_seconds = max(start_seconds, *(slot.written_seconds for slot in slots))
        self._woken_seconds = start_seconds
        self._busy_ratio = 0.0
        self.truth = Truth()

    def submit(self, request: Request, now_seconds: float, on_finish: OnFinish | None = None) -> None:
        """Queue a request; its id is replaced by one of ours. `on_finish` is called when it is done."""
        request = replace(request, id=next(self._ids))
        self._tickets[request.id] = _Ticket(now_seconds, on_finish)
        self._engine.submit(request)

    def advance(self, now_seconds: float) -> float:
        """Show what has ended by now and run ahead; return in how many seconds to come back."""
        busy_seconds = self._show(now_seconds)
        self._measure_use(now_seconds, busy_seconds)
        self._run(now_seconds, now_seconds + AHEAD_SECONDS)
        if self._ahead:
            return WAKE_SECONDS
        due = self._due_seconds()
        wait = _IDLE_WAKE_SECONDS if due is None else due - AHEAD_SECONDS - now_seconds
        return min(_IDLE_WAKE_SECONDS, max(0.0, wait))

    def _show(self, now_seconds: float) -> float:
        busy_seconds = 0.0
        while self._ahead and self._ahead[0].end_seconds <= now_seconds:
            step = self._ahead.popleft()
            busy_seconds += step.result.seconds
            self._page.step(step.result, step.end_seconds - step.start_seconds)
            self._count(step)
            for request in step.result.started:
                self._tickets[request.id].started_seconds = step.start_seconds
            for request in step.result.prefilled:
                ticket = self._tickets[request.id]
                ticket.first_token_seconds = step.end_seconds
                self._page.first_token(step.end_seconds - ticket.arrived_seconds)
            for request in step.result.finished:
                self._finish(request, step.end_seconds)
        return busy_seconds

    def _count(self, step: _Step) -> None:
        truth, result = self.truth, step.result
        truth.steps += 1
        truth.busy_seconds += result.seconds
        truth.requests += len(result.finished)
        truth.prompt_tokens += sum(request.prompt_tokens for request in result.prefilled)
        truth.cached_prompt_tokens += sum(request.cached_tokens for request in result.prefilled)
        truth.prefill_tokens += result.prefill_tokens
        truth.generation_tokens += result.generated_tokens
        truth.prefill_joules += result.prefill_joules
        truth.decode_joules += result.decode_joules
        truth.drawn_joules += step.drawn_joules

    def _finish(self, request: Request, at_seconds: float) -> None:
        ticket = self._tickets.pop(request.id)
        served = Served(
            request, ticket.arrived_seconds, ticket.started_seconds, ticket.first_token_seconds, at_seconds
        )
        self._page.finished(served)
        if ticket.on_finish:
            ticket.on_finish(served)

    def _measure_use(self, now_seconds: float, busy_seconds: float) -> None:
        elapsed = now_seconds - self._woken_seconds
        if elapsed <= 0:
            return
        self._woken_seconds = now_seconds
        kept: float = _MEMORY_OF_LAST_WAKE ** (elapsed / WAKE_SECONDS)
        self._busy_ratio = kept * self._busy_ratio + (1 - kept) * min(1.0, busy_seconds / elapsed)
        for slot in self._slots:
            slot.use(round(100 * self._busy_ratio))

    def _run(self, now_seconds: float, until_seconds: float) -> None:
        """Step until then; steps without a gap between them are drawn as one stretch of constant power."""
        at_seconds = max(self._engine_seconds, now_seconds)
        idle_watts = self._idle_watts()
        began_seconds, joules = at_seconds, 0.0
        while at_seconds < until_seconds:
            self._admit(at_seconds)
            result = self._engine.step()
            if result is None:
                self._draw(joules, began_seconds, at_seconds)
                due = self._due_seconds()
                at_seconds = until_seconds if due is None else min(due, until_seconds)
                began_seconds, joules = at_seconds, 0.0
                continue
            drawn_joules = result.joules - idle_watts * result.seconds
            joules += drawn_joules
            end_seconds = at_seconds + result.seconds * self._sharers
            self._ahead.append(_Step(at_seconds, end_seconds, result, drawn_joules))
            self._engine_seconds = at_seconds = end_seconds
        self._draw(joules, began_seconds, at_seconds)

    def _draw(self, joules: float, from_seconds: float, until_seconds: float) -> None:
        if until_seconds > from_seconds:
            watts = joules / (until_seconds - from_seconds) / len(self._slots)
            for slot in self._slots:
                slot.draw(watts, from_seconds, until_seconds)

    def _admit(self, at_seconds: float) -> None:
        while self._next and self._start_seconds + self._next.at_seconds <= at_seconds:
            self.submit(self._next.request, self._start_seconds + self._next.at_seconds)
            self._next = next(self._traffic, None)

    def _due_seconds(self) -> float | None:
        return self._start_seconds + self._next.at_seconds if self._next else None
