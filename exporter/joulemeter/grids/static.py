"""Shipped annual factors: what a country's grid emitted per kWh over a year. Always answers, no network.

The table, its source and its licence: README.md beside this file.
"""

import csv
import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from joulemeter.model import GridSample

WORLD: Final = "WORLD"
USUAL_MISTAKES: Final = {"UK": "GB", "EL": "GR"}
"""Codes that people and the EU write, and that ISO 3166 gives another letter pair."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One row of the table. `zone` is an ISO 3166 country code, EU or WORLD."""

    zone: str
    iso3: str
    name: str
    intensity_grams_per_kwh: float
    year: int
    source: str
    boundary: str
    factor: str


@cache
def table() -> dict[str, Factor]:
    """Return the shipped factors by zone; the file is part of the package and read once."""
    text = resources.files(__package__).joinpath("static_factors.csv").read_text(encoding="utf-8")
    return {
        row["zone"]: Factor(
            zone=row["zone"],
            iso3=row["iso3"],
            name=row["name"],
            intensity_grams_per_kwh=float(row["gco2e_per_kwh"]),
            year=int(row["year"]),
            source=row["source"],
            boundary=row["boundary"],
            factor=row["emission_factor_type"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def find(zone: str) -> Factor:
    """Return the factor of the zone, else of its country (`US-CAL-CISO`: US), else of the world."""
    wanted = zone.strip().upper()
    factors = table()
    return factors.get(wanted) or factors.get(wanted.partition("-")[0]) or factors[WORLD]


def sample(zone: str) -> GridSample:
    """Return the annual factor that prices this zone's energy.

    The sample keeps the zone that was asked for; `dataset` says which row answered it, so that a fallback to
    the country or to the world shows on the page instead of passing for the zone's own number.
    """
    found = find(zone)
    return GridSample(
        zone=zone,
        intensity_grams_per_kwh=found.intensity_grams_per_kwh,
        source="static",
        quality="static",
        factor=found.factor,
        boundary=found.boundary,
        granularity="annual",
        dataset=f"{found.source} {found.year} {found.zone}",
    )


def suggest(zone: str) -> str | None:
    """Return the zone that was probably meant, or None if the table knows this one or nothing is close.

    Codes of two letters are all close to each other, so only three-letter codes and names are compared.
    """
    wanted = zone.strip()
    if find(wanted).zone != WORLD or wanted.upper() == WORLD:
        return None
    if usual := USUAL_MISTAKES.get(wanted.upper()):
        return usual
    by_name = {factor.name.lower(): code for code, factor in table().items()}
    by_iso3 = {factor.iso3.lower(): code for code, factor in table().items() if factor.iso3}
    if code := by_iso3.get(wanted.lower()):
        return code
    close = difflib.get_close_matches(wanted.lower(), by_name, n=1, cutoff=0.7)
    return by_name[close[0]] if close else None
