"""What stands beside the estimator in the report of truth, and how the report is written."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.truth import cases, over_time, report
from benchmarks.truth.books import PHASES
from benchmarks.truth.measure import OURS, Case, Errors, begun_at, errors, measure, misses, worst
from benchmarks.truth.methods import FixedPrior, TokenShare, others, wrong_prior
from benchmarks.truth.more_scenarios import MORE_SCENARIOS, PAIRS, on_pair
from benchmarks.truth.ratios import Ratios
from benchmarks.truth.scenarios import SCENARIOS, chat_day
from benchmarks.truth.tables import Section, by_name, errors_table, missed, percent, wanted_count
from joulemeter.baseline import Basis
from joulemeter.model import EnergySource, Gpu, Phase, User
from joulemeter.priors import ENGINE_JOULES
from joulemeter.windows import Measured, Used
from joulemeter.work import Work

A, B = User("s", "a"), User("t", "b")
BOARD = Gpu(0, "GPU-0", "H100", "580", EnergySource.COUNTER, 700.0)
ON = frozenset({"GPU-0"})
WINDOW = {"GPU-0": Measured(BOARD, 5000.0, 10.0)}


def shared(method, *works):
    uses = {user: Used(work, ON) for user, work in zip((A, B), works, strict=False)}
    return method.attribute(WINDOW, uses).parts["GPU-0"]


def test_token_share_counts_cached_prompts_and_knows_no_floor():
    parts = shared(
        TokenShare(),
        Work(prompt_tokens=100, cached_prompt_tokens=300, generation_tokens=100),
        Work(generation_tokens=500),
    )
    assert parts[A, Phase.PREFILL] == pytest.approx(2000)
    assert parts[A, Phase.DECODE] == pytest.approx(500)
    assert parts[B, Phase.DECODE] == pytest.approx(2500)
    assert parts[A, Phase.IDLE] == parts[B, Phase.IDLE] == 0


def test_subtracting_idle_takes_it_from_busy_time_too():
    parts = shared(TokenShare(120.0), Work(generation_tokens=500))
    assert parts[A, Phase.IDLE] == pytest.approx(1200)
    assert parts[A, Phase.DECODE] == pytest.approx(3800)


def test_without_tokens_all_is_idle():
    assert shared(TokenShare(), Work(), Work())[B, Phase.IDLE] == pytest.approx(2500)


def test_a_fixed_prior_stays_what_it_is():
    method = FixedPrior()
    for _ in range(50):
        shared(method, Work(generation_tokens=3000, steps=100, first_tokens=0.0))
    assert method.engine_joules(A) == ENGINE_JOULES


def test_a_wrong_prior_is_wrong_in_one_place():
    assert wrong_prior(1, 3.0) == (ENGINE_JOULES[0], 3 * ENGINE_JOULES[1], *ENGINE_JOULES[2:])
    assert len(others(120.0, wrong_priors=True)) == len(others(120.0, wrong_priors=False)) + 6


def test_every_method_books_the_same_energy_in_the_same_windows():
    scenario = begun_at(SCENARIOS["two_models"](2400.0, 3), 9.0)
    compared = measure(Case("two models", scenario, others=True))
    assert next(iter(compared)) == OURS
    for one in compared.values():
        assert one.booked_joules.sum(axis=(1, 2)) == pytest.approx(
            compared[OURS].booked_joules.sum(axis=(1, 2)), rel=1e-9
        )
    naive = compared["token share"].bias(Phase.PREFILL, since_seconds=600)
    assert naive > 10 * abs(compared[OURS].bias(Phase.PREFILL, since_seconds=600))


@pytest.mark.parametrize("name", ["late_server", "model_swap"])
def test_servers_that_come_and_go_take_their_energy_with_them(name):
    scenario = begun_at(MORE_SCENARIOS[name](7200.0, 1), 9.0)
    compared = measure(Case(name, scenario))[OURS]
    begun = compared.at_seconds.searchsorted(3600.0)
    late = compared.booked_joules[:, 1].sum(axis=1)
    assert late[begun - 1] == 0 < late[-1]
    first = compared.booked_joules[:, 0].sum(axis=1)
    grows = first[-1] - first[begun + 3]
    assert (grows > 0) == (name == "late_server")
    assert abs(compared.bias(*PHASES, server=1)) < 0.02


@pytest.mark.parametrize("model", PAIRS)
def test_a_slower_pair_gets_less_traffic(model):
    scenario, before = on_pair(chat_day(3600.0), model), chat_day(3600.0)
    assert scenario.servers[0].model == model
    assert 0 < scenario.servers[0].traffic.load.peak <= before.servers[0].traffic.load.peak


def test_the_day_is_begun_where_it_was_asked_to():
    hours = chat_day(86400.0).servers[0].traffic.load
    later = begun_at(chat_day(86400.0), 9.0).servers[0].traffic.load
    plain = replace(hours, day_spread=0.0, hour_spread=0.0, spikes_per_day=0.0)
    shifted = replace(later, day_spread=0.0, hour_spread=0.0, spikes_per_day=0.0)
    assert shifted.rates(0, 0) == pytest.approx(plain.rates(9, 0))


# ---------------------------------------------------------------------------------------- the numbers


def a_case(name="chat_day", **wanted):
    return Case(name, chat_day(3600.0), wanted)


def found(idle: float, prefill: float):
    of = {(None, "idle"): idle, (None, "prefill"): prefill}
    return {key: {OURS: Errors(bias, abs(bias))} for key, bias in of.items()}


def test_what_is_not_reached_is_said_and_what_cannot_be_told_is_not_reached():
    case = a_case(idle=0.01, prefill=0.05)
    assert misses(case, found(-0.009, 0.05)) == []
    assert misses(case, found(-0.011, 0.05)) == ["chat_day: idle: bias 1.1%, wanted 1%"]
    assert len(misses(case, found(math.nan, 0.06))) == 2


def test_of_several_seeds_the_worst_is_shown_for_each_figure():
    assert worst([Errors(0.01, 0.05), Errors(-0.02, 0.03)]) == Errors(-0.02, 0.05)
    assert math.isnan(worst([Errors(0.01, 0.05), Errors(math.nan, 0.0)]).bias)


def test_the_page_counts_and_lists_what_is_missed():
    worst_of = by_name([a_case(idle=0.01, prefill=0.05)] * 2, [found(0.002, 0.01), found(-0.03, 0.0)])
    section = Section("Scenarios", errors_table(worst_of, (OURS,)), missed(worst_of), wanted_count(worst_of))
    text = report.page(report.QUICK, [section])
    assert "1 of 2 numbers are reached" in text
    assert "- chat_day: idle: bias 3.0%, wanted 1%" in text
    assert "| chat_day | idle | -3.0 (3.0) | 1.0 |" in text
    assert "Wanted: 2 numbers. Reached: 1." in text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.0031, "+0.3"), (-0.0001, "0.0"), (4.24, "+424"), (math.nan, "-")]
)
def test_percent(ratio, text):
    assert percent(ratio, signed=True) == text


def test_every_wanted_scenario_and_pair_is_run():
    names = [case.name for case in cases.splits(3600.0, (0,))]
    assert set(cases.WANTED) <= set(names)
    assert set(cases.WRONG_PRIORS_IN) <= set(names)
    assert {name.split(",")[0] for name in (case.name for case in cases.on_pairs(3600.0))} == set(
        cases.ON_PAIRS
    )
    for build in (cases.server_kinds, cases.sensors):
        assert {case.name.split(",")[0] for case in build(3600.0)} == {"chat_day", "two_models"}


def test_errors_are_after_the_warm_up():
    case = Case("request_a_minute", SCENARIOS["request_a_minute"](7200.0, 1))
    compared = measure(case)[OURS]
    assert errors(case)[None, "idle"][OURS].bias == compared.bias(Phase.IDLE, since_seconds=3600.0)


def test_a_regression_is_shown_around_the_hour_in_which_it_begins():
    course = over_time.Course("chat_day", 10, begun_days=8.4, decode_power=0.15)
    hours = np.arange(190.0, 230.0)
    true = np.where(hours > 201, 1.12, 1.0)
    near = dict.fromkeys(Basis, true + 0.01)
    one = Ratios(hours, near, true, np.ones(40), np.full(40, 100.0))
    section = over_time.section([(course, one)])
    assert "| chat_day | decode power +15% | 1.010 / 1.000 | 1.130 / 1.120 |" in section.text
    assert (section.misses, section.wanted) == ((), 1)
    far = replace(one, measured=dict.fromkeys(Basis, true + 0.031))
    assert len(over_time.section([(course, far)]).misses) == 1
    idle = replace(one, requests=np.zeros(40))
    assert len(over_time.section([(course, idle)]).misses) == 1, "what cannot be told is not reached"
