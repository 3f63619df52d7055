"""Requests of known size, sent as OpenAI completions, and what the server's `usage` said of each.

Prompts are token ids and `ignore_eos` is set, so that lengths are exact. No `seed`: with chunked prefill it
crashes vLLM's CPU build.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp


@dataclass(frozen=True, slots=True)
class Tokens:
    """Numbers of tokens by kind; `prompt` is what had to be computed, cache hits apart."""

    prompt: float = 0
    cached_prompt: float = 0
    generation: float = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.prompt + other.prompt,
            self.cached_prompt + other.cached_prompt,
            self.generation + other.generation,
        )

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.prompt - other.prompt,
            self.cached_prompt - other.cached_prompt,
            self.generation - other.generation,
        )

    @classmethod
    def sum(cls, parts: Iterable["Tokens"]) -> Self:
        """Add them up."""
        rows = [(part.prompt, part.cached_prompt, part.generation) for part in parts]
        return cls(*(math.fsum(column) for column in zip(*rows, strict=True))) if rows else cls()


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to ask for; `hang_up_after` closes a stream once that many tokens have come."""

    prompt: Sequence[int]
    max_tokens: int
    stream: bool
    hang_up_after: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `usage` said: of the whole request, or until the client hung up (then without cache hits)."""

    tokens: Tokens
    hung_up: bool = False


async def run(url: str, model: str, requests: Iterable[Request]) -> list[Outcome]:
    """Send all at once and return their outcomes in order.

    Raises:
        aiohttp.ClientResponseError: the server refused a request.
    """
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(url, timeout=timeout, raise_for_status=True) as client:
        return await asyncio.gather(*(_send(client, model, request) for request in requests))


async def _send(client: aiohttp.ClientSession, model: str, request: Request) -> Outcome:
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": request.max_tokens,
        "ignore_eos": True,
        "stream": request.stream,
    }
    if (
        request.stream
    ):  # usage in every chunk: chunks are not tokens, and a client that hangs up sees no last one
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    async with client.post("/v1/completions", json=body) as response:
        if not request.stream:
            return Outcome(_tokens((await response.json())["usage"]))
        return await _read_stream(response, request)


async def _read_stream(response: aiohttp.ClientResponse, request: Request) -> Outcome:
    tokens = Tokens()
    async for usage in _usages(response):
        tokens = _tokens(usage)
        if request.hang_up_after is not None and tokens.generation >= request.hang_up_after:
            response.close()
            return Outcome(tokens, hung_up=True)
    return Outcome(tokens)


async def _usages(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))["usage"]


def _tokens(usage: dict[str, Any]) -> Tokens:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Tokens(usage["prompt_tokens"] - cached, cached, usage["completion_tokens"])
