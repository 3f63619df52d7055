"""The bench of single requests: its pages tell what finished, and its figures are those that are promised."""

import math

import numpy as np
import pytest

from benchmarks.truth import per_request
from benchmarks.truth.books import SGLANG, VLLM, to_books
from benchmarks.truth.kernel import REQUEST, REQUEST_WHOLE
from benchmarks.truth.per_request import NO_CAP, Row, pool_shares, quantile, rows, scenario, serve, table
from benchmarks.truth.run import run, simulate
from joulemeter.histogram import HistogramValue
from joulemeter.history import ServerHistory
from joulemeter.model import Length, Observation


@pytest.fixture(scope="module")
def found() -> dict[tuple[float, str], Row]:
    some = rows((7,), hours={0.1: 2, 2.0: 0.5, 6.0: 0.5})
    return {(row.requests_per_second, row.method): row for row in some}


def counted(style, **how) -> tuple[dict[Length, int], int]:
    """Tokens by length, and answers, that a history has taken from the pages of a run."""
    what = scenario(2.0, 3, 7200.0)
    history = ServerHistory(keep_seconds=math.inf)
    for event in to_books(
        what, simulate(what, requests=True), style, read_seconds=60.0, requests=True, **how
    ):
        if isinstance(event, Observation):
            history.observe(event, default_model="")
    finished = history.finished.between(-math.inf, math.inf)
    sums = {length: sum(one.lengths[length].sum_tokens for one in finished) for length in Length}
    return sums, sum(one.lengths[Length.GENERATION].count for one in finished)


@pytest.mark.parametrize("style", [VLLM, SGLANG], ids=lambda style: style.dialect)
def test_pages_tell_the_lengths_of_what_finished(style):
    chunk = run(scenario(2.0, 3, 7200.0), requests=True)
    of = {name: int(chunk.requests_whole[:, i].sum()) for i, name in enumerate(REQUEST_WHOLE)}
    sums, requests = counted(style)
    assert sums == {
        Length.PROMPT: of["prompt_tokens"],
        Length.COMPUTED_PROMPT: of["prompt_tokens"] - of["cached_tokens"],
        Length.GENERATION: of["output_tokens"],
    }
    assert requests == len(chunk.requests)


def test_a_restart_loses_at_most_what_finished_since_the_last_page():
    chunk = run(scenario(2.0, 3, 7200.0), requests=True)
    finished = chunk.requests[:, REQUEST.index("finished_seconds")]
    at = 3600.0  # the page of that second is the first of the new life
    lost = int(((finished > at - 1.0) & (finished <= at)).sum())
    _, requests = counted(VLLM, restarts=[(at, 0)])
    assert requests == len(finished) - lost


def test_pages_have_no_histograms_unless_asked_for():
    what = scenario(2.0, 3, 3600.0)
    events = to_books(what, simulate(what), read_seconds=60.0)
    assert not any(event.page.lengths for event in events if isinstance(event, Observation))


@pytest.mark.parametrize("rate", [0.1, 2.0, 6.0])
def test_what_is_published_holds(found, rate: float):
    """Mean within 3 %, median and 95th percentile within 15 %, by the true phases and by those of the books."""
    exact = "histogram, exact phases"
    for method in (f"{exact}, no buckets", exact, "histogram, as published"):
        row = found[rate, method]
        assert abs(row.mean) < 0.03
        assert abs(row.p50) < 0.15
        assert abs(row.p95) < 0.15
    assert found[rate, exact].sum_over_true <= 1.0


@pytest.mark.parametrize("rate", [0.1, 2.0, 6.0])
def test_a_weighted_tick_conserves_and_a_cap_does_not(found, rate: float):
    assert found[rate, "weighted tick"].sum_over_true == pytest.approx(1.0, abs=1e-3)
    assert found[rate, "weighted tick"].median_error < 0.08
    assert found[rate, "weighted tick, step x2"].sum_over_true == pytest.approx(1.0, abs=1e-3)
    assert found[rate, "pool ratio, cap 7 %"].sum_over_true < 0.6


def test_a_lone_request_pays_for_itself_unless_it_is_capped():
    run_of = serve(scenario(0.01, 1, 7200.0))
    apart = np.diff(run_of.arrived, prepend=-1e9) > 60
    without = pool_shares(run_of, cap_ratio=NO_CAP)[apart]
    assert without.sum() == pytest.approx(run_of.true_joules[apart].sum(), rel=0.05)  # they end within ticks
    assert pool_shares(run_of, cap_ratio=0.07)[apart] == pytest.approx(0.07 * without)


def test_a_quantile_is_what_promql_makes_of_it():
    value = HistogramValue((1.0, 2.0, 4.0), (0, 50, 100, 100), 0.0)
    assert [quantile(value, ratio) for ratio in (0.25, 0.5, 0.95)] == pytest.approx([1.5, 2.0, 3.8])
    assert quantile(HistogramValue((1.0, 2.0), (0, 0, 5), 0.0), 0.5) == 2.0


def test_the_table_shows_the_seed_that_is_furthest_off():
    same = [
        Row(2.0, seed, "x", 1.0 + error, math.nan, error, -error, 0.0)
        for seed, error in ((1, 0.01), (2, -0.03))
    ]
    assert table(same).splitlines()[-1] == "| 2 | x | 0.97 |  | -3.0% | +3.0% | +0.0% |"
    assert per_request.HOURS.keys() == {0.1, 2.0, 6.0}
