"""Settled windows and the requests that finished in them -> joules of each request. Pure.

A request that finishes in a window used energy of earlier ones, and what a token costs depends on who else was in the
batch. So a model's decode energy is laid over the stretches between its server's pages, in proportion to what
the engine did in each, and a request pays for as many tokens as it generated, back from where it ended: one sequence's
pace is the model's decoded tokens over its running requests. Its prompt costs what computed prompt
tokens cost lately. Tokens of requests that were aborted cost as much as any, and nobody pays for them here.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from joulemeter.histogram import Histogram, HistogramValue
from joulemeter.history import ServerHistory
from joulemeter.lengths import Finished
from joulemeter.pairing import Pairing, RequestTokens
from joulemeter.work import Work

KEPT_STRETCHES: Final = 600
"""Ten minutes of pages a second apart; earlier tokens of a longer request cost as those of the ten minutes did."""
PREFILL_MEMORY: Final = 0.5
"""Kept from window to window of prefill joules and tokens: a long prompt's are in two or three, its count in one."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Joules of a model's engine step, decoded token and token of context read; only their ratios matter."""

    joules_per_step: float
    joules_per_token: float
    joules_per_context_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A model's work from one page to the next, or to the edge of a window; `duration_seconds` > 0."""

    until_seconds: float
    duration_seconds: float
    work: Work


@dataclass(frozen=True, slots=True)
class Settled:
    """What one model's closed window cost, and what was done in it, in the order of time."""

    prefill_joules: float
    decode_joules: float
    stretches: Sequence[Stretch]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What one model decoded in a stretch, and what that should have cost, as far as the weights know."""

    tokens: float
    batch: float
    own_joules: float
    read_joules: float


@dataclass(frozen=True, slots=True)
class _Point:
    """Totals of a sequence that decodes all the time: its tokens, their joules, and joules per token of its context."""

    tokens: float = 0.0
    joules: float = 0.0
    per_context_joules: float = 0.0

    def towards(self, later: "_Point", ratio: float) -> "_Point":
        """Return the point at `ratio` of the way from here to `later`."""
        return _Point(
            self.tokens + ratio * (later.tokens - self.tokens),
            self.joules + ratio * (later.joules - self.joules),
            self.per_context_joules + ratio * (later.per_context_joules - self.per_context_joules),
        )

    def cost_joules(self, since: "_Point", context_tokens: float) -> float:
        """Return what it cost since then, with so much context."""
        read_joules = self.per_context_joules - since.per_context_joules
        return self.joules - since.joules + context_tokens * read_joules


@dataclass(slots=True)
class _Pace:
    """The curve on which requests are priced, from the first settled window on or over the last ten minutes."""

    until_seconds: list[float] = field(default_factory=lambda: [-math.inf])
    points: list[_Point] = field(default_factory=lambda: [_Point()])
    end_ratios: list[float] = field(default_factory=lambda: [1.0])
    """Where in a stretch requests end, seen from its beginning: halfway, or at its end if all began in it."""
    whole: bool = True

    def extend(self, settled: Settled, weights: Weights) -> None:
        """Append a window, its decode energy laid over its stretches in proportion to estimated joules."""
        rows = [_decoded(stretch, weights) for stretch in settled.stretches]
        estimate_joules = math.fsum(row.own_joules + row.read_joules for row in rows)
        if estimate_joules <= 0:  # weights that say nothing: every token alike
            weights = Weights(0.0, 1.0)
            rows = [_decoded(stretch, weights) for stretch in settled.stretches]
            estimate_joules = math.fsum(row.own_joules for row in rows)
        scale = settled.decode_joules / estimate_joules if estimate_joules > 0 else 0.0
        for stretch, row in zip(settled.stretches, rows, strict=True):
            last, tokens = self.points[-1], row.tokens / row.batch
            own_joules = scale * row.own_joules / row.batch
            read_joules = scale * weights.joules_per_context_token * tokens
            self.points.append(
                _Point(last.tokens + tokens, last.joules + own_joules, last.per_context_joules + read_joules)
            )
            self.until_seconds.append(stretch.until_seconds)
            self.end_ratios.append(0.5 if stretch.work.running_seconds > 0 else 1.0)
        surplus = len(self.points) - KEPT_STRETCHES
        if surplus > 0:
            self.whole = False
            del self.points[:surplus], self.until_seconds[:surplus], self.end_ratios[:surplus]

    def joules(self, request: RequestTokens, at_seconds: float) -> float | None:
        """Return the decode energy of a request that a page of that time counted; None if it began before us."""
        decoded = request.generated_tokens - 1.0  # the first token is prefill's
        if decoded <= 0:
            return 0.0
        context_tokens = request.prompt_tokens + request.generated_tokens / 2
        index = min(bisect_left(self.until_seconds, at_seconds), len(self.points) - 1)
        end = self.points[max(index - 1, 0)].towards(self.points[index], self.end_ratios[index])
        first, begin_tokens = self.points[0], end.tokens - decoded
        if begin_tokens < first.tokens:
            known = end.tokens - first.tokens
            if self.whole or known <= 0:
                return None
            return end.cost_joules(first, context_tokens) * decoded / known
        after = bisect_right(self.points, begin_tokens, key=lambda point: point.tokens)
        before = self.points[after - 1]
        if after == len(self.points):
            return 0.0
        ratio = (begin_tokens - before.tokens) / (self.points[after].tokens - before.tokens)
        return end.cost_joules(before.towards(self.points[after], ratio), context_tokens)


class RequestEnergy:
    """The histogram of one model's joules per finished request.

    Conserves:
        Its sum never exceeds `limit_joules`: a window's requests are scaled down where they would.
    """

    def __init__(self, bounds_joules: tuple[float, ...]) -> None:
        self._histogram = Histogram(bounds_joules)
        self._pairing = Pairing()
        self._pace = _Pace()
        self._prefill_joules = 0.0
        self._prompt_tokens = 0.0
        self._sum_joules = 0.0

    def value(self) -> HistogramValue:
        """What was counted so far, in joules."""
        return self._histogram.value()

    def settle(
        self, settled: Settled, finished: Iterable[Finished], weights: Weights, *, limit_joules: float
    ) -> None:
        """Take in a closed window and count the requests that finished in it.

        Args:
            settled: the window's measured energy, as it was attributed, >= 0 J.
            finished: what pages in the window were the first to count. Requests that began before the first
                settled window are left out: their energy is not ours.
            weights: how the window's decode energy is laid over its stretches.
            limit_joules: the model's prefill and decode energy so far, this window included.
        """
        self._pace.extend(settled, weights)
        prompt_tokens, computed_ratio = self._prefill(settled)
        prompt_joules = self._prefill_joules / prompt_tokens if prompt_tokens > 0 else 0.0
        costs: list[float] = []
        for page in finished:
            for request in self._pairing.requests(page):
                decode_joules = self._pace.joules(request, page.at_seconds)
                if decode_joules is None:
                    continue
                computed = request.computed_tokens
                if computed is None:
                    computed = request.prompt_tokens * computed_ratio
                costs.append(decode_joules + prompt_joules * computed)
        total_joules = math.fsum(costs)
        room_joules = max(0.0, limit_joules - self._sum_joules) * (1.0 - 1e-12)
        scale = min(1.0, room_joules / total_joules) if total_joules > 0 else 1.0
        for joules in costs:
            self._histogram.observe(joules * scale)
            self._sum_joules += joules * scale

    def _prefill(self, settled: Settled) -> tuple[float, float]:
        """Remember what prompts cost; return the tokens that it was for, and how much of prompts was computed."""
        computed = math.fsum(max(0.0, stretch.work.prompt_tokens) for stretch in settled.stretches)
        cached = math.fsum(max(0.0, stretch.work.cached_prompt_tokens) for stretch in settled.stretches)
        self._prefill_joules = PREFILL_MEMORY * self._prefill_joules + settled.prefill_joules
        self._prompt_tokens = PREFILL_MEMORY * self._prompt_tokens + computed
        return self._prompt_tokens, computed / (computed + cached) if computed > 0 else 1.0


def stretches(
    history: ServerHistory, model: str, after_seconds: float, until_seconds: float
) -> list[Stretch]:
    """Cut a model's work in (after, until] where its server's pages were read."""
    edges = [*history.midpoints_between(after_seconds, until_seconds), until_seconds]
    cut, begin_seconds = [], after_seconds
    before = history.at(after_seconds).get(model, Work())
    for edge_seconds in edges:
        if edge_seconds <= begin_seconds:
            continue
        now = history.at(edge_seconds).get(model, Work())
        cut.append(Stretch(edge_seconds, edge_seconds - begin_seconds, now - before))
        before, begin_seconds = now, edge_seconds
    return cut


def _decoded(stretch: Stretch, weights: Weights) -> _Decoded:
    """Return what was decoded in a stretch; a batch is at least one sequence, and a step makes at least one token."""
    work = stretch.work
    started = work.requests if work.first_tokens is None else work.first_tokens
    tokens = max(0.0, work.generation_tokens - max(0.0, started))
    batch = max(1.0, work.running_seconds / stretch.duration_seconds)
    steps = tokens / batch if work.steps is None else min(max(0.0, work.steps), tokens)
    context_tokens = max(0.0, work.context_token_seconds or 0.0) / stretch.duration_seconds
    own_joules = weights.joules_per_step * steps + weights.joules_per_token * tokens
    return _Decoded(tokens, batch, own_joules, weights.joules_per_context_token * context_tokens * steps)
