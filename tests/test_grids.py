"""The shipped table, its fallbacks, and the operator's own number."""

import csv
import math
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter import catalog
from joulemeter.grids import fixed, static

ROWS = list(
    csv.DictReader(
        resources.files("joulemeter.grids").joinpath("static_factors.csv").read_text().splitlines()
    )
)


def test_every_row_is_read_as_it_stands():
    assert len(ROWS) == 71
    assert len(static.table()) == len(ROWS), "a zone appears twice"
    for row in ROWS:
        got = static.sample(row["zone"])
        assert (got.zone, got.intensity_grams_per_kwh) == (row["zone"], float(row["gco2e_per_kwh"]))
        assert 0 < got.intensity_grams_per_kwh < fixed.MAX_PLAUSIBLE_GRAMS_PER_KWH
        assert got.dataset == f"{row['source']} {row['year']} {row['zone']}"


@pytest.mark.parametrize(
    ("zone", "intensity", "answered_by"),
    [
        ("FR", 44.18, "FR"),
        (" fr ", 44.18, "FR"),
        ("EU", 213.02, "EU"),
        ("US-CAL-CISO", 383.55, "US"),
        ("DK-DK1", 143.3, "DK"),
        ("XX", 472.94, "WORLD"),
        ("XX-YY", 472.94, "WORLD"),
        ("", 472.94, "WORLD"),
        ("Frankreich", 472.94, "WORLD"),
    ],
)
def test_fallback_from_zone_to_country_to_world_is_visible(zone: str, intensity: float, answered_by: str):
    got = static.sample(zone)
    assert got.zone == zone
    assert got.intensity_grams_per_kwh == intensity
    assert got.dataset.endswith(f" {answered_by}")
    assert (got.source, got.quality, got.granularity) == ("static", "static", "annual")
    assert (got.factor, got.boundary) == ("lifecycle", "production")


@given(st.text())
def test_any_zone_has_an_answer(zone: str):
    assert static.sample(zone).intensity_grams_per_kwh > 0


@pytest.mark.parametrize(
    ("zone", "meant"),
    [
        ("FRA", "FR"),
        ("germany", "DE"),
        ("Germny", "DE"),
        ("United States of America", "US"),
        ("UK", "GB"),
        ("uk", "GB"),
        ("FR", None),
        ("US-CAL-CISO", None),
        ("world", None),
        ("XX", None),
        ("", None),
        ("qwertz", None),
    ],
)
def test_a_typo_gets_a_suggestion_and_nothing_else_does(zone: str, meant: str | None):
    assert static.suggest(zone) == meant


@given(st.text())
def test_what_is_suggested_is_in_the_table(zone: str):
    assert static.suggest(zone) in {None, *static.table()}


def test_the_operators_own_number():
    got = fixed.sample("FR", 56.0)
    assert (got.zone, got.intensity_grams_per_kwh, got.source, got.quality) == ("FR", 56.0, "fixed", "static")
    assert fixed.sample("FR", 0).intensity_grams_per_kwh == 0, "an own solar plant is not an error"


@pytest.mark.parametrize("bad", [-1, 2000.1, 1e6, math.nan, math.inf])
def test_an_implausible_number_is_refused_with_what_was_expected(bad: float):
    with pytest.raises(ValueError, match=r"intensity_grams_per_kwh: expected grams .* from 0 to 2000, got"):
        fixed.sample("FR", bad)


@pytest.mark.parametrize("got", [static.sample("FR"), fixed.sample("FR", 1.0)], ids=["static", "fixed"])
def test_samples_fill_the_labels_of_the_page(got):
    assert got.quality in catalog.GRID_QUALITIES
    for label in catalog.GRID_INFO.labels:
        assert getattr(got, label), f"{label} is empty"
