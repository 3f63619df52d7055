"""Grams and money: constants are exact, parts add up to the whole, a negative price is a credit."""

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.accounting import JOULES_PER_KWH, Pricer, Tariff, unpriced
from joulemeter.model import Amount
from joulemeter.schedule import Schedule, Span

joules = st.integers(0, 10**15).map(lambda mj: mj / 1000)  # NVML counts whole millijoules
intensities = st.floats(0, 2000, allow_subnormal=False)
pues = st.floats(1, 3)
ALWAYS = (frozenset(range(7)), frozenset(range(1, 13)))


def flat(grams_per_kwh: float, pue: float = 1.0, tariff: Tariff | None = None) -> Pricer:
    return Pricer(lambda _at: (grams_per_kwh, math.inf), pue=pue, tariff=tariff)


def steps(*values: tuple[float, float]) -> Pricer:
    """An intensity that changes at given instants: (from, g/kWh)."""

    def intensity(at_seconds: float) -> tuple[float, float]:
        held = [value for begin, value in values if begin <= at_seconds][-1]
        return held, min((begin for begin, _ in values if begin > at_seconds), default=math.inf)

    return Pricer(intensity, pue=1.0)


@pytest.mark.parametrize(
    ("energy_joules", "intensity", "pue", "expected"),
    [
        (3_600_000, 56.0, 1.0, 56.0),  # one kWh in France
        (3_600_000, 56.0, 1.2, 67.2),
        (700 * 3600, 472.94, 1.0, 331.058),  # an H100 at its limit for an hour, on the world's mix
        (0, 472.94, 1.2, 0.0),
        (3_600_000, 0.0, 1.2, 0.0),
    ],
)
def test_known_grams(energy_joules: float, intensity: float, pue: float, expected: float):
    got = flat(intensity, pue)(energy_joules, 0.0, 3600.0)
    assert got == Amount(energy_joules, pytest.approx(expected, rel=1e-12))


def test_a_kilowatt_hour_is_exact():
    assert JOULES_PER_KWH == 1000 * 60 * 60
    assert flat(123.0)(JOULES_PER_KWH, 0.0, 1.0).co2e_grams == 123.0


def test_cost_has_the_buildings_share_and_compute_has_not():
    tariff = Tariff("EUR", Schedule(0.25), gpu_hour=2.0)
    got = flat(100.0, 1.2, tariff)(3_600_000.0, 0.0, 1800.0)
    assert got == Amount(3_600_000.0, pytest.approx(120.0), pytest.approx(0.3), 1.0, 0.0)


def test_a_negative_price_is_a_credit_and_never_a_cost():
    got = flat(0.0, 1.5, Tariff("EUR", Schedule(-0.1)))(7_200_000.0, 0.0, 10.0)
    assert (got.electricity_cost, got.energy_credit) == (0.0, pytest.approx(0.3))


def test_energy_over_a_border_is_priced_on_both_sides_of_it():
    got = steps((0.0, 100.0), (10.0, 300.0))(3_600_000.0, 9.0, 13.0)
    assert got.co2e_grams == pytest.approx(0.25 * 100 + 0.75 * 300, rel=1e-12)
    assert got.energy_joules == 3_600_000.0


def test_energy_of_no_time_at_all_has_the_price_of_its_instant():
    assert steps((0.0, 100.0), (10.0, 300.0))(3_600_000.0, 10.0, 10.0).co2e_grams == 300.0


def test_a_tariff_follows_the_wall_clock_over_a_change_of_price():
    """Cheap from 22:00 in Berlin: of two hours around it, one has each price."""
    berlin = ZoneInfo("Europe/Berlin")
    tariff = Tariff("EUR", Schedule(0.3, (Span(22 * 60, 6 * 60, *ALWAYS, 0.1),), berlin))
    begin = datetime(2026, 11, 20, 21, tzinfo=berlin).timestamp()
    offset = begin - 5000.0
    price = Pricer(lambda _at: (0.0, math.inf), pue=1.0, tariff=tariff, unix_offset_seconds=lambda: offset)
    got = price(7_200_000.0, 5000.0, 5000.0 + 7200)
    assert got.electricity_cost == pytest.approx(0.4, rel=1e-9)
    assert price.price_per_kwh(begin) == 0.3
    assert price.price_per_kwh(begin + 3600) == 0.1


def test_a_step_that_ends_where_it_was_asked_does_not_hang():
    """Two clocks' rounding can put an interval's end a hair before the instant that was asked for."""
    price = Pricer(lambda at: (100.0, at), pue=1.0)
    assert price(3_600_000.0, 0.0, math.nextafter(0.0, 1)).co2e_grams == pytest.approx(100.0)


@given(st.lists(joules, min_size=1, max_size=20), intensities, pues)
def test_grams_of_the_parts_add_up_to_the_grams_of_the_whole(parts, intensity, pue):
    price = flat(intensity, pue)
    whole = price(math.fsum(parts), 0.0, 1.0).co2e_grams
    got = math.fsum(price(part, 0.0, 1.0).co2e_grams for part in parts)
    assert got == pytest.approx(whole, rel=1e-9, abs=1e-12)


@given(
    joules,
    st.lists(st.tuples(st.floats(1, 100), intensities), max_size=5),
    st.floats(0, 50),
    st.floats(1, 60),
    st.floats(0.01, 0.99),
)
def test_an_interval_cut_in_two_costs_what_it_cost(energy, changes, begin, seconds, cut):
    price = steps((-1.0, 50.0), *changes)
    at = begin + seconds * cut
    whole = price(energy, begin, begin + seconds).co2e_grams
    share = (at - begin) / seconds
    parts = price(energy * share, begin, at) + price(energy * (1 - share), at, begin + seconds)
    assert parts.co2e_grams == pytest.approx(whole, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -0.001])
def test_energy_that_is_none_is_refused(bad: float):
    with pytest.raises(ValueError, match=f"energy_joules={bad}"):
        flat(100.0)(bad, 0.0, 1.0)


def test_time_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="ends before it begins"):
        flat(100.0)(1.0, 2.0, 1.0)


@pytest.mark.parametrize("bad", [0.99, 0.0, -1.0, math.nan, math.inf])
def test_a_pue_below_one_is_refused(bad: float):
    with pytest.raises(ValueError, match=f"pue={bad}"):
        flat(100.0, bad)


def test_books_without_a_price_keep_joules_alone():
    assert unpriced(5.0, 1.0, 2.0) == Amount(5.0)


def test_amounts_are_added_and_taken_away_part_by_part():
    one, other = Amount(1.0, 2.0, 3.0, 4.0, 5.0), Amount(10.0, 20.0, 30.0, 40.0, 50.0)
    assert one + other == Amount(11.0, 22.0, 33.0, 44.0, 55.0)
    assert other - one == Amount(9.0, 18.0, 27.0, 36.0, 45.0)
    assert one.scaled(0.5) == Amount(0.5, 1.0, 1.5, 2.0, 2.5)
