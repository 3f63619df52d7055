"""Shipped annual factors: what a country's grid emitted per kWh over a year. Always answers, no network.

The table, its source and its licence: README.md beside this file.
"""

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

from joulemeter.grids import Place
from joulemeter.model import GridInterval, GridOrigin, GridQuality
from joulemeter.settings import Section

WORLD: Final = "WORLD"


@dataclass(frozen=True, slots=True)
class Factor:
    """One row of the table. `zone` is an ISO 3166 country code, EU or WORLD."""

    zone: str
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


@dataclass(frozen=True, slots=True)
class Static:
    """Always answers, with the annual factor of a zone, else of its country, else of the world.

    `dataset` says which row it is, so that a fallback shows on the page instead of passing for the zone's own number.
    """

    zone: str
    name: str = "static"

    def at(self, at_timestamp_seconds: float) -> GridInterval:  # noqa: ARG002 - always the same
        """Return the factor. It begins with the year that it is the average of, and nothing ends it."""
        return _interval(self.zone)


@cache
def _interval(zone: str) -> GridInterval:
    found = find(zone)
    return GridInterval(
        datetime(found.year, 1, 1, tzinfo=UTC).timestamp(),
        math.inf,
        found.intensity_grams_per_kwh,
        GridQuality.STATIC,
        GridOrigin(
            "static", found.factor, found.boundary, "annual", f"{found.source} {found.year} {found.zone}"
        ),
    )


class Plugin:
    """Has no settings."""

    def configured(self, section: Section, place: Place) -> Static:  # noqa: ARG002 - no settings
        """Return the factor of the place's zone."""
        return Static(place.zone)


PLUGIN = Plugin()
