"""Labels, numbers and objects from providers' text, and what of a series is of use."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.errors import GridError
from joulemeter.grid_answers import (
    MAX_PLAUSIBLE_GRAMS_PER_KWH,
    NEAR_SECONDS,
    Point,
    intervals_of,
    label,
    number,
    object_of,
    objects_of,
    optional,
)
from joulemeter.grids import Dialogue, HttpAnswer, HttpRequest
from joulemeter.model import GridInterval, GridOrigin, GridQuality

ORIGIN = GridOrigin("test", "direct", "production", "hourly", "test")
FAILURE = GridError("error", "timeout")
NOW = 1_795_169_220.0
TOLD = (GridQuality.MEASURED, GridQuality.ESTIMATED, GridQuality.FORECAST)
USUAL = st.integers(0, int(MAX_PLAUSIBLE_GRAMS_PER_KWH))
STRANGE: st.SearchStrategy[object] = st.none() | st.floats() | st.integers() | st.booleans() | st.text()


def points(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Point]]:
    """Points around now, some of them beyond a day, at one instant or too long for what is between two."""
    begins = st.integers(-200, 200).map(lambda quarters: NOW + 900.0 * quarters)
    point = st.builds(Point, begins, st.sampled_from([300.0, 900.0, 3600.0]), values, st.sampled_from(TOLD))
    return st.lists(point, max_size=20)


def near(point: Point) -> bool:
    return abs(point.begin_timestamp_seconds - NOW) <= NEAR_SECONDS


def read(series: list[Point]) -> tuple[GridInterval, ...]:
    return intervals_of(series, ORIGIN, NOW)


def point(minutes: float, value: object, seconds: float = 3600.0) -> Point:
    return Point(NOW + 60 * minutes, seconds, value, GridQuality.MEASURED)


def brief(series: list[Point]) -> list[tuple[float, float, float]]:
    """Return minutes from now, seconds and grams of what is of use."""
    return [
        ((one.begin_timestamp_seconds - NOW) / 60, one.duration_seconds, one.intensity_grams_per_kwh)
        for one in read(series)
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("DE", "DE"),
        ("San José", "San José"),
        ("a\x00b\x1b\r\nc\u2028d\ud800e", "abcde"),
        ("x" * 64 + "y", "x" * 64),
        ("\n" * 64 + "y", "y"),
    ],
)
def test_a_label_is_printable_and_short(text: str, wanted: str):
    assert label(text) == wanted


@given(st.text())
def test_a_label_can_be_exported(text: str):
    assert len(label(text).encode()) <= 4 * 64


@pytest.mark.parametrize("value", [None, True, "1", [1], math.nan, math.inf, 10**400, -(10**400)])
def test_what_is_no_number(value: object):
    assert number(value) is None


@given(st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_its_float(value: float):
    assert number(value) == float(value)


def test_an_object_is_one_and_nothing_else():
    assert object_of(HttpAnswer(200, b'{"a": 1}'), "test") == {"a": 1}
    with pytest.raises(GridError, match=r"^grid.test: expected a JSON object, got \[1\]$"):
        object_of(HttpAnswer(200, b"[1]"), "test")


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, {"data": [{}, 1]}])
def test_a_list_of_objects_is_one_and_nothing_else(body: dict[str, Any]):
    assert objects_of({"data": [{"a": 1}]}, "data", "test") == [{"a": 1}]
    with pytest.raises(
        GridError, match=r"^grid.test: expected a list of objects under 'data', got "
    ) as caught:
        objects_of(body, "data", "test")
    assert caught.value.outcome == "invalid"


def test_an_optional_question_is_answered_or_not():
    request, answer = HttpRequest("https://api.example/share"), HttpAnswer(200, b'{"share": 4}')
    question = optional(request, lambda given: object_of(given, "test")["share"], None)
    assert next(question) is request
    with pytest.raises(StopIteration) as done:
        question.send(answer)
    assert done.value.value == 4


@pytest.mark.parametrize(
    "end",
    [lambda question: question.send(HttpAnswer(500, b"")), lambda question: question.throw(FAILURE)],
    ids=["refused", "not answered"],
)
def test_an_optional_question_that_fails_loses_nothing(end: Callable[[Dialogue], object]):
    question = optional(HttpRequest("https://api.example/share"), lambda given: object_of(given, "test"), {})
    next(question)
    with pytest.raises(StopIteration) as done:
        end(question)
    assert done.value.value == {}


def test_the_first_of_two_that_begin_together_is_kept_and_a_long_one_ends_where_the_next_begins():
    series = [point(0, 4), point(-60, 3), point(-120, 1), point(-60, 2), point(-30, 5, 900)]
    assert brief(series) == [(-120, 3600, 1), (-60, 1800, 3), (-30, 900, 5), (0, 3600, 4)]


def test_gaps_stay_and_what_is_implausible_before_or_after_cuts_nothing():
    series = [point(60, -1), point(0, 2), point(-90, "3"), point(-120, 1), point(30, 1e9)]
    assert brief(series) == [(-120, 3600, 1), (0, 3600, 2)]


@pytest.mark.parametrize(
    "series",
    [
        [point(-60, 1), point(0, -1)],
        [point(-60, 1), point(-30, -1), point(0, None), point(60, 1)],
        [point(60, -1), point(120, 1)],
        [point(0, -1), point(0, 1)],
    ],
    ids=["of now", "newest that is not null", "first to come", "first of two"],
)
def test_what_is_about_to_be_used_must_be_plausible(series: list[Point]):
    with pytest.raises(GridError, match=r"^grid.test: expected gCO2e/kWh from 0 to 2000, got -1$") as caught:
        read(series)
    assert caught.value.outcome == "invalid"


@given(points(USUAL))
def test_every_instant_of_which_something_is_said_is_there_once_and_in_order(series: list[Point]):
    wanted = sorted({one.begin_timestamp_seconds for one in series if near(one)})
    if not wanted:
        with pytest.raises(GridError) as caught:
            read(series)
        assert caught.value.outcome == "no_data"
        return
    assert [one.begin_timestamp_seconds for one in read(series)] == wanted


@given(points(USUAL | STRANGE))
def test_of_any_series_only_what_is_near_and_plausible_comes_back_without_overlap(series: list[Point]):
    try:
        got = read(series)
    except GridError as error:
        assert error.outcome in {"no_data", "invalid"}  # noqa: PT017 - both ways are fine
        return
    for one, after in pairwise(got):
        assert one.duration_seconds <= after.begin_timestamp_seconds - one.begin_timestamp_seconds
    for one in got:
        begin = one.begin_timestamp_seconds
        said = next(
            each for each in series if each.begin_timestamp_seconds == begin and each.value is not None
        )
        assert one.intensity_grams_per_kwh == said.value
        assert 0 < one.duration_seconds <= said.duration_seconds
        assert 0 <= one.intensity_grams_per_kwh <= MAX_PLAUSIBLE_GRAMS_PER_KWH
        assert abs(begin - NOW) <= NEAR_SECONDS


@given(points(USUAL))
def test_what_begins_after_now_is_a_forecast_and_the_rest_what_the_provider_calls_it(series: list[Point]):
    said: dict[float, GridQuality] = {}
    for one in filter(near, series):
        said.setdefault(one.begin_timestamp_seconds, one.quality)
    for interval in read(series) if said else ():
        begin = interval.begin_timestamp_seconds
        assert interval.quality is (GridQuality.FORECAST if begin > NOW else said[begin])
        assert interval.origin is ORIGIN
