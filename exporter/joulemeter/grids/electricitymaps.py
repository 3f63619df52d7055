"""Electricity Maps: average intensity of a zone's consumption by the hour, imports included. Needs a token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from joulemeter.errors import GridError
from joulemeter.grid_answers import (
    Point,
    excerpt,
    instant,
    intervals_of,
    invalid,
    label,
    object_of,
    objects_of,
    optional,
    ratio_of_percent,
)
from joulemeter.grids import (
    HOUR_SECONDS,
    POLL_SECONDS,
    Dialogue,
    HttpAnswer,
    HttpRequest,
    Place,
    needed_secret,
)
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality, Signal
from joulemeter.settings import Secret, Section

NAME: Final = "electricitymaps"
V4: Final = "https://api.electricitymaps.com/v4"
V3: Final = "https://api.electricitymaps.com/v3"
NOT_IN_V4: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
"""Older tokens may be for v3 alone; v3 then has the last word."""
REFUSED_FOR_GOOD: Final = (b"unauthorized for zonekey", b"endpoint not available")
"""The token's plan leaves the zone or the path out. It is said with 401 too, which else may be a rate limit."""
FACTORS: Final = ("lifecycle", "direct")
LISTS: Final = ("data", "history", "forecast")
NO_ZONES: Final = ("EU", "WORLD")
"""Zones of ours that the provider does not have."""

Item = Mapping[str, Any]
KEYS: Final = {
    "token_file": "File with the token; read anew each time.",
    "token_env": "Environment variable with the token, in place of a file.",
    "emission_factor_type": "Which emission factors: with construction and fuel supply, or burning alone.",
    "estimations": "Whether hours that the provider estimated are of use; they are marked.",
    "power_breakdown": "Whether to ask for the shares of renewable and carbon-free power too.",
    "forecast": "Whether to ask for the forecast too; few plans have it.",
}


@dataclass(frozen=True, slots=True)
class ElectricityMaps:
    """Asks for the latest hour, and on demand for the shares of renewable power and the forecast."""

    place: Place
    secret: Secret | None = None
    factor: str = FACTORS[0]
    estimations: bool = True
    power_breakdown: bool = True
    forecast: bool = False
    name: str = NAME
    signal: Signal = Signal.AVERAGE
    poll_seconds: float = POLL_SECONDS

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:
        """Ask v4, and v3 where v4 is not for this token; then the same version for the rest."""
        now = now_timestamp_seconds
        base = V4
        answer = yield self._request(base, "carbon-intensity/latest", secret)
        if answer.status in NOT_IN_V4:
            base = V3
            answer = yield self._request(base, "carbon-intensity/latest", secret)
        hours = intervals_of(*self._read(answer), now)
        shares: tuple[float | None, float | None] = (None, None)
        if self.power_breakdown:
            request = self._request(base, "power-breakdown/latest", secret)
            shares = yield from optional(request, self._shares, shares)
        to_come: tuple[GridInterval, ...] = ()
        if self.forecast:
            request = self._request(base, "carbon-intensity/forecast", secret)
            end = hours[-1].begin_timestamp_seconds + HOUR_SECONDS
            to_come = yield from optional(request, lambda answer: self._to_come(answer, end, now), to_come)
        return GridAnswer(hours + to_come, *shares)

    def _request(self, base: str, path: str, secret: str) -> HttpRequest:
        # Else the provider takes the zone of the caller's address where it finds none. Its documentation has had
        # both names for the switch, the second with v4; the zone of every answer is checked besides.
        switches = {"shouldUseFallbackCallerLookup": "false", "disableCallerLookup": "true"}
        factor = {"emissionFactorType": self.factor} if path.startswith("carbon-intensity/") else {}
        measured = {} if self.estimations or path.endswith("/forecast") else {"disableEstimations": "true"}
        query = _where(self.place) | switches | factor | measured
        return HttpRequest(f"{base}/{path}", query, {"auth-token": secret})

    def _read(self, answer: HttpAnswer) -> tuple[list[Point], GridOrigin]:
        """Read hours; `datetime` is the begin, whenever it was computed (`updatedAt` may be long before it)."""
        items = _items(answer)
        origin = GridOrigin(NAME, self.factor, "consumption", "hourly", label(self._zone(items)))
        points = []
        for item in items:
            if (factor := item.get("emissionFactorType")) not in (None, self.factor):
                raise invalid(NAME, f"the emission factors {self.factor!r}", factor)
            if (value := item.get("carbonIntensity", item.get("value"))) is not None:
                measured = item.get("isEstimated") is False
                quality = GridQuality.MEASURED if measured else GridQuality.ESTIMATED
                points.append(Point(instant(item.get("datetime"), NAME), HOUR_SECONDS, value, quality))
        return points, origin

    def _to_come(self, answer: HttpAnswer, end: float, now: float) -> tuple[GridInterval, ...]:
        """Read a forecast from the end of what is known on."""
        points, origin = self._read(answer)
        later = [point for point in points if point.begin_timestamp_seconds >= end]
        return intervals_of([replace(one, quality=GridQuality.FORECAST) for one in later], origin, now)

    def _zone(self, items: list[Item]) -> str:
        """Return the zone that all items are of, if it is where the place is."""
        zone, *others = (item.get("zone") for item in items)
        if any(other != zone for other in others):
            raise invalid(NAME, "one zone", [zone, *others])
        if isinstance(zone, str):
            if "zone" in _where(self.place):
                is_here = zone == self.place.zone
            else:
                is_here = self.place.country in NO_ZONES or zone.partition("-")[0] == self.place.country
            if is_here:
                return zone
        raise invalid(NAME, f"a place in zone {self.place.zone}", zone)

    def _shares(self, answer: HttpAnswer) -> tuple[float | None, float | None]:
        items = _items(answer)
        self._zone(items)
        renewable, carbon_free = items[-1].get("renewablePercentage"), items[-1].get("fossilFreePercentage")
        return ratio_of_percent(renewable), ratio_of_percent(carbon_free)


class Plugin:
    """Reads the token's place, `emission_factor_type`, `estimations`, `power_breakdown` and `forecast`."""

    def configured(self, section: Section, place: Place) -> ElectricityMaps:
        """Return the source, which asks by cloud region, else by coordinates, else by zone."""
        secret = needed_secret(section, "token", NAME, "a token")
        if place.zone in NO_ZONES and "zone" in _where(place):
            section.problem(
                "zone",
                f"Electricity Maps has no zone {place.zone!r}; set grid.zone to a country or one of its zones "
                "such as DE or US-CAL-CISO, or give the coordinates or the cloud region",
            )
        return ElectricityMaps(
            place,
            secret,
            factor=section.choice("emission_factor_type", FACTORS[0], FACTORS),
            estimations=section.flag("estimations", default=True),
            power_breakdown=section.flag("power_breakdown", default=True),
            forecast=section.flag("forecast", default=False),
        )


PLUGIN = Plugin()


def _where(place: Place) -> dict[str, str]:
    """Name the place as exactly as it is known."""
    if place.cloud_region is not None:
        provider, region = place.cloud_region
        return {"dataCenterProvider": provider.lower(), "dataCenterRegion": region.lower()}
    if place.latitude is not None and place.longitude is not None:
        return {"lat": str(place.latitude), "lon": str(place.longitude)}
    return {"zone": place.zone}


def _items(answer: HttpAnswer) -> list[Item]:
    """Return what an answer says: one item, or those of its list with what it says of all."""
    said = excerpt(answer.body)
    if any(words in answer.body.lower() for words in REFUSED_FOR_GOOD):
        raise GridError(
            "auth",
            f"grid.{NAME}: HTTP {answer.status}: {said}; the token's plan leaves this out: "
            "choose the zone at the provider, or set grid.zone to the one it is for",
            permanent=True,
        )
    body = object_of(answer, NAME)
    for key in LISTS:
        if isinstance(body.get(key), list):
            common = {name: value for name, value in body.items() if name != key}
            if items := objects_of(body, key, NAME):
                return [common | item for item in items]
            raise GridError("no_data", f"grid.{NAME}: no points: {said}")
    return [body]
