"""Tables by time of day: midnight, weekends, seasons, and the two nights a year that are not 24 hours."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.schedule import Schedule, Span, read_spans, time_zone
from joulemeter.settings import Section

PARIS = ZoneInfo("Europe/Paris")
ALL_DAYS = frozenset(range(7))
ALL_MONTHS = frozenset(range(1, 13))


def spans(*rows: object, site: ZoneInfo | None = PARIS) -> tuple[Span, ...]:
    problems: list[str] = []
    section = Section({"rows": list(rows)}, "", problems)
    found = read_spans(section, "rows", site, value_key="per_kwh", low=-10, high=10)
    assert problems == []
    return found


def at(schedule: Schedule, *when: int) -> float:
    """The value at a local time of Paris."""
    return schedule.at(datetime(*when, tzinfo=PARIS).timestamp())[0]  # type: ignore[arg-type,misc]


def hours(schedule: Schedule, day: tuple[int, int, int], value: float) -> float:
    """How many hours of a local day have a value."""
    begin = datetime(*day, tzinfo=PARIS)
    end = datetime(*day, tzinfo=PARIS) + timedelta(days=1)
    instants = range(int(begin.timestamp()), int(end.timestamp()), 60)
    return sum(schedule.at(float(instant))[0] == value for instant in instants) / 60


def test_flat_holds_for_ever():
    assert Schedule(0.2).at(1.8e9) == (0.2, float("inf"))


def test_a_span_ends_before_its_end():
    table = Schedule(1.0, spans({"from": "08:00", "to": "18:00", "per_kwh": 2.0}), PARIS)
    assert [at(table, 2026, 11, 20, *time) for time in ((7, 59, 59), (8, 0), (17, 59, 59), (18, 0))] == [
        1,
        2,
        2,
        1,
    ]


def test_over_midnight_belongs_to_the_day_on_which_it_begins():
    rows = spans({"from": "22:00", "to": "06:00", "days": "fri", "per_kwh": 2.0})
    table = Schedule(1.0, rows, PARIS)
    assert at(table, 2026, 11, 20, 23) == 2.0, "Friday night"
    assert at(table, 2026, 11, 21, 5, 59) == 2.0, "its morning after"
    assert at(table, 2026, 11, 20, 5) == 1.0, "Friday's morning is Thursday night's"
    assert at(table, 2026, 11, 21, 23) == 1.0


def test_the_first_row_that_is_on_counts():
    rows = spans(
        {"days": "sat, sun", "per_kwh": 3.0},
        {"from": "06:00", "to": "22:00", "per_kwh": 2.0},
    )
    table = Schedule(1.0, rows, PARIS)
    assert [at(table, 2026, 11, day, 12) for day in (20, 21, 22)] == [2.0, 3.0, 3.0]


def test_seasons_may_go_over_the_year():
    (row,) = spans({"months": "nov-mar", "per_kwh": 2.0})
    assert row.months == {11, 12, 1, 2, 3}
    table = Schedule(1.0, (row,), PARIS)
    assert [at(table, 2026, month, 15) for month in (10, 11, 3, 4)] == [1.0, 2.0, 2.0, 1.0]


def test_times_that_yaml_took_for_numbers_are_times():
    """PyYAML reads an unquoted 17:30 as 1050, to the base of 60."""
    assert spans({"from": 1050, "to": "24:00", "per_kwh": 1.0}) == (
        Span(1050, 1440, ALL_DAYS, ALL_MONTHS, 1.0),
    )


def test_the_skipped_hour_is_never_on_and_the_doubled_hour_is_on_twice():
    night = Schedule(1.0, spans({"from": "02:00", "to": "03:00", "per_kwh": 2.0}), PARIS)
    assert hours(night, (2026, 3, 28), 2.0) == 1.0
    assert hours(night, (2026, 3, 29), 2.0) == 0.0, "clocks go forward"
    assert hours(night, (2026, 10, 25), 2.0) == 2.0, "clocks go back"
    half = Schedule(1.0, spans({"from": "02:30", "to": "04:00", "per_kwh": 2.0}), PARIS)
    assert hours(half, (2026, 10, 25), 2.0) == 2.0, "02:30 comes twice, and 02:00 to 02:29 in between is off"
    assert hours(half, (2026, 3, 29), 2.0) == 1.0


@given(
    st.integers(1_577_836_800, 2_051_222_400).map(
        lambda unix: datetime.fromtimestamp(unix, UTC)
    ),  # 2020 to 2034
    st.integers(0, 1440),
    st.integers(0, 1440),
    st.sets(st.integers(0, 6), min_size=1),
)
def test_a_value_holds_until_it_says_and_follows_the_wall_clock(when, begin, end, days):
    table = Schedule(1.0, (Span(begin, end, frozenset(days), ALL_MONTHS, 2.0),), PARIS)
    timestamp = when.timestamp()
    value, until = table.at(timestamp)
    assert timestamp < until <= timestamp + 60
    assert table.at((timestamp + until) / 2)[0] == value
    local = when.astimezone(PARIS)
    minutes = local.hour * 60 + local.minute
    yesterday = (local.weekday() - 1) % 7
    if begin < end:
        on = begin <= minutes < end and local.weekday() in days
    else:
        on = (minutes >= begin and local.weekday() in days) or (minutes < end and yesterday in days)
    assert value == (2.0 if on else 1.0)


def test_time_zones_are_known_by_name():
    assert time_zone("Europe/Paris") == PARIS
    for bad in ("", "../etc/passwd", "Europe", "/etc/localtime", None, 5):
        with pytest.raises(ValueError, match="unknown time zone"):
            time_zone(bad)
