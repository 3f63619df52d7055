"""Totals that are known late only, laid over the time before."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.late_counters import Arrivals, Spread


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.booleans()), min_size=1, max_size=50))
def test_a_spread_never_falls_and_is_never_below_the_exact_count(steps: list[tuple[int, int, bool]]):
    spread, exact, before = Spread(1.0, 1000.0), 0, 0.0
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


def test_requests_are_counted_by_the_moves_of_the_prompts_counter_where_nothing_else_counts_them():
    arrivals, chance = Arrivals(), random.Random(3)
    for rate in (0.05, 0.05, 3.0, 0.3):  # an hour each: few, few, several a second, some
        true = counted = 0.0
        for _ in range(3600):
            came = sum(chance.random() < rate / 100 for _ in range(100))
            true += came
            counted += arrivals.advance(sum(chance.uniform(100, 900) for _ in range(came)))
        assert counted == pytest.approx(true, rel=0.1)
