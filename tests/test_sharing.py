"""Models on one GPU: whoever got dearer is found within minutes, and the sum stays what was measured."""

import copy
import math
from random import Random

import pytest

from joulemeter.sharing import Share, Sharing


def shares(number: int) -> list[Share]:
    return [
        Share(600.0, 300.0 + 200.0 * math.sin(number * 0.37), 1200.0 + 800.0 * math.sin(number * 0.13)),
        Share(
            500.0,
            500.0 + 400.0 * math.sin(number * 0.29 + 2.0),
            300.0 + 250.0 * math.sin(number * 0.07 + 1.0),
        ),
    ]


def true(number: int, ratios: tuple[float, ...]) -> list[float]:
    return [
        share.base_joules + ratio * math.fsum(share.works)
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
    assert sharing.split(1200.0, [Share(600.0, 0.0, 0.0), Share(500.0, 0.0, 0.0)], 10.0) is None
    assert sharing.split(1000.0, shares(1), 10.0) is None


def test_a_model_that_does_nothing_gets_its_base():
    sharing = Sharing(2)
    for number in range(50):
        alone = [shares(number)[0], Share(500.0, 0.0, 0.0)]
        work = math.fsum(alone[0].works)
        assert sharing.split(1100.0 + 2.0 * work, alone, 10.0) == pytest.approx([600.0 + 2.0 * work, 500.0])


def test_prompts_and_other_work_have_a_ratio_each():
    """A slower decode shows in every mix as it should, not in the mean of the last minutes."""
    sharing = Sharing(2)
    for number in range(720):
        first, second = shares(number)
        sharing.split(
            first.base_joules
            + first.prompt_joules
            + 1.25 * first.other_joules
            + second.base_joules
            + math.fsum(second.works),
            [first, second],
            10.0,
        )
    prompts, decoding = Share(600.0, 2000.0, 0.0), Share(600.0, 0.0, 2000.0)
    other = Share(500.0, 400.0, 300.0)
    assert one_split(sharing, [prompts, other], (2600.0, 1200.0)) == pytest.approx([2600.0, 1200.0], rel=0.01)
    assert one_split(sharing, [decoding, other], (3100.0, 1200.0)) == pytest.approx(
        [3100.0, 1200.0], rel=0.01
    )


def one_split(sharing: Sharing, of: list[Share], joules: tuple[float, float]) -> list[float]:
    parts = copy.deepcopy(sharing).split(sum(joules), of, 10.0)
    assert parts is not None
    return parts


def test_what_steady_traffic_cannot_tell_apart_stays_as_it_was_known():
    """Two models at their limits all afternoon: only the sum of what they take can be seen."""
    sharing = Sharing(2)
    for number in range(720):
        split(sharing, number, (1.25, 1.0))
    first, second = shares(3)
    wanted = [first.base_joules + 1.25 * math.fsum(first.works), second.base_joules + math.fsum(second.works)]
    for _ in range(4 * 360):
        parts = sharing.split(sum(wanted), [first, second], 10.0)
    assert parts == pytest.approx(wanted, rel=0.01)


def test_work_that_is_told_a_window_late_makes_nobody_pay_for_the_other():
    """Chance in one model's work would look like a cheaper model, and the other one would get what is left."""
    chance = Random(3)
    sharing = Sharing(2)
    sums = [0.0, 0.0]
    late = 0.0
    for number in range(3 * 360):
        first, second = shares(number)
        moved = second.prompt_joules * chance.random()
        told = Share(second.base_joules, second.prompt_joules - moved + late, second.other_joules)
        late = moved
        parts = sharing.split(sum(true(number, (1.0, 1.0))), [first, told], 10.0)
        assert parts is not None
        if number >= 720:
            wanted = true(number, (1.0, 1.0))
            sums = [one + part - right for one, part, right in zip(sums, parts, wanted, strict=True)]
    for surplus_joules in sums:
        assert abs(surplus_joules) / 360 < 40.0  # of 2,000 J a window; taken window by window it is 160
