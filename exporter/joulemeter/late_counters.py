"""Counters that do not move with the work, laid over the time in which it was done. Pure.

Why, and how wrong that is: docs/adr/0004-late-counters.md.
"""

import math
from dataclasses import dataclass

PRIOR_TOKENS_PER_RUNNING_SECOND = 30.0
"""Speed of one request before any has finished: about reading speed times five, as chat servers are tuned."""
PRIOR_RUNNING_SECONDS = 30.0
"""Weight of that prior: half a minute of running requests."""
PRIOR_LIVE_TOKENS = 1000.0
"""A live count is taken at its word until this many tokens say how far it is off."""
LIVE_DOUBT_RATIO = 0.1
"""Of the tokens made since nothing ran, so many may have been counted wrong."""
REMEMBERED_REQUESTS = 1000.0
"""Over so many the length of replies and the worth of a live token are learned: minutes of a busy server."""
EPISODE_LIFETIMES = 20.0
"""So many requests end for each that runs across an episode's edges: half replies there are 2 to 3 % of it."""
ANCHOR_LIFETIMES = 500.0
"""So slowly is the estimate drawn to the usual: what is learned leaves little to mend, and replies differ."""
DONE_RATIO = 0.5
"""How much of its reply a running request has, in the mean; of replies that differ much it is more."""
MOST_USUAL_REPLIES = 4.0
"""No running request is thought to be further than this many usual replies, where there is doubt."""
ARRIVAL_INTERVALS = 20.0
RARE_RATIO = 0.4
MOST_MOVING_RATIO = 0.95
LEARNED_PROMPTS = 500


@dataclass(slots=True)
class Spread:
    """Lays a counter that moves at a request's end over the time in which the request ran.

    `effort` is what grows while tokens are made: running seconds. Tokens per effort are learned from what has
    finished. The total never falls, and equals the exact count whenever nothing runs; an estimate that ran ahead is
    made up for later.
    """

    tokens_per_effort_prior: float
    prior_effort: float
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
        if self._requests > 0:
            in_flight = min(in_flight, running * self._exact / self._requests)
        self.total = max(self.total, self._exact + in_flight)
        return self.total


def by_running_seconds() -> Spread:
    """Lay tokens over running seconds, at a usual speed until requests have shown theirs."""
    return Spread(PRIOR_TOKENS_PER_RUNNING_SECOND, PRIOR_RUNNING_SECONDS)


@dataclass(slots=True)
class _Episode:
    """What was counted since tokens per live token were last learned."""

    running_before: float
    tokens: float = 0.0
    live_tokens: float = 0.0
    requests: float = 0.0


@dataclass(slots=True)
class LiveSpread:
    """Lays a counter that moves at a request's end over the time in which its tokens were counted live.

    A live count is good for short and drifts over hours: by a first token per request, by replies that are aborted.
    What is in flight is therefore carried from page to page and held against the running requests at a usual length,
    the more so the more tokens were made since nothing ran. Tokens per live token are learned whenever nothing
    runs, or so many requests have ended that those which run across hardly matter; what is long past fades.

    The total never falls, and equals the exact count whenever nothing runs; an estimate that ran ahead is made up
    for later. Until a request has ended, nothing is known of lengths and the live count is taken at its word.
    """

    total: float = 0.0
    _exact: float = 0.0
    _in_flight: float = 0.0
    _doubtful: float = 0.0
    _recent_requests: float = 0.0
    _recent_tokens: float = 0.0
    _learned_tokens: float = 0.0
    _learned_live_tokens: float = 0.0
    _episode: _Episode | None = None

    def advance(
        self, exact_increase: float, live_increase: float, *, running: float, requests: float
    ) -> float:
        """Return the new total after one interval, in which so many requests ended; `running` is how many run now."""
        ratio = (self._learned_tokens + PRIOR_LIVE_TOKENS) / (self._learned_live_tokens + PRIOR_LIVE_TOKENS)
        made = ratio * live_increase
        self._exact += exact_increase
        self._in_flight = max(0.0, self._in_flight + made - exact_increase)
        self._doubtful += LIVE_DOUBT_RATIO * made
        kept = math.exp(-requests / REMEMBERED_REQUESTS)
        self._recent_requests = kept * self._recent_requests + requests
        self._recent_tokens = kept * self._recent_tokens + exact_increase
        self._learn(exact_increase, live_increase, running, requests)
        if not running:
            self._in_flight = self._doubtful = 0.0
        elif self._recent_requests > 0:
            self._anchor(running, requests)
        self.total = max(self.total, self._exact + self._in_flight)
        return self.total

    @property
    def _usual_tokens(self) -> float:
        """Tokens of a finished request."""
        return self._recent_tokens / self._recent_requests if self._recent_requests > 0 else 0.0

    def _anchor(self, running: float, requests: float) -> None:
        """Draw what is in flight to what is plausible, as far as there is doubt."""
        whole = running * self._usual_tokens
        if whole <= 0:
            return
        doubt = self._doubtful / (self._doubtful + whole)
        pull = min(1.0, doubt * requests / (running * ANCHOR_LIFETIMES))
        self._in_flight += pull * (DONE_RATIO * whole - self._in_flight)
        beyond = min(max(0.0, self._in_flight - MOST_USUAL_REPLIES * whole), self._doubtful)
        self._in_flight -= beyond
        self._doubtful -= beyond

    def _learn(self, exact_increase: float, live_increase: float, running: float, requests: float) -> None:
        """Add the interval to the episode, and learn from it if it is over."""
        episode = self._episode = self._episode or _Episode(running)
        episode.tokens += exact_increase
        episode.live_tokens += live_increase
        episode.requests += requests
        across = running + episode.running_before
        if running and not episode.requests > EPISODE_LIFETIMES * across:
            return
        begun = (running - episode.running_before) * DONE_RATIO * self._usual_tokens
        kept = math.exp(-episode.requests / REMEMBERED_REQUESTS)
        self._learned_tokens = kept * self._learned_tokens + max(0.0, episode.tokens + begun)
        self._learned_live_tokens = kept * self._learned_live_tokens + episode.live_tokens
        self._episode = _Episode(running)


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
