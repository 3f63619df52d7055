"""Edges to energy between two instants."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.model import Amount
from joulemeter.timeline import Timeline


def joules(energy: float) -> Amount:
    return Amount(energy, energy / 1000)


def ticking(timeline: Timeline, *, watts: float, seconds: float, period_seconds: float = 0.1) -> None:
    """A counter that moves every period, read as it moves."""
    for tick in range(1, round(seconds / period_seconds) + 1):
        at = tick * period_seconds
        timeline.append(at, joules(watts * period_seconds), read_at_seconds=at)


def test_between_two_edges_the_amount_grows_linearly():
    timeline = Timeline(0.0, keep_seconds=60)
    ticking(timeline, watts=300, seconds=10)
    assert timeline.at(5.05).energy_joules == pytest.approx(1515)
    assert timeline.at(5.05).co2e_grams == pytest.approx(1.515)


def test_only_up_to_the_last_edge_is_the_answer_final():
    timeline = Timeline(0.0, keep_seconds=60)
    ticking(timeline, watts=300, seconds=1)
    timeline.append(1.05, Amount(), read_at_seconds=1.05)
    assert timeline.covered_until_seconds == pytest.approx(1.0)
    assert timeline.read_at_seconds == 1.05


def test_a_counter_that_stands_still_is_known_up_to_its_last_reading():
    timeline = Timeline(0.0, keep_seconds=60)
    ticking(timeline, watts=300, seconds=1)
    for tick in range(60):
        timeline.append(0, Amount(), read_at_seconds=1 + tick * 0.05)
    covered = timeline.covered_until_seconds
    assert covered == pytest.approx(3.95)
    before = timeline.at(covered)
    timeline.append(4.0, joules(30), read_at_seconds=4.0)
    assert timeline.at(covered) == before


def test_the_counters_period_is_learned_and_a_slow_counter_does_not_stand_still():
    timeline = Timeline(0.0, keep_seconds=600)
    assert timeline.period_seconds is None
    for tick in range(1, 400):  # read every 0.1 s, moves every 2 s
        moved = tick % 20 == 0
        timeline.append(tick / 10, joules(600 if moved else 0), read_at_seconds=tick / 10)
    assert timeline.period_seconds == pytest.approx(2.0)
    assert timeline.covered_until_seconds == pytest.approx(38.0)  # the last edge, though 1.9 s have passed
    assert timeline.at(33.0).energy_joules == pytest.approx(300 * 33)


def test_ticks_last_whole_periods_however_late_their_edges_were_seen():
    timeline = Timeline(0.0, keep_seconds=60)
    for tick in range(1, 101):
        late_seconds = 0.04 * (tick % 2)
        at = tick / 10 + late_seconds
        timeline.append(at, joules(30 if tick % 10 else 12), read_at_seconds=at)
    ticks = timeline.ticks(4.95, 6.05)
    assert sum(tick.duration_seconds for tick in ticks) == pytest.approx(1.1, rel=0.02)
    assert sorted({round(tick.power_watts, -1) for tick in ticks}) == [120, 300]
    assert Timeline(0.0, keep_seconds=60).ticks(0, 10) == []


def test_an_edge_back_dated_before_the_last_one_is_laid_upon_it():
    timeline = Timeline(0.0, keep_seconds=60)
    timeline.append(1.0, joules(10), read_at_seconds=1.0)
    timeline.append(0.9, joules(10), read_at_seconds=1.1)
    assert timeline.at(1.0).energy_joules == 20
    assert timeline.at(0.5).energy_joules == pytest.approx(5)


def test_old_detail_goes_but_no_joule():
    timeline = Timeline(0.0, keep_seconds=5)
    ticking(timeline, watts=300, seconds=60)
    assert timeline.total.energy_joules == pytest.approx(18_000)
    assert len(timeline._edges) < 55
    assert timeline.at(58.0).energy_joules == pytest.approx(17_400)


@given(
    st.lists(st.tuples(st.floats(0.001, 3), st.integers(0, 10**6)), min_size=1, max_size=60),
    st.lists(st.floats(0, 200), min_size=1, max_size=20),
)
def test_cuts_are_monotone_and_sum_to_the_total(steps: list[tuple[float, int]], cuts: list[float]):
    timeline, at_seconds = Timeline(0.0, keep_seconds=1e9), 0.0
    for gap_seconds, millijoules in steps:
        at_seconds += gap_seconds
        timeline.append(at_seconds - gap_seconds / 2, joules(millijoules / 1000), read_at_seconds=at_seconds)
    values = [timeline.at(cut).energy_joules for cut in [0.0, *sorted(cuts), 1e9]]
    assert all(later >= earlier - 1e-9 * later for earlier, later in pairwise(values))
    assert math.isclose(values[-1], timeline.total.energy_joules)
