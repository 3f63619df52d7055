"""The operator's own number, flat or by time of day: a contract or an own plant is known best on the site."""

import math
from dataclasses import dataclass

from joulemeter.grid_answers import MAX_PLAUSIBLE_GRAMS_PER_KWH
from joulemeter.grids import Place
from joulemeter.model import GridInterval, GridOrigin, GridQuality
from joulemeter.schedule import MINUTE_SECONDS, Schedule, read_spans
from joulemeter.settings import Section

ORIGIN = GridOrigin("fixed", "unspecified", "unspecified", "constant", "operator")
"""Whether it is a lifecycle or a direct factor, and of production or consumption, only the operator knows."""

KEYS = {
    "intensity_grams_per_kwh": "Your own intensity, in gCO2e per kWh."
    " Where `time_of_day` has rows, that of all other times.",
    "time_of_day": 'Rows `{from: "08:00", to: "18:00", days: mon-fri, months: apr-sep, intensity_grams_per_kwh: 20}`;'
    " the first that is on counts. Times are the site's (`time_zone`).",
}


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always answers."""

    schedule: Schedule
    name: str = "fixed"

    def at(self, at_timestamp_seconds: float) -> GridInterval:
        """Return the number of this minute. It is `static`: it does not follow the grid, whoever chose it."""
        grams, until = self.schedule.at(at_timestamp_seconds)
        begin = 0.0 if until == math.inf else at_timestamp_seconds // MINUTE_SECONDS * MINUTE_SECONDS
        return GridInterval(begin, until - begin, grams, GridQuality.STATIC, ORIGIN)


class Plugin:
    """Reads `intensity_grams_per_kwh`, and `time_of_day` for when it is another."""

    def configured(self, section: Section, place: Place) -> Fixed:
        """Return the operator's number."""
        key = "intensity_grams_per_kwh"
        grams = section.number(key, 0.0, low=0, high=MAX_PLAUSIBLE_GRAMS_PER_KWH)
        if section.get(key) is None:
            section.problem(key, "missing; source 'fixed' needs it (gCO2e per kWh)")
        spans = read_spans(
            section, "time_of_day", place.time_zone, value_key=key, low=0, high=MAX_PLAUSIBLE_GRAMS_PER_KWH
        )
        return Fixed(Schedule(grams, spans, place.time_zone))


PLUGIN = Plugin()
