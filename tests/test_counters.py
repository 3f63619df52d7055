"""Increases of hardware and server counters: baselines, resets, jumps, restarts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.counters import EnergyCounter, Increase, PowerIntegral, RunningTotal, SeriesCounters
from joulemeter.model import EnergyReading, Moves, Role, RoleReading


def reading(total_joules: float, at_seconds: float) -> EnergyReading:
    return EnergyReading("GPU-a", total_joules, at_seconds)


def advance(counter: EnergyCounter, *points: tuple[float, float]) -> list[Increase | None]:
    return [counter.advance(reading(joules, at)) for at, joules in points]


def test_what_the_counter_held_before_is_not_ours():
    assert advance(EnergyCounter(700), (0, 1e9), (0.1, 1e9 + 30)) == [None, Increase(30.0, 0.1)]


def test_a_reset_counts_from_the_new_value():
    _, first, after = advance(EnergyCounter(700), (0, 5e6), (0.1, 5e6 + 30), (0.2, 20))
    assert first == Increase(30.0, 0.1)
    assert after == Increase(20, pytest.approx(0.1), reset=True)


@pytest.mark.parametrize("jump_joules", [-4e6, 1e7], ids=["falls to an old total", "rises"])
def test_what_no_board_could_draw_is_not_energy(jump_joules: float):
    counter = EnergyCounter(700)
    *_, jumped, next_one = advance(counter, (0, 5e6), (0.1, 5e6 + jump_joules), (0.2, 5e6 + jump_joules + 30))
    assert jumped == Increase(0.0, 0.1, reset=True)
    assert next_one == Increase(30.0, pytest.approx(0.1))


def test_a_lump_may_bring_the_energy_of_all_the_time_since_the_last_one():
    points = [(tick / 10, 700 * 5 * (tick // 50)) for tick in range(101)]
    assert not any(increase.reset for increase in advance(EnergyCounter(700), *points) if increase)


def test_a_long_silence_may_bring_much_energy():
    _, increase = advance(EnergyCounter(700), (0, 0), (3600, 300 * 3600))
    assert increase == Increase(1_080_000, 3600)


@pytest.mark.parametrize("joules", [math.nan, math.inf, -1.0])
def test_a_reading_that_is_no_count_is_a_bug_of_the_meter(joules: float):
    with pytest.raises(ValueError, match="total_joules"):
        EnergyCounter(700).advance(reading(joules, 0))


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, 10**12)), min_size=2))
def test_increases_are_never_negative_and_never_huge(steps: list[tuple[float, int]]):
    counter, at_seconds, moved_at_seconds, before = EnergyCounter(700), 0.0, 0.0, 0
    for gap_seconds, millijoules in steps:
        at_seconds += gap_seconds
        increase = counter.advance(reading(millijoules / 1000, at_seconds))
        if increase is not None:
            assert 0 <= increase.energy_joules <= 700 * 1.5 * (at_seconds - moved_at_seconds + 1)
        moved_at_seconds = at_seconds if increase is None or millijoules != before else moved_at_seconds
        before = millijoules


def test_power_is_integrated_by_trapezoids():
    integral = PowerIntegral()
    for at_seconds in range(11):
        integral.advance(at_seconds, 100.0 + 10 * at_seconds)
    assert integral.total_joules == pytest.approx(1500)


def test_power_is_not_made_up_for_a_silence():
    integral = PowerIntegral()
    for at_seconds in (0.0, 1.0, 3601.0, 3602.0):
        integral.advance(at_seconds, 100.0)
    assert integral.total_joules == pytest.approx(200)


def series(value: float, name: str = "a", role: Role = Role.GENERATION) -> RoleReading:
    return RoleReading(role, "m", name, value, Moves.STEP)


def increases(
    counters: SeriesCounters, *values: RoleReading, start: float | None = None, at: float = 0.0
) -> list[float]:
    return [increase for _, increase in counters.advance(values, start, at)]


def test_the_first_page_is_the_baseline_and_late_series_count_from_zero():
    counters = SeriesCounters()
    assert increases(counters, series(1000)) == [0]
    assert increases(counters, series(1010), series(7, "late")) == [10, 7]


def test_a_fall_is_a_restart_of_that_series_alone():
    counters = SeriesCounters()
    increases(counters, series(1000), series(500, "b"))
    assert increases(counters, series(3), series(510, "b")) == [3, 10]


def test_a_new_start_time_is_a_restart_even_if_values_rise():
    counters = SeriesCounters()
    increases(counters, series(1000), start=100.0)
    assert increases(counters, series(1500), start=200.0) == [1500]


def test_a_series_that_pauses_goes_on_where_it_was():
    counters = SeriesCounters()
    increases(counters, series(1000), series(500, "b"))
    assert increases(counters, series(1001)) == [1]
    assert increases(counters, series(1002), series(505, "b")) == [1, 5]


def test_a_series_that_was_long_absent_is_a_first_look_again():
    """Its 1100 are not new tokens, and neither are the 100 that nobody saw it count."""
    counters = SeriesCounters(forget_seconds=120.0)
    increases(counters, series(1000), series(1000, "b"), at=0.0)
    for at in range(1, 140):
        increases(counters, series(1000 + at), at=float(at))
    assert increases(counters, series(1140), series(1100, "b"), series(7, "new"), at=140.0) == [1, 0, 7]
    assert increases(counters, series(1140), series(1103, "b"), series(9, "new"), at=141.0) == [0, 3, 2]


def test_a_silence_of_the_server_is_no_absence_of_its_series():
    counters = SeriesCounters(forget_seconds=120.0)
    increases(counters, series(1000), series(1000, "b"), at=0.0)
    assert increases(counters, series(1010), at=7200.0) == [10]
    assert increases(counters, series(1010), series(1010, "b"), at=7201.0) == [0, 10]


def test_a_live_count_that_wobbles_stays_where_it_was_and_is_there():
    counters = SeriesCounters(forget_seconds=120.0)
    increases(counters, series(1e6, role=Role.LIVE_GENERATION), at=0.0)
    for at in range(1, 300):
        assert increases(counters, series(999_999, role=Role.LIVE_GENERATION), at=float(at)) == [0]
    assert increases(counters, series(1_000_005, role=Role.LIVE_GENERATION), at=300.0) == [5]


def test_a_restart_that_is_told_begins_anew_for_what_was_dropped_too():
    counters = SeriesCounters(forget_seconds=10.0)
    increases(counters, series(1000), series(1000, "b"), start=1.0, at=0.0)
    for at in range(1, 30):
        increases(counters, series(1000), start=1.0, at=float(at))
    assert increases(counters, series(50), series(40, "b"), start=2.0, at=30.0) == [50, 40]


def test_t21_a_live_count_that_wobbles_by_rounding_is_no_restart():
    counters = SeriesCounters()
    for value in (1.15571e06, 1.15570e06):
        got = increases(counters, series(value, role=Role.LIVE_GENERATION))
        assert got == [0]
    assert increases(counters, series(1.15580e06, role=Role.LIVE_GENERATION)) == [pytest.approx(90)]
    assert increases(counters, series(12, role=Role.LIVE_GENERATION)) == [12]


def test_a_hardware_total_starts_at_zero_and_survives_a_restart():
    total = RunningTotal()
    assert [total.advance(value) for value in (50, 60, 5, 6)] == [0, 10, 15, 16]
