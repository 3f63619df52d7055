"""`POST /v1/completions` of a virtual server: a body becomes a request, a finished request a body. Pure."""

import json
from collections.abc import Mapping
from typing import Final

from joulemeter.simulation.engine import Request
from joulemeter.simulation.vllm_page import Served
from joulemeter.simulation.workload import PrefixCache

DEFAULT_MAX_TOKENS: Final = 16  # OpenAI's


def asked(body: bytes, prefixes: PrefixCache, *, max_model_tokens: int) -> Request:
    """Read a request: exactly `max_tokens` are generated, and a prompt of text has a token per word.

    Raises:
        ValueError: it cannot be served; the message names the field.
    """
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise ValueError(f"body: expected JSON, got {body[:40]!r}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"body: expected an object, got {body[:40]!r}")  # noqa: TRY004 - a client's mistake
    if fields.get("stream") or fields.get("n", 1) != 1:
        raise ValueError("stream, n: a virtual server answers one choice in one piece; leave them out")
    tokens = _tokens(fields.get("prompt"))
    wanted = fields.get("max_tokens", DEFAULT_MAX_TOKENS)
    if not isinstance(wanted, int) or not 1 <= wanted <= max_model_tokens - len(tokens):
        room = max_model_tokens - len(tokens)
        raise ValueError(
            f"max_tokens: expected a whole number from 1 to {room} with this prompt, got {wanted!r}"
        )
    return Request(0, len(tokens), wanted, prefixes.take(tokens))


def _tokens(prompt: object) -> list[object]:
    tokens = prompt.split() if isinstance(prompt, str) else prompt
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, int | str) for t in tokens):
        raise ValueError(
            f"prompt: expected words or a list of token ids, at least one, got {str(prompt)[:40]!r}"
        )
    return tokens


def answer(model: str, served: Served, created_at: int) -> Mapping[str, object]:
    """Return the body that vLLM would send, with a text that says nothing."""
    request = served.request
    return {
        "id": f"cmpl-{request.id}",
        "object": "text_completion",
        "created": created_at,
        "model": model,
        "choices": [{"index": 0, "text": " x" * request.output_tokens, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": request.output_tokens,
            "total_tokens": request.prompt_tokens + request.output_tokens,
            "prompt_tokens_details": {"cached_tokens": request.cached_tokens},
        },
    }
