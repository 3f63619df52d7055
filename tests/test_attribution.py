"""The split conserves energy, and puts it where the work was."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.attribution import GpuWindow, Use, split
from joulemeter.model import Phase, User

A, B = User("s", "a"), User("s", "b")

whole = st.integers(0, 10**10).map(lambda mj: mj / 1000)
windows = st.tuples(whole, st.floats(0, 1)).map(lambda drawn: GpuWindow(drawn[0], drawn[0] * drawn[1]))
estimated = st.integers(0, 10**12).map(lambda mj: mj / 1000)
uses = st.dictionaries(
    st.builds(User, st.text(), st.text()),
    st.builds(Use, estimated, estimated, st.booleans(), st.booleans()),
    min_size=1,
    max_size=5,
)


@given(windows, uses)
def test_energy_is_conserved_and_never_negative(window: GpuWindow, loaded: dict[User, Use]):
    parts = split(window, loaded)
    assert min(parts.values()) >= 0
    assert math.isclose(math.fsum(parts.values()), window.energy_joules, rel_tol=1e-9, abs_tol=1e-12)


def test_with_nothing_running_all_is_idle_and_shared_equally():
    parts = split(GpuWindow(1000, 300), {A: Use(), B: Use()})
    assert parts[A, Phase.IDLE] == parts[B, Phase.IDLE] == 500
    assert math.fsum(parts.values()) == 1000


def test_a_model_that_was_unloaded_pays_for_its_work_but_not_for_idling():
    parts = split(GpuWindow(2000, 500), {A: Use(), B: Use(decode_joules=100, loaded=False)})
    assert (B, Phase.IDLE) not in parts
    assert parts[A, Phase.IDLE] == 500
    assert parts[B, Phase.DECODE] == 1500


def test_without_prompt_counters_busy_energy_is_unsplit():
    parts = split(GpuWindow(5000, 1000), {A: Use(1, 2, has_phases=False)})
    assert parts == {(A, Phase.IDLE): 1000, (A, Phase.UNSPLIT): 4000}


def test_what_is_not_idle_is_shared_in_proportion():
    parts = split(GpuWindow(6000, 2000), {A: Use(100, 200), B: Use(0, 100)})
    assert parts[A, Phase.PREFILL] == pytest.approx(1000)
    assert parts[A, Phase.DECODE] == pytest.approx(2000)
    assert parts[B, Phase.DECODE] == pytest.approx(1000)
    assert parts[A, Phase.IDLE] == parts[B, Phase.IDLE] == 1000


@pytest.mark.parametrize(
    "window", [GpuWindow(-1, 0), GpuWindow(math.nan, 0), GpuWindow(1, 2), GpuWindow(1, -1)]
)
def test_what_is_no_window_is_refused(window: GpuWindow):
    with pytest.raises(ValueError, match="window"):
        split(window, {A: Use()})


def test_a_gpu_without_users_is_not_split():
    with pytest.raises(ValueError, match="without users"):
        split(GpuWindow(1, 1), {})
