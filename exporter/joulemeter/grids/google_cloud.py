"""Google's own annual factors for its cloud regions: direct emissions only. Always answers, no network.

Not part of `static`: direct factors leave out what fuel and plants cost elsewhere, and are lower than lifecycle ones.
The table, its source and its licence: README.md beside this file.
"""

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources

from joulemeter.grids import Place
from joulemeter.model import GridInterval, GridOrigin, GridQuality
from joulemeter.settings import Section

PROVIDER = "gcp"


@dataclass(frozen=True, slots=True)
class RegionFactor:
    """One row of the table."""

    region: str
    intensity_grams_per_kwh: float
    year: int


@cache
def table() -> dict[str, RegionFactor]:
    """Return the shipped factors by region; the file is part of the package and read once."""
    text = resources.files(__package__).joinpath("google_cloud_factors.csv").read_text(encoding="utf-8")
    return {
        row["zone"]: RegionFactor(row["zone"], float(row["gco2e_per_kwh"]), int(row["year"]))
        for row in csv.DictReader(text.splitlines())
    }


@dataclass(frozen=True, slots=True)
class GoogleCloud:
    """Always answers, with the annual factor of one region."""

    factor: RegionFactor
    name: str = "google_cloud"

    def at(self, at_timestamp_seconds: float) -> GridInterval:  # noqa: ARG002 - always the same
        """Return the factor. It begins with the year that it is the average of, and nothing ends it."""
        dataset = f"region-carbon-info {self.factor.year} {self.factor.region}"
        return GridInterval(
            datetime(self.factor.year, 1, 1, tzinfo=UTC).timestamp(),
            math.inf,
            self.factor.intensity_grams_per_kwh,
            GridQuality.STATIC,
            GridOrigin(self.name, "direct", "unspecified", "annual", dataset),
        )


class Plugin:
    """Has no settings; needs the place to be a region of Google Cloud."""

    def configured(self, section: Section, place: Place) -> GoogleCloud:
        """Return the factor of the place's region."""
        provider, region = place.cloud_region or ("", "")
        factor = table().get(region) if provider == PROVIDER else None
        if factor is None:
            section.problem("cloud_region", _problem(place.cloud_region))
            factor = RegionFactor(region, 0.0, 1970)  # never used: a configuration with problems is refused
        return GoogleCloud(factor)


PLUGIN = Plugin()


def _problem(cloud_region: tuple[str, str] | None) -> str:
    """Why a place has no factor here, and the way out."""
    out = "take 'google_cloud' out of `sources`"
    if cloud_region is None or cloud_region[0] != PROVIDER:
        got = "none" if cloud_region is None else "/".join(cloud_region)
        return f"source 'google_cloud' needs `cloud_region: gcp/<region>` under `grid`, got {got}; set it, or {out}"
    return (
        f"source 'google_cloud' has no factor for {'/'.join(cloud_region)}; {out}: 'static' has the country's"
    )
