"""The numbers of the baseline, reduced: days of a simulated server through the books, hour by hour.

benchmarks/truth/ratios.py runs weeks of every scenario; this keeps it honest in seconds.
"""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.truth.books import VLLM
from benchmarks.truth.ratios import DAY_SECONDS, Ratios, line, ratios
from benchmarks.truth.scenario import Scenario, served
from benchmarks.truth.scenarios import CHAT, DAY, LLAMA_8B, SCENARIOS, regressed
from benchmarks.truth.traffic import Traffic
from joulemeter.baseline import Basis
from joulemeter.model import Role

WITHIN_POINTS = 3.0
FIRST_HOUR_POINTS = 4.0
"""For the other model on a GPU while the estimator still thinks that both got dearer."""
LEARN_DAYS = 0.6
SECONDS = 0.85 * DAY_SECONDS
FROM_HOUR = 17


def found(scenario: Scenario, **settings: object) -> list[Ratios]:
    return ratios(scenario, learn_days=LEARN_DAYS, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "decode_power", "step_time"),
    [("chat_day", 0.10, 0.0), ("chat_day", 0.0, 0.15), ("mixture_of_experts", 0.25, 0.0)],
)
def test_every_hour_shows_what_went_wrong(name: str, decode_power: float, step_time: float):
    """Frozen in the afternoon, worse two hours later: right before and after."""
    scenario = regressed(
        SCENARIOS[name](SECONDS), FROM_HOUR * 3600.0, decode_power=decode_power, step_time=step_time
    )
    (one,) = found(scenario)
    seen = one.in_range > 0.9
    assert seen.sum() >= 2
    assert np.abs(one.errors()[seen]).max() < WITHIN_POINTS
    fine, worse = one.true[one.hours < FROM_HOUR], one.true[one.hours >= FROM_HOUR]
    assert len(fine) >= 1
    assert np.abs(fine - 1.0).max() < 0.001
    assert worse.max() > 1.0 + 0.5 * (decode_power + step_time), "or there is nothing to see"


def test_longer_prompts_are_nothing_wrong_where_a_page_comes_every_five_seconds():
    """Most requests begin and end between two pages: the gauge of context alone says 5 points too much."""
    kinds = (
        replace(CHAT, until_seconds=FROM_HOUR * 3600.0),
        replace(CHAT, prompt_tokens=1200, output_tokens=300, from_seconds=FROM_HOUR * 3600.0),
    )
    (one,) = found(served(LLAMA_8B, Traffic(replace(DAY, peak=5.0), kinds), SECONDS), observe_seconds=5.0)
    assert one.hours[-1] > FROM_HOUR
    assert np.abs(one.errors()).max() < 2.0


def test_models_that_share_a_gpu_are_compared_apart():
    chat, rag = found(regressed(SCENARIOS["two_models"](SECONDS), FROM_HOUR * 3600.0, decode_power=0.25))
    assert np.abs(chat.errors()).max() < WITHIN_POINTS
    assert np.abs(rag.errors()).max() < FIRST_HOUR_POINTS
    assert np.abs(rag.errors()[rag.hours != FROM_HOUR]).max() < WITHIN_POINTS
    assert chat.measured[Basis.ENGINE].max() > 1.2
    assert rag.measured[Basis.ENGINE].max() < 1.03


def test_without_step_counts_it_holds_as_well():
    """Batches are then told from the running gauge, which wants to be seen often."""
    (one,) = found(SCENARIOS["chat_day"](SECONDS), style=VLLM.without(Role.STEPS), observe_seconds=1.0)
    assert np.abs(one.errors()).max() < WITHIN_POINTS


def test_row_of_the_table_has_its_figures():
    hours = np.arange(4.0)
    one = Ratios(
        hours,
        {Basis.ENGINE: np.array([1.0, 1.01, 1.5, 1.0]), Basis.LOAD: np.ones(4)},
        np.ones(4),
        np.ones(4),
        np.array([100.0, 100.0, 10.0, 100.0]),
    )
    assert line("a", "", one) == "| a | none | 3 | 100.0% | 1.00 | 0.98 | 0.00 | 0.00 | 0.00 | 0.00 |"
