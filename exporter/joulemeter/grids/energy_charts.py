"""Energy-Charts of Fraunhofer ISE: the countries of Europe by the quarter hour, without a token.

Data under CC BY 4.0, "Energy-Charts.info". `/co2eq` is not in its OpenAPI description and may vanish.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from joulemeter.grid_answers import (
    Point,
    intervals_of,
    invalid,
    number,
    object_of,
    optional,
    ratio_of_percent,
)
from joulemeter.grids import (
    HALF_HOUR_SECONDS,
    HOUR_SECONDS,
    POLL_SECONDS,
    QUARTER_SECONDS,
    Dialogue,
    HttpAnswer,
    HttpRequest,
    Place,
)
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality, Signal
from joulemeter.settings import Secret, Section, shown, suggestion

NAME: Final = "energy_charts"
URL: Final = "https://api.energy-charts.info"
OWN_CODES: Final = {"GB": "uk"}
"""Where its code is not that of ISO 3166."""
WRITTEN: Final = (
    "al am at az ba be bg by ch cy cz de dk ee es eu fi fr ge gr hr hu ie it lt lu lv md me mk mt nl no pl pt ro rs ru"
    " se si sk tr ua uk xk"
)
COUNTRIES: Final = frozenset(WRITTEN.split())
"""Codes that a zone may lead to. The setting `country` takes others too (`all`, `nie`), for the list may grow."""
CODE: Final = re.compile(r"[a-z]{2,3}")
STEPS_SECONDS: Final = (QUARTER_SECONDS, HALF_HOUR_SECONDS, HOUR_SECONDS)
"""How far apart values are: a quarter of an hour. Operators that report by the hour are believed too."""
LAST_TIMESTAMP_SECONDS: Final = 1e11
KEYS: Final = {
    "country": "The provider's code of a country, such as `de`, `eu` or `all`; without it that of the zone.",
    "renewable_share": "Whether to ask for the share of renewable power too.",
}


@dataclass(frozen=True, slots=True)
class EnergyCharts:
    """Asks for the intensities of a country, and for its renewable share. No time is asked for, so none is local."""

    country: str
    renewable_share: bool = True
    name: str = NAME
    signal: Signal = Signal.AVERAGE
    secret: Secret | None = None
    poll_seconds: float = POLL_SECONDS

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:  # noqa: ARG002
        """Begin a dialogue. The share is a second question, without which the intensities are as good."""
        now, query = now_timestamp_seconds, {"country": self.country}
        intervals = self._intervals((yield HttpRequest(f"{URL}/co2eq", query)), now)
        ratio = None
        if self.renewable_share:
            request = HttpRequest(f"{URL}/signal", query)
            ratio = yield from optional(request, lambda answer: _renewable_ratio(answer, now), None)
        return GridAnswer(intervals, renewable_ratio=ratio)

    def _intervals(self, answer: HttpAnswer, now_timestamp_seconds: float) -> tuple[GridInterval, ...]:
        """Read `co2eq`, and where that is null `co2eq_forecast`.

        `co2eq` is an estimate: it is computed from preliminary generation data, with a factor per kind of plant,
        and revised as operators report. Neither the factors nor the treatment of imports are documented.
        """
        times, computed, forecast = _columns(answer, ("unix_seconds", "co2eq", "co2eq_forecast"))
        step_seconds = min((later - sooner for sooner, later in pairwise(times)), default=QUARTER_SECONDS)
        if step_seconds not in STEPS_SECONDS:
            raise invalid(NAME, "rising times 15, 30 or 60 minutes apart", answer)
        points = [
            Point(time, step_seconds, expected, GridQuality.FORECAST)
            if known is None
            else Point(time, step_seconds, known, GridQuality.ESTIMATED)
            for time, known, expected in zip(times, computed, forecast, strict=True)
        ]
        granularity = f"{step_seconds / 60:g}min"
        origin = GridOrigin(NAME, "unspecified", "unspecified", granularity, self.country)
        return intervals_of(points, origin, now_timestamp_seconds)


def _renewable_ratio(answer: HttpAnswer, now: float) -> float | None:
    """Return the share of renewables in the load."""
    times, shares = _columns(answer, ("unix_seconds", "share"))
    begun = [one for one in zip(times, shares, strict=True) if now - HOUR_SECONDS < one[0] <= now]
    share = number(max(begun, key=lambda one: one[0])[1]) if begun else None
    # more than the load is generated in some hours, and exported
    return None if share is None else ratio_of_percent(min(share, 100))


def _columns(answer: HttpAnswer, names: Sequence[str]) -> list[list[Any]]:
    """Return arrays of one length; the first holds Unix times.

    Raises:
        GridError: as `object_of` does; `invalid` if they are not that.
    """
    read = object_of(answer, NAME)
    columns = [column for name in names if isinstance(column := read.get(name), list)]
    whole = len(columns) == len(names) and len({len(column) for column in columns}) == 1
    if whole and all(_is_time(time) for time in columns[0]):
        return columns
    raise invalid(NAME, f"arrays of one length under {', '.join(names)}, the first of Unix times", answer)


def _is_time(value: object) -> bool:
    time = number(value)
    return time is not None and 0 <= time < LAST_TIMESTAMP_SECONDS


class Plugin:
    """Reads `country` (default: that of the zone) and `renewable_share` (true)."""

    def configured(self, section: Section, place: Place) -> EnergyCharts:
        """Return the source for the country of the place."""
        own = section.converted("country", None, _code)
        country = own or OWN_CODES.get(place.country, place.country.lower())
        if section.get("country") is None and country not in COUNTRIES:
            hint = suggestion(country, COUNTRIES)
            section.problem(
                "country", f"Energy-Charts has no {place.country} (the zone is {place.zone}); {hint}"
            )
        return EnergyCharts(country, section.flag("renewable_share", default=True))


def _code(value: object) -> str:
    """Read a country's code.

    Raises:
        ValueError: it is none.
    """
    text = value.strip().lower() if isinstance(value, str) else ""
    if not CODE.fullmatch(text):
        hint = "" if isinstance(value, str) else "; put it in quotes"  # NO is a boolean in YAML
        raise ValueError(f"expected a country's code such as 'de', got {shown(value)}{hint}")
    return text


PLUGIN = Plugin()
