import math

import pytest

from joulemeter.engine_work import engine_work
from joulemeter.work import Work


def test_lone_request_has_its_prefill_step_to_itself():
    work = Work(400, generation_tokens=201, running_seconds=1.4, steps=201, first_tokens=1)
    got = engine_work(work, 10.0, 1.4)
    assert got.steps == 201
    assert got.prefill_steps == pytest.approx(1.0, abs=0.02)
    assert got.decoded_tokens == 200


def test_steps_that_also_decode_share_their_floor():
    work = Work(40_000, generation_tokens=20_100, running_seconds=500, steps=1000, first_tokens=100)
    got = engine_work(work, 10.0, 10.0)
    with_prompts = 1000 * (1 - math.exp(-0.1))  # chance puts some prompts into one step
    assert got.prefill_steps == pytest.approx(with_prompts / 2, rel=0.01)


def test_replies_of_one_token_are_all_prefill():
    got = engine_work(Work(3000, generation_tokens=10, steps=9, first_tokens=10), 10.0, 0.2)
    assert got.decoded_tokens == 0
    assert got.prefill_steps == got.steps == 9


@pytest.mark.parametrize(
    "told",
    [
        {"inter_token_seconds": 80.0, "timed_steps": 1000.0},
        {"running_seconds": 80.0, "covered_seconds": 10.0},
    ],
)
def test_uncounted_steps_come_from_the_pages_or_from_the_mean_batch(told: dict[str, float]):
    got = engine_work(Work(generation_tokens=8000.0, requests=0.0, **told), 10.0, 10.0)
    assert got.steps == pytest.approx(1000)


def test_every_decoded_token_reads_its_context():
    work = Work(generation_tokens=10_100, steps=1000, first_tokens=100)
    assert engine_work(work, 10.0, 5.0, context_tokens=300.0).context_reads == 10_000 * 300


def test_nothing_done_is_nothing():
    got = engine_work(Work(running_seconds=3.0, steps=0.0, first_tokens=0.0), 10.0, 0.0)
    assert not got.any


def test_prompts_are_taken_off_the_time_in_which_requests_ran():
    """Three requests a batch, 10 ms a step; each was running for a quarter of a second before its first token."""
    steps, prompt_seconds = 900.0, 4 * 0.25
    work = Work(
        24_000,
        generation_tokens=3 * steps + 4,
        requests=4,
        running_seconds=3 * 0.01 * steps + prompt_seconds,
        covered_seconds=0.01 * steps,
    )
    got = engine_work(work, 10.0, 10.0, prefill_seconds=prompt_seconds)
    assert got.steps == pytest.approx(steps, rel=0.03)


def test_steps_from_the_pages_do_not_depend_on_when_the_gpu_was_busy():
    work = Work(generation_tokens=101, first_tokens=1, inter_token_seconds=2.0, timed_steps=100.0)
    alone, shared = engine_work(work, 10.0, 1.9), engine_work(work, 10.0, 10.0)
    assert alone.steps == pytest.approx(101, rel=0.001)
    assert shared.steps == pytest.approx(101, rel=0.001)


def test_a_request_that_the_gauge_saw_for_too_long_is_still_one():
    """Ticks say 1.0 s; pages a second apart say 1.5 s. A batch is one sequence all the same."""
    work = Work(generation_tokens=101, requests=1, running_seconds=1.5, covered_seconds=1.5)
    assert engine_work(work, 10.0, 1.0).steps == pytest.approx(101, rel=0.01)


def test_steps_without_a_count_or_a_time_are_called_guessed():
    assert engine_work(Work(generation_tokens=100, running_seconds=5), 10.0, 5.0).guessed
    assert not engine_work(Work(generation_tokens=100, steps=100), 10.0, 5.0).guessed
