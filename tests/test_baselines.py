"""The node's baselines: the same windows in both counters, replicas together, replaced only by hand."""

from dataclasses import replace

import pytest
from baseline_windows import IDLE_WATTS, KEY, USER, joules, window
from test_baseline import learned

from joulemeter.baseline import Basis
from joulemeter.baselines import Baselines, SettledGpu, windows_by_user
from joulemeter.engine_work import EngineWork
from joulemeter.model import Phase, User

WEEK_SECONDS = 604_800.0
OTHER = User("rag", "qwen")


def fed(baselines: Baselines, windows: int, *, begin: int = 0, user: User = USER, worse: float = 1.0) -> None:
    for number in range(begin, begin + windows):
        baselines.settle_window(user, KEY, window(number, worse=worse), 10.0 * (number + 1))


def frozen() -> Baselines:
    baselines = Baselines(WEEK_SECONDS, lambda: 5000.0)
    baselines.adopt([learned(800)], replace=True)
    return baselines


def test_both_counters_advance_in_the_same_windows():
    baselines = frozen()
    fed(baselines, 50)
    ((series, comparison),) = baselines.comparisons.items()
    assert series == (USER, learned(1).id)
    counted = [
        window(number) for number in range(7, 50)
    ]  # a minute after the first, so that the birth is seen
    assert comparison.compared_joules == pytest.approx(sum(one.energy_joules for one in counted))
    baseline = learned(800)
    for basis in Basis:
        assert comparison.expected_joules[basis] == pytest.approx(
            sum(baseline.expected_joules(one)[basis] for one in counted)
        )


def test_nothing_is_compared_before_there_is_something_to_compare_with():
    baselines = Baselines(WEEK_SECONDS, lambda: 5000.0)
    fed(baselines, 360)
    (comparison,) = baselines.comparisons.values()
    assert (comparison.compared_joules, set(comparison.expected_joules.values())) == (0.0, {0.0})
    fed(baselines, 40, begin=360)
    assert comparison.compared_joules > 0
    assert [state.state for _, state, _ in baselines.followed()] == ["learning"]


def test_replicas_teach_one_baseline_and_time_counts_once():
    baselines = Baselines(WEEK_SECONDS, lambda: 5000.0)
    for number in range(100):
        for user in (USER, User("chat-2", "llama")):
            baselines.settle_window(user, KEY, window(number), 10.0 * (number + 1))
    (baseline,) = baselines.all()
    assert baseline.learning is not None
    assert baseline.learning.learned_seconds == pytest.approx(1000.0)
    assert len(baselines.comparisons) == 2


def test_what_costs_more_is_seen_until_it_is_accepted():
    baselines = frozen()
    fed(baselines, 400, worse=1.25)
    (comparison,) = baselines.comparisons.values()
    assert comparison.compared_joules / comparison.expected_joules[Basis.ENGINE] > 1.15
    (old,) = baselines.all()
    assert not baselines.accept("unknown")
    assert baselines.accept(old.id)
    fed(baselines, 400, begin=400, worse=1.25)
    (new,) = baselines.all()
    assert (new.key, new.state) == (old.key, "learning")
    assert new.id != old.id
    accepted = baselines.comparisons[USER, new.id]
    assert accepted.compared_joules / accepted.expected_joules[Basis.ENGINE] == pytest.approx(1.0, abs=0.02)


def test_series_of_a_baseline_that_was_replaced_end():
    baselines = frozen()
    fed(baselines, 10)
    baselines.accept(baselines.all()[0].id)
    fed(baselines, 10, begin=10)
    baselines.retire(200.0 + 3000.0, 3600.0)
    assert len(baselines.comparisons) == 2
    baselines.retire(200.0 + 3600.0, 3600.0)
    assert [one for _, one in baselines.comparisons] == [baselines.all()[0].id]
    baselines.forget(USER)
    assert (baselines.comparisons, list(baselines.followed())) == ({}, [])


def test_a_beginning_that_nobody_goes_on_with_is_dropped():
    baselines = frozen()
    fed(baselines, 10)
    baselines.settle_window(OTHER, replace(KEY, model="qwen"), window(1), 20.0)
    assert len(baselines.all()) == 2
    baselines.forget(OTHER)
    baselines.forget(USER)
    assert [one.key for one in baselines.all()] == [KEY]


def test_reset_forgets_one_or_all():
    baselines = frozen()
    baselines.adopt([replace(learned(800), id="other", key=replace(KEY, gpus=2))], replace=True)
    assert baselines.reset("other") == 1
    assert baselines.reset("other") == 0
    assert baselines.reset() == 1
    assert baselines.all() == []
    fed(baselines, 10)
    assert baselines.all()[0].state == "learning"


def test_what_comes_along_does_not_replace_what_is_there_unless_told_to():
    baselines = frozen()
    brought = replace(learned(800), id="brought")
    assert baselines.adopt([brought], replace=False) == []
    assert baselines.adopt([brought], replace=True) == [brought]
    assert baselines.all() == [brought]


def gpu(*parts: tuple[User, Phase, float], busy_seconds: float = 5.0, seconds: float = 10.0) -> SettledGpu:
    return SettledGpu("H100", seconds, busy_seconds, {(user, phase): j for user, phase, j in parts})


def test_other_models_steps_are_no_time_of_mine():
    shared = gpu(
        (USER, Phase.IDLE, 300.0),
        (OTHER, Phase.IDLE, 300.0),
        (USER, Phase.DECODE, 500.0),
        (OTHER, Phase.PREFILL, 1500.0),
    )
    found = windows_by_user(
        {"a": shared},
        {USER: frozenset("a"), OTHER: frozenset("a")},
        {USER: EngineWork(1.0), OTHER: EngineWork(2.0)},
    )
    key, mine = found[USER]
    assert (key.gpus, key.product, key.model) == (1, "H100", "llama")
    assert (mine.available_seconds, mine.holders, mine.energy_joules) == (10.0 - 3.75, 2, 800.0)
    assert found[OTHER][1].available_seconds == 10.0 - 1.25


def shared(baselines: Baselines, windows: range, *, worse: float) -> dict[User, float]:
    """Settle windows of two models on one GPU, and return what each took over what was expected of it."""
    before = {series: replace(one) for series, one in baselines.comparisons.items()}
    expected_before = {series: dict(one.expected_joules) for series, one in baselines.comparisons.items()}
    for number in windows:
        works = {USER: window(number).work, OTHER: window(3 * number + 1).work}
        parts = [(user, Phase.IDLE, IDLE_WATTS * 5.0) for user in works]
        parts += [
            (user, Phase.DECODE, joules(work, 0.0, worse=worse if user == USER else 1.0))
            for user, work in works.items()
        ]
        uses = dict.fromkeys(works, frozenset("G"))
        baselines.settle({"G": gpu(*parts, busy_seconds=0.0)}, uses, works, 10.0 * number)
    newest = {user: baseline.id for user, baseline, _ in baselines.followed()}
    found = {}
    for series, one in baselines.comparisons.items():
        if newest[series[0]] == series[1]:
            compared = one.compared_joules - (before[series].compared_joules if series in before else 0.0)
            expected = one.expected_joules[Basis.ENGINE]
            expected -= expected_before.get(series, {Basis.ENGINE: 0.0})[Basis.ENGINE]
            found[series[0]] = compared / expected
    return found


def test_who_shares_a_gpu_is_asked_anew_once_a_baseline_is_replaced():
    """Ratios to an old baseline are no ratios to the new one."""
    baselines = Baselines(WEEK_SECONDS, lambda: 5000.0)
    other_key = replace(KEY, model="qwen")
    usual, neighbour = learned(800), learned(800)
    baselines.adopt([usual, replace(neighbour, id="neighbour", key=other_key)], replace=True)
    dearer = shared(baselines, range(1, 2000), worse=1.3)
    assert dearer[USER] > 1.15
    assert dearer[OTHER] == pytest.approx(1.0, abs=0.01)
    baselines.adopt([replace(learned(800, worse=1.3), id="accepted")], replace=True)
    after = shared(baselines, range(2000, 2040), worse=1.3)
    assert after == {USER: pytest.approx(1.0, abs=0.005), OTHER: pytest.approx(1.0, abs=0.005)}


def test_a_window_with_energy_missing_is_not_compared():
    both = {USER: frozenset("ab")}
    works = {USER: EngineWork(1.0)}
    one = gpu((USER, Phase.IDLE, 1000.0))
    assert windows_by_user({"a": one}, both, works) == {}
    assert windows_by_user({"a": one, "b": replace(one, duration_seconds=4.0)}, both, works) == {}
    (key, whole) = windows_by_user({"a": one, "b": one}, both, works)[USER]
    assert (key.gpus, whole.energy_joules, whole.holders) == (2, 2000.0, 1)


def test_a_model_on_other_gpus_has_another_baseline():
    baselines = frozen()
    fed(baselines, 10)
    baselines.settle_window(USER, replace(KEY, product="B200"), window(10), 110.0)
    assert {one.key.product for one in baselines.all()} == {"H100", "B200"}
    ((_, baseline, in_range),) = baselines.followed()
    assert (baseline.key.product, in_range) == ("B200", None)
