"""A server's observations -> cumulative work per model, known at every instant between two pages. Pure.

Counters that move only when a request ends would put a whole request's tokens into its last seconds. They are
laid over the time in which the request ran instead (`late_counters`), and agree with the server's own count whenever
nothing runs.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field

from joulemeter.cache_hits import CacheHits
from joulemeter.counters import SeriesCounters
from joulemeter.late_counters import Arrivals, LiveSpread, Spread, by_running_seconds
from joulemeter.lengths import FinishedRequests
from joulemeter.model import GAUGES, Moves, Observation, Role
from joulemeter.pacing import Interval, Timing
from joulemeter.remembered import FORGET_SECONDS
from joulemeter.work import Work


@dataclass(slots=True)
class _ModelState:
    """One model's running totals at the latest page."""

    work: Work = field(default_factory=Work)
    cache_hits: CacheHits = field(default_factory=CacheHits)
    running: float = 0.0
    context_tokens: float | None = None
    prompt_spread: Spread = field(default_factory=by_running_seconds)
    arrivals: Arrivals = field(default_factory=Arrivals)
    timing: Timing = field(default_factory=Timing)
    generation_spread: Spread = field(default_factory=by_running_seconds)
    live_spread: LiveSpread = field(default_factory=LiveSpread)


@dataclass(frozen=True, slots=True)
class _Point:
    at_seconds: float
    work: dict[str, Work]
    running: dict[str, float]


class ServerHistory:
    """Work of each model of one server over the last minutes; totals start at the first page (the baseline)."""

    def __init__(self, *, keep_seconds: float, forget_seconds: float = FORGET_SECONDS) -> None:
        self._keep_seconds = keep_seconds
        self._counters = SeriesCounters(forget_seconds)
        self._models: dict[str, _ModelState] = {}
        self._points: deque[_Point] = deque()
        self.loaded: frozenset[str] = frozenset()
        """Models on the latest page."""
        self.finished = FinishedRequests(keep_seconds=keep_seconds, forget_seconds=forget_seconds)
        """Requests by length, where the server tells."""

    @property
    def observed_at_seconds(self) -> float | None:
        """Midpoint of the latest observation."""
        return self._points[-1].at_seconds if self._points else None

    def midpoints_between(self, after_seconds: float, until_seconds: float) -> list[float]:
        """Observation midpoints in (after, until], oldest first."""
        return [p.at_seconds for p in self._points if after_seconds < p.at_seconds <= until_seconds]

    def running(self, model: str) -> float | None:
        """Running requests of a loaded model at the latest observation."""
        return self._models[model].running if model in self.loaded else None

    def running_at(self, at_seconds: float, model: str) -> float:
        """Running requests of a model on the latest page before an instant, or just then; 0 if there is none."""
        after = bisect_right(self._points, at_seconds, key=lambda point: point.at_seconds)
        return self._points[after - 1].running.get(model, 0.0) if after else 0.0

    def observe(self, observation: Observation, *, default_model: str) -> None:
        """Take in a page. An observation not younger than the last one is ignored (it says nothing new)."""
        last = self.observed_at_seconds
        if last is not None and observation.at_seconds <= last:
            return
        self.finished.observe(observation, default_model=default_model)
        seconds = 0.0 if last is None else observation.at_seconds - last
        increases: dict[str, dict[Role, float]] = {}
        late: dict[str, set[Role]] = {}
        gauges: dict[str, dict[Role, float]] = {}
        counters = [r for r in observation.page.readings if r.role not in GAUGES]
        start_time_seconds = observation.page.start_time_seconds
        for reading, increase in self._counters.advance(counters, start_time_seconds, observation.at_seconds):
            model = reading.model or default_model
            of_model = increases.setdefault(model, {})
            of_model[reading.role] = of_model.get(reading.role, 0.0) + increase
            if reading.moves is Moves.FINISH:
                late.setdefault(model, set()).add(reading.role)
        for reading in observation.page.readings:
            if reading.role in GAUGES:
                of_gauges = gauges.setdefault(reading.model or default_model, {})
                of_gauges[reading.role] = of_gauges.get(reading.role, 0.0) + reading.value
        self.loaded = frozenset(increases) | frozenset(gauges) or frozenset({default_model})
        again = self._counters.restarted
        restarted = {one.model or default_model for one in counters if one.series in again}
        for model in restarted & self._models.keys():
            self._models[model].cache_hits.forget()
        for model in self.loaded:
            self._advance(
                model, increases.get(model, {}), late.get(model, set()), gauges.get(model, {}), seconds
            )
        for model in self._models.keys() - self.loaded:
            self._models[model].running = 0.0
            self._models[model].context_tokens = None
        self._points.append(
            _Point(
                observation.at_seconds,
                {model: state.work for model, state in self._models.items()},
                {model: state.running for model, state in self._models.items()},
            )
        )
        while (
            len(self._points) > 1 and self._points[0].at_seconds < observation.at_seconds - self._keep_seconds
        ):
            self._points.popleft()

    def forget(self, model: str) -> None:
        """Drop a model that is long gone; should it return, it starts at 0."""
        self.loaded -= {model}
        self._models.pop(model, None)
        for point in self._points:
            point.work.pop(model, None)
            point.running.pop(model, None)

    def at(self, at_seconds: float) -> dict[str, Work]:
        """Cumulative work of each model at an instant, interpolated between two observations."""
        points = self._points
        if not points:
            return {}
        if at_seconds >= points[-1].at_seconds:
            return dict(points[-1].work)
        if at_seconds <= points[0].at_seconds:
            return dict(points[0].work)
        right = bisect_left(points, at_seconds, key=lambda point: point.at_seconds)
        before, after = points[right - 1], points[right]
        ratio = (at_seconds - before.at_seconds) / (after.at_seconds - before.at_seconds)
        return {
            model: before.work.get(model, Work()).interpolated(work, ratio)
            for model, work in after.work.items()
        }

    def _advance(
        self,
        model: str,
        increase: dict[Role, float],
        late: set[Role],
        gauges: dict[Role, float],
        seconds: float,
    ) -> None:
        state = self._models.setdefault(model, _ModelState())
        running = gauges.get(Role.RUNNING, 0.0)
        mean_running = (running + state.running) / 2
        running_seconds = mean_running * seconds
        context_tokens = gauges.get(Role.CONTEXT)
        context_token_seconds = None
        if context_tokens is not None:
            context_token_seconds = (context_tokens + (state.context_tokens or 0.0)) / 2 * seconds
        state.context_tokens = context_tokens
        work, steps = state.work, increase.get(Role.STEPS)
        cached_increase = increase.get(Role.CACHED_PROMPT, 0.0)
        cached_tokens = work.cached_prompt_tokens + cached_increase
        with_cached = increase.get(Role.PROMPT_WITH_CACHED)
        if with_cached is None:
            prompt_increase = increase.get(Role.PROMPT, 0.0)
            state.cache_hits.forget()
        else:
            prompt_increase = state.cache_hits.taken_out(with_cached, cached_increase)
        requests, first_tokens = increase.get(Role.REQUESTS), increase.get(Role.FIRST_TOKENS)
        if requests is None and first_tokens is None:
            first_tokens = state.arrivals.advance(prompt_increase)
        ended = (first_tokens or 0.0) if requests is None else requests
        prompt_tokens = work.prompt_tokens + prompt_increase
        if late & {Role.PROMPT, Role.PROMPT_WITH_CACHED}:
            before = state.prompt_spread.total
            after = state.prompt_spread.advance(
                prompt_increase, running_seconds, running=running, requests=ended
            )
            prompt_tokens = work.prompt_tokens + (after - before)
        generation_increase = increase.get(Role.GENERATION, 0.0)
        generation_tokens = work.generation_tokens + generation_increase
        if Role.GENERATION in late:
            live = increase.get(Role.LIVE_GENERATION, None if steps is None else steps * mean_running)
            spread = state.generation_spread if live is None else state.live_spread
            before = spread.total
            after = spread.advance(
                generation_increase,
                running_seconds if live is None else live,
                running=running,
                requests=ended,
            )
            generation_tokens = work.generation_tokens + (after - before)
        interval = _interval(seconds, state.running, running, requests, first_tokens)
        between, timed_steps = increase.get(Role.INTER_TOKEN_SECONDS), 0.0
        if between is not None and state.timing.whole(between, running_seconds):
            decoded = max(0.0, generation_tokens - work.generation_tokens - interval.began)
            timed_steps = interval.decode_steps(decoded, between)
        state.running = running
        state.work = work + Work(
            prompt_tokens - work.prompt_tokens,
            cached_tokens - work.cached_prompt_tokens,
            generation_tokens - work.generation_tokens,
            requests or 0.0,
            running_seconds,
            steps,
            first_tokens,
            between,
            context_token_seconds,
            increase.get(Role.PREFILL_SECONDS),
            increase.get(Role.DECODE_SECONDS),
            interval.covered_seconds(running_seconds),
            timed_steps,
        )


def _interval(
    seconds: float, before: float, now: float, requests: float | None, first_tokens: float | None
) -> Interval:
    """Return what is known of the requests between two pages; who ran, and did not begin, or end, says the rest."""
    began = max(0.0, (requests or 0.0) + now - before) if first_tokens is None else first_tokens
    ended = max(0.0, began + before - now) if requests is None else requests
    return Interval(seconds, before, began, ended)
