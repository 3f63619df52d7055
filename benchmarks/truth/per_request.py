"""Joules of single requests: the methods of the field, and the histogram that the daemon publishes, against truth.

PYTHONPATH=. python -m benchmarks.truth.per_request

Traffic is 55 % chats, 20 % tiny requests, 15 % long prompts and 10 % agents whose prompts are mostly cached,
on one H100 with an 8B model. What a gateway would see of a request is taken from its times: tokens come evenly
between the first and the last, a prompt is computed evenly between arrival and first token (a queue is not seen),
and the batch is the mean number of requests between their first and last token.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from benchmarks.truth.books import BEGIN_SECONDS, SGLANG, VLLM, Style, keep_books, server_name, to_books
from benchmarks.truth.kernel import REQUEST, REQUEST_WHOLE, Floats
from benchmarks.truth.run import Chunk, parts, run
from benchmarks.truth.scenario import Scenario, served
from benchmarks.truth.scenarios import LLAMA_8B
from benchmarks.truth.sensor import TICK_SECONDS
from benchmarks.truth.traffic import Kind, Load, Traffic
from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import MODEL_REQUEST_ENERGY
from joulemeter.histogram import Histogram, HistogramValue
from joulemeter.history import ServerHistory
from joulemeter.model import Length, Observation, User
from joulemeter.request_energy import RequestEnergy, Settled, Weights, stretches
from joulemeter.shares import NO_CAP, TickWeights, TickWork, pool_ratio, weighted_tick

KINDS: Final = (
    Kind(400, 250, 0.55, max_tokens=4096),
    Kind(60, 8, 0.20),
    Kind(6000, 80, 0.15, prompt_spread=0.3),
    Kind(800, 200, 0.10, prefixes=6, prefix_tokens=7200),
)
HOURS: Final[Mapping[float, int]] = {0.1: 12, 2.0: 1, 6.0: 1}
"""How long each rate is run: four to twenty thousand requests."""
PUBLISHED: Final = "histogram, as published"
QUIET_SECONDS: Final = 120.0
"""Nothing arrives at the end of a run, so that all that was begun is finished."""
WINDOW_SECONDS: Final = 10
OLDER_VLLM: Final = replace(VLLM, lengths=(Length.PROMPT, Length.GENERATION))
"""Before 0.13."""
FINE: Final = tuple(0.1 * 1.03**step for step in range(560))
"""Buckets so narrow that a quantile's error is that of the estimate; up to 1.5 MJ."""


@dataclass(frozen=True, slots=True)
class Row:
    """A method at one rate and seed. Errors are relative; NaN where there is nothing to compare."""

    requests_per_second: float
    seed: int
    method: str
    sum_over_true: float
    median_error: float
    """Of single requests, absolute."""
    mean: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Served:
    """A run, and what a gateway would know of its requests; energy of ticks is by second, of `truth` by window."""

    scenario: Scenario
    chunk: Chunk
    arrived: Floats
    first_token: Floats
    finished: Floats
    prompt: Floats
    computed: Floats
    output: Floats
    true_joules: Floats


def scenario(requests_per_second: float, seed: int, seconds: float, model: str = LLAMA_8B) -> Scenario:
    """Return the mix at a constant rate."""
    traffic = Traffic(Load(requests_per_second), KINDS, until_seconds=seconds - QUIET_SECONDS)
    return served(model, traffic, seconds, seed=seed)


def serve(what: Scenario) -> Served:
    """Run a scenario of one server."""
    chunk = run(what, requests=True)
    at = {name: chunk.requests[:, index] for index, name in enumerate(REQUEST)}
    whole = {name: chunk.requests_whole[:, index].astype(float) for index, name in enumerate(REQUEST_WHOLE)}
    return Served(
        what,
        chunk,
        at["arrived_seconds"],
        at["first_token_seconds"],
        at["finished_seconds"],
        whole["prompt_tokens"],
        whole["prompt_tokens"] - whole["cached_tokens"],
        whole["output_tokens"],
        at["prefill_joules"] + at["decode_joules"],
    )


# ------------------------------------------------------------------------------------- methods of the field


def pool_shares(run_of: Served, *, cap_ratio: float) -> Floats:
    """Bill each request with the server's energy from its arrival to its end by its part of the tokens."""
    at = TICK_SECONDS * np.arange(len(run_of.chunk.tick_joules) + 1)
    total = np.concatenate([[0.0], np.cumsum(run_of.chunk.tick_joules)])
    joules = np.interp(run_of.finished, at, total) - np.interp(run_of.arrived, at, total)
    pools = _processed_tokens(run_of, run_of.finished) - _processed_tokens(run_of, run_of.arrived)
    own_tokens = run_of.prompt + run_of.output
    rows_of = zip(joules.tolist(), own_tokens.tolist(), np.maximum(pools, own_tokens).tolist(), strict=True)
    return np.array([pool_ratio(*row, cap_ratio=cap_ratio) for row in rows_of])


def _processed_tokens(run_of: Served, at_seconds: Floats) -> Floats:
    """Return what the server's token counters show: prompts and first tokens at once, the others evenly."""
    order = np.argsort(run_of.first_token)
    at_once = np.concatenate([[0.0], np.cumsum((run_of.prompt + 1.0)[order])])
    where = np.searchsorted(run_of.first_token[order], at_seconds, side="right")
    times = np.concatenate([run_of.first_token, run_of.finished])
    lasting = np.maximum(run_of.finished - run_of.first_token, 1e-9)
    rates = (run_of.output - 1.0) / lasting
    changes = np.concatenate([rates, -rates])
    events = np.argsort(times)
    times, slopes = times[events], np.cumsum(changes[events])
    evenly = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(times))])
    processed: Floats = at_once[where] + np.interp(at_seconds, times, evenly)
    return processed


def tick_shares(run_of: Served, weights: TickWeights) -> Floats:
    """Share the energy of each second, idle apart, by estimated work."""
    seconds = round(run_of.scenario.seconds)
    joules = run_of.chunk.tick_joules.reshape(seconds, -1).sum(axis=1)
    busy = np.minimum(1.0, run_of.chunk.true("busy_seconds").reshape(-1, 1).sum(axis=1))
    idle = run_of.scenario.idle_watts * (1.0 - busy)
    shared = np.zeros(len(run_of.arrived))
    carried_joules = 0.0
    for active_joules, work in zip(np.maximum(0.0, joules - idle).tolist(), _ticks(run_of), strict=True):
        tick = weighted_tick(active_joules, work, weights, carried_joules=carried_joules)
        carried_joules = tick.carried_joules
        for index, own_joules in tick.joules.items():
            shared[index] += own_joules
    return shared


def _ticks(run_of: Served) -> Iterator[dict[int, TickWork]]:
    """Yield what each request did in each second."""
    seconds = round(run_of.scenario.seconds)
    rows: list[dict[int, TickWork]] = [{} for _ in range(seconds)]
    batch = _batch(run_of, seconds)
    columns = (
        run_of.arrived,
        run_of.first_token,
        run_of.finished,
        run_of.prompt,
        run_of.computed,
        run_of.output,
    )
    for index, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        arrived, first, finished, prompt, computed, output = row
        prefill_seconds, decode_seconds = first - arrived, finished - first
        for second in range(int(arrived), min(int(finished) + 1, seconds)):
            prefilled = _overlap(arrived, first, second) / prefill_seconds
            decoded = _overlap(first, finished, second) / decode_seconds if decode_seconds > 0 else 0.0
            generated = decoded * (output - 1.0)
            so_far = (max(first, second) - first) / decode_seconds if decode_seconds > 0 else 0.0
            context = prompt + (so_far + decoded / 2) * output
            rows[second][index] = TickWork(
                generated, max(1.0, batch[second]), generated * context, prefilled * computed
            )
    yield from rows


def _overlap(begin: float, end: float, second: int) -> float:
    return max(0.0, min(end, second + 1) - max(begin, second))


def _batch(run_of: Served, seconds: int) -> list[float]:
    """Return the mean number of requests that generate, in each second in which one does."""
    fine = 0.05
    edges = fine * np.arange(round(seconds / fine))
    running = np.searchsorted(np.sort(run_of.first_token), edges, side="right") - np.searchsorted(
        np.sort(run_of.finished), edges, side="right"
    )
    by_second = running.reshape(seconds, -1)
    some = np.maximum(1, (by_second > 0).sum(axis=1))
    means: list[float] = (by_second.sum(axis=1) / some).tolist()
    return means


# ------------------------------------------------------------------------------------- the published histogram


def from_true_phases(run_of: Served, *bounds: tuple[float, ...], style: Style = VLLM) -> list[HistogramValue]:
    """Feed the histogram from pages, and from windows whose phase energies are the true ones."""
    physics = run_of.scenario.servers[0].physics
    step, token, context, _, _ = parts(physics)
    history = ServerHistory(keep_seconds=600.0)
    energies = [RequestEnergy(one) for one in bounds]
    phases = np.stack([run_of.chunk.true(f"{phase}_joules")[:, 0] for phase in ("prefill", "decode")])
    windows = phases.reshape(2, -1, WINDOW_SECONDS).sum(axis=2).T.tolist()
    limit_joules, begun = 0.0, BEGIN_SECONDS
    for event in to_books(run_of.scenario, [run_of.chunk], style, read_seconds=1.0, requests=True):
        if not isinstance(event, Observation):
            continue
        history.observe(event, default_model="")
        if event.at_seconds < begun + WINDOW_SECONDS:
            continue
        prefill_joules, decode_joules = windows[round((begun - BEGIN_SECONDS) / WINDOW_SECONDS)]
        limit_joules += prefill_joules + decode_joules
        model, until = run_of.scenario.servers[0].model, event.at_seconds
        cut = Settled(prefill_joules, decode_joules, stretches(history, model, begun, until))
        finished = history.finished.between(begun, until)
        for energy in energies:
            energy.settle(cut, finished, Weights(step, token, context), limit_joules=limit_joules)
        begun = until
    return [energy.value() for energy in energies]


def from_books(run_of: Served) -> HistogramValue:
    """Return what the daemon's own books publish; idle and phases are theirs too."""
    books = Bookkeeper(
        Terms(zero_hold_seconds=0.0),
        price=unpriced,
        attributor=Attributor(),
    )
    keep_books(run_of.scenario, books, VLLM, requests=True)
    user = User(server_name(0), run_of.scenario.servers[0].model)
    return books.requests.histograms[user].value()


def quantile(value: HistogramValue, ratio: float) -> float:
    """Return what PromQL's histogram_quantile does: linear within a bucket, the last bound beyond it."""
    rank, below, lower = ratio * value.counts[-1], 0, 0.0
    for bound, count in zip(value.bounds, value.counts, strict=False):
        if count >= rank and count > below:
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return value.bounds[-1]


def counted(joules: Floats, bounds: tuple[float, ...]) -> HistogramValue:
    """Return the histogram of known energies."""
    histogram = Histogram(bounds)
    for one in joules.tolist():
        histogram.observe(one)
    return histogram.value()


# ------------------------------------------------------------------------------------- the report


def rows(
    seeds: Sequence[int] = (1, 2, 3), *, hours: Mapping[float, float] = HOURS, model: str = LLAMA_8B
) -> list[Row]:
    """Run the mix at each rate and seed, and compare every method with the truth."""
    found = []
    for rate in hours:
        for seed in seeds:
            what = scenario(rate, seed, hours[rate] * 3600.0, model)
            run_of = serve(_by_second(what))
            found += [partial_row(rate, seed) for partial_row in _compared(run_of)]
    return found


def _by_second(what: Scenario) -> Scenario:
    """Return the scenario with its truth by second."""
    return Scenario(what.servers, what.seconds, what.seed, what.gpus, what.idle_watts, window_seconds=1.0)


def _compared(run_of: Served) -> Iterator[Callable[[float, int], Row]]:
    step, token, context, prompt, _ = parts(run_of.scenario.servers[0].physics)
    exact = TickWeights(step, token, context, prompt)
    wrong = {
        "step": TickWeights(2 * step, token, context, prompt),
        "token": TickWeights(step, 2 * token, context, prompt),
        "context": TickWeights(step, token, 2 * context, prompt),
        "prompt": TickWeights(step, token, context, 2 * prompt),
    }
    for name, cap_ratio in (("cap 25 %", 0.25), ("cap 7 %", 0.07), ("no cap", NO_CAP)):
        yield _of_requests(run_of, f"pool ratio, {name}", pool_shares(run_of, cap_ratio=cap_ratio))
    yield _of_requests(run_of, "weighted tick", tick_shares(run_of, exact))
    for name, weights in wrong.items():
        yield _of_requests(run_of, f"weighted tick, {name} x2", tick_shares(run_of, weights))
    bounds = MODEL_REQUEST_ENERGY.buckets
    fine, published = from_true_phases(run_of, FINE, bounds)
    yield _of_histogram(run_of, "histogram, exact phases, no buckets", fine)
    for name, style in (("SGLang's bounds", SGLANG), ("computed prompts not told", OLDER_VLLM)):
        (value,) = from_true_phases(run_of, FINE, style=style)
        yield _of_histogram(run_of, f"histogram, exact phases, no buckets, {name}", value)
    yield _of_histogram(run_of, "histogram, exact phases", published)
    yield _of_histogram(run_of, PUBLISHED, from_books(run_of))
    yield _of_histogram(run_of, "the truth in the same buckets", counted(run_of.true_joules, bounds))


def _of_requests(run_of: Served, method: str, joules: Floats) -> Callable[[float, int], Row]:
    true = run_of.true_joules
    p50, p95 = (float(np.quantile(joules, q) / np.quantile(true, q)) - 1.0 for q in (0.5, 0.95))
    ratio = float(joules.sum() / true.sum())
    error = float(np.median(np.abs(joules / true - 1.0)))
    return partial(
        Row, method=method, sum_over_true=ratio, median_error=error, mean=ratio - 1.0, p50=p50, p95=p95
    )


def _of_histogram(run_of: Served, method: str, value: HistogramValue) -> Callable[[float, int], Row]:
    true = run_of.true_joules
    p50, p95 = (quantile(value, q) / float(np.quantile(true, q)) - 1.0 for q in (0.5, 0.95))
    mean = value.sum / value.counts[-1] / float(true.mean()) - 1.0
    return partial(
        Row,
        method=method,
        sum_over_true=value.sum / float(true.sum()),
        median_error=math.nan,
        mean=mean,
        p50=p50,
        p95=p95,
    )


def table(found: Sequence[Row]) -> str:
    """Return the rows as markdown; of several seeds the one that is furthest off."""
    lines = [
        "| requests/s | method | sum over true | median error of a request | mean | p50 | p95 |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate, method in dict.fromkeys((row.requests_per_second, row.method) for row in found):
        same = [row for row in found if (row.requests_per_second, row.method) == (rate, method)]
        ratio = max((row.sum_over_true for row in same), key=lambda one: abs(one - 1.0))
        errors = [max((getattr(row, name) for row in same), key=abs) for name in ("mean", "p50", "p95")]
        median = max(row.median_error for row in same)
        shown = "" if math.isnan(median) else f"{median:.0%}"
        cells = [f"{rate:g}", method, f"{ratio:.2f}", shown, *(f"{error:+.1%}" for error in errors)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    print(table(rows()), end="")


if __name__ == "__main__":
    main()
