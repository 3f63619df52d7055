"""WattTime's settings."""

from pathlib import Path

import pytest

from joulemeter.grids import Place, watttime
from joulemeter.grids.watttime import WattTime
from joulemeter.model import Signal
from joulemeter.settings import Secret, Section

ACCOUNT = {"username": "joulemeter", "password_file": "/run/secrets/watttime"}
REGION = {"region": "CAISO_NORTH"}
SECRET = Secret(file=Path("/run/secrets/watttime"))
ZONE = Place("US-CAL-CISO")
SITE = Place("US-CAL-CISO", latitude=37.4, longitude=-122.1)

GOOD = [
    (ZONE, ACCOUNT | REGION, WattTime(ZONE, "joulemeter", SECRET, "CAISO_NORTH")),
    (SITE, ACCOUNT, WattTime(SITE, "joulemeter", SECRET)),
    (
        SITE,
        {"username": "a", "password_env": "P", "signal_type": "co2_moer"},
        WattTime(SITE, "a", Secret(variable="P")),
    ),
]

NEEDS_PASSWORD = (
    "password_file: missing; source 'watttime' needs the account's password: name the file that holds it, "
    "or in password_env an environment variable"
)
NEEDS_REGION = "region: missing; source 'watttime' needs it or the coordinates of the site"
NEEDS_USERNAME = "username: missing; source 'watttime' needs the name of the account"

BAD = [
    (ZONE, None, [NEEDS_USERNAME, NEEDS_PASSWORD, NEEDS_REGION]),
    (SITE, REGION, [NEEDS_USERNAME, NEEDS_PASSWORD]),
    (ZONE, ACCOUNT, [NEEDS_REGION]),
    (Place("US", latitude=0.0), ACCOUNT, [NEEDS_REGION]),
    (SITE, ACCOUNT | {"username": 7}, ["username: expected text, got 7; put it in quotes"]),
    (SITE, ACCOUNT | {"password_env": "P"}, ["password_env: password_file is given too; keep one of them"]),
    (ZONE, ACCOUNT | {"region": ["A"]}, ["region: expected text, got ['A']"]),
    (
        SITE,
        ACCOUNT | {"signal_type": "co2_aoer"},
        ["signal_type: unknown value 'co2_aoer'; did you mean 'co2_moer'?"],
    ),
    (
        SITE,
        ACCOUNT | {"signal_type": "health_damage"},
        ["signal_type: unknown value 'health_damage'; known: co2_moer"],
    ),
    (SITE, ACCOUNT | {"regions": "A"}, ["regions: unknown key; did you mean 'region'?"]),
]


def configured(raw: object, place: Place) -> tuple[WattTime, list[str]]:
    problems: list[str] = []
    section = Section(raw, "grid.watttime", problems)
    source = watttime.PLUGIN.configured(section, place)
    section.finish()
    return source, problems


@pytest.mark.parametrize(("place", "raw", "wanted"), GOOD)
def test_settings(place: Place, raw: object, wanted: WattTime):
    source, problems = configured(raw, place)
    assert problems == []
    assert source == wanted
    assert (source.signal, source.poll_seconds) == (Signal.MARGINAL, 300)


@pytest.mark.parametrize(("place", "raw", "messages"), BAD)
def test_problems_name_the_key_and_the_remedy(place: Place, raw: object, messages: list[str]):
    _, problems = configured(raw, place)
    assert problems == [f"grid.watttime.{message}" for message in messages]


def test_a_pasted_password_is_refused_without_showing_it():
    _, problems = configured(ACCOUNT | REGION | {"password": "s3cret"}, ZONE)
    assert len(problems) == 1
    assert "s3cret" not in problems[0]
