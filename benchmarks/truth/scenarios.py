"""The scenarios that joulemeter is judged by: seeds, pairs and lengths are the caller's choice."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from benchmarks.truth.scenario import Change, Scenario, Server, served
from benchmarks.truth.traffic import Bursts, Kind, Load, Once, Traffic
from joulemeter.simulation.engine import Limits, Speculation

LLAMA_8B: Final = "meta-llama/Llama-3.1-8B-Instruct"
QWEN_8B: Final = "Qwen/Qwen3-8B"
LLAMA_70B: Final = "meta-llama/Llama-3.3-70B-Instruct"
GPT_OSS: Final = "openai/gpt-oss-120b"

CHAT: Final = Kind(400, 200, max_tokens=4096)
TINY: Final = Kind(60, 2, output_spread=0.0)
RAG: Final = Kind(6000, 80, prompt_spread=0.3)
AGENT: Final = Kind(800, 200, prefixes=6, prefix_tokens=7200)
DAY: Final = Load(
    8.0, night_ratio=0.006, weekend_ratio=0.6, day_spread=0.12, hour_spread=0.15, spikes_per_day=1.0
)
"""0.05 requests a second at night, 8 in the afternoon."""
HOURS: Final = 24 * 3600.0


def chat_day(seconds: float = HOURS, seed: int = 0, model: str = LLAMA_8B, peak: float = 8.0) -> Scenario:
    """One model, chats through days and nights."""
    return served(model, Traffic(replace(DAY, peak=peak), (CHAT,)), seconds, seed=seed)


def request_a_minute(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Hardly anything to do."""
    return served(LLAMA_8B, Traffic(Load(1 / 60), (CHAT,)), seconds, seed=seed)


def two_models(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Chats on one model and long prompts with short answers on another, on one GPU."""
    chat = Server(LLAMA_8B, Traffic(replace(DAY, peak=3.0), (CHAT,)))
    rag = Server(QWEN_8B, Traffic(replace(DAY, peak=0.8, peak_hour=11.0), (RAG,)))
    return Scenario((chat, rag), seconds, seed, idle_watts=150.0)


def long_bursts(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Chats, and now and then ten prompts of 12,000 tokens."""
    bursts = Bursts(Kind(12_000, 150, prompt_spread=0.2), per_hour=6.0, requests=10)
    return served(LLAMA_8B, Traffic(replace(DAY, peak=3.0), (CHAT,), (bursts,)), seconds, seed=seed)


def constant_shape(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Every request alike, so that no regression can tell the phases apart."""
    alike = Kind(512, 256, prompt_spread=0.0, output_spread=0.0)
    return served(LLAMA_8B, Traffic(replace(DAY, peak=4.0), (alike,)), seconds, seed=seed)


def growing(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Traffic that grows by the week and is twice as much from half time on."""
    load = replace(DAY, peak=2.0, growth_per_week=0.05, steps=((seconds / 2, 2.0),))
    return served(LLAMA_8B, Traffic(load, (CHAT,)), seconds, seed=seed)


def mixed(seconds: float = HOURS, seed: int = 0, peak: float = 6.0) -> Scenario:
    """Chats, tiny requests, long prompts, and agents whose prompts are mostly cached."""
    kinds = tuple(
        replace(kind, weight=weight)
        for kind, weight in ((CHAT, 0.55), (TINY, 0.20), (RAG, 0.15), (AGENT, 0.10))
    )
    return served(LLAMA_8B, Traffic(replace(DAY, peak=peak), kinds), seconds, seed=seed)


def warming_cache(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Long shared prefixes, forgotten when a quarter of an hour unused: cold at night, warm by day."""
    agent = Kind(200, 150, prefixes=300, prefix_tokens=4000)
    traffic = Traffic(replace(DAY, peak=2.0), (agent,), cache_seconds=900.0)
    return served(LLAMA_8B, traffic, seconds, seed=seed)


def one_long_prompt(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A little chat, and at half time one prompt of 128,000 tokens."""
    once = (Once(seconds / 2 + 100.0, 128_000, 400),)
    return served(LLAMA_8B, Traffic(Load(0.3), (CHAT,), once=once), seconds, seed=seed)


def short_replies(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Classification: answers of one or two tokens."""
    kinds = (Kind(300, 1, output_spread=0.0), Kind(300, 2, output_spread=0.0))
    return served(LLAMA_8B, Traffic(replace(DAY, peak=12.0), kinds), seconds, seed=seed)


def mixture_of_experts(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A pair whose power is a table, and falls at large batches."""
    scenario = served(GPT_OSS, Traffic(replace(DAY, peak=20.0), (CHAT,)), seconds, seed=seed)
    limits = Limits(max_sequences=1024, max_step_tokens=8192)
    return replace(scenario, servers=(replace(scenario.servers[0], limits=limits),))


def speculative(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """Up to four tokens a step and sequence."""
    scenario = chat_day(seconds, seed)
    drafts = Speculation(draft_tokens=3, acceptance_ratio=0.7, seed=seed)
    return replace(scenario, servers=(replace(scenario.servers[0], speculation=drafts),))


def tensor_parallel(seconds: float = HOURS, seed: int = 0) -> Scenario:
    """A 70B model on four GPUs."""
    return chat_day(seconds, seed, LLAMA_70B, peak=3.5)


def regressed(
    scenario: Scenario, at_seconds: float, *, decode_power: float = 0.0, step_time: float = 0.0
) -> Scenario:
    """Return the scenario with a regression of its first server from then on."""
    change = Change(at_seconds, decode_power=decode_power, step_time=step_time)
    return replace(scenario, changes=(*scenario.changes, change))


SCENARIOS: Final[Mapping[str, Callable[..., Scenario]]] = MappingProxyType(
    {
        build.__name__: build
        for build in (
            *(chat_day, request_a_minute, two_models, long_bursts, constant_shape, growing, mixed),
            *(warming_cache, one_long_prompt, short_replies, mixture_of_experts, speculative),
            tensor_parallel,
        )
    }
)
