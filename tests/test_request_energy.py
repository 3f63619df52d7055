"""Joules of finished requests: by hand, and never more than was attributed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.catalog import MODEL_REQUEST_ENERGY
from joulemeter.histogram import HistogramValue
from joulemeter.history import ServerHistory
from joulemeter.lengths import Bucket, Finished, Lengths
from joulemeter.model import Length, Moves, Observation, PageReading, Role, RoleReading
from joulemeter.request_energy import (
    KEPT_STRETCHES,
    RequestEnergy,
    Settled,
    Stretch,
    Weights,
    stretches,
)
from joulemeter.work import Work

EQUAL = Weights(joules_per_step=0.0, joules_per_token=1.0)


def stretch(until: float, **work: float) -> Stretch:
    return Stretch(until, 1.0, Work(**work))


def one_finished(at: float, prompt: int, answer: int, computed: int | None = None) -> Finished:
    of = {Length.PROMPT: prompt, Length.GENERATION: answer}
    if computed is not None:
        of[Length.COMPUTED_PROMPT] = computed
    return Finished(
        at,
        "m",
        {length: Lengths((Bucket(1, 0, None),), tokens) for length, tokens in of.items()},
    )


def energy() -> RequestEnergy:
    return RequestEnergy(MODEL_REQUEST_ENERGY.buckets)


def count(value: HistogramValue) -> int:
    return value.counts[-1]


def test_a_lone_request_gets_all_that_it_used():
    own = energy()
    window = (
        stretch(1.0, prompt_tokens=500.0, generation_tokens=51.0, running_seconds=0.5, first_tokens=1.0),
        stretch(2.0, generation_tokens=100.0, running_seconds=1.0, first_tokens=0.0),
        stretch(3.0, generation_tokens=50.0, running_seconds=0.5, requests=1.0, first_tokens=0.0),
    )
    own.settle(Settled(100.0, 400.0, window), [one_finished(3.0, 500, 176)], EQUAL, limit_joules=500.0)
    value = own.value()
    # It ends halfway through the last second: 25 + 100 + 50 of its 175 decoded tokens at 2 J, and its prompt.
    assert value.sum == pytest.approx(100.0 + 175 * 2.0)
    assert count(value) == 1


def test_tokens_of_earlier_windows_cost_what_they_cost_then():
    own = energy()
    for second, joules in ((1.0, 300.0), (2.0, 100.0)):
        work = stretch(second, generation_tokens=100.0, running_seconds=1.0, first_tokens=0.0)
        page = [one_finished(2.0, 10, 101)] if second == 2.0 else []
        own.settle(Settled(0.0, joules, [work]), page, EQUAL, limit_joules=400.0)
    # Back from the middle of the second: 50 tokens at 1 J, then 50 at 3 J.
    assert own.value().sum == pytest.approx(50.0 + 150.0)


def test_requests_that_ran_together_share_each_second():
    own = energy()
    work = [stretch(s, generation_tokens=200.0, running_seconds=2.0, first_tokens=0.0) for s in (1.0, 2.0)]
    page = [one_finished(2.0, 10, 101), one_finished(2.0, 10, 51)]
    own.settle(Settled(0.0, 800.0, work), page, EQUAL, limit_joules=800.0)
    assert own.value().sum == pytest.approx(100 * 2.0 + 50 * 2.0)


def test_a_step_costs_more_when_few_share_it():
    """The same window: 100 steps alone, then 100 with four; a step's floor is ten tokens."""
    weights = Weights(joules_per_step=10.0, joules_per_token=1.0)
    alone = stretch(1.0, generation_tokens=100.0, running_seconds=1.0, steps=100.0, first_tokens=0.0)
    batch = stretch(2.0, generation_tokens=400.0, running_seconds=4.0, steps=100.0, first_tokens=0.0)
    joules = 100 * 11.0 + 100 * 14.0
    first, second = energy(), energy()
    first.settle(
        Settled(0.0, joules, [alone, batch]), [one_finished(1.0, 1, 51)], weights, limit_joules=joules
    )
    second.settle(
        Settled(0.0, joules, [alone, batch]), [one_finished(2.0, 1, 51)], weights, limit_joules=joules
    )
    assert first.value().sum == pytest.approx(50 * 11.0)
    assert second.value().sum == pytest.approx(50 * 3.5)


def test_without_weights_every_token_costs_the_same():
    work = stretch(1.0, generation_tokens=100.0, running_seconds=1.0, first_tokens=0.0)
    own = energy()
    own.settle(Settled(0.0, 100.0, [work]), [one_finished(1.0, 1, 51)], Weights(0.0, 0.0), limit_joules=100.0)
    assert own.value().sum == pytest.approx(50.0)


def test_long_contexts_cost_more_where_reading_them_has_a_weight():
    weights = Weights(joules_per_step=0.0, joules_per_token=1.0, joules_per_context_token=0.001)
    work = stretch(
        1.0,
        generation_tokens=200.0,
        running_seconds=2.0,
        steps=100.0,
        context_token_seconds=5000.0,
        first_tokens=0.0,
    )
    page = [one_finished(1.0, 4000 - 25, 51), one_finished(1.0, 1000 - 25, 51)]
    own = energy()
    own.settle(Settled(0.0, 700.0, [work]), page, weights, limit_joules=700.0)
    assert own.value().sum == pytest.approx(50 * (1 + 4.0) + 50 * (1 + 1.0), rel=1e-2)


def test_cached_prompts_are_not_paid_for():
    work = stretch(1.0, prompt_tokens=1000.0, cached_prompt_tokens=3000.0)
    told, not_told = energy(), energy()
    told.settle(Settled(100.0, 0.0, [work]), [one_finished(1.0, 4000, 1, 500)], EQUAL, limit_joules=100.0)
    not_told.settle(Settled(100.0, 0.0, [work]), [one_finished(1.0, 2000, 1)], EQUAL, limit_joules=100.0)
    assert told.value().sum == pytest.approx(50.0)  # 500 computed tokens at 0.1 J
    assert not_told.value().sum == pytest.approx(50.0)  # a quarter of 2000, as of all prompts


def test_a_prompt_that_burns_before_it_is_counted_is_paid_when_it_is():
    own = energy()
    own.settle(Settled(300.0, 0.0, [stretch(1.0)]), [], EQUAL, limit_joules=300.0)
    work = stretch(2.0, prompt_tokens=1000.0)
    own.settle(Settled(100.0, 0.0, [work]), [one_finished(2.0, 1000, 1)], EQUAL, limit_joules=400.0)
    assert own.value().sum == pytest.approx(300.0 / 2 + 100.0)


def test_requests_that_began_before_us_are_left_out():
    own = energy()
    work = stretch(1.0, generation_tokens=100.0, running_seconds=1.0, first_tokens=0.0)
    own.settle(Settled(0.0, 100.0, [work]), [one_finished(1.0, 10, 5000)], EQUAL, limit_joules=100.0)
    assert (count(own.value()), own.value().sum) == (0, 0.0)


def test_a_request_longer_than_we_remember_costs_what_we_remember():
    own = energy()
    for second in range(1, KEPT_STRETCHES + 101):
        work = stretch(float(second), generation_tokens=10.0, running_seconds=1.0, first_tokens=0.0)
        page = [one_finished(float(second), 10, 6501)] if second == KEPT_STRETCHES + 100 else []
        own.settle(Settled(0.0, 20.0, [work]), page, EQUAL, limit_joules=20.0 * second)
    assert own.value().sum == pytest.approx(6500 * 2.0)


def test_aborted_requests_leave_their_joules_out():
    own = energy()
    work = [stretch(s, generation_tokens=200.0, running_seconds=2.0, first_tokens=0.0) for s in (1.0, 2.0)]
    own.settle(Settled(0.0, 800.0, work), [one_finished(2.0, 10, 101)], EQUAL, limit_joules=800.0)
    assert own.value().sum == pytest.approx(200.0)


tokens = st.integers(0, 5000)
work = st.builds(
    Work,
    prompt_tokens=tokens.map(float),
    cached_prompt_tokens=tokens.map(float),
    generation_tokens=tokens.map(float),
    requests=st.integers(0, 9).map(float),
    running_seconds=st.integers(0, 90).map(lambda n: n / 3),
    steps=st.none() | tokens.map(float),
    first_tokens=st.none() | st.integers(0, 9).map(float),
    context_token_seconds=st.none() | tokens.map(float),
)
joules = st.integers(0, 10**9).map(lambda mj: mj / 1000)
window = st.tuples(
    joules, joules, st.lists(work, min_size=1, max_size=4), st.lists(st.tuples(tokens, tokens), max_size=4)
)


@given(st.lists(window, max_size=6))
def test_the_sum_never_exceeds_what_was_attributed(windows):
    own, limit_joules, second, counted, sum_before = energy(), 0.0, 0.0, 0, 0.0
    for prefill_joules, decode_joules, works, requests in windows:
        limit_joules += prefill_joules + decode_joules
        cut = [Stretch(second + i + 1.0, 1.0, one) for i, one in enumerate(works)]
        second += len(works)
        page = [one_finished(second, prompt, answer) for prompt, answer in requests]
        own.settle(
            Settled(prefill_joules, decode_joules, cut),
            page,
            Weights(3.0, 0.06, 1e-5),
            limit_joules=limit_joules,
        )
        value = own.value()
        assert math.isfinite(value.sum)
        assert sum_before <= value.sum <= limit_joules
        assert counted <= count(value) <= counted + len(requests)
        counted, sum_before = count(value), value.sum


def test_work_is_cut_where_pages_were_read():
    history = ServerHistory(keep_seconds=100.0)
    for second, generated in ((0.0, 0.0), (1.0, 10.0), (2.0, 40.0)):
        reading = RoleReading(Role.GENERATION, "m", "g", generated, Moves.STEP)
        history.observe(Observation("s", second, PageReading("test", (reading,))), default_model="m")
    cut = stretches(history, "m", 0.5, 1.5)
    assert [(one.until_seconds, one.duration_seconds, one.work.generation_tokens) for one in cut] == [
        (1.0, 0.5, 5.0),
        (1.5, 0.5, 15.0),
    ]
