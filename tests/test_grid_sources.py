"""Live grid sources: what they ask, and what every answer in tests/fixtures/grids means to them."""

import csv
import json
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from joulemeter import grids, zones
from joulemeter.errors import GridError
from joulemeter.grids import ConstantSource, HttpAnswer, LiveSource, Place
from joulemeter.model import GridAnswer, GridOrigin, GridQuality
from joulemeter.settings import Section

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests/fixtures/grids"
PAGE = (ROOT / "docs/grid-data.md").read_text(encoding="utf-8")
CASES = sorted(FIXTURES.glob("*/*.json"))
SECRET = "s3cret"
CONSTANT = {"fixed", "google_cloud", "static"}
LIVE = sorted(set(grids.names()) - CONSTANT)


def place(grid: dict[str, Any]) -> Place:
    region = grid.get("cloud_region")
    coordinates = grid.get("coordinates", {})
    return Place(
        grid["zone"],
        tuple(region.split("/")) if region else None,
        coordinates.get("latitude"),
        coordinates.get("longitude"),
        ZoneInfo("Europe/Berlin"),
    )


def configured(name: str, grid: dict[str, Any]) -> LiveSource:
    problems: list[str] = []
    section = Section(grid.get(name), f"grid.{name}", problems)
    source = grids.by_name(name).configured(section, place(grid))
    section.finish()
    assert problems == []
    assert isinstance(source, LiveSource)
    assert source.name == name
    return source


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def held(source: LiveSource, case: dict[str, Any]) -> GridAnswer:
    """Hold the dialogue of a case, checking every question."""
    exchanges = iter(case["exchanges"])
    dialogue = source.ask(SECRET if source.secret else "", unix(case["now"]))
    request = next(dialogue)
    while True:
        exchange = next(exchanges)
        wanted = exchange["asks"]
        headers = {name: text.replace("<secret>", SECRET) for name, text in wanted.get("headers", {}).items()}
        assert (request.url, dict(request.query), dict(request.headers)) == (
            wanted["url"],
            wanted.get("query", {}),
            headers,
        )
        assert SECRET not in repr(request)
        body = exchange.get("body", "")
        text = body if isinstance(body, str) else json.dumps(body)
        answer = HttpAnswer(exchange["status"], text.encode(), exchange.get("headers", {}))
        try:
            request = dialogue.send(answer)
        except StopIteration as done:
            assert next(exchanges, None) is None, "it did not ask all that the case answers"
            return done.value


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_answer_means_what_the_case_says(path: Path):
    case = json.loads(path.read_text())
    assert case["origin"]
    source = configured(path.parent.name, case["grid"])
    if wanted := case.get("refuses"):
        with pytest.raises(GridError, match=f"^grid.{source.name}: ") as caught:
            held(source, case)
        assert (caught.value.outcome, caught.value.permanent, caught.value.retry_after_seconds) == (
            wanted["outcome"],
            wanted.get("permanent", False),
            wanted.get("retry_after_seconds"),
        )
        assert wanted["says"] in str(caught.value)
        assert SECRET not in str(caught.value)
        return
    got = held(source, case)
    assert [
        {
            "begin": one.begin_timestamp_seconds,
            "seconds": one.duration_seconds,
            "grams_per_kwh": one.intensity_grams_per_kwh,
            "quality": one.quality,
        }
        for one in got.intervals
    ] == [
        one | {"begin": unix(one["begin"]), "grams_per_kwh": pytest.approx(one["grams_per_kwh"], rel=1e-12)}
        for one in case["answers"]["intervals"]
    ]
    ends = [one.begin_timestamp_seconds + one.duration_seconds for one in got.intervals]
    begins = [one.begin_timestamp_seconds for one in got.intervals]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False)), "intervals overlap"
    assert got.renewable_ratio == pytest.approx(case["answers"].get("renewable_ratio"))
    assert got.carbon_free_ratio == pytest.approx(case["answers"].get("carbon_free_ratio"))
    for interval in got.intervals:
        origin = interval.origin
        labels = [origin.source, origin.factor, origin.boundary, origin.granularity, origin.dataset]
        assert labels == case["origin_labels"]


@pytest.mark.parametrize("name", LIVE)
def test_every_live_source_has_cases_of_use_and_of_refusal(name: str):
    cases = {path.stem: json.loads(path.read_text()) for path in CASES if path.parent.name == name}
    assert any("answers" in case for case in cases.values()), f"no answer of use in {FIXTURES / name}"
    assert any("refuses" in case for case in cases.values())


@pytest.mark.parametrize("name", sorted(CONSTANT))
def test_the_others_always_answer(name: str):
    problems: list[str] = []
    source = grids.by_name(name).configured(
        Section({"intensity_grams_per_kwh": 56.0} if name == "fixed" else None, f"grid.{name}", problems),
        Place("FR", ("gcp", "europe-west9")),
    )
    assert not problems
    assert not isinstance(source, LiveSource)
    assert source.at(1.8e9).intensity_grams_per_kwh > 0


# ------------------------------------------------------------------------------------------------ shipped tables


def rows(name: str) -> list[dict[str, str]]:
    text = resources.files("joulemeter.grids").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


STATIC_ROWS, GOOGLE_ROWS = rows("static_factors.csv"), rows("google_cloud_factors.csv")


def constant(name: str, where: Place) -> tuple[ConstantSource, list[str]]:
    problems: list[str] = []
    source = grids.by_name(name).configured(Section(None, f"grid.{name}", problems), where)
    assert isinstance(source, ConstantSource)
    return source, problems


@pytest.mark.parametrize("row", STATIC_ROWS, ids=lambda row: row["zone"])
def test_static_says_what_its_row_says(row: dict[str, str]):
    source, problems = constant("static", Place(row["zone"]))
    got = source.at(1.8e9)
    assert not problems
    assert got.intensity_grams_per_kwh == float(row["gco2e_per_kwh"])
    assert got.begin_timestamp_seconds == unix(f"{row['year']}-01-01T00:00:00Z")
    assert got.quality is GridQuality.STATIC
    assert got.origin == GridOrigin(
        "static", "lifecycle", "production", "annual", f"ember {row['year']} {row['zone']}"
    )


@pytest.mark.parametrize("row", GOOGLE_ROWS, ids=lambda row: row["zone"])
def test_google_cloud_says_what_its_row_says(row: dict[str, str]):
    source, problems = constant("google_cloud", Place("US", ("gcp", row["zone"])))
    got = source.at(1.8e9)
    assert not problems
    assert got.intensity_grams_per_kwh == float(row["gco2e_per_kwh"])
    assert got.begin_timestamp_seconds == unix(f"{row['year']}-01-01T00:00:00Z")
    assert got.quality is GridQuality.STATIC
    assert got.origin == GridOrigin(
        "google_cloud", "direct", "unspecified", "annual", f"region-carbon-info {row['year']} {row['zone']}"
    )


@pytest.mark.parametrize(
    ("cloud_region", "says"),
    [
        (
            None,
            "needs `cloud_region: gcp/<region>` under `grid`, got none; set it, or take 'google_cloud' out",
        ),
        (
            ("aws", "eu-west-3"),
            "needs `cloud_region: gcp/<region>` under `grid`, got aws/eu-west-3; set it, or",
        ),
        (
            ("gcp", "moon-west1"),
            "has no factor for gcp/moon-west1; take 'google_cloud' out of `sources`: 'static'",
        ),
    ],
)
def test_google_cloud_elsewhere_is_a_problem_with_a_way_out(cloud_region: tuple[str, str] | None, says: str):
    _, (problem,) = constant("google_cloud", Place("FR", cloud_region))
    assert problem.startswith(f"grid.google_cloud.cloud_region: source 'google_cloud' {says}")


@pytest.mark.parametrize("table", [STATIC_ROWS, GOOGLE_ROWS], ids=["static", "google_cloud"])
def test_every_shipped_row_says_where_it_is_from_and_may_be_shipped(table: list[dict[str, str]]):
    assert len({row["zone"] for row in table}) == len(table), "a zone appears twice"
    for row in table:
        assert all(row.values()), row
        assert row["licence"] in {"CC-BY-4.0", "Apache-2.0"}


def test_every_zone_of_the_table_can_be_configured():
    assert [row["zone"] for row in STATIC_ROWS] == [zones.zone(row["zone"]) for row in STATIC_ROWS]


def test_every_region_of_google_that_can_be_configured_has_a_factor():
    named = {row["zone"] for row in GOOGLE_ROWS}
    assert named - zones.regions("gcp") == {"europe-west5"}, "not public, and no place is given for it"
    assert zones.regions("gcp") <= named


@pytest.mark.parametrize("name", grids.names())
def test_the_page_on_grid_data_speaks_of_every_source(name: str):
    assert f"`{name}`" in PAGE


def test_the_page_on_grid_data_speaks_of_every_table_that_is_shipped():
    package = Path(grids.__file__).parents[1]
    shipped = {path.name for folder in ("grids", "zones") for path in (package / folder).glob("*.csv")}
    assert shipped == {"cloud_regions.csv", "countries.csv", "google_cloud_factors.csv", "static_factors.csv"}
    for name in shipped:
        assert name in PAGE


@pytest.mark.parametrize(
    "text", ["README.md", "exporter/joulemeter/grids/README.md", "NOTICE", "docs/grid-data.md"]
)
def test_who_is_to_be_named_is_named(text: str):
    words = (ROOT / text).read_text(encoding="utf-8")
    for name in ("Ember", "Our World in Data", "CC BY 4.0", "Google"):
        assert name in words
