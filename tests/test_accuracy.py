"""How wrong the split may be, against the simulator's truth, over a part of a day.

The whole report, over days, seeds and pairs and beside other methods, is `make bench-truth`, kept in docs/accuracy.md.
"""

import pytest

from benchmarks.truth import cases, steady
from benchmarks.truth.books import AT_FINISH, LLAMACPP, SGLANG
from benchmarks.truth.measure import TEN_MINUTES_SECONDS, Case, begun_at, errors, misses
from benchmarks.truth.methods import WRONG_PRIORS, wrong_prior
from benchmarks.truth.more_scenarios import MORE_SCENARIOS
from benchmarks.truth.scenarios import SCENARIOS

SEED = 2


def scenario(name: str, hours: float, from_hour: float):
    return begun_at({**SCENARIOS, **MORE_SCENARIOS}[name](hours * 3600.0, SEED), from_hour)


@pytest.mark.parametrize(
    ("name", "hours", "from_hour"),
    [
        ("chat_day", 8, 2),
        ("request_a_minute", 4, 2),
        ("two_models", 8, 2),
        ("long_bursts", 6, 8),
        ("short_chats", 6, 4),
        ("round_the_clock", 3, 0),
    ],
)
def test_the_split_is_as_right_as_we_say(name, hours, from_hour):
    case = Case(name, scenario(name, hours, from_hour), cases.WANTED[name])
    assert misses(case, errors(case)) == []


@pytest.mark.parametrize(
    ("name", "wanted"), [("chat_day", cases.DAY_OF_CHAT), ("two_models", {**cases.SHARED, "prefill": 0.05})]
)
def test_steps_that_nobody_counts_are_told_from_the_time_between_tokens(name, wanted):
    case = Case(f"{name}, sglang", scenario(name, 8, 2), wanted, style=SGLANG)
    assert misses(case, errors(case)) == []


def test_models_that_share_are_told_apart_though_nothing_is_told_before_a_request_ends():
    case = Case(
        "two_models, generic",
        scenario("two_models", 8, 2),
        cases.SHARED,
        wanted_weighted=cases.TEN_MINUTES,
        style=AT_FINISH,
        compare_seconds=TEN_MINUTES_SECONDS,
    )
    assert misses(case, errors(case)) == []


def test_counters_that_move_at_the_end_of_a_request_are_right_over_ten_minutes():
    case = Case(
        "chat_day, llamacpp",
        scenario("chat_day", 24, 0),
        wanted_weighted=cases.TEN_MINUTES,
        style=LLAMACPP,
        compare_seconds=TEN_MINUTES_SECONDS,
    )
    assert misses(case, errors(case)) == []


@pytest.mark.parametrize(
    ("wrong", "index", "factor"),
    [WRONG_PRIORS[0], WRONG_PRIORS[2], WRONG_PRIORS[5]],
    ids=str,
)
def test_a_prior_that_is_wrong_by_three_is_overruled(wrong, index, factor):
    case = Case(
        f"two_models, {wrong}",
        scenario("two_models", 8, 2),
        cases.WRONG_PRIOR,
        engine_joules=wrong_prior(index, factor),
    )
    assert misses(case, errors(case)) == []


def test_the_table_of_steady_traffic_has_three_parts():
    cells = steady.line("1:400:30", 2 * 3600.0).strip("| ").split(" | ")
    assert cells[0] == "1 a second, 400 in, 30 out"
    assert all(abs(float(cell)) < 5.0 for cell in cells[1:4])
    assert len(cells) == 4
