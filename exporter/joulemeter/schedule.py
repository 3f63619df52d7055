"""Tables by time of day, in the site's own time zone: tariffs, and an operator's own carbon intensity. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from joulemeter.settings import Section, shown, suggestion

MINUTE_SECONDS: Final = 60.0
DAY_MINUTES: Final = 24 * 60
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MAX_HINT_CHARACTERS: Final = 80
"""No message lists six hundred time zones."""
CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Span:
    """A value from `begin_minutes` until before `end_minutes` after midnight; over midnight where the end is not later.

    `days` (0 is Monday) and `months` (1 is January) are those on which it begins.
    """

    begin_minutes: int
    end_minutes: int
    days: frozenset[int]
    months: frozenset[int]
    value: float

    def holds(self, minutes: int, day: int, month: int, day_before: tuple[int, int]) -> bool:
        """Say whether it is on at a local time; `day_before` is yesterday's day and month."""
        over_midnight = self.end_minutes <= self.begin_minutes
        before_end = minutes < self.end_minutes
        begun_today = minutes >= self.begin_minutes and (over_midnight or before_end)
        if begun_today and day in self.days and month in self.months:
            return True
        return over_midnight and before_end and day_before[0] in self.days and day_before[1] in self.months


@dataclass(frozen=True, slots=True)
class Schedule:
    """A value at every instant: that of the first span that is on, else `otherwise`.

    Wall clocks jump where daylight saving begins and ends, so the table is looked up minute by minute: the
    hour that is skipped is never on, the hour that comes twice is on twice.
    """

    otherwise: float
    spans: tuple[Span, ...] = ()
    time_zone: ZoneInfo | None = None

    def at(self, timestamp_seconds: float) -> tuple[float, float]:
        """Return the value at an instant (Unix time), and until when at least it holds."""
        if not self.spans:
            return self.otherwise, float("inf")
        begun = timestamp_seconds // MINUTE_SECONDS * MINUTE_SECONDS
        local = datetime.fromtimestamp(begun, self.time_zone)
        yesterday = datetime.fromordinal(local.toordinal() - 1)
        minutes, day_before = local.hour * 60 + local.minute, (yesterday.weekday(), yesterday.month)
        for span in self.spans:
            if span.holds(minutes, local.weekday(), local.month, day_before):
                return span.value, begun + MINUTE_SECONDS
        return self.otherwise, begun + MINUTE_SECONDS


def read_spans(
    section: Section, key: str, site: ZoneInfo | None, *, value_key: str, low: float, high: float
) -> tuple[Span, ...]:
    """Read a table: a list of `{from, to, days, months, <value_key>}`; `site` is the site's time zone."""
    spans = []
    for index, item in enumerate(section.items(key)):
        row = section.item(key, index)
        if not isinstance(item, Mapping):
            continue
        spans.append(
            Span(
                begin_minutes=row.converted("from", 0, _minutes),
                end_minutes=row.converted("to", DAY_MINUTES, _minutes),
                days=row.converted("days", frozenset(range(7)), _days),
                months=row.converted("months", frozenset(range(1, 13)), _months),
                value=row.number(value_key, 0.0, low=low, high=high),
            )
        )
        if row.get(value_key) is None:
            row.problem(value_key, "missing; each row of the table needs its value")
        row.finish()
    if spans and site is None:
        section.problem(key, "times of day need the site's time zone: set `time_zone`, such as Europe/Paris")
    return tuple(spans)


def time_zone(value: object) -> ZoneInfo:
    """Return an IANA time zone by its name.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return ZoneInfo(value if isinstance(value, str) else "")
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        hint = suggestion(value, available_timezones())
        if len(hint) > MAX_HINT_CHARACTERS:
            hint = "expected a name of the IANA database such as Europe/Paris"
        raise ValueError(f"unknown time zone {shown(value)}; {hint}") from error


def _minutes(value: object) -> int:
    """Read a time of day. YAML reads an unquoted 17:30 as a number to the base of 60: as the minutes that we want."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DAY_MINUTES:
        return value
    match = CLOCK.fullmatch(value) if isinstance(value, str) else None
    minutes = int(match[1]) * 60 + int(match[2]) if match else DAY_MINUTES + 1
    if minutes > DAY_MINUTES:
        raise ValueError(f"expected a time of day from '00:00' to '24:00', got {shown(value)}")
    return minutes


def _days(value: object) -> frozenset[int]:
    return frozenset(_among(value, DAYS))


def _months(value: object) -> frozenset[int]:
    return frozenset(number + 1 for number in _among(value, MONTHS))


def _among(value: object, words: Sequence[str]) -> frozenset[int]:
    """Read `mon-fri`, `sat, sun` or a list of those; a range may go over the end (`nov-mar`)."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    found: set[int] = set()
    for part in parts:
        first, dash, last = (word.strip().lower()[:3] for word in str(part).partition("-"))
        if first not in words or (dash and last not in words):
            raise ValueError(
                f"expected {words[0]}-{words[4]} or a list of {', '.join(words)}, got {shown(value)}"
            )
        begin, end = words.index(first), words.index(last if dash else first)
        found.update(number % len(words) for number in range(begin, end + 1 + len(words) * (end < begin)))
    return frozenset(found)
