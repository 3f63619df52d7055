"""Joules to grams of CO2e, at the intensity that held when they were used. Pure."""

import math
from typing import Final

JOULES_PER_KWH: Final = 3_600_000


def grams(energy_joules: float, intensity_grams_per_kwh: float, pue: float) -> float:
    """Return the grams of CO2e that this energy caused: location-based and operational.

    Args:
        energy_joules: energy of the GPUs, finite and >= 0.
        intensity_grams_per_kwh: of the grid while the energy was used, finite and >= 0.
        pue: power usage effectiveness, finite and >= 1: what the building draws per unit of IT energy.
            It scales grams, never joules.

    Conserves:
        It is linear in energy: the grams of the parts add up to the grams of the whole.

    Raises:
        ValueError: an argument is out of range; one NaN would stay in a total forever.

    Source: Green Software Foundation, SCI specification 1.1, O = E * I.
    """
    if not (math.isfinite(energy_joules) and energy_joules >= 0):
        raise ValueError(f"energy_joules={energy_joules} is not a finite number >= 0")
    if not (math.isfinite(intensity_grams_per_kwh) and intensity_grams_per_kwh >= 0):
        raise ValueError(f"intensity_grams_per_kwh={intensity_grams_per_kwh} is not a finite number >= 0")
    if not (math.isfinite(pue) and pue >= 1):
        raise ValueError(f"pue={pue} is not a finite number >= 1")
    return energy_joules / JOULES_PER_KWH * intensity_grams_per_kwh * pue
