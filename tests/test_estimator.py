"""The estimator finds what engines cost, forgets, and says how sure it is."""

import random
import time

import pytest

from joulemeter.engine_work import EngineWork
from joulemeter.estimator import Estimator
from joulemeter.model import Phase, User
from joulemeter.priors import ENGINE_JOULES

A, B, C = User("s", "a"), User("t", "b"), User("u", "c")
SMALL, LARGE = (3.0, 0.03, 0.06, 3e-5), (27.0, 0.2, 0.3, 8e-5)


def some_work(rng: random.Random) -> EngineWork:
    steps, batch = rng.uniform(50, 1000), rng.uniform(1, 60)
    started = steps * batch / 200
    return EngineWork(
        steps,
        min(steps, started) / 2,
        started * rng.uniform(200, 800),
        steps * batch,
        steps * batch * rng.uniform(300, 900),
    )


def cost(joules: tuple[float, ...], work: EngineWork) -> float:
    return sum(one * amount for one, amount in zip(joules, work.amounts, strict=True))


def learn(
    estimator: Estimator,
    costs: dict[User, tuple[float, ...]],
    windows: int,
    seed: int = 0,
    noise: float = 0.01,
):
    rng = random.Random(seed)
    for _ in range(windows):
        works = {user: some_work(rng) for user in costs}
        joules = sum(cost(costs[user], work) for user, work in works.items()) * rng.gauss(1.0, noise)
        estimator.advance(works, joules, duration_seconds=10.0, busy_watts=434.0)


def test_before_anything_was_measured_the_prior_stands():
    estimate = Estimator(ENGINE_JOULES).estimate(A)
    assert estimate.joules_per_unit == ENGINE_JOULES
    assert not estimate.known


@pytest.mark.parametrize("factor", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("joules", [SMALL, LARGE])
def test_the_data_takes_over_from_the_prior(joules: tuple[float, ...], factor: float):
    prior = (ENGINE_JOULES[0], ENGINE_JOULES[1] * factor, *ENGINE_JOULES[2:])
    estimator = Estimator(prior)
    learn(estimator, {A: joules}, 720)
    estimate = estimator.estimate(A)
    assert estimate.joules_per_unit[1] == pytest.approx(joules[1], rel=0.1)
    assert estimate.known
    work = some_work(random.Random(5))
    assert sum(estimate.joules(work)) == pytest.approx(cost(joules, work), rel=0.01)


def test_models_that_share_are_told_apart():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL, B: LARGE}, 720)
    for user, joules in ((A, SMALL), (B, LARGE)):
        work = some_work(random.Random(5))
        assert sum(estimator.estimate(user).joules(work)) == pytest.approx(cost(joules, work), rel=0.02)


def test_a_neighbour_that_comes_and_goes_moves_nobody():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 360)
    learn(estimator, {A: SMALL, B: LARGE}, 360, seed=1)
    estimator.forget(B)
    assert estimator.estimate(B).joules_per_unit == ENGINE_JOULES
    learn(estimator, {A: SMALL}, 360, seed=2)
    assert estimator.estimate(A).joules_per_unit[:3] == pytest.approx(SMALL[:3], rel=0.1)


def test_what_a_model_does_seldom_is_not_forgotten_while_others_work():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL, B: LARGE}, 720)
    before = estimator.estimate(B)
    learn(estimator, {A: SMALL}, 3 * 8640, seed=1)
    assert estimator.estimate(B) == before
    learn(estimator, {A: SMALL, B: LARGE}, 12, seed=2)
    work = some_work(random.Random(5))
    assert sum(estimator.estimate(B).joules(work)) == pytest.approx(cost(LARGE, work), rel=0.03)


def test_an_engine_that_changes_is_learned_anew_within_hours():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 8640)
    worse = tuple(1.25 * one for one in SMALL)
    learn(estimator, {A: worse}, 3 * 360, seed=1)
    work = some_work(random.Random(5))
    assert sum(estimator.estimate(A).joules(work)) == pytest.approx(cost(worse, work), rel=0.05)


def test_a_wild_window_is_worth_little():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 360)
    before = estimator.estimate(A).joules_per_unit
    estimator.advance({A: EngineWork(500, 5, 4000, 20_000, 1e7)}, 1e6, duration_seconds=10, busy_watts=434)
    learn(estimator, {A: SMALL}, 6, seed=1)
    assert estimator.estimate(A).joules_per_unit[:3] == pytest.approx(before[:3], rel=0.05)


def test_counts_that_nobody_can_have_done_are_not_believed():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 60)
    before = estimator.estimate(A)
    jumped = EngineWork(500, 5, 4e12, 20_000, 1e7)
    estimator.advance({A: jumped}, 5000.0, duration_seconds=10.0, busy_watts=434.0)
    assert estimator.estimate(A) == before
    learn(estimator, {A: SMALL}, 6, seed=1)
    assert estimator.estimate(A).amounts[1] < 1e8


def test_what_was_learned_from_somebody_elses_energy_is_given_up():
    """While a job that nobody watches draws the power, probes of one token seem to cost thousands of joules each."""
    estimator = Estimator(ENGINE_JOULES)
    for _ in range(180):
        probe = EngineWork(1, 1, 8, 0, 0)
        estimator.advance({A: probe}, 5700.0, duration_seconds=10.0, busy_watts=434.0)
    assert estimator.estimate(A).joules_per_unit[0] > 1000 * SMALL[0]
    learn(estimator, {A: SMALL}, 360)
    assert estimator.estimate(A).joules_per_unit[:3] == pytest.approx(SMALL[:3], rel=0.1)


def test_a_counter_that_jumps_again_and_again_is_followed_in_the_end():
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 60)
    other = EngineWork(500, 5, 4e9, 20_000, 1e7)
    for _ in range(60):
        estimator.advance({A: other}, 5000.0, duration_seconds=10.0, busy_watts=434.0)
    assert sum(estimator.estimate(A).joules(other)) == pytest.approx(5000.0, rel=0.1)


def test_one_shape_of_traffic_leaves_the_phases_uncertain():
    estimator, alike = Estimator(ENGINE_JOULES), Estimator(ENGINE_JOULES)
    learn(estimator, {A: SMALL}, 360)
    rng = random.Random(0)
    for _ in range(360):
        size = rng.uniform(0.5, 2.0)
        work = EngineWork(*(size * amount for amount in (500, 25, 20_000, 10_000, 4e6)))
        alike.advance({A: work}, cost(SMALL, work) * rng.gauss(1, 0.01), duration_seconds=10, busy_watts=434)
    sure, unsure = (one.estimate(A).uncertainty_ratio[Phase.PREFILL] for one in (estimator, alike))
    assert sure < 0.1
    assert unsure > 0.3
    assert not alike.estimate(A).known


def test_nothing_is_learned_from_nothing():
    estimator = Estimator(ENGINE_JOULES)
    estimator.advance({A: EngineWork()}, 1000.0, duration_seconds=10.0, busy_watts=434.0)
    estimator.advance({A: some_work(random.Random(1))}, 0.0, duration_seconds=10.0, busy_watts=434.0)
    assert estimator.estimate(A).joules_per_unit == ENGINE_JOULES


def test_eight_models_on_one_board_cost_little():
    """A window comes every ten seconds; 0.3 % of a core would be 30 ms of it."""
    users = {User("s", str(number)): SMALL for number in range(8)}
    estimator = Estimator(ENGINE_JOULES)
    learn(estimator, users, 12)
    begin = time.process_time()
    learn(estimator, users, 60, seed=1)
    assert (time.process_time() - begin) / 60 < 0.015
