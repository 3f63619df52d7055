"""What an engine did in a window, in the quantities that its energy goes by. Pure.

Energy of an engine step is a floor for the step, so much for each prompt token computed, for each sequence that
decodes, and for each token of context that is read (ML.ENERGY v3 leaderboard, vLLM 0.11.1: within 3 % on dense
models). Over a window it is therefore linear in the five sums here, whatever the batches were.
"""

import math
from dataclasses import dataclass

from joulemeter.history import Work

PROMPT_TOKENS_OF_A_REQUEST = 500.0
"""Taken where a server counts neither first tokens nor requests: a chat's prompt."""


@dataclass(frozen=True, slots=True)
class EngineWork:
    """Sums over the steps of a window.

    `prefill_steps` is the part of `steps` whose floor belongs to prefill: a step that only computes prompts counts
    one, one that decodes as well a half (two players of one game). `decoded_tokens` leaves out first
    tokens, which prefill makes. `context_reads` counts a token of context each time a step reads it.
    """

    steps: float = 0.0
    prefill_steps: float = 0.0
    prompt_tokens: float = 0.0
    decoded_tokens: float = 0.0
    context_reads: float = 0.0

    @property
    def any(self) -> bool:
        """Whether an engine ran."""
        return any((self.steps, self.prompt_tokens, self.decoded_tokens))


def engine_work(work: Work, duration_seconds: float, busy_seconds: float) -> EngineWork:
    """Work out what a model's engine did in a window.

    Steps are the server's own count where it has one; else tokens over the mean batch, which is the time between
    tokens, summed over tokens, over the time in which steps ran; else the running gauge says how large batches
    were (docs/adr/0009-estimator.md has the errors of each).

    Args:
        work: what the server counted, an increase; what it does not count is None.
        duration_seconds: of the window, > 0.
        busy_seconds: how much of it the GPU was busy, >= 0.
    """
    generated = max(0.0, work.generation_tokens)
    prompt_tokens = max(0.0, work.prompt_tokens)
    started = work.first_tokens if work.first_tokens is not None else work.requests
    if started <= 0 and prompt_tokens > 0:
        started = prompt_tokens / PROMPT_TOKENS_OF_A_REQUEST
    started = max(0.0, min(started, generated) if generated > 0 else started)
    decoded = generated - started if generated > 0 else 0.0
    busy_seconds = min(max(busy_seconds, 0.0), duration_seconds)
    steps = _steps(work, started, decoded, busy_seconds)
    prefill_steps = steps * -math.expm1(-started / steps) if steps > 0 else 0.0
    mean_running = max(0.0, work.running_seconds) / duration_seconds
    others = mean_running * (1.0 - 1.0 / (started + mean_running)) if started > 0 else 0.0
    alone_ratio = math.exp(-max(0.0, others))
    if decoded <= 0:
        prefill_steps, alone_ratio = steps, 1.0
    context_tokens = 0.0
    if busy_seconds > 0:
        context_tokens = max(0.0, work.context_token_seconds or 0.0) / busy_seconds
    decode_steps = steps - prefill_steps * alone_ratio
    return EngineWork(
        steps,
        prefill_steps * (1.0 + alone_ratio) / 2,
        prompt_tokens,
        decoded,
        context_tokens * decode_steps if decoded > 0 else 0.0,
    )


def _steps(work: Work, started: float, decoded: float, busy_seconds: float) -> float:
    if work.steps is not None:
        return max(0.0, work.steps)
    if work.inter_token_seconds is not None and busy_seconds > 0:
        batch = work.inter_token_seconds / busy_seconds
    else:
        batch = work.running_seconds / busy_seconds if busy_seconds > 0 else 1.0
    return started + decoded / max(1.0, batch)
