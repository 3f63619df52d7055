"""The split conserves energy, and puts it where the work was."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.attribution import GpuWindow, Phase, Use, User, split
from joulemeter.busy import Tick
from joulemeter.history import Work
from joulemeter.priors import prior

H100 = prior(700)
A, B = User("s", "a"), User("s", "b")

joules = st.integers(0, 10**10).map(lambda mj: mj / 1000)
tokens = st.integers(0, 10**8).map(float)
told = st.none() | tokens
work = st.builds(Work, tokens, tokens, tokens, tokens, st.floats(0, 1000), told, told, told, told)
uses = st.dictionaries(
    st.builds(User, st.text(), st.text()),
    st.builds(Use, work, st.booleans(), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(st.builds(GpuWindow, joules, st.floats(0.001, 600)), uses, st.none() | st.floats(10, 2000))
def test_energy_is_conserved_and_never_negative(
    window: GpuWindow, loaded: dict[User, Use], limit_watts: float | None
):
    parts = split(window, loaded, prior(limit_watts))
    assert min(parts.values()) >= 0
    assert math.isclose(math.fsum(parts.values()), window.energy_joules, rel_tol=1e-9, abs_tol=1e-12)


def test_with_nothing_running_all_is_idle_and_shared_equally():
    parts = split(GpuWindow(1000, 10), {A: Use(Work()), B: Use(Work())}, H100)
    assert parts[A, Phase.IDLE] == parts[B, Phase.IDLE] == 500
    assert math.fsum(parts.values()) == 1000


def test_a_model_that_was_unloaded_pays_for_its_work_but_not_for_idling():
    gone = Use(Work(generation_tokens=100, steps=100), loaded=False)
    parts = split(GpuWindow(2000, 10), {A: Use(Work()), B: gone}, H100)
    assert (B, Phase.IDLE) not in parts
    assert parts[A, Phase.IDLE] > 0
    assert parts[B, Phase.DECODE] > 0


def test_a_busy_board_has_no_idle_energy():
    parts = split(GpuWindow(6000, 10), {A: Use(Work(100, generation_tokens=5000, steps=1000))}, H100)
    assert parts[A, Phase.IDLE] == 0


def test_half_busy_is_half_idle():
    half = (H100.idle_watts * 5) + (H100.busy_watts * 5)
    parts = split(GpuWindow(half, 10), {A: Use(Work(generation_tokens=500, steps=500))}, H100)
    assert parts[A, Phase.IDLE] == pytest.approx(H100.idle_watts * 5)


def test_idle_ticks_are_not_hidden_by_busy_ones():
    ticks = (*[Tick(0.1, 650.0)] * 70, *[Tick(0.1, 119.0)] * 30)
    energy = sum(tick.power_watts * tick.duration_seconds for tick in ticks)
    parts = split(GpuWindow(energy, 10, ticks), {A: Use(Work(generation_tokens=500, steps=500))}, H100)
    assert parts[A, Phase.IDLE] == pytest.approx(119 * 3, rel=0.01)


def test_requests_that_run_while_no_counter_moves_are_in_prefill():
    parts = split(GpuWindow(5000, 10), {A: Use(Work(running_seconds=10))}, H100)
    assert parts[A, Phase.PREFILL] == pytest.approx(5000)


def test_without_prompt_counters_busy_energy_is_unsplit():
    parts = split(GpuWindow(5000, 10), {A: Use(Work(generation_tokens=500), has_phases=False)}, H100)
    assert set(parts) == {(A, Phase.IDLE), (A, Phase.UNSPLIT)}
    assert parts[A, Phase.UNSPLIT] > 4000


def test_two_models_share_by_work():
    thrice = Use(Work(300, generation_tokens=300, steps=300))
    parts = split(GpuWindow(6000, 10), {A: thrice, B: Use(Work(100, generation_tokens=100, steps=100))}, H100)
    of_a = parts[A, Phase.PREFILL] + parts[A, Phase.DECODE]
    assert of_a == pytest.approx(4500)


@pytest.mark.parametrize("window", [GpuWindow(-1, 1), GpuWindow(math.nan, 1), GpuWindow(1, 0)])
def test_what_is_no_window_is_refused(window: GpuWindow):
    with pytest.raises(ValueError, match="window"):
        split(window, {A: Use(Work())}, H100)


def test_a_gpu_without_users_is_not_split():
    with pytest.raises(ValueError, match="without users"):
        split(GpuWindow(1, 1), {}, H100)
