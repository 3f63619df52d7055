"""The engine, its physics and its traffic: conservation, determinism, vLLM's batching rules."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter.simulation.engine import Engine, Limits, Request, StepResult
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.physics import step_cost
from joulemeter.simulation.workload import Traffic, arrivals

LLAMA = MODELS["meta-llama/Llama-3.1-8B-Instruct"].coefficients


def run(engine: Engine) -> list[StepResult]:
    return list(iter(engine.step, None))


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    lengths = draw(
        st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(0, 299)), max_size=12)
    )
    return [
        Request(i, prompt, output, min(cached, prompt - 1))
        for i, (prompt, output, cached) in enumerate(lengths)
    ]


limits = st.builds(lambda a, b: Limits(a, a + b), st.integers(1, 8), st.integers(0, 100))


@settings(deadline=None)
@given(requests(), limits)
def test_every_token_is_made_once_and_energy_adds_up(asked, limits):
    engine = Engine(LLAMA, limits)
    for request in asked:
        engine.submit(request)
    steps = run(engine)
    assert sum(s.generated_tokens for s in steps) == sum(r.output_tokens for r in asked)
    assert sum(s.prefill_tokens for s in steps) == sum(r.prompt_tokens - r.cached_tokens for r in asked)
    for moment in ("started", "prefilled", "finished"):
        happened = [request for s in steps for request in getattr(s, moment)]
        assert sorted(happened, key=lambda r: r.id) == asked
    for s in steps:
        assert s.running <= limits.max_sequences
        assert s.prefill_tokens + s.generated_tokens - len(s.prefilled) <= limits.max_step_tokens
        decoded = s.generated_tokens - len(s.prefilled)
        dynamic = LLAMA.decode_token_joules * decoded + LLAMA.prefill_token_joules * s.prefill_tokens
        dynamic += LLAMA.context_token_joules * s.read_tokens
        assert math.isclose(s.joules, LLAMA.busy_watts * s.seconds + dynamic, rel_tol=1e-12)
    assert not steps or (steps[-1].running, steps[-1].waiting, steps[-1].context_tokens) == (0, 0, 0)


@settings(deadline=None)
@given(requests(), limits)
def test_same_requests_same_steps(asked, limits):
    one, two = Engine(LLAMA, limits), Engine(LLAMA, limits)
    for request in asked:
        one.submit(request)
        two.submit(request)
    assert run(one) == run(two)


def test_long_prompt_is_computed_in_chunks_and_speaks_at_its_end():
    engine = Engine(LLAMA, Limits(max_step_tokens=2048))
    engine.submit(Request(0, 3900, 3))
    steps = run(engine)
    assert [s.prefill_tokens for s in steps] == [2048, 1852, 0, 0]
    assert [s.generated_tokens for s in steps] == [0, 1, 1, 1]
    assert [s.context_tokens for s in steps] == [2048, 3901, 3902, 0]


def test_decoding_goes_on_while_another_prompt_is_computed():
    engine = Engine(LLAMA, Limits(10, 100))
    engine.submit(Request(0, 10, 50))
    assert engine.step() is not None
    engine.submit(Request(1, 150, 2))
    steps = [engine.step() for _ in range(3)]
    assert [(s.prefill_tokens, s.generated_tokens) for s in steps if s] == [(99, 1), (51, 2), (0, 2)]


def test_idle_engine_has_nothing_to_do():
    assert Engine(LLAMA).step() is None


def test_a_lone_decode_step_is_as_measured():
    cost = step_cost(LLAMA, decoding_sequences=64, prefill_tokens=0)
    assert cost.decode_joules / 64 == pytest.approx(0.119, rel=0.15)  # measured: J/token at batch 64
    assert cost.prefill_joules == 0
    assert step_cost(LLAMA, decoding_sequences=0, prefill_tokens=10).decode_joules == 0


@pytest.mark.parametrize("model", MODELS)
def test_busy_power_lies_between_idle_and_the_boards_limit(model):
    served = MODELS[model]
    for sequences in (1, 16, 128):
        cost = step_cost(served.coefficients, decoding_sequences=sequences, prefill_tokens=0)
        watts = cost.decode_joules / cost.seconds
        assert served.idle_watts < watts < served.coefficients.limit_watts * (1 + 1e-12)


@pytest.mark.parametrize("bad", [(0, 1, 0), (10, 0, 0), (10, 1, 10), (10, 1, -1)])
def test_impossible_request_is_refused(bad):
    prompt, output, cached = bad
    with pytest.raises(ValueError, match="needs output_tokens >= 1"):
        Request(0, prompt, output, cached)


def test_limits_that_starve_decoding_are_refused():
    with pytest.raises(ValueError, match="max_sequences <= max_step_tokens"):
        Limits(max_sequences=10, max_step_tokens=9)


def test_traffic_is_poisson_at_its_rate_and_the_same_for_the_same_seed():
    first = list(itertools.islice(arrivals(Traffic(2.0), seed=7), 2000))
    assert first == list(itertools.islice(arrivals(Traffic(2.0), seed=7), 2000))
    assert first != list(itertools.islice(arrivals(Traffic(2.0), seed=8), 2000))
    gaps = [b.at_seconds - a.at_seconds for a, b in itertools.pairwise(first)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.5, rel=0.1)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.2)
    assert list(arrivals(Traffic(0.0), seed=7)) == []


def test_a_prefix_is_cached_after_its_first_request():
    traffic = Traffic(1.0, prefixes=2, prefix_tokens=100, prefixed_ratio=1.0)
    first = [arrival.request for arrival in itertools.islice(arrivals(traffic, seed=1), 50)]
    assert sorted(request.cached_tokens for request in first) == [0] * 2 + [96] * 48
    assert all(request.prompt_tokens > 100 for request in first)
