"""The range of a report: a month, two instants, or some time until now, in a time zone. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from joulemeter.errors import ConfigError
from joulemeter.settings import shown, suggestion

MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
DURATION: Final = re.compile(r"(\d{1,4})([mhdw])")
UNIT_SECONDS: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
MAX_HINT_CHARACTERS: Final = 60
"""No message lists six hundred time zones."""


@dataclass(frozen=True, slots=True)
class Range:
    """From an instant to another (Unix time): a page later than the first and not later than the second is in it."""

    begin_seconds: float
    end_seconds: float
    time_zone: ZoneInfo
    cut_at_now: bool = False
    """Whether more was asked for than has passed."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_seconds - self.begin_seconds

    def local(self, timestamp_seconds: float) -> str:
        """Write an instant down in the report's time zone, with the offset that held then."""
        return datetime.fromtimestamp(timestamp_seconds, self.time_zone).isoformat(
            sep=" ", timespec="seconds"
        )


def time_zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder, such as "Europe"
        hint = suggestion(name, available_timezones())
        hint = hint if len(hint) <= MAX_HINT_CHARACTERS else "give a name such as Europe/Berlin"
        raise ConfigError([f"--timezone: no such time zone {shown(name)}; {hint}"]) from None


def chosen(
    now_seconds: float,
    zone: str = "UTC",
    *,
    month: str | None = None,
    begin: str | None = None,
    end: str | None = None,
    since: str | None = None,
) -> Range:
    """Return the range that the options name; the last whole month if they name none.

    Raises:
        ConfigError: they cannot be understood, contradict each other, or lie in the future.
    """
    where = time_zone(zone)
    if sum(one is not None for one in (month, begin or end, since)) > 1:
        raise ConfigError(["give one of --month, --since, or --from with --to"])
    if begin is None and end is not None:
        raise ConfigError(["--to: --from is missing; give both, or --from alone for a range until now"])
    now = datetime.fromtimestamp(now_seconds, where)
    if begin is not None:
        first, last, option = _instant("--from", begin, where), now_seconds, "--from"
        if end is not None:
            last, option = _instant("--to", end, where), "--from/--to"
    elif since is not None:
        first, last, option = now_seconds - _duration(since), now_seconds, "--since"
    else:
        first, last = _month(month or _month_before(now), where)
        option = "--month"
    if first >= now_seconds:
        raise ConfigError(
            [f"{option}: the range begins in the future; now is {now.isoformat(sep=' ', timespec='minutes')}"]
        )
    if first >= last:
        raise ConfigError([f"{option}: the range ends before it begins; exchange them"])
    end_seconds = min(last, now_seconds)  # in milliseconds, as Prometheus keeps time
    return Range(round(first, 3), round(end_seconds, 3), where, cut_at_now=last > now_seconds)


def _month(text: str, where: ZoneInfo) -> tuple[float, float]:
    """Return when a month begins and ends; with a change of clocks it is an hour shorter or longer."""
    match = MONTH.fullmatch(text)
    year, number = (int(part) for part in match.groups()) if match else (0, 0)
    if not (1 <= number <= 12 and 1970 <= year <= 9998):  # noqa: PLR2004 - the calendar's
        raise ConfigError([f"--month: expected a month such as 2026-10, got {shown(text)}"])
    following = (year + number // 12, number % 12 + 1)
    begin, end = (datetime(*first, 1, tzinfo=where).timestamp() for first in ((year, number), following))
    return begin, end


def _month_before(now: datetime) -> str:
    return f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"


def _instant(option: str, text: str, where: ZoneInfo) -> float:
    """Return an instant; a date is its first moment, and a time without an offset is in the zone."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = datetime(1, 1, 1, tzinfo=UTC)
    if parsed.year < 1970:  # noqa: PLR2004 - where Unix time begins
        raise ConfigError([f"{option}: expected 2026-10-01 or 2026-10-01T08:00, got {shown(text)}"])
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=where)).timestamp()


def _duration(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ConfigError([f"--since: expected a number and m, h, d or w such as 30d, got {shown(text)}"])
    return int(match[1]) * UNIT_SECONDS[match[2]]
