"""Idle time and levels of draw, from the ticks of a counter."""

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.busy import BusyFloor, IdleDraw, Prompts, Tick, idle_seconds

IDLE, BUSY = 120.0, 434.0


def ticks(*powers: float) -> list[Tick]:
    return [Tick(0.1, watts) for watts in powers]


def test_quiet_ticks_are_idle_and_busy_ones_are_not():
    assert idle_seconds(ticks(*[122] * 50, *[560] * 50), IDLE, BUSY) == pytest.approx(5.0)


def test_a_tick_in_which_work_ends_is_idle_for_the_part_that_its_draw_lacks():
    half = (IDLE + 600) / 2
    assert idle_seconds(ticks(600, 600, half, 120), IDLE, BUSY) == pytest.approx(0.15)


def test_work_within_one_tick_is_held_against_the_busy_floor():
    quarter = IDLE + (BUSY - IDLE) / 4
    assert idle_seconds(ticks(120, quarter, 120), IDLE, BUSY) == pytest.approx(0.275)


def test_a_dip_amid_busy_ticks_is_idle_for_a_part():
    half = (IDLE + BUSY) / 2
    assert idle_seconds(ticks(500, half, 500), IDLE, BUSY) == pytest.approx(0.05)
    assert idle_seconds(ticks(650, 0.95 * BUSY, 650), IDLE, BUSY) == 0  # a smaller batch


def test_a_prompt_in_the_tick_in_which_work_begins_is_no_busier_for_drawing_more():
    idle, prompt, decoding = 0.04 * IDLE, 0.02 * 670, 0.04 * BUSY
    first = (idle + prompt + decoding) / 0.1
    surplus = Prompts(1.0, 670.0, 0.02 * (670 - BUSY))
    begins = ticks(120, first, BUSY, BUSY)
    assert idle_seconds(begins, IDLE, BUSY, surplus) == pytest.approx(0.14)
    assert idle_seconds(begins, IDLE, BUSY) < 0.13


def test_a_prompt_that_outlasts_its_first_tick_fills_the_rest_of_it():
    level = BUSY / 0.65
    first = (0.06 * IDLE + 0.04 * level) / 0.1
    long = Prompts(1.0, level, 500.0)
    assert idle_seconds(ticks(120, first, level, level), IDLE, BUSY, long) == pytest.approx(0.16, rel=0.01)


def test_between_replies_of_one_token_no_tick_is_busy_all_through():
    one = (0.08 * IDLE + 0.02 * 650) / 0.1
    alone = Prompts(50.0, 650.0, 50 * 0.02 * (650 - BUSY), alone=True)
    assert idle_seconds(ticks(*[one] * 50), IDLE, BUSY, alone) == pytest.approx(50 * 0.08)


begun = st.builds(Prompts, st.floats(0, 100), st.floats(0, 2000), st.floats(0, 1e5), st.booleans())


@given(st.lists(st.floats(0, 1000), max_size=60), st.floats(1, 400), st.floats(1.01, 10), begun)
def test_idle_time_is_never_negative_and_never_longer_than_time(
    powers: list[float], idle: float, ratio: float, prompts: Prompts
):
    found = idle_seconds(ticks(*powers), idle, idle * ratio, prompts)
    assert 0 <= found <= 0.1 * len(powers) + 1e-9


def test_the_idle_draw_is_the_priors_until_the_board_is_idle():
    draw = IdleDraw()
    assert draw.advance(ticks(*[450] * 100), IDLE, BUSY) == IDLE
    assert draw.advance([], IDLE, BUSY) == IDLE
    assert draw.advance(ticks(*[450] * 60, *[71, 70, 70, 69, 70, 70]), IDLE, BUSY) == 70
    assert draw.advance(ticks(*[450] * 100), IDLE, BUSY) == 70


def test_one_odd_window_does_not_move_the_idle_draw():
    draw = IdleDraw()
    for _ in range(5):
        draw.advance(ticks(*[150] * 10), IDLE, BUSY)
    assert draw.advance(ticks(*[20] * 10), IDLE, BUSY) == 150


def test_the_idle_draw_is_another_once_other_models_are_loaded():
    draw = IdleDraw()
    for _ in range(40):
        draw.advance(ticks(*[120] * 10), IDLE, BUSY)
    draw.change()
    assert draw.advance(ticks(*[450] * 100), IDLE, BUSY) == 120
    assert draw.advance(ticks(*[150] * 10), IDLE, BUSY) == 150


def test_the_busy_floor_is_learned_amid_busy_ticks_and_never_absurdly_low():
    assert BusyFloor().advance(ticks(*[120] * 100), IDLE, BUSY) == BUSY
    assert BusyFloor().advance(ticks(120, *[300] * 20, 120), IDLE, BUSY) == 300
    assert BusyFloor().advance(ticks(120, *[150] * 20, 120), IDLE, BUSY) == pytest.approx(0.65 * BUSY)


def test_the_busy_floor_is_not_the_mean_of_short_requests():
    """Ticks in which requests of a tenth of a second begin and end draw anything between the two levels."""
    chance = Random(1)
    floor = BusyFloor()
    for _ in range(20):
        powers: list[float] = []
        for _ in range(20):
            powers += [*(chance.uniform(150, 440) for _ in range(4)), 459, 460, 462]
        watts = floor.advance(ticks(*powers), IDLE, BUSY)
    assert watts == pytest.approx(459, rel=0.02)


def test_a_window_of_small_batches_after_an_hour_of_large_ones_shows_its_own_floor():
    floor = BusyFloor()
    for _ in range(60):
        floor.advance(ticks(*[600] * 100), IDLE, BUSY)
    assert floor.advance(ticks(*[500] * 100), IDLE, BUSY) == 500
    assert floor.advance(ticks(*[650] * 100), IDLE, BUSY) == 600


def test_what_lies_beyond_the_ticks_is_like_the_outermost():
    """Windows cut busy time anywhere: their edges are no beginnings and no ends."""
    assert idle_seconds(ticks(480, 500, 500, 480), IDLE, BUSY) == 0


def requests(count: int, prompt_seconds: float, *, seed: int) -> tuple[list[Tick], float, float]:
    """Return the ticks of requests that come by chance and decode for 0.3 s, their surplus, and the idle time."""
    chance, step, level = Random(seed), 0.001, BUSY / 0.65
    powers = [IDLE] * 60_000
    surplus_joules = 0.0
    for _ in range(count):
        begin = chance.randrange(200, 59_000)
        prompt = round(chance.lognormvariate(math.log(prompt_seconds), 0.6) / step)
        busy = slice(begin, begin + prompt + 300)
        if any(watts > IDLE for watts in powers[busy.start - 100 : busy.stop + 100]):
            continue
        powers[busy] = [level] * prompt + [BUSY] * (len(powers[busy]) - prompt)
        surplus_joules += prompt * step * (level - BUSY)
    made = [Tick(0.1, sum(powers[i : i + 100]) / 100) for i in range(0, len(powers), 100)]
    return made, surplus_joules, step * powers.count(IDLE)


@pytest.mark.parametrize("prompt_seconds", [0.01, 0.03, 0.1])
def test_of_many_prompts_none_is_taken_for_decoding(prompt_seconds: float):
    found = expected = ignored = 0.0
    for seed in range(5):
        made, surplus_joules, idle = requests(60, prompt_seconds, seed=seed)
        starts = sum(one.power_watts < 130 < two.power_watts for one, two in pairwise(made))
        prompts = Prompts(float(starts), BUSY / 0.65, surplus_joules)
        found += idle_seconds(made, IDLE, BUSY, prompts)
        ignored += idle_seconds(made, IDLE, BUSY)
        expected += idle
    assert found == pytest.approx(expected, rel=0.005)
    assert ignored < 0.995 * expected or prompt_seconds < 0.03
