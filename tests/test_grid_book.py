"""Which intensity is in use when: fresh before stale before static, in the order of the configuration."""

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from joulemeter.grid_book import HORIZONS_SECONDS, KEEP_SECONDS, GridBook
from joulemeter.grids import ConstantSource, Dialogue, Place, Source
from joulemeter.grids.fixed import Fixed
from joulemeter.grids.relay import Relay
from joulemeter.grids.static import Static
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality, Signal
from joulemeter.schedule import Schedule
from joulemeter.settings import Secret

HOUR = 3600.0
UNIX = 1.7e9
"""Unix time less monotonic time in these tests."""
MEASURED, ESTIMATED, FORECAST = GridQuality.MEASURED, GridQuality.ESTIMATED, GridQuality.FORECAST
STALE, STATIC = GridQuality.STALE, GridQuality.STATIC


@dataclass(frozen=True)
class Told:
    """A live source that never is asked here: the tests tell its book."""

    name: str
    signal: Signal = Signal.AVERAGE
    secret: Secret | None = None
    poll_seconds: float = 900.0

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:
        raise NotImplementedError


FIRST, SECOND = Told("first"), Told("second")


def interval(
    begin_seconds: float, grams: float, quality: GridQuality = MEASURED, seconds: float = HOUR
) -> GridInterval:
    origin = GridOrigin("told", "lifecycle", "consumption", "hourly", "")
    return GridInterval(begin_seconds + UNIX, seconds, grams, quality, origin)


def book(*sources: Source) -> GridBook:
    return GridBook(Place("FR"), sources or (FIRST, SECOND, Static("FR")))


def tell(into: GridBook, source: Told, at_seconds: float, *intervals: GridInterval, **shares: float) -> None:
    into.take(source.name, GridAnswer(intervals, **shares), at_seconds, UNIX)


def used(found: GridBook, at_seconds: float) -> tuple[float, GridQuality]:
    in_use = found.at(at_seconds, UNIX)
    assert in_use.until_seconds > at_seconds
    return in_use.interval.intensity_grams_per_kwh, in_use.quality


ANNUAL = Static("FR").at(UNIX).intensity_grams_per_kwh


def test_without_an_answer_the_shipped_factor_is_in_use_and_says_so():
    assert used(book(), 0.0) == (ANNUAL, STATIC)
    assert used(book(FIRST), 0.0) == (ANNUAL, STATIC), "even where the list ends without it"
    assert book().at(0.0, UNIX).source is None


def test_a_value_is_fresh_for_twice_its_duration_then_stale_then_static():
    found = book()
    tell(found, FIRST, 10.0, interval(0.0, 100.0))
    assert used(found, 10.0) == (100.0, MEASURED)
    assert used(found, 2 * HOUR - 1) == (100.0, MEASURED)
    assert used(found, 2 * HOUR) == (100.0, STALE)
    assert used(found, 6 * HOUR - 1) == (100.0, STALE)
    assert used(found, 6 * HOUR) == (ANNUAL, STATIC)


def test_the_first_fresh_source_wins_and_the_first_stale_one_if_none_is_fresh():
    found = book()
    tell(found, FIRST, 0.0, interval(0.0, 100.0))
    tell(found, SECOND, 0.0, interval(HOUR, 200.0))
    assert used(found, 1.5 * HOUR) == (100.0, MEASURED)
    assert used(found, 2.5 * HOUR) == (200.0, MEASURED), "the first is stale"
    assert used(found, 4 * HOUR) == (100.0, STALE)
    assert used(found, 6.5 * HOUR) == (200.0, STALE), "the first is too old"
    assert used(found, 8 * HOUR) == (ANNUAL, STATIC)


def test_a_constant_source_ends_the_list():
    own: ConstantSource = Fixed(Schedule(7.0))
    found = book(own, FIRST)
    assert found.live == ()
    assert used(found, 0.0) == (7.0, STATIC)
    found = book(FIRST, own, Static("FR"))
    assert used(found, 0.0) == (7.0, STATIC)
    tell(found, FIRST, 0.0, interval(0.0, 100.0))
    assert used(found, 1.0) == (100.0, MEASURED)


def test_a_forecast_is_used_for_its_own_time_only():
    found = book()
    tell(
        found,
        FIRST,
        0.0,
        interval(0.0, 100.0),
        interval(HOUR, 150.0, FORECAST),
        interval(3 * HOUR, 9.0, FORECAST),
    )
    assert used(found, 1.5 * HOUR) == (100.0, MEASURED), "what was measured is still fresh"
    assert used(found, 2.5 * HOUR) == (150.0, STALE), "the forecast was for the hour before: no gap is filled"
    assert used(found, 3.5 * HOUR) == (9.0, FORECAST)


def test_what_is_said_of_a_time_again_replaces_what_was_said_before():
    found = book()
    tell(
        found,
        FIRST,
        0.0,
        interval(0.0, 100.0, ESTIMATED),
        interval(HOUR, 150.0, FORECAST),
        interval(2 * HOUR, 9.0, FORECAST),
    )
    tell(found, FIRST, HOUR, interval(HOUR, 120.0))
    assert used(found, 0.5 * HOUR) == (100.0, ESTIMATED), "for energy that was measured late"
    assert used(found, 1.5 * HOUR) == (120.0, MEASURED)
    assert [one.intensity_grams_per_kwh for one in found.answer_of("first", HOUR).intervals] == [100, 120, 9]


def test_clocks_that_differ_by_a_moment_make_no_second_interval():
    found = book()
    tell(found, FIRST, 0.0, interval(0.0, 100.0))
    found.take("first", GridAnswer((interval(0.0, 110.0),)), 60.0, UNIX + 0.02)
    assert [one.interval.intensity_grams_per_kwh for one in found.known["first"].laid] == [110.0]


def test_old_intervals_are_dropped():
    found = book()
    for hour in range(100):
        tell(found, FIRST, hour * HOUR, interval(hour * HOUR, 100.0 + hour))
    assert len(found.known["first"].laid) <= KEEP_SECONDS / HOUR + 1


def test_a_wall_clock_that_jumps_makes_nothing_old():
    found = book()
    tell(found, FIRST, 10.0, interval(0.0, 100.0))
    for jumped in (UNIX + 1e6, UNIX - 1e6):
        assert found.at(20.0, jumped).interval.intensity_grams_per_kwh == 100.0


def test_marginal_values_are_never_in_use():
    marginal = Told("pushed", Signal.MARGINAL)
    found = book(Static("FR"), marginal)
    tell(found, marginal, 0.0, interval(0.0, 900.0))
    assert used(found, 1.0) == (ANNUAL, STATIC)
    assert found.live == ()
    assert found.shown == (marginal,)


def test_forecasts_by_horizon_and_shares_of_the_source_in_use():
    found = book()
    hours = [interval(hour * HOUR, 100.0 + hour, FORECAST if hour else MEASURED) for hour in range(13)]
    tell(found, FIRST, 60.0, *hours, renewable_ratio=0.25, carbon_free_ratio=0.9)
    in_use = found.at(60.0, UNIX)
    assert found.forecasts(in_use, 60.0) == {"1h": 101.0, "3h": 103.0, "6h": 106.0, "12h": 112.0}
    assert HORIZONS_SECONDS["24h"] == 24 * HOUR
    answer = found.answer_of("first", 60.0)
    assert (answer.renewable_ratio, answer.carbon_free_ratio) == (0.25, 0.9)
    assert found.answer_of("first", 7 * HOUR).renewable_ratio is None, "shares are of the moment"
    assert found.answer_of("second", 60.0) is None
    nothing = book()
    assert nothing.forecasts(nothing.at(60.0, UNIX), 60.0) == {}


def test_what_is_fresh_need_not_be_asked_of_others():
    found = book()
    assert not found.is_fresh(FIRST, 0.0)
    tell(found, FIRST, 0.0, interval(0.0, 100.0))
    assert found.is_fresh(FIRST, HOUR)
    assert not found.is_fresh(FIRST, 2 * HOUR)


def test_sources_of_the_book_are_those_of_the_seam():
    assert book(Relay(Place("FR"), "http://a/grid.json")).live[0].name == "relay"


def test_a_change_is_not_missed_where_one_asks_at_its_very_instant():
    found = book(FIRST)
    found.take("first", GridAnswer((interval(0.1, 100.0),)), 0.0, UNIX + 0.7)
    at = 0.0
    seen = []
    while not math.isinf(at):
        in_use = found.at(at, UNIX)
        seen.append(in_use.quality)
        at = in_use.until_seconds
    assert seen[-2:] == [STALE, STATIC]


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.floats(0, 2000), st.sampled_from([MEASURED, ESTIMATED, FORECAST])),
        unique_by=lambda one: one[0],
        max_size=12,
    ),
    st.lists(
        st.tuples(st.integers(0, 40), st.floats(0, 2000), st.sampled_from([MEASURED, FORECAST])),
        unique_by=lambda one: one[0],
        max_size=12,
    ),
    st.floats(0, 60_000),
)
def test_nothing_changes_before_the_book_says(first, second, at_seconds):
    """What is priced in one piece has one intensity: no instant before `until_seconds` has another."""
    found = book()
    for source, told in ((FIRST, first), (SECOND, second)):
        tell(found, source, 0.0, *(interval(900.0 * n, grams, q, 900.0) for n, grams, q in sorted(told)))
    in_use = found.at(at_seconds, UNIX)
    assert in_use.until_seconds > at_seconds
    end = min(in_use.until_seconds, at_seconds + 1e5)
    for part in (0.0, 0.3, 0.7, 0.999):
        later = found.at(at_seconds + (end - at_seconds) * part, UNIX)
        assert (later.interval, later.quality) == (in_use.interval, in_use.quality)
    assert 0 <= in_use.interval.intensity_grams_per_kwh <= 2000
    assert math.isinf(in_use.until_seconds) or in_use.until_seconds < 1e6
