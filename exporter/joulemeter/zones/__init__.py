"""What a configured zone or cloud region can be, with a suggestion for what it cannot. Pure; reads tables of packages.

Countries are ISO 3166's, from `iso3166.tab` of the package tzdata; `countries.csv` beside this file adds three-letter
codes and other names, to suggest from. `cloud_regions.csv` says in which country a provider's region is.
"""

import csv
import difflib
import re
from functools import cache
from importlib import resources
from typing import Final

from joulemeter.settings import shown, suggestion

BEYOND_COUNTRIES: Final = {"EU": "European Union", "WORLD": "World", "XK": "Kosovo"}
"""Zones that ISO 3166 does not list; XK is the code that the EU and grid sources use."""
UNDIVIDED: Final = frozenset({"EU", "WORLD"})
"""Zones without sub-zones."""
USUAL_MISTAKES: Final = {"UK": "GB", "EL": "GR"}
"""Codes that people and the EU write, and that ISO 3166 gives another letter pair."""
ZONE: Final = re.compile(r"[A-Z]{2,}(-[A-Z0-9]+)*")
EXPECTED: Final = (
    "expected a country's two-letter ISO 3166 code such as FR, a zone of it such as US-CAL-CISO, EU or WORLD"
)
PROVIDER_NAMES: Final = {
    "amazon": "aws",
    "google": "gcp",
    "google_cloud": "gcp",
    "gcloud": "gcp",
    "microsoft": "azure",
}
CLOSE_ENOUGH: Final = 0.75
SHORTEST_NAME: Final = 4
"""All codes are close to each other, so nothing is close to what is as short as one."""


def zone(value: object) -> str:
    """Return a zone in capitals: a country's code, a zone of a known country, EU or WORLD.

    Raises:
        ValueError: it is none of these; the message says which may have been meant.
    """
    if isinstance(value, bool):
        hint = "YAML reads an unquoted NO as false: put it in quotes, 'NO'"
        raise ValueError(f"expected a zone, got {value}; {hint}")  # noqa: TRY004 - as `Section.converted` takes it
    if not isinstance(value, str):
        raise ValueError(f"{EXPECTED}; got {shown(value)}")  # noqa: TRY004
    wanted = value.strip().upper()
    if regions := _regions_called(wanted.lower()):
        raise ValueError(
            f"{shown(value)} is a cloud region; write `cloud_region: {regions[0]}` instead of a zone"
        )
    country, _, part = wanted.partition("-")
    if ZONE.fullmatch(wanted) and country in countries() and not (part and country in UNDIVIDED):
        return wanted
    meant = _meant(wanted)
    raise ValueError(f"unknown zone {shown(value)}; {f'did you mean {meant!r}?' if meant else EXPECTED}")


def cloud_region(value: object) -> tuple[str, str]:
    """Return the provider and the region of PROVIDER/REGION, in lower case.

    Raises:
        ValueError: the table has no such region; the message says which may have been meant.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected PROVIDER/REGION such as aws/eu-west-3, got {shown(value)}")  # noqa: TRY004
    provider, slash, region = (part.strip() for part in value.lower().partition("/"))
    if not slash:
        places = _regions_called(value.strip().lower())
        hint = f"did you mean {places[0]!r}?" if places else f"providers: {', '.join(_providers())}"
        raise ValueError(f"expected PROVIDER/REGION such as aws/eu-west-3, got {shown(value)}; {hint}")
    known = _providers().get(provider)
    if known is None:
        meant = PROVIDER_NAMES.get(provider)
        hint = f"did you mean '{meant}/{region}'?" if meant else suggestion(provider, _providers())
        raise ValueError(f"unknown cloud provider {shown(provider)}; {hint}")
    if region not in known:
        close = difflib.get_close_matches(region, known, n=1, cutoff=CLOSE_ENOUGH)
        hint = f" (did you mean '{provider}/{close[0]}'?)" if close else ""
        raise ValueError(
            f"unknown region {shown(region)} of {provider}{hint};"
            " for one that is newer than this release, set `zone` to its country instead"
        )
    return provider, region


def country_of(region: tuple[str, str]) -> str:
    """Return the country's code of a cloud region that `cloud_region` returned."""
    return _cloud_regions()[region]


def regions(provider: str) -> frozenset[str]:
    """Return the names of a provider's regions."""
    return frozenset(_providers()[provider])


@cache
def countries() -> dict[str, str]:
    """Return the name of every country by its code, and of the zones beyond countries."""
    lines = (
        resources.files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text(encoding="utf-8").splitlines()
    )
    named = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return {code: name for code, name, *_ in named} | BEYOND_COUNTRIES


@cache
def code_of_alpha3() -> dict[str, str]:
    """Return the two-letter code by the three-letter code of ISO 3166."""
    return {row["alpha3"]: row["code"] for row in _rows("countries.csv")} | {"XKX": "XK"}


def _meant(wanted: str) -> str | None:
    """What an unusable zone, in capitals, may stand for: another code of a country, or its name misspelt."""
    country, _, part = wanted.replace("_", "-").partition("-")
    code = USUAL_MISTAKES.get(country) or code_of_alpha3().get(country) or country
    if code in countries():
        divided = f"{code}-{part}"
        return divided if ZONE.fullmatch(divided) and code not in UNDIVIDED else code
    names, name = _codes_by_name(), wanted.lower()
    if name not in names and len(name) >= SHORTEST_NAME:
        name = next(iter(difflib.get_close_matches(name, names, n=1, cutoff=CLOSE_ENOUGH)), "")
    return names.get(name)


@cache
def _codes_by_name() -> dict[str, str]:
    """Every name of a country that people write, in lower case."""
    found = {name.lower(): code for code, name in countries().items()}
    for row in _rows("countries.csv"):
        found.update({name.lower(): row["code"] for name in row["other_names"].split("/") if name})
    return found


@cache
def _cloud_regions() -> dict[tuple[str, str], str]:
    return {(row["provider"], row["region"]): row["country"] for row in _rows("cloud_regions.csv")}


@cache
def _providers() -> dict[str, list[str]]:
    """The names of each provider's regions."""
    found: dict[str, list[str]] = {}
    for provider, region in _cloud_regions():
        found.setdefault(provider, []).append(region)
    return found


def _regions_called(name: str) -> list[str]:
    """PROVIDER/REGION of every region of this name."""
    return [f"{provider}/{region}" for provider, region in _cloud_regions() if region == name]


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
