"""The Carbon Intensity API of NESO: Great Britain or a region of it by the half hour, without a token.

Data under CC BY 4.0, NESO. Contract: carbon-intensity/api-definitions.
"""

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from joulemeter.grid_answers import Point, instant, intervals_of, invalid, object_of, optional
from joulemeter.grids import (
    HALF_HOUR_SECONDS,
    HOUR_SECONDS,
    POLL_SECONDS,
    Dialogue,
    HttpAnswer,
    HttpRequest,
    Place,
)
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality, Signal
from joulemeter.settings import Secret, Section, shown

NAME: Final = "neso"
URL: Final = "https://api.carbonintensity.org.uk"
HEADERS: Final = {"Accept": "application/json"}
RENEWABLE: Final = ("biomass", "hydro", "solar", "wind")
CARBON_FREE: Final = ("hydro", "nuclear", "solar", "wind")
"""Fuels of the generation mix; biomass is renewable but emits (120 g/kWh here). Imports and `other` are neither, for
nothing says what they are made of, so both shares are lower bounds."""
LEAST_PERCENT: Final = 98.0
MOST_PERCENT: Final = 102.0
LAST_REGION: Final = 17
OUTWARD_CODE: Final = re.compile(r"[A-Z]{1,2}[0-9][0-9A-Z]?")

Shares = tuple[float | None, float | None]
NO_SHARES: Final[Shares] = (None, None)
KEYS: Final = {
    "region_id": "One of the provider's regions, 1 to 17; without it, and without a postcode, Great Britain.",
    "postcode": "First half of a postcode, such as RG10: its region.",
}


@dataclass(frozen=True, slots=True)
class Neso:
    """Asks for the two days to come; for Great Britain, or for one region by its number or a postcode in it.

    The intensities are of burning fuel alone, and include imports and losses: not comparable with lifecycle ones.
    """

    region_id: int | None = None
    postcode: str | None = None
    name: str = NAME
    signal: Signal = Signal.AVERAGE
    secret: Secret | None = None
    poll_seconds: float = POLL_SECONDS

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:  # noqa: ARG002
        """Begin a dialogue.

        It asks from the beginning of this half hour on: from the minute that it is now, the half hour that runs might
        be left out. The answer may begin with the one before.
        """
        begun = datetime.fromtimestamp(now_timestamp_seconds // HALF_HOUR_SECONDS * HALF_HOUR_SECONDS, UTC)
        path = f"intensity/{begun:%Y-%m-%dT%H:%MZ}/fw48h"
        if self.region_id is None and self.postcode is None:
            half_hours = _half_hours(_data((yield _request(path))))
            intervals = _intervals(half_hours, "national", now_timestamp_seconds)
            shares = yield from optional(_request("generation"), _national_shares, NO_SHARES)
            return GridAnswer(intervals, *shares)
        key, asked = ("postcode", self.postcode) if self.region_id is None else ("regionid", self.region_id)
        answer = yield _request(f"regional/{path}/{key}/{asked}")
        half_hours = _half_hours(_region(_data(answer), key, asked))
        intervals = _intervals(half_hours, f"{key} {asked}", now_timestamp_seconds)
        return GridAnswer(intervals, *_shares_at(half_hours, now_timestamp_seconds))


@dataclass(frozen=True, slots=True)
class _HalfHour:
    """One of an answer, its values as they came."""

    point: Point
    mix: object


def _request(path: str) -> HttpRequest:
    return HttpRequest(f"{URL}/{path}", headers=HEADERS)


def _data(answer: HttpAnswer) -> Any:
    """Return what is under `data`.

    Raises:
        GridError: as `object_of` does, with the words of an error body; `invalid` if there is no `data`.
    """
    if answer.status != HTTPStatus.OK:
        answer = replace(answer, body=_words(answer.body))
    read = object_of(answer, NAME)
    if "data" not in read:
        raise invalid(NAME, "an answer with `data`", read)
    return read["data"]


def _words(body: bytes) -> bytes:
    """Return the message of `{"error": {"code", "message"}}`, else the body as it is."""
    try:
        return str(json.loads(body)["error"]["message"]).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return body


def _region(data: Any, key: str, asked: object) -> Any:
    """Return the half hours of the region asked for: under an object, or (`/regional/regionid`) a list of one."""
    region = data[0] if isinstance(data, list) and len(data) == 1 else data
    if not isinstance(region, dict):
        raise invalid(NAME, "a region", data)
    if (got := region.get(key, asked)) != asked:
        raise invalid(NAME, f"{key} {asked}", got)
    return region.get("data")


def _half_hours(data: Any) -> list[_HalfHour]:
    if not isinstance(data, list):
        raise invalid(NAME, "a list of half hours", data)
    return [_half_hour(one) for one in data]


def _half_hour(one: Any) -> _HalfHour:
    """Take the actual intensity where there is one, else the forecast; regions have forecasts alone."""
    try:
        begin, end, intensity = instant(one["from"], NAME), instant(one["to"], NAME), one["intensity"]
        actual, forecast, mix = intensity.get("actual"), intensity["forecast"], one.get("generationmix")
    except (LookupError, TypeError, AttributeError) as error:
        raise invalid(NAME, "a half hour with `from`, `to` and `intensity`", one) from error
    if not 0 < end - begin <= HOUR_SECONDS:
        raise invalid(NAME, "a half hour", one)
    if _is_blank(mix):
        actual = forecast = None
    if actual is None:
        return _HalfHour(Point(begin, end - begin, forecast, GridQuality.FORECAST), mix)
    return _HalfHour(Point(begin, end - begin, actual, GridQuality.MEASURED), mix)


def _intervals(
    half_hours: list[_HalfHour], dataset: str, now_timestamp_seconds: float
) -> tuple[GridInterval, ...]:
    origin = GridOrigin(NAME, "direct", "consumption", "30min", dataset)
    return intervals_of([one.point for one in half_hours], origin, now_timestamp_seconds)


def _national_shares(answer: HttpAnswer) -> Shares:
    data = _data(answer)
    return _shares(data.get("generationmix") if isinstance(data, dict) else None)


def _shares_at(half_hours: list[_HalfHour], now_timestamp_seconds: float) -> Shares:
    for one in half_hours:
        if 0 <= now_timestamp_seconds - one.point.begin_timestamp_seconds < one.point.duration_seconds:
            return _shares(one.mix)
    return NO_SHARES


def _shares(mix: object) -> Shares:
    """Return the renewable and the carbon-free share of a mix that is whole; its percentages are rounded."""
    percent = _percentages(mix)
    total = sum(percent.values())
    if not LEAST_PERCENT <= total <= MOST_PERCENT or min(percent.values()) < 0:
        return NO_SHARES
    renewable, carbon_free = (
        sum(percent.get(fuel, 0.0) for fuel in fuels) / total for fuels in (RENEWABLE, CARBON_FREE)
    )
    return renewable, carbon_free


def _is_blank(mix: object) -> bool:
    """Say whether a mix is of zeros alone. A region without data is given such a mix, and a forecast of 0."""
    percent = _percentages(mix)
    return bool(percent) and not any(percent.values())


def _percentages(mix: object) -> dict[str, float]:
    """Return percent by fuel, nothing if that is not what it is."""
    try:
        return {str(one["fuel"]): float(one["perc"]) for one in mix}  # type: ignore[attr-defined]
    except (LookupError, TypeError, ValueError, OverflowError):
        return {}


class Plugin:
    """Reads `region_id` or `postcode`; without them it is Great Britain."""

    def configured(self, section: Section, place: Place) -> Neso:
        """Return the source."""
        if place.country != "GB" or place.zone == "GB-NIR":
            hint = "leave neso out of grid.sources"
            section.problem("zone", f"grid.zone {place.zone} is not in Great Britain; {hint}")
        region_id = section.converted("region_id", None, _region_id)
        postcode = section.converted("postcode", None, _outward_code)
        if region_id is not None and postcode is not None:
            section.problem("postcode", "region_id is given too; keep one of them")
        return Neso(region_id, postcode)


def _region_id(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LAST_REGION:
        return value
    raise ValueError(f"expected a whole number from 1 to {LAST_REGION}, got {shown(value)}")


def _outward_code(value: object) -> str:
    text = value.strip().upper() if isinstance(value, str) else ""
    if not OUTWARD_CODE.fullmatch(text):
        raise ValueError(f"expected the first half of a postcode such as 'RG10', got {shown(value)}")
    return text


PLUGIN = Plugin()
