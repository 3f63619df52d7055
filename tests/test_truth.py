"""The offline simulator: the same physics as the engine's, energy that adds up, and measured figures met."""

import itertools
import math
import time
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest
from nodes import imbalance

from benchmarks.truth import kernel
from benchmarks.truth.books import (
    AT_FINISH,
    LLAMACPP,
    PHASES,
    SGLANG,
    VLLM,
    Style,
    gpus,
    keep_books,
    to_books,
)
from benchmarks.truth.run import Chunk, run, simulate
from benchmarks.truth.scenario import Change, Scenario, Server, served
from benchmarks.truth.scenarios import (
    CHAT,
    GPT_OSS,
    LLAMA_8B,
    QWEN_8B,
    SCENARIOS,
    chat_day,
    mixed,
    regressed,
    two_models,
)
from benchmarks.truth.sensor import Sensor
from benchmarks.truth.traffic import Bursts, Kind, Load, Once, Source, Traffic
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper, Terms
from joulemeter.model import Amount, EnergyReading, Moves, Observation, Phase, Role
from joulemeter.simulation.engine import Engine, Limits, Request, Speculation, StepResult
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.physics import seconds_and_joules, shapley, step_cost

# ------------------------------------------------------------------------- the engine, step by step, in Python


@dataclass
class Reference:
    """A scenario run by `simulation.engine`, one engine's step after the other's."""

    scenario: Scenario
    steps: list[tuple[int, float, float, StepResult]] = field(default_factory=list)

    def run(self) -> "Reference":
        servers = self.scenario.servers
        engines = [Engine(s.physics, s.limits, s.speculation) for s in servers]
        queues = [self._arrivals(server, self.scenario.seed * 1000 + i) for i, server in enumerate(servers)]
        at, turn = 0.0, 0
        while at < self.scenario.seconds:
            for change in self.scenario.changes:
                if at >= change.at_seconds:
                    engines[change.server].coefficients = servers[change.server].physics.regressed(
                        decode_power=change.decode_power, step_time=change.step_time
                    )
            for engine, queue in zip(engines, queues, strict=True):
                while queue and queue[0][0] <= at:
                    engine.submit(queue.pop(0)[1])
            order = [(turn + k) % len(engines) for k in range(len(engines))]
            for index in order:
                result = engines[index].step()
                if result is not None:
                    self.steps.append((index, at, at + result.seconds, result))
                    at += result.seconds
                    turn = index + 1
                    break
            else:
                at = min([queue[0][0] for queue in queues if queue], default=math.inf)
        return self

    @staticmethod
    def _arrivals(server: Server, seed: int) -> list[tuple[float, Request]]:
        at, sizes = Source(server.traffic, seed).hour(0)
        return [
            (when, Request(i, prompt, output, cached))
            for i, (when, (prompt, output, cached)) in enumerate(
                zip(at.tolist(), sizes.tolist(), strict=True)
            )
        ]


TIGHT = Limits(max_sequences=6, max_step_tokens=120)
BUSY = Traffic(Load(3.0), (CHAT, Kind(20, 1, output_spread=0.0), Kind(90, 30, prefixes=3, prefix_tokens=64)))
PAIRS = {
    "one": Scenario((Server(LLAMA_8B, BUSY),), 120.0, seed=3),
    "queueing": Scenario((Server(LLAMA_8B, BUSY, TIGHT),), 60.0, seed=4),
    "shared, regressed": Scenario(
        (Server(LLAMA_8B, BUSY), Server(QWEN_8B, Traffic(Load(0.4), (Kind(6000, 60),)))),
        120.0,
        seed=5,
        changes=(Change(40.0, 0, decode_power=0.2), Change(50.0, 1, step_time=0.3)),
    ),
    "table": Scenario((Server(GPT_OSS, BUSY),), 60.0, seed=6, gpus=2, idle_watts=240.0),
    "speculating": Scenario(
        (Server(LLAMA_8B, BUSY, speculation=Speculation(3, 0.6, seed=9)),), 120.0, seed=7
    ),
    "at the power limit": Scenario(
        (Server(LLAMA_8B, Traffic(Load(40.0), (Kind(100, 400),)), Limits(512, 2048)),), 60.0, seed=8
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_compiled_engine_is_the_engine(name):
    scenario = PAIRS[name]
    chunk, reference = run(scenario), Reference(scenario).run()
    assert len(reference.steps) > 500
    seen = np.zeros_like(chunk.seen)
    active, busy = np.zeros(len(chunk.tick_joules)), np.zeros(len(chunk.tick_joules))
    truth = np.zeros((len(chunk.idle_joules) * 10, len(scenario.servers), 2))
    column = kernel.SEEN.index
    for index, start, end, result in reference.steps:
        later = chunk.seen_at_seconds >= end
        made = {
            "steps": result.generated_tokens > 0,
            "generated": result.generated_tokens,
            "prompt_computed": sum(r.prompt_tokens - r.cached_tokens for r in result.prefilled),
            "prompt_cached": sum(r.cached_tokens for r in result.prefilled),
            "first_tokens": len(result.prefilled),
            "requests": len(result.finished),
            "finished_prompt": sum(r.prompt_tokens - r.cached_tokens for r in result.finished),
            "finished_cached": sum(r.cached_tokens for r in result.finished),
            "finished_generated": sum(r.output_tokens for r in result.finished),
            "admitted_cached": sum(r.cached_tokens for r in result.started),
            "prefill_tokens": result.prefill_tokens,
        }
        for key, value in made.items():
            seen[later, index, column(key)] += value
        for key, value in (
            ("running", result.running),
            ("waiting", result.waiting),
            ("context", result.context_tokens),
        ):
            seen[later, index, column(key)] = value
        for tick in range(int(start * 10), min(int(end * 10) + 1, len(active))):
            part = max(0.0, min(end, (tick + 1) * 0.1) - max(start, tick * 0.1))
            active[tick] += result.joules * part / result.seconds
            busy[tick] += part
            truth[tick // 10, index] += (
                np.array([result.prefill_joules, result.decode_joules]) * part / result.seconds
            )
    for key in kernel.SEEN:
        if key not in ("live_generated", "inter_token_seconds"):
            np.testing.assert_array_equal(chunk.showed(key), seen[:, :, column(key)], err_msg=key)
    np.testing.assert_allclose(chunk.tick_joules, active + scenario.idle_watts * (0.1 - busy), atol=1e-9)
    by_window = truth.reshape(-1, 10, *truth.shape[1:]).sum(axis=1)
    np.testing.assert_allclose(chunk.truth[:, :, :2], by_window, atol=1e-8)
    for key, of in (("prefill_tokens", "prefill_tokens"), ("read_tokens", "read_tokens")):
        expected = sum(getattr(result, of) for _, _, end, result in reference.steps if end < scenario.seconds)
        assert chunk.true(key)[:, :].sum() == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------------- conservation


def imbalance_of(scenario: Scenario, chunk: Chunk) -> float:
    """The worst window's, relative."""
    ticks = chunk.tick_joules.reshape(len(chunk.idle_joules), -1).sum(axis=1)
    parts = chunk.idle_joules + (chunk.true("prefill_joules") + chunk.true("decode_joules")).sum(axis=1)
    return float(np.max(np.abs(parts / ticks - 1.0)))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_adds_up_in_every_window(name):
    scenario = SCENARIOS[name](2 * 3600.0, seed=11)
    chunk = run(scenario)
    assert imbalance_of(scenario, chunk) < 1e-9
    assert chunk.true("generated_tokens").sum() > 0
    assert min(chunk.truth.min(), chunk.idle_joules.min()) >= 0
    true_work, shown = chunk.true("generated_tokens").sum(), chunk.showed("generated")[-1].sum()
    assert shown == pytest.approx(true_work, rel=0.01, abs=200)


def test_the_counter_without_noise_is_the_truth():
    chunk = run(replace(chat_day(3600.0, seed=1), sensor=Sensor(quantum_joules=0.0)))
    assert chunk.counter_joules[-1] == pytest.approx(chunk.tick_joules.sum(), rel=1e-12)
    parts = chunk.idle_joules.sum() + chunk.true("prefill_joules").sum() + chunk.true("decode_joules").sum()
    assert chunk.counter_joules[-1] == pytest.approx(parts, rel=1e-9)


def test_requests_that_finish_pay_for_all_steps():
    ends = Traffic(BUSY.load, BUSY.kinds, until_seconds=3000.0)
    scenario = Scenario((Server(LLAMA_8B, ends), Server(QWEN_8B, ends, TIGHT)), 2 * 3600.0, seed=5)
    chunk = run(scenario, requests=True)
    assert chunk.showed("running")[-1].sum() == 0
    of = {name: chunk.requests[:, i] for i, name in enumerate(kernel.REQUEST)}
    assert len(chunk.requests) == chunk.showed("requests")[-1].sum()
    for server in range(2):
        mine = chunk.requests_whole[:, 0] == server
        paid = (of["prefill_joules"] + of["decode_joules"])[mine].sum()
        used = (chunk.true("prefill_joules") + chunk.true("decode_joules"))[:, server].sum()
        assert paid == pytest.approx(used, rel=1e-9)
    assert np.all(np.diff(of["finished_seconds"]) >= 0)
    assert np.all(of["arrived_seconds"] < of["first_token_seconds"])
    assert np.all(of["first_token_seconds"] <= of["finished_seconds"])
    single = chunk.requests_whole[:, 3] == 1
    assert np.all(of["decode_joules"][single] == 0)
    assert of["decode_joules"][~single].min() > 0
    assert of["prefill_joules"].min() > 0


def test_a_lone_request_pays_for_exactly_its_own_steps():
    scenario = Scenario((Server(LLAMA_8B, Traffic(once=(Once(5.0, 3000, 50, 1000),))),), 30.0)
    chunk = run(scenario, requests=True)
    coefficients = MODELS[LLAMA_8B].coefficients
    prefill = step_cost(coefficients, decoding_sequences=0, prefill_tokens=2000)
    decode = [
        step_cost(coefficients, decoding_sequences=1, prefill_tokens=0, context_tokens=3001 + i)
        for i in range(49)
    ]
    assert chunk.requests[0, 3] == pytest.approx(prefill.prefill_joules, rel=1e-12)
    assert chunk.requests[0, 4] == pytest.approx(sum(step.decode_joules for step in decode), rel=1e-9)
    assert chunk.requests[0, 2] == pytest.approx(5 + prefill.seconds + sum(step.seconds for step in decode))
    assert chunk.true("prefill_tokens").sum() == 2000
    assert chunk.showed("prompt_cached")[-1, 0] == 1000


def test_parts_of_a_step_are_its_shapley_value():
    flat = MODELS[QWEN_8B].coefficients.flat()
    seconds, both = seconds_and_joules(flat, 20, 9000, 700)
    _, prefill = seconds_and_joules(flat, 0, 0, 700)
    _, decode = seconds_and_joules(flat, 20, 9000, 0)
    cost = step_cost(
        MODELS[QWEN_8B].coefficients, decoding_sequences=20, prefill_tokens=700, context_tokens=9000
    )
    assert cost.prefill_joules == shapley(prefill, decode, both)
    assert cost.prefill_joules + cost.decode_joules == pytest.approx(both, rel=1e-12)
    assert cost.seconds == seconds
    assert cost.prefill_joules - prefill == pytest.approx(
        cost.decode_joules - decode
    )  # both save the same: the shared floor


# ------------------------------------------------------------------------- measured figures


@pytest.mark.parametrize(
    ("rate", "joules"), [(0.05, 12.1), (0.5, 2.55), (2.0, 0.93), (8.0, 0.27), (12.0, 0.195)]
)
def test_energy_per_token_over_load(rate, joules):
    kind = Kind(500, 250, prompt_spread=0.0, output_spread=0.0)
    hours = 40 if rate < 0.1 else 2
    chunk = run(served(LLAMA_8B, Traffic(Load(rate), (kind,)), hours * 3600.0, seed=1))
    got = chunk.tick_joules.sum() / chunk.true("generated_tokens").sum()
    assert got == pytest.approx(joules, rel=0.1)


MEASURED = {  # joules per output token at 8, 16, 32, ... running requests; chats of 300 to 450 tokens
    LLAMA_8B: (0.455, 0.263, 0.165, 0.119, 0.095, 0.077, 0.070),
    "Qwen/Qwen3-32B": (1.63, 0.91, 0.55, 0.37, 0.27, 0.23),
    "meta-llama/Llama-3.3-70B-Instruct": (3.76, 2.09, 1.21, 0.80, 0.56, 0.48, 0.42),
    "meta-llama/Llama-3.1-405B-Instruct-FP8": (13.97, 7.59, 4.77, 3.08, 2.43, 2.06),
}
WATTS = {
    LLAMA_8B: (486, 513, 560, 610, 669, 691, 688),
    "meta-llama/Llama-3.3-70B-Instruct": (1765, 1804, 1794, 2002, 2184, 2354, 2493),
}


@pytest.mark.parametrize("model", MEASURED)
def test_full_batches_cost_what_was_measured(model):
    batches = [8 * 2**i for i in range(len(MEASURED[model]))]
    steps = [
        step_cost(MODELS[model].coefficients, decoding_sequences=n, prefill_tokens=0, context_tokens=375 * n)
        for n in batches
    ]
    per_token = [step.decode_joules / n for step, n in zip(steps, batches, strict=True)]
    errors = [abs(got / want - 1) for got, want in zip(per_token, MEASURED[model], strict=True)]
    assert sum(errors) / len(errors) < 0.025
    watts = WATTS.get(model, ())
    off = [abs(s.decode_joules / s.seconds / want - 1) for s, want in zip(steps, watts, strict=False)]
    assert not off or sum(off) / len(off) < 0.02


@pytest.mark.parametrize("model", MODELS)
def test_a_pair_says_what_is_assumed(model):
    pair = MODELS[model]
    assert pair.assumed <= {one.name for one in fields(pair.coefficients)}
    assert pair.assumed or pair.step_error_ratio > 0
    rows = pair.coefficients.table
    assert all(a.sequences < b.sequences for a, b in itertools.pairwise(rows))
    assert pair.idle_watts < pair.coefficients.busy_watts < pair.coefficients.limit_watts


def test_power_of_the_mixture_of_experts_rises_and_falls_again():
    def watts(sequences: int) -> float:
        cost = step_cost(MODELS[GPT_OSS].coefficients, decoding_sequences=sequences, prefill_tokens=0)
        return cost.decode_joules / cost.seconds

    assert watts(8) == pytest.approx(864.2)
    assert watts(4) == pytest.approx(780 + 84.2 * 3 / 7, rel=0.02)
    assert watts(8) < watts(384) > watts(1024) > watts(1536) == pytest.approx(973.3)


def test_above_the_power_limit_a_step_takes_longer_and_draws_the_limit():
    free = replace(MODELS[LLAMA_8B].coefficients, limit_watts=math.inf)
    limited = replace(free, limit_watts=400.0)
    before, after = (
        step_cost(one, decoding_sequences=32, prefill_tokens=0, context_tokens=9000)
        for one in (free, limited)
    )
    assert after.decode_joules / after.seconds == pytest.approx(400.0)
    natural_watts = before.decode_joules / before.seconds
    assert after.seconds / before.seconds == pytest.approx((natural_watts / 400.0) ** (1 / 3))


# ------------------------------------------------------------------------- regressions


def test_more_decode_power_is_that_much_more_decode_energy_for_the_same_steps():
    scenario = chat_day(7200.0, seed=2, peak=2.0)
    worse = run(regressed(scenario, 3600.0, decode_power=0.15))
    good = run(scenario)
    np.testing.assert_array_equal(worse.seen, good.seen)  # nothing that a server shows tells of it
    np.testing.assert_allclose(worse.true("reference_joules"), good.true("reference_joules"), rtol=1e-9)
    after = [chunk.true("decode_joules")[361:, 0] for chunk in (worse, good)]
    decoding = after[1] > 0
    assert decoding.sum() > 50
    assert np.median(after[0][decoding] / after[1][decoding]) == pytest.approx(1.15, rel=0.001)
    np.testing.assert_array_equal(worse.tick_joules[:36000], good.tick_joules[:36000])


def test_slower_steps_cost_more_per_step_and_little_more_per_token_at_load():
    scenario = served(LLAMA_8B, Traffic(Load(8.0), (CHAT,)), 7200.0, seed=2)
    slow, good = run(regressed(scenario, 0.0, step_time=0.15)), run(scenario)
    per_step = slow.true("decode_joules").sum() / slow.true("steps").sum()
    assert per_step > 1.15 * good.true("decode_joules").sum() / good.true("steps").sum()
    tokens = [chunk.true("generated_tokens").sum() for chunk in (slow, good)]
    assert slow.tick_joules.sum() / tokens[0] < 1.08 * good.tick_joules.sum() / tokens[1]
    later = run(regressed(scenario, 3600.0, step_time=0.15))
    work = (later.true("decode_joules") + later.true("prefill_joules"))[361:].sum()
    assert 1.1 < work / later.true("reference_joules")[361:].sum() < 1.15
    assert later.true("busy_seconds")[361:].sum() > later.true("reference_seconds")[361:].sum() * 1.1


def test_a_lower_power_limit_holds_from_its_time_on():
    scenario = replace(chat_day(7200.0, seed=3), changes=(Change(3600.0, limit_watts=420.0),))
    ticks = run(scenario).tick_joules * 10
    assert ticks[:36000].max() > 500
    assert ticks[36003:].max() == pytest.approx(420.0)


def test_a_smaller_batch_limit_makes_requests_wait():
    scenario = served(LLAMA_8B, Traffic(Load(8.0), (CHAT,)), 3600.0, seed=3)
    running = run(replace(scenario, changes=(Change(1800.0, max_sequences=5),))).showed("running")
    assert running[:1800].max() > 20
    assert running[1900:].max() == 5


# ------------------------------------------------------------------------- traffic


def test_same_seed_same_numbers_in_chunks_of_any_length():
    sensor = Sensor(seen_parts=1, noise_ratio=0.01, drift_ratio=0.015)
    scenario = replace(mixed(3 * 3600.0, seed=5, peak=20.0), sensor=sensor)
    one, again, other = run(scenario), run(scenario), run(replace(scenario, seed=6))
    (long,) = simulate(scenario, chunk_hours=3)
    for name in ("tick_joules", "truth", "seen", "counter_joules", "idle_joules"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        np.testing.assert_allclose(getattr(one, name), getattr(long, name), rtol=1e-12, atol=1e-9)
    assert not np.array_equal(one.seen, other.seen)


def test_traffic_follows_day_and_week():
    load = Load(4.0, night_ratio=0.1, weekend_ratio=0.5, spikes_per_day=0.0)
    by_hour = [load.rates(hour, seed=1).mean() for hour in range(7 * 24)]
    assert by_hour[14] == pytest.approx(4.0, rel=0.02)
    assert by_hour[2] == pytest.approx(0.4, rel=0.06)  # the hour's middle is past the lowest point
    assert by_hour[5 * 24 + 14] == pytest.approx(2.0, rel=0.02)
    source = Source(Traffic(load), seed=1)
    counts = [len(source.hour(hour)[0]) for hour in range(24)]
    assert sum(counts) == pytest.approx(sum(by_hour[:24]) * 3600, rel=0.02)
    spiky = replace(load, spikes_per_day=4.0, spike_factor=3.0)
    assert sum(spiky.rates(hour, 1).sum() for hour in range(24)) > sum(by_hour[:24]) * 60 * 1.02


def test_growth_and_steps():
    load = Load(1.0, growth_per_week=0.5, steps=((7 * 86400.0, 2.0),))
    assert load.rates(7 * 24 - 1, 0).mean() == pytest.approx(1.5, rel=0.01)
    assert load.rates(7 * 24, 0).mean() == pytest.approx(3.0, rel=0.01)


def test_a_prefix_is_cached_from_its_second_use_until_it_is_forgotten():
    kind = Kind(100, 10, prefixes=20, prefix_tokens=1000)
    for keep_seconds, expected in ((math.inf, 20), (60.0, 500)):
        source = Source(Traffic(Load(0.5), (kind,), cache_seconds=keep_seconds), seed=1)
        sizes = np.concatenate([source.hour(hour)[1] for hour in range(2)])
        misses = int((sizes[:, 2] == 0).sum())
        assert set(sizes[:, 2].tolist()) == {0, 992}
        assert misses == 20 if expected == 20 else 500 < misses < len(sizes)
        assert np.all(sizes[:, 0] > 1000)


def test_bursts_come_together_and_a_single_request_at_its_time():
    bursts = Bursts(Kind(12_000, 5, prompt_spread=0.0), per_hour=3.0, requests=8, within_seconds=2.0)
    traffic = Traffic(Load(0.0), bursts=(bursts,), once=(Once(100.0, 128_000, 7),))
    at, sizes = Source(traffic, seed=2).hour(0)
    long = sizes[:, 0] == 128_000
    assert at[long].tolist() == [100.0]
    starts = at[~long].reshape(-1, 8)
    assert len(starts) >= 1
    assert np.all(starts[:, -1] - starts[:, 0] <= 2.0)


# ------------------------------------------------------------------------- the sensor


def test_a_sensor_that_looks_away_is_right_on_average_only():
    scenario = chat_day(3600.0, seed=4, peak=1.0)
    chunk = run(replace(scenario, sensor=Sensor(seen_parts=1, quantum_joules=0.0)))
    full = run(scenario)
    np.testing.assert_allclose(chunk.tick_joules, full.tick_joules, rtol=1e-9)
    ticks = np.diff(chunk.counter_joules)
    assert np.abs(ticks - full.tick_joules[1:]).max() > 1.0
    assert chunk.counter_joules[-1] == pytest.approx(full.tick_joules.sum(), rel=0.005)


def test_quanta_noise_and_drift():
    scenario = chat_day(3 * 3600.0, seed=4, peak=1.0)
    coarse = run(replace(scenario, sensor=Sensor(quantum_joules=0.5)))
    np.testing.assert_allclose(coarse.counter_joules % 0.5, 0.0, atol=1e-9)
    assert 0 <= coarse.tick_joules.sum() - coarse.counter_joules[-1] < 0.5 + 1e-6
    noisy = run(replace(scenario, sensor=Sensor(noise_ratio=0.01, quantum_joules=0.0)))
    off = np.diff(noisy.counter_joules) / noisy.tick_joules[1:] - 1
    assert np.std(off) == pytest.approx(0.01, rel=0.1)
    assert np.corrcoef(off[1:], off[:-1])[0, 1] == pytest.approx(0.9, abs=0.03)
    drifting = run(replace(scenario, sensor=Sensor(drift_ratio=0.015, quantum_joules=0.0)))
    off = np.diff(drifting.counter_joules) / drifting.tick_joules[1:] - 1
    assert off.max() == pytest.approx(0.015, rel=0.01)
    assert np.diff(noisy.counter_joules).min() >= 0


# ------------------------------------------------------------------------- speed, the books, mistakes


def test_an_hour_takes_a_fraction_of_a_second():
    run(chat_day(10.0))  # compiles
    scenario = served(LLAMA_8B, Traffic(Load(8.0), (CHAT,)), 3600.0)
    begin = time.perf_counter()
    chunk = run(scenario)
    assert time.perf_counter() - begin < 1.0
    assert chunk.true("steps").sum() > 200_000


def new_books() -> Bookkeeper:
    return Bookkeeper(
        Terms(zero_hold_seconds=0),
        price=lambda joules, _begin, _end: Amount(joules, joules * 1e-4),
        attributor=Attributor(),
    )


@pytest.mark.parametrize("style", [VLLM, SGLANG, LLAMACPP, AT_FINISH], ids=lambda style: style.dialect)
def test_the_unmodified_books_can_be_driven_for_an_hour(style):
    scenario = two_models(3600.0, seed=3)
    scenario = replace(
        scenario,
        servers=tuple(
            replace(server, traffic=replace(server.traffic, load=Load(rate)))
            for server, rate in zip(scenario.servers, (1.0, 0.2), strict=True)
        ),
    )
    books = new_books()
    comparison = keep_books(scenario, books, style, skew_seconds=0.05)
    assert imbalance(books) < 1e-9
    measured = sum(account.measured.energy_joules for account in books.gpus.values())
    assert measured == pytest.approx(run(scenario).tick_joules.sum(), rel=1e-5)
    assert comparison.at_seconds[-1] > 3500
    for since_seconds in (0.0, 1800.0):
        assert abs(comparison.bias(*PHASES, since_seconds=since_seconds)) < 0.001
    assert comparison.weighted_error(*PHASES) < 0.02
    assert comparison.weighted_error(Phase.DECODE) > abs(comparison.bias(Phase.DECODE)) - 1e-9


@pytest.mark.parametrize(
    "name", ["chat_day", "request_a_minute", "two_models", "tensor_parallel", "mixture_of_experts"]
)
def test_idle_and_decode_follow_the_truth_already_with_the_prior(name):
    """Idle comes from the counter's ticks; decode is most of the rest. Two hours of night are the hard part."""
    comparison = keep_books(SCENARIOS[name](2 * 3600.0), new_books())
    assert abs(comparison.bias(Phase.IDLE, since_seconds=600)) < 0.03
    assert abs(comparison.bias(Phase.DECODE, since_seconds=600)) < 0.05


def test_long_runs_read_less_often_and_see_the_same_work():
    def biases(read_seconds: float) -> tuple[list[float], float]:
        scenario = chat_day(3600.0, seed=3, peak=60.0)
        comparison = keep_books(scenario, new_books(), read_seconds=read_seconds)
        return [comparison.bias(phase) for phase in (Phase.PREFILL, Phase.DECODE)], comparison.bias(
            Phase.IDLE
        )

    (sharp, sharp_idle), (blurred, blurred_idle) = biases(0.1), biases(2.0)
    assert blurred[1] == pytest.approx(sharp[1], abs=0.01)
    assert blurred[0] == pytest.approx(sharp[0], abs=0.08)  # learned from windows whose idle time is blurred
    assert abs(sharp_idle) < 0.05
    assert abs(blurred_idle) < 0.5  # what lies between two busy seconds is not seen


def test_what_the_books_are_given_is_in_order_and_complete():
    scenario = replace(chat_day(7200.0, seed=1, peak=1.0), gpus=2)
    events = list(to_books(scenario, simulate(scenario), VLLM.without(Role.STEPS)))
    readings = [event for event in events if isinstance(event, EnergyReading)]
    pages = [event for event in events if isinstance(event, Observation)]
    assert len(readings) == 2 * (72_000 + 1)
    assert len(pages) == 7200
    times = [event.at_seconds for event in events]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(times))
    last = [reading.total_joules for reading in readings[-2:]]
    assert last[0] == last[1] == pytest.approx(run(scenario).tick_joules.sum() / 2, rel=1e-6)
    roles = {reading.role for reading in pages[-1].page.readings}
    assert Role.STEPS not in roles
    assert Role.GENERATION in roles
    assert len(gpus(scenario)) == 2


def test_a_restarted_server_counts_from_zero():
    scenario = chat_day(600.0, seed=1, peak=200.0)
    events = to_books(scenario, simulate(scenario), restarts=((300.0, 0),))
    pages = [event.page for event in events if isinstance(event, Observation)]
    generated = [next(r.value for r in page.readings if r.role is Role.GENERATION) for page in pages]
    assert generated[299] > 0
    assert generated[300] == 0
    assert generated[599] > 0
    assert [page.start_time_seconds for page in pages] == [1.0] * 300 + [2.0] * 300
    expected = run(scenario).showed("generated")[-1, 0]
    assert generated[299] + generated[599] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Server("gpt-2", Traffic()), "model 'gpt-2': give coefficients, or one of meta"),
        (lambda: Server(LLAMA_8B, Traffic(), TIGHT, Speculation(30)), "raise max_step_tokens"),
        (lambda: Scenario((), 60.0), "servers: a scenario needs one"),
        (lambda: chat_day(65.0), r"seconds=65.0: must be a multiple of window_seconds=10"),
        (lambda: replace(chat_day(60.0), observe_seconds=7.0), "must divide an hour"),
        (lambda: replace(chat_day(60.0), changes=(Change(1.0, 1),)), "server must be one of 0 to 0"),
        (lambda: Sensor(seen_parts=5), "1 to 4 quarters"),
        (lambda: Style("x", ((Role.STEPS, "stepz", Moves.STEP),)), r"x: \['stepz'\] is not seen"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_step_longer_than_a_chunk_can_hold_is_refused():
    slow = replace(MODELS[LLAMA_8B].coefficients, step_seconds=30.0)
    scenario = Scenario((Server("slow", Traffic(Load(1.0)), coefficients=slow),), 60.0)
    with pytest.raises(ValueError, match="an engine step takes longer than 20 s"):
        run(scenario)
