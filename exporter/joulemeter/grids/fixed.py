"""The operator's own number: a contract, an own plant, or a reporting rule knows better than any table."""

import math
from typing import Final

from joulemeter.model import GridSample

MAX_PLAUSIBLE_GRAMS_PER_KWH: Final = 2000.0
"""No grid is dirtier: burning lignite in an old plant emits about 1200 g/kWh."""


def sample(zone: str, intensity_grams_per_kwh: float) -> GridSample:
    """Return the operator's intensity as a sample.

    Its quality is `static`: a number that does not follow the grid, whoever chose it. Whether it is a
    lifecycle or a direct factor, and of production or consumption, only the operator knows.

    Raises:
        ValueError: not a number from 0 to `MAX_PLAUSIBLE_GRAMS_PER_KWH`, usually kg or t in place of grams.
    """
    if not (
        math.isfinite(intensity_grams_per_kwh) and 0 <= intensity_grams_per_kwh <= MAX_PLAUSIBLE_GRAMS_PER_KWH
    ):
        raise ValueError(
            "intensity_grams_per_kwh: expected grams of CO2e per kWh"
            f" from 0 to {MAX_PLAUSIBLE_GRAMS_PER_KWH:g}, got {intensity_grams_per_kwh!r}"
        )
    return GridSample(
        zone=zone,
        intensity_grams_per_kwh=intensity_grams_per_kwh,
        source="fixed",
        quality="static",
        factor="unspecified",
        boundary="unspecified",
        granularity="constant",
        dataset="operator",
    )
