"""A baseline learns what work costs, is frozen, and says what to expect and where it has been."""

from dataclasses import replace

import pytest
from baseline_windows import IDLE_WATTS, KEY, joules, window

from joulemeter import catalog
from joulemeter.baseline import NAMES, Baseline, BaselineWindow, Basis, rows
from joulemeter.engine_work import EngineWork
from joulemeter.load import Load

LEARN_SECONDS = 2 * 3600.0


def learned(windows: int, *, learn_seconds: float = LEARN_SECONDS, worse: float = 1.0) -> Baseline:
    baseline = Baseline.begun(KEY, 1000.0)
    for number in range(windows):
        baseline.learn(
            window(number, worse=worse),
            fresh_seconds=10.0,
            learn_seconds=learn_seconds,
            now_timestamp_seconds=1000.0 + 10 * number,
        )
    return baseline


def test_bases_and_states_are_those_of_the_page():
    assert tuple(Basis) == catalog.BASES
    assert {learned(1).state, learned(800).state} == set(catalog.BASELINE_STATES)


def test_every_quantity_has_a_name():
    assert {basis: len(row) for basis, row in rows(window(3)).items()} == {
        basis: len(names) for basis, names in NAMES.items()
    }


def test_it_is_usable_after_an_hour_and_frozen_after_its_time():
    assert not learned(354).usable
    early = learned(366)
    assert (early.usable, early.state) == (True, "learning")
    late = learned(800)
    assert (late.usable, late.state) == (True, "frozen")
    assert late.frozen_at_timestamp_seconds == 1000.0 + 10 * 719


def test_what_is_frozen_is_never_changed():
    baseline = learned(800)
    before = (dict(baseline.coefficients), dict(baseline.ranges))
    for number in range(1000):
        baseline.learn(
            window(number, worse=2.0), fresh_seconds=10.0, learn_seconds=60.0, now_timestamp_seconds=0.0
        )
    assert (baseline.coefficients, baseline.ranges) == before


@pytest.mark.parametrize("worse", [1.0, 1.1, 1.15, 1.25])
def test_what_costs_more_is_seen_at_every_load(worse: float):
    baseline = learned(800)
    for number in range(7, 150, 11):
        now = window(number, worse=worse)
        expected = baseline.expected_joules(now)[Basis.ENGINE]
        assert now.energy_joules / expected == pytest.approx(
            now.energy_joules / joules(now.work, now.duration_seconds), abs=0.003
        )


def test_expectation_goes_on_in_a_straight_line_beyond_the_load_seen():
    baseline = learned(800)
    double = window(75, peak=120.0)
    assert baseline.expected_joules(double)[Basis.ENGINE] == pytest.approx(double.energy_joules, rel=0.02)
    assert not baseline.in_range(double.load)


def test_power_that_bends_over_the_batch_is_followed():
    def bent(number: int) -> BaselineWindow:
        now = window(number, peak=200.0)
        batch = now.work.decoded_tokens / now.work.steps
        return replace(now, energy_joules=1200.0 + now.work.steps * 6.0 * batch**0.4)

    baseline = Baseline.begun(KEY, 0.0)
    for number in range(800):
        baseline.learn(
            bent(number), fresh_seconds=10.0, learn_seconds=LEARN_SECONDS, now_timestamp_seconds=0.0
        )
    for number in range(75):
        assert baseline.expected_joules(bent(number))[Basis.ENGINE] == pytest.approx(
            bent(number).energy_joules, rel=0.03
        )


def test_idle_costs_what_idle_costs():
    nothing = BaselineWindow(10.0, 10.0, 1, 1200.0, EngineWork())
    expected = learned(800).expected_joules(nothing)
    assert expected[Basis.ENGINE] == pytest.approx(10 * IDLE_WATTS, rel=0.01)


def test_idle_is_shared_by_those_who_hold_the_gpu():
    alone = BaselineWindow(10.0, 10.0, 1, 1200.0, EngineWork())
    shared = replace(alone, holders=2)
    baseline = learned(800)
    assert baseline.expected_joules(shared)[Basis.ENGINE] * 2 == pytest.approx(
        baseline.expected_joules(alone)[Basis.ENGINE]
    )


def test_a_week_without_a_request_teaches_nothing():
    baseline = Baseline.begun(KEY, 0.0)
    for _ in range(2000):
        baseline.learn(
            BaselineWindow(10.0, 10.0, 1, 1200.0, EngineWork()),
            fresh_seconds=10.0,
            learn_seconds=LEARN_SECONDS,
            now_timestamp_seconds=0.0,
        )
    assert baseline.learning is not None
    assert (baseline.usable, baseline.learning.learned_seconds) == (False, 0.0)


def test_range_is_that_of_rate_mix_batch_and_context():
    baseline = learned(800)
    usual = Load()
    for number in range(66, 72):
        usual = usual.plus(window(number).load)
    assert baseline.in_range(usual)
    assert not baseline.in_range(Load(600.0)), "it was never as quiet"
    for change in (
        {"decoded_tokens": usual.decoded_tokens * 3},
        {"prompt_tokens": usual.prompt_tokens * 5},
        {"context_reads": usual.context_reads * 3},
        {"steps": usual.steps / 3},
    ):
        assert not baseline.in_range(replace(usual, **change)), change


def test_ids_differ_by_when_and_where_they_began():
    one, two = Baseline.begun(KEY, 1.0), Baseline.begun(KEY, 2.0)
    other = Baseline.begun(replace(KEY, gpus=2), 1.0)
    assert len({one.id, two.id, other.id}) == 3
    assert one.id == Baseline.begun(KEY, 1.0).id


def jumped(number: int, factor: float) -> BaselineWindow:
    usual = window(number)
    return replace(usual, work=replace(usual.work, prompt_tokens=factor * usual.work.prompt_tokens))


@pytest.mark.parametrize("factor", [1e4, 1e6, 1e8])
def test_a_counter_that_jumps_teaches_nothing(factor: float):
    """One minute in which prompts were counted that nobody had sent, and a baseline would be frozen with it."""
    baseline = learned(400)
    baseline.learn(
        jumped(400, factor), fresh_seconds=10.0, learn_seconds=LEARN_SECONDS, now_timestamp_seconds=5000.0
    )
    for number in range(401, 800):
        baseline.learn(
            window(number), fresh_seconds=10.0, learn_seconds=LEARN_SECONDS, now_timestamp_seconds=5000.0
        )
    assert baseline.state == "frozen"
    for number in (3, 50, 77):
        expected = baseline.expected_joules(window(number))[Basis.ENGINE]
        assert expected == pytest.approx(
            learned(800).expected_joules(window(number))[Basis.ENGINE], rel=0.005
        )
    assert (
        baseline.ranges["prompt_tokens_per_second"][1]
        <= 1.01 * learned(800).ranges["prompt_tokens_per_second"][1]
    )


def test_a_baseline_that_began_with_somebody_elses_energy_goes_on_learning():
    baseline = learned(366, worse=40.0)
    for number in range(366, 1200):
        baseline.learn(window(number), fresh_seconds=10.0, learn_seconds=1e9, now_timestamp_seconds=5000.0)
    assert baseline.learning is not None
    assert baseline.ranges != learned(366).ranges
    expected = baseline.expected_joules(window(3))[Basis.ENGINE]
    assert expected < 0.5 * learned(366, worse=40.0).expected_joules(window(3))[Basis.ENGINE]
