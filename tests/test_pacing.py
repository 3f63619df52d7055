"""Steps and covered time between two pages."""

import pytest

from joulemeter.pacing import REMEMBERED_SECONDS, Interval, Timing


def test_a_request_that_stays_covers_all_the_time():
    assert Interval(1.0, running=3, began=1, ended=2).covered_seconds(2.5) == 1.0


def test_a_request_that_came_and_went_covers_its_own_time():
    assert Interval(1.0, running=0, began=1, ended=1).covered_seconds(0.4) == pytest.approx(0.4)


def test_requests_that_all_came_and_went_lie_by_chance():
    """Two of half a second each in one second: by chance three quarters of it."""
    assert Interval(1.0, running=1, began=1, ended=1).covered_seconds(1.0) == pytest.approx(0.75)


@pytest.mark.parametrize("interval", [Interval(1.0, 4, 0, 0), Interval(1.0, 0, 0, 0), Interval(1.0, 2, 5, 7)])
@pytest.mark.parametrize("sequence_seconds", [0.0, 0.2, 3.0])
def test_no_more_is_covered_than_there_was(interval: Interval, sequence_seconds: float):
    assert 0 <= interval.covered_seconds(sequence_seconds) <= min(1.0, sequence_seconds) + 1e-12
    assert interval.decode_steps(50.0, sequence_seconds) <= 50.0


def test_steps_are_the_covered_time_over_the_time_between_tokens():
    """Four sequences, 10 ms a step."""
    assert Interval(1.0, running=4, began=0, ended=0).decode_steps(400.0, 4.0) == pytest.approx(100)


def test_tokens_without_a_time_are_steps_of_all_that_run():
    assert Interval(1.0, running=4, began=0, ended=0).decode_steps(8.0, 0.0) == 2


def test_timing_is_judged_over_many_pages():
    timing = Timing()
    assert all(timing.whole(0.9, 1.0) for _ in range(100))
    assert timing.whole(0.0, 0.5)  # a request has just begun
    mixed = [timing.whole(0.3, 1.0) for _ in range(int(4 * REMEMBERED_SECONDS))]
    assert not mixed[-1]
