"""From what was measured and counted in a window to whose energy it was, before anything is learned."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter.attributor import Attributor
from joulemeter.busy import Tick
from joulemeter.model import EnergySource, Gpu, Phase, User
from joulemeter.priors import ENGINE_JOULES, levels
from joulemeter.windows import Measured, Used
from joulemeter.work import Work

A, B = User("s", "a"), User("t", "b")
BOARD = Gpu(0, "GPU-0", "H100", "580", EnergySource.COUNTER, 700.0)
OTHER = Gpu(1, "GPU-1", "H100", "580", EnergySource.COUNTER, 700.0)
H100 = levels(BOARD)
ON = frozenset({"GPU-0"})


def parts_of(joules: float, uses: dict[User, Used], ticks: tuple[Tick, ...] = ()):
    window = Measured(BOARD, joules, 10.0, ticks)
    return Attributor().attribute({"GPU-0": window}, uses).parts["GPU-0"]


def decoding(steps: float) -> Work:
    return Work(generation_tokens=steps, steps=steps, first_tokens=0.0)


def test_a_busy_board_has_no_idle_energy():
    parts = parts_of(6000, {A: Used(Work(100, generation_tokens=5000, steps=1000), ON)})
    assert parts[A, Phase.IDLE] == 0


def test_half_busy_is_half_idle():
    half = (H100.idle_watts * 5) + (H100.busy_watts * 5)
    assert parts_of(half, {A: Used(decoding(500), ON)})[A, Phase.IDLE] == pytest.approx(H100.idle_watts * 5)


def test_idle_ticks_are_not_hidden_by_busy_ones():
    ticks = (*[Tick(0.1, 650.0)] * 70, *[Tick(0.1, 119.0)] * 30)
    energy = sum(tick.power_watts * tick.duration_seconds for tick in ticks)
    parts = parts_of(energy, {A: Used(decoding(500), ON)}, ticks)
    assert parts[A, Phase.IDLE] == pytest.approx(119 * 3, rel=0.01)


def test_requests_that_run_while_no_counter_moves_are_in_prefill():
    parts = parts_of(5000, {A: Used(Work(running_seconds=10), ON)})
    assert parts[A, Phase.PREFILL] == pytest.approx(5000)


def test_two_models_share_by_work():
    first = Used(Work(300, generation_tokens=300, steps=300), ON)
    second = Used(Work(100, generation_tokens=100, steps=100), ON)
    parts = parts_of(6000, {A: first, B: second})
    assert parts[A, Phase.PREFILL] + parts[A, Phase.DECODE] == pytest.approx(4500, rel=0.05)


def test_a_group_of_boards_is_learned_as_one_and_split_one_by_one():
    both = frozenset({"GPU-0", "GPU-1"})
    attributor = Attributor()
    for _ in range(30):
        windows = {
            "GPU-0": Measured(BOARD, 6000.0, 10.0),
            "GPU-1": Measured(OTHER, 5000.0, 10.0),
        }
        got = attributor.attribute(windows, {A: Used(decoding(1000), both), B: Used(Work(), ON)})
    for uuid, joules in (("GPU-0", 6000.0), ("GPU-1", 5000.0)):
        assert math.fsum(got.parts[uuid].values()) == pytest.approx(joules)
    assert (B, Phase.IDLE) not in got.parts["GPU-1"]
    assert got.parts["GPU-0"][A, Phase.DECODE] > 5000
    assert attributor.insight(A).joules_per_token[Phase.DECODE] > 0


def under_way(first: Used, *others: Used) -> float:
    """How many steps more than were counted a window is taken to have."""
    uses = {A: first, **{User(f"t{number}", "b"): use for number, use in enumerate(others)}}
    window = Measured(BOARD, 6000.0, 10.0)
    return Attributor().attribute({"GPU-0": window}, uses).works[A].steps - (first.work.steps or 0.0)


def test_half_a_step_is_under_way_where_requests_run_at_an_edge():
    assert under_way(Used(decoding(100), ON, running=(0, 1))) == 0.5
    assert under_way(Used(decoding(100), ON, running=(3, 0))) == -0.5
    assert under_way(Used(decoding(100), ON, running=(2, 5))) == 0


def test_models_that_take_turns_have_one_step_under_way_together():
    other = Used(decoding(50), ON, running=(0, 2))
    elsewhere = Used(decoding(50), frozenset({"GPU-1"}), running=(0, 2))
    assert under_way(Used(decoding(100), ON, running=(0, 1)), other) == 0.25
    assert under_way(Used(decoding(100), ON, running=(0, 1)), elsewhere) == 0.5


def test_counts_that_are_laid_over_time_are_no_step_behind():
    work = Work(generation_tokens=100, running_seconds=10.0)
    attributed = [
        Attributor().attribute({"GPU-0": Measured(BOARD, 6000.0, 10.0)}, {A: Used(work, ON, running=running)})
        for running in ((0, 0), (0, 1))
    ]
    assert attributed[0].works == attributed[1].works


def test_a_prompt_that_is_being_computed_at_an_edge_is_no_decoding():
    parts = parts_of(5000, {A: Used(Work(running_seconds=10, steps=0.0), ON, running=(0, 1))})
    assert parts[A, Phase.PREFILL] == pytest.approx(5000)


def test_prompts_do_not_pay_for_the_step_that_is_cut_by_the_edge_after_them():
    """Requests one at a time, each begun in one window and ended in the next: the cut step's count is in the second."""
    step_joules, prompt_joules, token_joules = 60.0, 0.56, 1.16
    attributor, random = Attributor(), Random(0)
    for _ in range(400):
        prompt, early, late = random.randint(100, 600), random.randint(80, 160), random.randint(80, 160)
        cut_joules = random.random() * (step_joules + token_joules)
        for work, joules, running in (
            (
                Work(prompt, generation_tokens=early + 1, steps=early + 1, first_tokens=1),
                step_joules + prompt * prompt_joules + early * (step_joules + token_joules) + cut_joules,
                (0.0, 1.0),
            ),
            (decoding(late), late * (step_joules + token_joules) - cut_joules, (1.0, 0.0)),
        ):
            attributor.attribute(
                {"GPU-0": Measured(BOARD, joules, 10.0)}, {A: Used(work, ON, running=running)}
            )
    assert attributor.insight(A).joules_per_token[Phase.PREFILL] == pytest.approx(prompt_joules, rel=0.05)


def test_what_an_engine_times_itself_wins_over_the_estimate():
    """Three quarters of the steps' time went into prompts, whatever the tokens say."""
    attributor, random = Attributor(), Random(0)
    for _ in range(200):
        prefill = random.uniform(2.0, 8.0)
        decode = 10.0 - prefill
        work = Work(100, generation_tokens=5000, prefill_seconds=prefill, decode_seconds=decode)
        window = Measured(BOARD, 650.0 * prefill + 500.0 * decode, 10.0)
        got = attributor.attribute({"GPU-0": window}, {A: Used(work, ON)}).parts["GPU-0"]
    active = got[A, Phase.PREFILL] + got[A, Phase.DECODE]
    expected = 650.0 * prefill / (650.0 * prefill + 500.0 * decode)
    assert got[A, Phase.PREFILL] / active == pytest.approx(expected, rel=0.05)
    insight = attributor.insight(A)
    assert insight.split == "measured"
    assert insight.uncertainty_ratio[Phase.PREFILL] < 0.1


amounts = st.integers(0, 10**18).map(float) | st.integers(0, 10**5).map(float)
told = st.none() | amounts
works = st.builds(Work, *[amounts] * 5, *[told] * 6)
boards = st.sets(st.sampled_from(["GPU-0", "GPU-1"]), min_size=1).map(frozenset)
some_use = st.builds(Used, works, boards, st.booleans(), st.booleans())
some_joules = st.integers(0, 10**9).map(lambda mj: mj / 1000)
some_ticks = st.lists(st.builds(Tick, st.just(0.1), st.floats(0, 2000)), max_size=20).map(tuple)


def drawn_by(board: Gpu) -> st.SearchStrategy[Measured]:
    return st.builds(Measured, st.just(board), some_joules, st.floats(0.1, 600), some_ticks)


some_windows = st.tuples(
    drawn_by(BOARD), drawn_by(OTHER), st.dictionaries(st.sampled_from([A, B]), some_use, min_size=1)
)


@settings(max_examples=50)
@given(st.lists(some_windows, max_size=6))
def test_whatever_comes_energy_is_conserved_and_nothing_breaks(
    windows: list[tuple[Measured, Measured, dict[User, Used]]],
):
    attributor = Attributor()
    for one, other, uses in windows:
        used = frozenset[str]().union(*(use.gpus for use in uses.values()))
        measured = {window.gpu.uuid: window for window in (one, other) if window.gpu.uuid in used}
        got = attributor.attribute(measured, uses)
        for uuid, parts in got.parts.items():
            assert min(parts.values()) >= 0
            total = math.fsum(parts.values())
            assert math.isclose(total, measured[uuid].energy_joules, rel_tol=1e-9, abs_tol=1e-12)
        for user in uses:
            assert all(math.isfinite(one) and one >= 0 for one in attributor.engine_joules(user))


@pytest.mark.parametrize(("running_at_edges", "windows"), [(0.0, 2), (4.0, 7)])
def test_where_only_the_end_of_requests_tells_nothing_is_learned_while_some_run_across_the_edge(
    running_at_edges: float, windows: int
):
    """A window is learned from once the next begins with nothing running; at the latest after a minute."""
    attributor = Attributor()
    work = Work(4000, 0, 3000, 10, running_seconds=40, covered_seconds=10)
    use = Used(work, ON, opening=Work(running_seconds=running_at_edges))
    learned = []
    for _ in range(7):
        attributor.attribute({"GPU-0": Measured(BOARD, 5000.0, 10.0)}, {A: use})
        learned.append(attributor.engine_joules(A) != ENGINE_JOULES)
    assert learned.index(True) + 1 == windows


@pytest.mark.parametrize(
    ("work", "source"),
    [
        (Work(generation_tokens=500, steps=100), "counted"),
        (Work(generation_tokens=500, inter_token_seconds=4.0, timed_steps=100, running_seconds=9), "timed"),
        (Work(generation_tokens=500, running_seconds=9), "guessed"),
    ],
)
def test_it_says_where_the_steps_come_from(work: Work, source: str):
    attributor = Attributor()
    assert attributor.insight(A).steps == "none"
    attributor.attribute({"GPU-0": Measured(BOARD, 5000.0, 10.0)}, {A: Used(work, ON)})
    assert attributor.insight(A).steps == source
    attributor.attribute({"GPU-0": Measured(BOARD, 1200.0, 10.0)}, {A: Used(Work(), ON)})
    assert attributor.insight(A).steps == source
    attributor.forget(A)
    assert attributor.insight(A).steps == "none"


def test_idle_draw_follows_the_models_that_are_loaded():
    attributor = Attributor()

    def idle_joules(watts: float, uses: dict[User, Used]) -> float:
        ticks = (*[Tick(0.1, watts)] * 50, *[Tick(0.1, 500.0)] * 50)
        window = Measured(BOARD, 5 * watts + 5 * 500.0, 10.0, ticks)
        parts = attributor.attribute({"GPU-0": window}, uses).parts["GPU-0"]
        return math.fsum(joules for (_, phase), joules in parts.items() if phase is Phase.IDLE)

    for _ in range(60):
        assert idle_joules(120.0, {A: Used(decoding(300), ON)}) == pytest.approx(600, rel=0.01)
    both = {A: Used(decoding(300), ON), B: Used(Work(), ON)}
    assert idle_joules(150.0, both) == pytest.approx(750, rel=0.01)
