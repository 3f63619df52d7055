"""More scenarios, beyond those the estimator was made with: other pairs, more sharing, and change on the way."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from benchmarks.truth.scenario import Change, Scenario, Server, served
from benchmarks.truth.scenarios import (
    CHAT,
    DAY,
    HOURS,
    LLAMA_8B,
    LLAMA_70B,
    QWEN_8B,
    RAG,
    TINY,
    chat_day,
)
from benchmarks.truth.traffic import Kind, Load, Traffic
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.physics import Coefficients

QWEN_32B: Final = "Qwen/Qwen3-32B"
QWEN_30B_A3B: Final = "Qwen/Qwen3-30B-A3B"
LLAMA_405B: Final = "meta-llama/Llama-3.1-405B-Instruct-FP8"
B200_70B: Final = "meta-llama/Llama-3.3-70B-Instruct on B200"
QWEN_8B_ON_TWO: Final = replace(
    MODELS[QWEN_8B].coefficients,
    step_seconds=6e-3,
    context_token_seconds=20e-9,
    prefill_token_seconds=24e-6,
    busy_watts=760.0,
    limit_watts=1400.0,
)
"""Assumed: over two GPUs, tokens take little more than half the time, steps a fifth less, the floor is that of two."""


PAIRS: Final = (QWEN_32B, LLAMA_70B, QWEN_30B_A3B, LLAMA_405B, B200_70B)
"""On which the scenarios of one 8B model on one H100 are run too."""


def on_pair(scenario: Scenario, model: str) -> Scenario:
    """Return a scenario of one server with another model on its GPUs; slower steps get less traffic."""
    (server,) = scenario.servers
    pair = MODELS[model]
    slower = _step_seconds(pair.coefficients) / _step_seconds(server.physics)
    load = replace(server.traffic.load, peak=server.traffic.load.peak / max(1.0, slower))
    other = replace(server, model=model, traffic=replace(server.traffic, load=load))
    return replace(scenario, servers=(other,), gpus=pair.gpus, idle_watts=pair.idle_watts)


def _step_seconds(coefficients: Coefficients, sequences: int = 64) -> float:
    return coefficients.step_seconds + sequences * coefficients.sequence_seconds


def three_models(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Chats, long prompts with short answers, and tiny requests: three models on one GPU."""
    servers = (
        Server(LLAMA_8B, Traffic(replace(DAY, peak=2.0), (CHAT,))),
        Server(QWEN_8B, Traffic(replace(DAY, peak=0.5, peak_hour=10.0), (RAG,))),
        Server(
            QWEN_30B_A3B, Traffic(replace(DAY, peak=3.0, peak_hour=20.0), (TINY, replace(CHAT, weight=0.2)))
        ),
    )
    return Scenario(servers, seconds, seed, idle_watts=180.0)


def late_server(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A second model is started on the GPU at half time, and the load is what it finds."""
    half = seconds / 2
    first = Server(LLAMA_8B, Traffic(replace(DAY, peak=3.0), (CHAT,)))
    traffic = Traffic(replace(DAY, peak=1.5), (CHAT, replace(RAG, weight=0.3)), from_seconds=half + 60.0)
    return Scenario((first, Server(QWEN_8B, traffic, starts_seconds=half)), seconds, seed, idle_watts=150.0)


def model_swap(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """At half time one model is stopped, and two minutes later a slower one serves its users."""
    half = seconds / 2
    load = replace(DAY, peak=4.0)
    old = Server(LLAMA_8B, Traffic(load, (CHAT,), until_seconds=half - 120.0), stops_seconds=half)
    new = Server(QWEN_30B_A3B, Traffic(load, (CHAT,), from_seconds=half + 120.0), starts_seconds=half + 60.0)
    return Scenario((old, new), seconds, seed)


def power_cap(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """From half time on the GPU may draw 450 W, less than its busy floor."""
    return replace(chat_day(seconds, seed), changes=(Change(seconds / 2, limit_watts=450.0),))


def batch_limit(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """From half time on no more than 16 sequences run at once, so that requests queue at the peak."""
    return replace(chat_day(seconds, seed), changes=(Change(seconds / 2, max_sequences=16),))


def shared_pair(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A 32B model over two GPUs, and on the same two an 8B model with long prompts."""
    servers = (
        Server(QWEN_32B, Traffic(replace(DAY, peak=1.2), (CHAT,))),
        Server(
            QWEN_8B,
            Traffic(replace(DAY, peak=0.3, peak_hour=10.0), (Kind(20_000, 200, prompt_spread=0.3),)),
            coefficients=QWEN_8B_ON_TWO,
        ),
    )
    return Scenario(servers, seconds, seed, gpus=2, idle_watts=300.0)


def code_completion(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Chats, and long prompts with short answers, on a mixture of experts that activates 3B."""
    kinds = (CHAT, Kind(2500, 60, weight=0.5))
    return served(QWEN_30B_A3B, Traffic(replace(DAY, peak=5.0), kinds), seconds, seed=seed)


def short_chats(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A day of chats with answers of thirty tokens."""
    return served(LLAMA_8B, Traffic(replace(DAY, peak=8.0), (Kind(200, 30),)), seconds, seed=seed)


def round_the_clock(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Three short answers a second, day and night: hardly a tick of the counter is idle, or busy, all through."""
    return served(LLAMA_8B, Traffic(Load(3.0), (Kind(400, 30),)), seconds, seed=seed)


MORE_SCENARIOS: Final[Mapping[str, Callable[..., Scenario]]] = MappingProxyType(
    {
        build.__name__: build
        for build in (
            *(three_models, late_server, model_swap, power_cap, batch_limit, shared_pair, code_completion),
            *(short_chats, round_the_clock),
        )
    }
)
