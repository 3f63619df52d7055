"""Models on one GPU: whoever got dearer is found within minutes, and the sum stays what was measured."""

import math

import pytest

from joulemeter.sharing import Share, Sharing


def shares(number: int) -> list[Share]:
    return [
        Share(600.0, 1500.0 + 1000.0 * math.sin(number * 1.3)),
        Share(500.0, 800.0 + 700.0 * math.sin(number * 0.7 + 1.0)),
    ]


def true(number: int, ratios: tuple[float, ...]) -> list[float]:
    return [
        share.base_joules + ratio * share.work_joules
        for share, ratio in zip(shares(number), ratios, strict=True)
    ]


def split(sharing: Sharing, number: int, ratios: tuple[float, ...]) -> list[float]:
    parts = sharing.split(sum(true(number, ratios)), shares(number), 10.0)
    assert parts is not None
    return parts


@pytest.mark.parametrize("ratios", [(1.0, 1.0), (1.25, 1.0), (1.0, 1.15), (1.1, 0.9)])
def test_whose_it_is_is_known_after_an_hour(ratios: tuple[float, float]):
    sharing = Sharing(2)
    for number in range(400):
        split(sharing, number, (1.0, 1.0))
    for number in range(400, 400 + 360):
        parts = split(sharing, number, ratios)
        assert math.fsum(parts) == pytest.approx(sum(true(number, ratios)), rel=1e-9)
    assert parts == pytest.approx(true(number, ratios), rel=0.01)


def test_it_does_not_wait_for_hours():
    sharing = Sharing(2)
    for number in range(400):
        parts = split(sharing, number, (1.25, 1.0) if number >= 300 else (1.0, 1.0))
    assert parts == pytest.approx(true(399, (1.25, 1.0)), rel=0.05)


def test_windows_that_say_nothing_are_left_as_they_are():
    sharing = Sharing(2)
    assert sharing.split(1200.0, [Share(600.0, 0.0), Share(500.0, 0.0)], 10.0) is None
    assert sharing.split(1000.0, shares(1), 10.0) is None


def test_a_model_that_does_nothing_gets_its_base():
    sharing = Sharing(2)
    for number in range(50):
        alone = [shares(number)[0], Share(500.0, 0.0)]
        work = alone[0].work_joules
        assert sharing.split(1100.0 + 2.0 * work, alone, 10.0) == pytest.approx([600.0 + 2.0 * work, 500.0])
