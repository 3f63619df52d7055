"""Totals that are known late only, laid over the time before."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.late_counters import Arrivals, LiveSpread, Spread


@pytest.mark.parametrize("make", [lambda: Spread(1.0, 1000.0), LiveSpread])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 500), st.booleans()), min_size=1, max_size=50
    )
)
def test_a_spread_never_falls_and_is_never_below_the_exact_count(
    make: Callable[[], Spread | LiveSpread], steps: list[tuple[int, int, bool]]
):
    spread, exact, before = make(), 0, 0.0
    for finished, effort, running in steps:
        exact += finished
        total = spread.advance(finished, effort, running=float(running), requests=float(finished > 250))
        assert total >= before
        assert total >= exact
        before = total


def test_an_estimate_that_ran_ahead_is_made_up_for():
    spread = Spread(1.0, 1000.0)
    assert spread.advance(0, 100, running=1.0, requests=0.0) == 100
    assert spread.advance(60, 0, running=0.0, requests=1.0) == 100
    assert spread.advance(40, 0, running=0.0, requests=0.0) == 100
    assert spread.advance(10, 0, running=0.0, requests=1.0) == 110


def test_hours_without_a_pause_run_no_further_ahead_than_what_runs():
    """At night one request makes 60 tokens a second, by day each of ten makes 20: the pace learned is wrong."""
    spread = Spread(30.0, 30.0)
    for _ in range(100):
        spread.advance(0.0, 10.0, running=1.0, requests=0.0)
        spread.advance(600.0, 0.0, running=0.0, requests=1.0)
    exact = 60_000.0
    for _ in range(3600):
        exact += 200.0
        total = spread.advance(200.0, 10.0, running=10.0, requests=1 / 3)
        assert exact <= total <= exact + 10 * 600 + 1e-6


@dataclass
class LiveServer:
    """Requests at 50 tokens a second each; its count moves when one ends, its live count is wrong as told."""

    first_tokens_live: bool = True
    """Whether first tokens are in the live count."""
    over_ratio: float = 0.0
    """So much more is counted live."""
    aborted_ratio: float = 0.0
    """Requests that end half way: counted live only."""
    spread: LiveSpread = field(default_factory=LiveSpread)
    exact: float = 0.0
    _running: list[tuple[float, float, bool]] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(2))
    owed_requests: float = 0.0

    @property
    def ahead(self) -> float:
        return self.spread.total - self.exact

    @property
    def in_flight(self) -> float:
        """Tokens of what runs that the exact count will have."""
        return sum(made for made, _, aborted in self._running if not aborted)

    def second(self, requests: float, reply_tokens: float) -> float:
        """Let so many requests begin; return how far the total has moved."""
        before, live, ended, tokens = self.spread.total, 0.0, 0, 0.0
        self.owed_requests += requests * self._chance.uniform(0.5, 1.5)
        while self.owed_requests >= 1:
            self.owed_requests -= 1
            aborted = self._chance.random() < self.aborted_ratio
            self._running.append((0.0, reply_tokens / 2 if aborted else reply_tokens, aborted))
        left = []
        for made, wanted, aborted in self._running:
            fresh = min(50.0, wanted - made)
            live += fresh - (0.0 if made or self.first_tokens_live else 1.0)
            if made + fresh < wanted:
                left.append((made + fresh, wanted, aborted))
            elif not aborted:
                ended, tokens = ended + 1, tokens + wanted
        self._running = left
        self.exact += tokens
        live *= 1 + self.over_ratio
        return self.spread.advance(tokens, live, running=float(len(left)), requests=float(ended)) - before

    def hours(self, hours: float, requests: float, reply_tokens: float) -> Iterator[float]:
        for _ in range(round(hours * 3600)):
            yield self.second(requests, reply_tokens)

    def pause(self) -> None:
        while self._running:
            self.second(0.0, 0.0)
        self.second(0.0, 0.0)


WRONG_LIVE_COUNTS = {
    "first tokens are missing": LiveServer(first_tokens_live=False),
    "3 % too many": LiveServer(over_ratio=0.03),
    "3 % too few": LiveServer(over_ratio=-0.03),
    "replies are aborted": LiveServer(aborted_ratio=0.04),
}


@pytest.mark.parametrize(("night_tokens", "day_tokens"), [(15.0, 300.0), (300.0, 15.0)])
@pytest.mark.parametrize("live_count", WRONG_LIVE_COUNTS)
def test_a_day_without_a_pause_is_published_ahead_by_what_is_in_flight(live_count, night_tokens, day_tokens):
    """At night a request now and then, from which a live token's worth is learned; by day other replies, all day."""
    server = replace(
        WRONG_LIVE_COUNTS[live_count], spread=LiveSpread(), _running=[], _chance=random.Random(2)
    )
    for _ in server.hours(1, 0.05, night_tokens):
        pass
    ahead = in_flight = 0.0
    for second, _ in enumerate(server.hours(8, 5.0, day_tokens)):
        assert server.ahead <= 4 * max(server.in_flight, day_tokens) + 2000
        if second >= 3600:
            ahead, in_flight = ahead + server.ahead, in_flight + server.in_flight
    if day_tokens > night_tokens:  # short replies end in the second in which they began
        assert ahead == pytest.approx(in_flight, rel=0.35)
    server.pause()
    assert server.ahead <= 2000
    frozen = next(seconds for seconds, moved in enumerate(server.hours(1, 5.0, day_tokens)) if moved)
    assert frozen <= 10


@pytest.mark.parametrize("over_ratio", [-0.03, 0.03])
def test_a_day_that_began_before_the_first_page_is_learned_without_any_pause(over_ratio):
    server = LiveServer(over_ratio=over_ratio)
    moved = list(server.hours(2, 5.0, 300.0))
    assert max(moved[60:]) <= 3 * 1500  # five requests of 300 tokens a second
    assert server.ahead == pytest.approx(server.in_flight, rel=0.5)


def test_a_long_reply_after_short_ones_is_told_by_the_live_count_as_it_is_made():
    """A hundred usual replies long, and alone: nothing gives reason to doubt the live count."""
    server = LiveServer()
    for _ in server.hours(1, 0.05, 300.0):
        pass
    server.pause()
    server.owed_requests = 1.0
    before = server.spread.total
    for _ in range(300):
        server.second(0.0, 30_000.0)
    assert server.spread.total - before == pytest.approx(15_000, rel=0.11)


def test_requests_are_counted_by_the_moves_of_the_prompts_counter_where_nothing_else_counts_them():
    arrivals, chance = Arrivals(), random.Random(3)
    for rate in (0.05, 0.05, 3.0, 0.3):  # an hour each: few, few, several a second, some
        true = counted = 0.0
        for _ in range(3600):
            came = sum(chance.random() < rate / 100 for _ in range(100))
            true += came
            counted += arrivals.advance(sum(chance.uniform(100, 900) for _ in range(came)))
        assert counted == pytest.approx(true, rel=0.1)
