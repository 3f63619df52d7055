"""WattTime: what one more kWh would emit, every five minutes; shown, never accounted. Needs an account."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from joulemeter.errors import GridError
from joulemeter.grid_answers import (
    Point,
    excerpt,
    instant,
    intervals_of,
    invalid,
    json_of,
    label,
    number,
    object_of,
    objects_of,
)
from joulemeter.grids import Dialogue, HttpAnswer, HttpRequest, Place, basic, needed_secret
from joulemeter.model import GridAnswer, GridOrigin, GridQuality, Signal
from joulemeter.settings import Secret, Section

NAME: Final = "watttime"
API: Final = "https://api.watttime.org"
UNITS: Final = "lbs_co2_per_mwh"
GRAMS_PER_POUND: Final = 453.59237
KWH_PER_MWH: Final = 1000.0
GRANULARITY_SECONDS: Final = 300.0
SIGNAL_TYPES: Final = ("co2_moer",)
"""Of the provider's signals the marginal one. `co2_aoer` is an average, and `health_damage` is money."""
KEYS: Final = {
    "username": "Name of the account.",
    "password_file": "File with the account's password; read anew each time.",
    "password_env": "Environment variable with the password, in place of a file.",
    "region": "The provider's region, such as CAISO_NORTH; without it that of the coordinates.",
    "signal_type": "The provider's signal.",
}


@dataclass(frozen=True, slots=True)
class WattTime:
    """Logs in and asks for the forecast: its first point is the value of now."""

    place: Place
    username: str
    secret: Secret | None = None
    region: str | None = None
    signal_type: str = SIGNAL_TYPES[0]
    name: str = NAME
    signal: Signal = Signal.MARGINAL
    poll_seconds: float = GRANULARITY_SECONDS

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:
        """Log in, find the region of the coordinates if none is set, and ask for it.

        Each dialogue has a token of its own, seconds old where they last 30 minutes: a 401 after the login is no
        expired token, and logging in again would mend nothing. 100 logins are allowed in the 5 minutes of one poll.
        """
        answer = yield HttpRequest(f"{API}/login", headers=basic(self.username, secret))
        headers = {"Authorization": f"Bearer {_token(answer)}"}
        region = self.region
        if region is None:
            where = {"latitude": str(self.place.latitude), "longitude": str(self.place.longitude)}
            query = where | {"signal_type": self.signal_type}
            region = _region((yield HttpRequest(f"{API}/v3/region-from-loc", query, headers)))
        query = {"region": region, "signal_type": self.signal_type}
        answer = yield HttpRequest(f"{API}/v3/forecast", query, headers)
        body = _object(answer)
        origin = GridOrigin(NAME, "direct", "marginal", "5min", self._dataset(body, region))
        return GridAnswer(intervals_of(_points(body), origin, now_timestamp_seconds))

    def _dataset(self, body: Mapping[str, Any], region: str) -> str:
        """Check that the answer is to the question, and name its region and model: a new model is a new series."""
        meta = body.get("meta")
        if not isinstance(meta, dict):
            raise invalid(NAME, "an object under 'meta'", meta)
        for key, wanted in (("region", region), ("signal_type", self.signal_type), ("units", UNITS)):
            if meta.get(key) != wanted:
                raise invalid(NAME, f"{key} {wanted!r}", meta.get(key))
        period = meta.get("data_point_period_seconds", GRANULARITY_SECONDS)
        if period != GRANULARITY_SECONDS:
            raise invalid(NAME, f"points every {GRANULARITY_SECONDS:g} s", period)
        model = meta.get("model")
        date = model.get("date") if isinstance(model, dict) else None
        return label(f"{region} {date}" if isinstance(date, str) else region)


class Plugin:
    """Reads the account, the region unless the place has coordinates, and `signal_type`."""

    def configured(self, section: Section, place: Place) -> WattTime:
        """Return the source."""
        username, region = section.text("username", None), section.text("region", None)
        if section.get("username") is None:
            section.problem("username", f"missing; source {NAME!r} needs the name of the account")
        secret = needed_secret(section, "password", NAME, "the account's password")
        if section.get("region") is None and (place.latitude is None or place.longitude is None):
            section.problem("region", f"missing; source {NAME!r} needs it or the coordinates of the site")
        return WattTime(
            place,
            username or "",
            secret,
            region,
            section.choice("signal_type", SIGNAL_TYPES[0], SIGNAL_TYPES),
        )


PLUGIN = Plugin()


def _token(answer: HttpAnswer) -> str:
    """Return the token of a login. No message quotes the answer, for it may hold one."""
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise GridError(
            "auth", f"grid.{NAME}: HTTP {answer.status} to the login; check username and password"
        )
    if answer.status != HTTPStatus.OK:
        json_of(answer, NAME)
    try:
        token = object_of(answer, NAME).get("token")
    except GridError:
        token = None
    if not isinstance(token, str) or not token or not (token.isascii() and token.isprintable()):
        raise GridError("invalid", f"grid.{NAME}: the answer to the login holds no token")
    return token


def _region(answer: HttpAnswer) -> str:
    region = _object(answer).get("region")
    if not isinstance(region, str) or not region or region != label(region):
        raise invalid(NAME, "the region of the coordinates", region)
    return region


def _object(answer: HttpAnswer) -> Mapping[str, Any]:
    """Return the JSON object of an answer."""
    if answer.status == HTTPStatus.FORBIDDEN and not answer.body.lstrip().startswith(b"<"):
        raise GridError(
            "auth",
            f"grid.{NAME}: HTTP 403: {excerpt(answer.body)}; a free account sees the region CAISO_NORTH only: "
            f"ask the provider for this one, or take {NAME!r} out of grid.sources",
            permanent=True,
        )
    if answer.status == HTTPStatus.FORBIDDEN:  # a page of the web server before the API: not about the region
        raise GridError("auth", f"grid.{NAME}: HTTP 403: {excerpt(answer.body)}; the token was refused")
    return object_of(answer, NAME)


def _points(body: Mapping[str, Any]) -> Iterator[Point]:
    """Read the points: the first is the value of the time when it was said, the others were said before theirs."""
    quality = GridQuality.ESTIMATED
    for one in objects_of(body, "data", NAME):
        begin = instant(one.get("point_time"), NAME)
        yield Point(begin, GRANULARITY_SECONDS, _grams_per_kwh(one.get("value")), quality)
        quality = GridQuality.FORECAST


def _grams_per_kwh(pounds_per_mwh: object) -> object:
    """Convert a number; anything else is left as it came, to be refused as that."""
    pounds = number(pounds_per_mwh)
    return pounds_per_mwh if pounds is None else pounds * GRAMS_PER_POUND / KWH_PER_MWH
