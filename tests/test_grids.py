"""Sources that always answer: the shipped table with its fallbacks, and the operator's own number."""

import csv
import math
from datetime import UTC, datetime
from importlib import resources
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter import catalog, grids
from joulemeter.grid_answers import MAX_PLAUSIBLE_GRAMS_PER_KWH
from joulemeter.grids import ConstantSource, Place, fixed, static
from joulemeter.model import GridInterval, GridQuality
from joulemeter.settings import Section

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
ROWS = list(
    csv.DictReader(
        resources.files("joulemeter.grids").joinpath("static_factors.csv").read_text().splitlines()
    )
)


def of_zone(zone: str) -> GridInterval:
    return static.Static(zone).at(NOON)


def own(**settings: object) -> ConstantSource:
    problems: list[str] = []
    place = Place("FR", time_zone=ZoneInfo("Europe/Paris"))
    source = grids.by_name("fixed").configured(Section(settings, "grid.fixed", problems), place)
    assert problems == []
    assert isinstance(source, ConstantSource)
    return source


def test_every_row_is_read_as_it_stands():
    assert len(ROWS) >= 71
    assert len(static.table()) == len(ROWS), "a zone appears twice"
    for row in ROWS:
        got = of_zone(row["zone"])
        assert got.intensity_grams_per_kwh == float(row["gco2e_per_kwh"])
        assert 0 < got.intensity_grams_per_kwh < MAX_PLAUSIBLE_GRAMS_PER_KWH
        assert got.origin.dataset == f"{row['source']} {row['year']} {row['zone']}"
        assert datetime.fromtimestamp(got.begin_timestamp_seconds, UTC) == datetime(
            int(row["year"]), 1, 1, tzinfo=UTC
        )


@pytest.mark.parametrize(
    ("zone", "answered_by"),
    [
        ("FR", "FR"),
        (" fr ", "FR"),
        ("EU", "EU"),
        ("US-CAL-CISO", "US"),
        ("DK-DK1", "DK"),
        ("XX", "WORLD"),
        ("XX-YY", "WORLD"),
        ("", "WORLD"),
        ("Frankreich", "WORLD"),
    ],
)
def test_fallback_from_zone_to_country_to_world_is_visible(zone: str, answered_by: str):
    got = of_zone(zone)
    assert got.intensity_grams_per_kwh == static.table()[answered_by].intensity_grams_per_kwh
    assert got.origin.dataset.endswith(f" {answered_by}")
    assert (got.origin.source, got.quality, got.origin.granularity) == ("static", "static", "annual")
    assert (got.origin.factor, got.origin.boundary) == ("lifecycle", "production")


@given(st.text())
def test_any_zone_has_an_answer(zone: str):
    assert of_zone(zone).intensity_grams_per_kwh > 0


def test_the_operators_own_number():
    got = own(intensity_grams_per_kwh=56.0).at(NOON)
    assert (got.intensity_grams_per_kwh, got.origin.source, got.quality) == (
        56.0,
        "fixed",
        GridQuality.STATIC,
    )
    assert got.duration_seconds == math.inf
    assert own(intensity_grams_per_kwh=0).at(NOON).intensity_grams_per_kwh == 0, (
        "an own solar plant is no error"
    )


def test_the_operators_own_number_by_time_of_day():
    """An own solar plant: 13:00 in Paris is noon in UTC."""
    sunny = [{"from": "13:00", "to": "15:00", "intensity_grams_per_kwh": 5}]
    source = own(intensity_grams_per_kwh=56.0, time_of_day=sunny)
    got = [source.at(NOON + hours * 3600).intensity_grams_per_kwh for hours in (-0.1, 0, 1.9, 2)]
    assert got == [56.0, 5.0, 5.0, 56.0]
    minute = source.at(NOON + 10)
    assert minute.begin_timestamp_seconds + minute.duration_seconds == NOON + 60


@pytest.mark.parametrize(
    "got", [of_zone("FR"), fixed.Fixed(fixed.Schedule(1.0)).at(NOON)], ids=["static", "fixed"]
)
def test_intervals_fill_the_labels_of_the_page(got: GridInterval):
    assert got.quality in catalog.GRID_QUALITIES
    for label in set(catalog.GRID_INFO.labels) - {"zone"}:
        assert getattr(got.origin, label), f"{label} is empty"
