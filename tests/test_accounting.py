"""Grams: the constant is exact, the parts add up to the whole, nonsense is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.accounting import JOULES_PER_KWH, grams

joules = st.integers(0, 10**15).map(lambda mj: mj / 1000)  # NVML counts whole millijoules
intensities = st.floats(0, 2000, allow_subnormal=False)
pues = st.floats(1, 3)


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
def test_known_values(energy_joules: float, intensity: float, pue: float, expected: float):
    assert grams(energy_joules, intensity, pue) == pytest.approx(expected, rel=1e-12)


def test_a_kilowatt_hour_is_exact():
    assert JOULES_PER_KWH == 1000 * 60 * 60
    assert grams(JOULES_PER_KWH, 123.0, 1.0) == 123.0


@given(st.lists(joules, max_size=20), intensities, pues)
def test_grams_of_the_parts_add_up_to_the_grams_of_the_whole(parts, intensity, pue):
    whole = grams(math.fsum(parts), intensity, pue)
    assert math.fsum(grams(part, intensity, pue) for part in parts) == pytest.approx(
        whole, rel=1e-9, abs=1e-12
    )


@given(joules, intensities, pues)
def test_never_negative_and_never_less_with_more_overhead(energy_joules, intensity, pue):
    assert 0 <= grams(energy_joules, intensity, 1.0) <= grams(energy_joules, intensity, pue) * (1 + 1e-12)


@given(joules, intensities, pues)
def test_grams_lead_back_to_joules(energy_joules, intensity, pue):
    priced = grams(energy_joules, intensity + 1, pue)
    assert priced / (intensity + 1) / pue * JOULES_PER_KWH == pytest.approx(energy_joules, rel=1e-9)


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf, -math.inf])
def test_nonsense_is_refused(bad: float):
    with pytest.raises(ValueError, match="energy_joules="):
        grams(bad, 1, 1)
    with pytest.raises(ValueError, match="intensity_grams_per_kwh="):
        grams(1, bad, 1)
    with pytest.raises(ValueError, match="pue="):
        grams(1, 1, bad)


def test_a_building_cannot_use_less_than_what_is_in_it():
    with pytest.raises(ValueError, match=r"pue=0\.9"):
        grams(1, 1, 0.9)
