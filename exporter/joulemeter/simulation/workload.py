"""Seeded traffic: Poisson arrivals of requests with varying lengths and shared prefixes. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from joulemeter.simulation.engine import Request

CACHE_BLOCK_TOKENS: Final = 16
"""A prefix is cached in whole blocks (vLLM's default on GPUs)."""
_SPREAD: Final = 0.6  # of the logarithm of lengths: chats differ by a factor of two or so


@dataclass(frozen=True, slots=True)
class Traffic:
    """What clients send; lengths are medians, that of a prompt without its shared prefix, if it has one."""

    requests_per_second: float
    prompt_tokens: int = 400
    output_tokens: int = 150
    max_output_tokens: int = 1024
    prefixes: int = 4
    prefix_tokens: int = 512
    prefixed_ratio: float = 0.5
    """Share of the requests that begin with one of the shared prefixes, such as a system prompt."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and when it comes, in seconds since the traffic began."""

    at_seconds: float
    request: Request


def arrivals(traffic: Traffic, seed: int) -> Iterator[Arrival]:
    """Yield arrivals for ever, none if the rate is 0; the same for the same seed.

    The first request with a prefix computes it, later ones find its whole blocks cached.
    """
    if traffic.requests_per_second <= 0:
        return
    random = Random(seed)  # noqa: S311 - traffic, not a secret
    seen: set[int] = set()
    at_seconds, number = 0.0, 0
    while True:
        at_seconds += random.expovariate(traffic.requests_per_second)
        own_tokens = _length(random, traffic.prompt_tokens)
        output_tokens = min(_length(random, traffic.output_tokens), traffic.max_output_tokens)
        prefix_tokens = cached_tokens = 0
        if traffic.prefixes and random.random() < traffic.prefixed_ratio:
            prefix = random.randrange(traffic.prefixes)
            prefix_tokens = traffic.prefix_tokens
            cached_tokens = prefix_tokens // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS if prefix in seen else 0
            seen.add(prefix)
        yield Arrival(at_seconds, Request(number, prefix_tokens + own_tokens, output_tokens, cached_tokens))
        number += 1


class PrefixCache:
    """Which prompts begin alike, in whole blocks, as a prefix cache of unlimited size sees it."""

    def __init__(self) -> None:
        self._blocks: set[int] = set()

    def take(self, tokens: Sequence[object]) -> int:
        """Return how many leading tokens an earlier prompt had, never all of them; remember this one."""
        key, cached_tokens, found = 0, 0, True
        for end in range(CACHE_BLOCK_TOKENS, len(tokens) + 1, CACHE_BLOCK_TOKENS):
            key = hash((key, *tokens[end - CACHE_BLOCK_TOKENS : end]))
            found = found and key in self._blocks and end < len(tokens)
            cached_tokens = end if found else cached_tokens
            self._blocks.add(key)
        return cached_tokens


def _length(random: Random, median: int) -> int:
    return max(1, round(random.lognormvariate(math.log(median), _SPREAD)))
