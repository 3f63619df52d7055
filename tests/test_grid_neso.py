"""NESO: its settings, and a second question that is never answered. Its answers: test_grid_sources.py."""

import json
from typing import Any

import pytest

from joulemeter.errors import GridError
from joulemeter.grids import HttpAnswer, Place
from joulemeter.grids.neso import PLUGIN, Neso
from joulemeter.settings import Section

REGION = "grid.neso.region_id: expected a whole number from 1 to 17, got"
POSTCODE = "grid.neso.postcode: expected the first half of a postcode such as 'RG10', got"
BAD: dict[str, dict[str, Any]] = {
    f"{REGION} 0": {"region_id": 0},
    f"{REGION} 18": {"region_id": 18},
    f"{REGION} 3.5": {"region_id": 3.5},
    f"{REGION} True": {"region_id": True},
    f"{REGION} 'London'": {"region_id": "London"},
    f"{POSTCODE} 'SW1A 1AA'": {"postcode": "SW1A 1AA"},
    f"{POSTCODE} '../generation'": {"postcode": "../generation"},
    f"{POSTCODE} 10": {"postcode": 10},
    "grid.neso.postcode: region_id is given too; keep one of them": {"region_id": 13, "postcode": "SW1A"},
    "grid.neso.region: unknown key; did you mean 'region_id'?": {"region": 13},
}


def configured(settings: object, zone: str = "GB") -> tuple[Neso, list[str]]:
    problems: list[str] = []
    section = Section(settings, "grid.neso", problems)
    source = PLUGIN.configured(section, Place(zone))
    section.finish()
    return source, problems


@pytest.mark.parametrize("zone", ["GB", "GB-ENG"])
def test_without_settings_it_is_great_britain(zone: str):
    assert configured(None, zone) == (Neso(), [])


@pytest.mark.parametrize("region_id", [1, 17])
def test_a_region(region_id: int):
    assert configured({"region_id": region_id}) == (Neso(region_id=region_id), [])


@pytest.mark.parametrize("code", ["M1", "RG10", "SW1A", "EC1V", " bs7 "])
def test_a_postcode(code: str):
    assert configured({"postcode": code}) == (Neso(postcode=code.strip().upper()), [])


@pytest.mark.parametrize("zone", ["FR", "WORLD", "GB-NIR"])
def test_elsewhere_is_a_problem(zone: str):
    assert configured(None, zone)[1] == [
        f"grid.neso.zone: grid.zone {zone} is not in Great Britain; leave neso out of grid.sources"
    ]


@pytest.mark.parametrize(("message", "settings"), BAD.items())
def test_a_setting_that_is_wrong_is_a_problem(message: str, settings: dict[str, Any]):
    assert configured(settings)[1] == [message]


def test_a_mix_that_is_never_answered_loses_nothing():
    dialogue = Neso().ask("", 1_795_169_220.0)
    next(dialogue)
    row = {
        "from": "2026-11-20T10:00Z",
        "to": "2026-11-20T10:30Z",
        "intensity": {"forecast": 165, "actual": None},
    }
    assert dialogue.send(HttpAnswer(200, json.dumps({"data": [row]}).encode())).url.endswith("/generation")
    with pytest.raises(StopIteration) as done:
        dialogue.throw(GridError("error", "grid.neso: no connection"))
    answer = done.value.value
    assert [one.intensity_grams_per_kwh for one in answer.intervals] == [165.0]
    assert (answer.renewable_ratio, answer.carbon_free_ratio) == (None, None)
