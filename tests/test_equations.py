"""Windows are added up where prompts lie across their edges, and only there."""

import random

import pytest

from joulemeter.engine_work import EngineWork
from joulemeter.equations import LONGEST_SECONDS, Equation, Equations, Prompts
from joulemeter.estimator import Estimator
from joulemeter.model import User
from joulemeter.priors import ENGINE_JOULES

A, B = User("s", "a"), User("t", "b")
ON = frozenset({"GPU-0"})
NONE: list[Prompts] = []
SHORT = [Prompts(5.0, each_joules=11.0, each_seconds=0.016)]
LONG = [Prompts(1.0, each_joules=170.0, each_seconds=0.25)]
HUGE = [Prompts(1.0, each_joules=900.0, each_seconds=1.3)]


def window(steps: float = 900.0, user: User = A) -> Equation:
    return Equation.of({user: EngineWork(steps, 10, 4000, 5000, 1e6)}, 4000.0, 10.0, 450.0)


@pytest.mark.parametrize("opening", [NONE, SHORT])
def test_a_window_is_an_equation_once_the_next_shows_that_its_edge_is_clean(opening: list[Prompts]):
    equations, first, second = Equations(), window(900), window(800)
    assert equations.add(ON, first, LONG) is None
    assert equations.add(ON, second, opening) == first
    assert equations.add(ON, window(), opening) == second


def test_windows_with_a_long_prompt_across_their_edge_are_one_equation():
    equations = Equations()
    equations.add(ON, window(900), NONE)
    assert equations.add(ON, window(800, B), LONG) is None
    assert equations.add(ON, window(700), LONG) is None
    together = equations.add(ON, window(), NONE)
    assert together is not None
    assert together.works[A].amounts[0] == 1600
    assert together.works[B].amounts == (800, 4000, 5000, 1e6)
    assert (together.active_joules, together.duration_seconds, together.busy_watts) == (12_000, 30, 450)


def test_where_prompts_never_pause_an_equation_ends_all_the_same():
    equations = Equations()
    ended = [equations.add(ON, window(), HUGE) for _ in range(20)]
    assert {one.duration_seconds for one in ended if one is not None} == {LONGEST_SECONDS}


def test_what_waits_is_not_added_to_another_group():
    equations, both = Equations(), frozenset({"GPU-0", "GPU-1"})
    equations.add(ON, window(), NONE)
    assert equations.add(both, window(), NONE) is None
    assert equations.add(ON, window(), NONE) is None


def test_a_model_that_is_gone_does_not_come_back_with_what_waits():
    equations = Equations()
    equations.add(ON, window(user=A), NONE)
    equations.forget(A)
    assert equations.add(ON, window(user=B), NONE) is None


def test_prompts_across_edges_do_not_make_prompts_cheap():
    """Tokens that are counted one window after their joules: without a look at the edges, a part seems free."""
    step, prompt_joules = 3.0, 170.0

    def learned(*, look: bool) -> float:
        rng, estimator, equations = random.Random(3), Estimator(ENGINE_JOULES), Equations()
        before = 0.0
        for _ in range(4000):
            across = rng.random() * (rng.random() < 0.4)  # of a prompt, computed before this window's end
            prompts, steps = float(rng.randrange(3) + (before > 0)), rng.uniform(200, 900)
            joules = step * steps + prompt_joules * (prompts + across - before)
            opening = [Prompts(1.0, prompt_joules, 0.4)] if before and look else NONE
            before = across
            window = Equation.of({A: EngineWork(steps, 0.0, 6000 * prompts)}, joules, 10.0, 450.0)
            if (equation := equations.add(ON, window, opening)) is not None:
                estimator.advance(
                    equation.works,
                    equation.active_joules,
                    duration_seconds=equation.duration_seconds,
                    busy_watts=equation.busy_watts,
                )
        return estimator.estimate(A).joules_per_unit[1] * 6000 / prompt_joules

    assert learned(look=True) == pytest.approx(1.0, abs=0.01)
    assert learned(look=False) < 0.95
