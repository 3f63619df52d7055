"""Reading what grid providers answer: refusals by their status, numbers within reason, intervals in order. Pure."""

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import inf, isfinite
from typing import Any, Final, TypeVar, cast

from joulemeter.errors import GridError
from joulemeter.grids import HOUR_SECONDS, HttpAnswer, HttpRequest
from joulemeter.model import GridInterval, GridOrigin, GridQuality
from joulemeter.settings import shown

MAX_PLAUSIBLE_GRAMS_PER_KWH: Final = 2000.0
"""No grid is dirtier: burning lignite in an old plant emits about 1200 g/kWh."""
NEAR_SECONDS: Final = 24 * HOUR_SECONDS
"""Of what a provider says, only this much before and after now is kept."""
SHOWN_BYTES: Final = 120
LABEL_CHARACTERS: Final = 64
"""Names of zones and data sets are shorter; a label is kept in memory by everyone who scrapes it."""

Read = TypeVar("Read")


def optional(
    request: HttpRequest, read: Callable[[HttpAnswer], Read], otherwise: Read
) -> Generator[HttpRequest, HttpAnswer, Read]:
    """Ask what may stay unanswered: a failure, thrown in by who asks or found by `read`, loses nothing else."""
    try:
        return read((yield request))
    except GridError:
        return otherwise


def invalid(source: str, wanted: str, got: object) -> GridError:
    """Return the error of an answer that is not what was asked for; `got` is a part of it, or all of it."""
    seen = excerpt(got.body) if isinstance(got, HttpAnswer) else shown(got)
    return GridError("invalid", f"grid.{source}: expected {wanted}, got {seen}")


def json_of(answer: HttpAnswer, source: str) -> Any:
    """Return the JSON text of an answer that is one.

    Raises:
        GridError: by the status: `auth` for 401 and 403 (403: for good), `rate_limited` for 429 with its
            Retry-After, `error` for any other but 200; `invalid` if the body is no JSON text.
    """
    place = f"grid.{source}"
    said = f"HTTP {answer.status}: {excerpt(answer.body)}"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise GridError("auth", f"{place}: {said}; check the token, and how often it may ask")
    if answer.status == HTTPStatus.FORBIDDEN:
        raise GridError("auth", f"{place}: {said}; the account may not ask for this zone", permanent=True)
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        raise GridError(
            "rate_limited",
            f"{place}: {said}; let one node ask, and the others use source 'relay'",
            retry_after_seconds=_retry_after_seconds(answer),
        )
    if answer.status != HTTPStatus.OK:
        raise GridError("error", f"{place}: {said}")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:  # the latter: brackets in brackets, a thousand deep
        raise GridError("invalid", f"{place}: not JSON: {excerpt(answer.body)}") from error


def object_of(answer: HttpAnswer, source: str) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        GridError: as `json_of` does; `invalid` if it is another JSON text.
    """
    read = json_of(answer, source)
    if not isinstance(read, dict):
        raise invalid(source, "a JSON object", answer)
    return read


def objects_of(body: Mapping[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key.

    Raises:
        GridError: `invalid`, it is none.
    """
    items = body.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise invalid(source, f"a list of objects under {key!r}", items)
    return items


def number(value: object) -> float | None:
    """Return a number of a JSON text, or None if it is none, or none that a float can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        read = float(value)
    except OverflowError:
        return None
    return read if isfinite(read) else None


def grams_per_kwh(value: object, source: str) -> float:
    """Return an intensity in gCO2e/kWh.

    Raises:
        GridError: `invalid`, it is no number from 0 to `MAX_PLAUSIBLE_GRAMS_PER_KWH`.
    """
    grams = _plausible_grams(value)
    if grams is None:
        raise invalid(source, f"gCO2e/kWh from 0 to {MAX_PLAUSIBLE_GRAMS_PER_KWH:g}", value)
    return grams


def _plausible_grams(value: object) -> float | None:
    grams = number(value)
    return grams if grams is not None and 0 <= grams <= MAX_PLAUSIBLE_GRAMS_PER_KWH else None


@dataclass(frozen=True, slots=True)
class Point:
    """What a provider says of a span of time: `value` is null, an intensity in gCO2e/kWh or anything else that came."""

    begin_timestamp_seconds: float
    duration_seconds: float
    value: object
    quality: GridQuality


def intervals_of(
    points: Iterable[Point], origin: GridOrigin, now_timestamp_seconds: float
) -> tuple[GridInterval, ...]:
    """Return what of a series is of use: within `NEAR_SECONDS`, plausible, without overlap, oldest first.

    An interval ends where the next one begins, and of two that begin together the first is kept. What begins after
    now is a forecast, whatever the provider calls it. An implausible value is left out where it is past or to come.
    Where it is the newest one begun (or the first to come, where none has), the whole answer is refused: it is the
    one about to be used, an older one must not silently stand in for it, and `invalid` lets the next source take over.

    Raises:
        GridError: `no_data` if nothing is said of that time, `invalid` if what is said of now is no intensity.
    """
    now = now_timestamp_seconds
    said: dict[float, Point] = {}
    for point in points:
        if point.value is not None and abs(point.begin_timestamp_seconds - now) <= NEAR_SECONDS:
            said.setdefault(point.begin_timestamp_seconds, point)
    if not said:
        message = "every intensity within a day of now is null or missing"
        raise GridError("no_data", f"grid.{origin.source}: {message}")
    newest = max((begin for begin in said if begin <= now), default=min(said))
    grams_per_kwh(said[newest].value, origin.source)
    found: list[GridInterval] = []
    until = inf
    for begin in sorted(said, reverse=True):
        point, grams = said[begin], _plausible_grams(said[begin].value)
        if grams is not None:
            quality = point.quality if begin <= now else GridQuality.FORECAST
            found.append(
                GridInterval(begin, min(point.duration_seconds, until - begin), grams, quality, origin)
            )
            until = begin
    return tuple(reversed(found))


def ratio_of_percent(value: object) -> float | None:
    """Return a percentage as a ratio, or None if it is none."""
    percent = number(value)
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None  # noqa: PLR2004


def instant(value: object, source: str) -> float:
    """Return ISO 8601 text with a time zone as Unix time.

    Raises:
        GridError: `invalid`, it is none.
    """
    try:
        read = datetime.fromisoformat(cast("str", value))
    except (ValueError, TypeError):
        read = None
    if read is None or read.tzinfo is None:
        raise invalid(source, "a time such as 2026-01-31T12:00Z", value)
    return read.timestamp()


def answered_at(answer: HttpAnswer) -> float | None:
    """Return the provider's own time of an answer (Unix time, whole seconds), where it says."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, for a message."""
    text = body[:SHOWN_BYTES].decode("utf-8", errors="replace")
    return "".join(one if one.isprintable() else " " for one in text).strip() or "an empty body"


def _retry_after_seconds(answer: HttpAnswer) -> float | None:
    """Retry-After, in seconds or as a date."""
    value = answer.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    sent = answered_at(answer)
    try:
        return None if sent is None else max(0.0, parsedate_to_datetime(value).timestamp() - sent)
    except ValueError:
        return None


def label(text: str) -> str:
    """Return text of a provider as a label: nothing unprintable, and no longer than `LABEL_CHARACTERS`."""
    return "".join(one for one in text if one.isprintable())[:LABEL_CHARACTERS]
