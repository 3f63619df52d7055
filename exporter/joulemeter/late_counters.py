"""Counters that do not move with the work, laid over the time in which it was done. Pure.

Why, and how wrong that is: docs/adr/0004-late-counters.md.
"""

import math
from dataclasses import dataclass

PRIOR_TOKENS_PER_RUNNING_SECOND = 30.0
"""Speed of one request before any has finished: about reading speed times five, as chat servers are tuned."""
PRIOR_RUNNING_SECONDS = 30.0
"""Weight of that prior: half a minute of running requests."""
ARRIVAL_INTERVALS = 20.0
RARE_RATIO = 0.4
MOST_MOVING_RATIO = 0.95
LEARNED_PROMPTS = 500


@dataclass(slots=True)
class Spread:
    """Lays a counter that moves at a request's end over the time in which the request ran.

    `effort` is anything that grows while tokens are made: the server's own live count, steps times running
    requests, or running seconds. Tokens per effort are learned from what has finished. The total never falls,
    and equals the exact count whenever nothing runs; an estimate that ran ahead is made up for later.
    """

    tokens_per_effort_prior: float
    prior_effort: float
    bounded: bool = True
    total: float = 0.0
    _exact: float = 0.0
    _finished: float = 0.0
    _effort: float = 0.0
    _episode_exact: float = 0.0
    _episode_effort: float = 0.0
    _requests: float = 0.0

    def advance(
        self, exact_increase: float, effort_increase: float, *, running: float, requests: float
    ) -> float:
        """Return the new total after one interval, in which so many requests ended; `running` is how many run now."""
        self._requests += requests
        self._exact += exact_increase
        self._episode_exact += exact_increase
        self._episode_effort += effort_increase
        if not running:
            self._finished += self._episode_exact
            self._effort += self._episode_effort
            self._episode_exact = self._episode_effort = 0.0
        finished = self._finished + self.tokens_per_effort_prior * self.prior_effort
        speed = finished / (self._effort + self.prior_effort)
        in_flight = max(0.0, speed * self._episode_effort - self._episode_exact) if running else 0.0
        if self.bounded and self._requests > 0:
            in_flight = min(in_flight, running * self._exact / self._requests)
        self.total = max(self.total, self._exact + in_flight)
        return self.total


def by_running_seconds() -> Spread:
    """Lay tokens over running seconds, at a usual speed until requests have shown theirs."""
    return Spread(PRIOR_TOKENS_PER_RUNNING_SECOND, PRIOR_RUNNING_SECONDS)


@dataclass(slots=True)
class Arrivals:
    """Counts requests by the prompts counter where a server counts neither first tokens nor requests.

    While prompts are rare, each move of the counter is one request, or, by chance, a few; that teaches how long a
    prompt is, which tells the number of them when every page has some.
    """

    _moving_ratio: float = 0.0
    _moves: int = 0
    _prompt_tokens: float = 0.0

    def advance(self, prompt_increase: float) -> float:
        """Return how many requests the increase of one interval stands for."""
        moved = prompt_increase > 0
        self._moving_ratio += (moved - self._moving_ratio) / ARRIVAL_INTERVALS
        if not moved:
            return 0.0
        expected = -math.log1p(-min(self._moving_ratio, MOST_MOVING_RATIO))
        by_chance = expected / -math.expm1(-expected)
        if self._moving_ratio > RARE_RATIO:
            return max(1.0, prompt_increase / self._prompt_tokens) if self._prompt_tokens else by_chance
        self._moves = min(self._moves + 1, LEARNED_PROMPTS)
        self._prompt_tokens += (prompt_increase / by_chance - self._prompt_tokens) / self._moves
        return by_chance
