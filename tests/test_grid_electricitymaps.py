"""Electricity Maps' settings, and what is no answer: nesting without end, and a request that failed."""

from pathlib import Path

import pytest

from joulemeter.errors import GridError
from joulemeter.grids import HttpAnswer, Place, electricitymaps
from joulemeter.grids.electricitymaps import ElectricityMaps
from joulemeter.model import Signal
from joulemeter.settings import Secret, Section

TOKEN = {"token_file": "/run/secrets/electricitymaps"}
LATEST = b'{"zone": "DE", "carbonIntensity": 312, "datetime": "2026-11-20T10:00:00Z", "isEstimated": true}'
NOW = 1795169220.0

GOOD = [
    (TOKEN, ElectricityMaps(Place("DE"), Secret(file=Path("/run/secrets/electricitymaps")))),
    ({"token_env": "EM_TOKEN"}, ElectricityMaps(Place("DE"), Secret(variable="EM_TOKEN"))),
    (
        TOKEN
        | {
            "emission_factor_type": "direct",
            "estimations": False,
            "power_breakdown": False,
            "forecast": True,
        },
        ElectricityMaps(
            Place("DE"),
            Secret(file=Path("/run/secrets/electricitymaps")),
            factor="direct",
            estimations=False,
            power_breakdown=False,
            forecast=True,
        ),
    ),
]

NEEDS_TOKEN = (
    "token_file: missing; source 'electricitymaps' needs a token: name the file that holds it, "
    "or in token_env an environment variable"
)
NO_ZONE = (
    "set grid.zone to a country or one of its zones such as DE or US-CAL-CISO, "
    "or give the coordinates or the cloud region"
)

BAD = [
    ("DE", None, [NEEDS_TOKEN]),
    ("DE", {"token_file": None}, [NEEDS_TOKEN]),
    ("DE", {"token_file": 5}, ["token_file: expected text, got 5; put it in quotes"]),
    ("DE", TOKEN | {"token_env": "EM"}, ["token_env: token_file is given too; keep one of them"]),
    ("WORLD", TOKEN, [f"zone: Electricity Maps has no zone 'WORLD'; {NO_ZONE}"]),
    ("EU", None, [NEEDS_TOKEN, f"zone: Electricity Maps has no zone 'EU'; {NO_ZONE}"]),
    (
        "DE",
        TOKEN | {"emission_factor_type": "livecycle"},
        ["emission_factor_type: unknown value 'livecycle'; did you mean 'lifecycle'?"],
    ),
    ("DE", TOKEN | {"estimations": "no"}, ["estimations: expected true or false, got 'no'"]),
    ("DE", TOKEN | {"power_breakdown": 1}, ["power_breakdown: expected true or false, got 1"]),
    ("DE", TOKEN | {"forecasts": True}, ["forecasts: unknown key; did you mean 'forecast'?"]),
]


def configured(raw: object, place: Place) -> tuple[ElectricityMaps, list[str]]:
    problems: list[str] = []
    section = Section(raw, "grid.electricitymaps", problems)
    source = electricitymaps.PLUGIN.configured(section, place)
    section.finish()
    return source, problems


@pytest.mark.parametrize(("raw", "wanted"), GOOD)
def test_settings(raw: object, wanted: ElectricityMaps):
    source, problems = configured(raw, Place("DE"))
    assert problems == []
    assert source == wanted
    assert (source.signal, source.poll_seconds) == (Signal.AVERAGE, 900)


@pytest.mark.parametrize(("zone", "raw", "messages"), BAD)
def test_problems_name_the_key_and_the_remedy(zone: str, raw: object, messages: list[str]):
    _, problems = configured(raw, Place(zone))
    assert problems == [f"grid.electricitymaps.{message}" for message in messages]


def test_a_pasted_token_is_refused_without_showing_it():
    _, problems = configured({"token": "s3cret"}, Place("DE"))
    assert len(problems) == 2
    assert not any("s3cret" in problem for problem in problems)


@pytest.mark.parametrize(
    "place",
    [Place("WORLD", latitude=52.5, longitude=13.4), Place("EU", cloud_region=("gcp", "europe-west3"))],
)
def test_a_zone_that_the_provider_lacks_does_no_harm_where_the_place_is_known_better(place: Place):
    assert configured(TOKEN, place)[1] == []


def test_an_answer_nested_without_end_is_refused():
    dialogue = ElectricityMaps(Place("DE")).ask("s3cret", NOW)
    next(dialogue)
    with pytest.raises(GridError, match="not JSON") as caught:
        dialogue.send(HttpAnswer(200, b"[" * 1_000_000))
    assert caught.value.outcome == "invalid"


def test_an_optional_question_whose_request_fails_loses_nothing():
    dialogue = ElectricityMaps(Place("DE"), forecast=True).ask("s3cret", NOW)
    next(dialogue)
    assert dialogue.send(HttpAnswer(200, LATEST)).url.endswith("/v4/power-breakdown/latest")
    assert dialogue.throw(GridError("error", "timeout")).url.endswith("/v4/carbon-intensity/forecast")
    with pytest.raises(StopIteration) as done:
        dialogue.throw(GridError("error", "timeout"))
    (hour,) = done.value.value.intervals
    assert (hour.intensity_grams_per_kwh, done.value.value.renewable_ratio) == (312, None)


def test_the_question_that_matters_does_not_swallow_a_failure():
    dialogue = ElectricityMaps(Place("DE")).ask("s3cret", NOW)
    next(dialogue)
    with pytest.raises(GridError, match="timeout"):
        dialogue.throw(GridError("error", "timeout"))
