"""Energy-Charts: its settings, and a second question that is never answered. Its answers: test_grid_sources.py."""

import json
from typing import Any

import pytest

from joulemeter.errors import GridError
from joulemeter.grids import HttpAnswer, Place
from joulemeter.grids.energy_charts import COUNTRIES, PLUGIN, EnergyCharts
from joulemeter.settings import Section

KNOWN = f"known: {', '.join(sorted(COUNTRIES))}"
NOT_CODES: dict[str, Any] = {
    "expected a country's code such as 'de', got 'Germany'": "Germany",
    "expected a country's code such as 'de', got 'DE-LU'": "DE-LU",
    "expected a country's code such as 'de', got ''": "",
    "expected a country's code such as 'de', got False; put it in quotes": False,
    "expected a country's code such as 'de', got ['de']; put it in quotes": ["de"],
}


def configured(settings: object, zone: str = "DE") -> tuple[EnergyCharts, list[str]]:
    problems: list[str] = []
    section = Section(settings, "grid.energy_charts", problems)
    source = PLUGIN.configured(section, Place(zone))
    section.finish()
    return source, problems


@pytest.mark.parametrize(
    ("zone", "country"),
    [
        ("DE", "de"),
        ("DE-LU", "de"),
        ("NO-NO2", "no"),
        ("EU", "eu"),
        ("GB", "uk"),
        ("GB-NIR", "uk"),
        ("XK", "xk"),
    ],
)
def test_the_country_is_that_of_the_zone(zone: str, country: str):
    source, problems = configured(None, zone)
    assert (source.country, source.renewable_share, problems) == (country, True, [])


@pytest.mark.parametrize("code", ["nie", "all", "eu", " FR "])
def test_a_country_that_is_set_wins(code: str):
    source, problems = configured({"country": code, "renewable_share": False}, "WORLD")
    assert (source.country, source.renewable_share, problems) == (code.strip().lower(), False, [])


@pytest.mark.parametrize(("zone", "country"), [("WORLD", "WORLD"), ("US-CAL-CISO", "US"), ("IS", "IS")])
def test_a_zone_outside_is_a_problem(zone: str, country: str):
    _, problems = configured(None, zone)
    assert problems == [
        f"grid.energy_charts.country: Energy-Charts has no {country} (the zone is {zone}); {KNOWN}"
    ]


@pytest.mark.parametrize(("message", "value"), NOT_CODES.items())
def test_a_country_that_is_no_code_is_a_problem(message: str, value: object):
    assert configured({"country": value})[1] == [f"grid.energy_charts.country: {message}"]


def test_other_settings_are_problems():
    assert configured({"contry": "de", "renewable_share": "yes"})[1] == [
        "grid.energy_charts.renewable_share: expected true or false, got 'yes'",
        "grid.energy_charts.contry: unknown key; did you mean 'country'?",
    ]


def test_a_share_that_is_never_answered_loses_nothing():
    dialogue = EnergyCharts("de").ask("", 1_795_169_220.0)
    next(dialogue)
    series = {"unix_seconds": [1_795_168_800], "co2eq": [312.0], "co2eq_forecast": [None]}
    assert dialogue.send(HttpAnswer(200, json.dumps(series).encode())).url.endswith("/signal")
    with pytest.raises(StopIteration) as done:
        dialogue.throw(GridError("error", "grid.energy_charts: no connection"))
    answer = done.value.value
    assert [one.intensity_grams_per_kwh for one in answer.intervals] == [312.0]
    assert answer.renewable_ratio is None


def test_brackets_in_brackets_are_refused():
    dialogue = EnergyCharts("de").ask("", 1_795_169_220.0)
    next(dialogue)
    with pytest.raises(GridError, match=r"^grid\.energy_charts: not JSON: \[\[") as caught:
        dialogue.send(HttpAnswer(200, b"[" * 200_000))
    assert caught.value.outcome == "invalid"
