"""What an engine step costs: time and energy, linear in the work, with constant coefficients. Pure.

    seconds = step_seconds + sequence_seconds * n + prefill_token_seconds * p
    joules  = busy_watts * seconds + decode_token_joules * n + prefill_token_joules * p

for n decoding sequences and p prompt tokens computed. The coefficients are ours: decode times and powers are
fitted to the steady-state measurements of the ML.ENERGY leaderboard (v3: vLLM 0.11.1 on H100 SXM); prefill
follows from 2 FLOP per parameter and token near the power cap. Left out: the time and energy of reading the
KV cache, and the power cap (an 8B model passes it by 2 % at 256 sequences).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Coefficients:
    """One model on its GPUs (all of a tensor-parallel group together)."""

    step_seconds: float
    sequence_seconds: float
    prefill_token_seconds: float
    busy_watts: float
    """Draw while any step runs, the GPUs' idle power included."""
    decode_token_joules: float
    prefill_token_joules: float


@dataclass(frozen=True, slots=True)
class Cost:
    """A step's time and its energy by phase, the busy floor included."""

    seconds: float
    prefill_joules: float
    decode_joules: float


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a virtual server can serve, on how many GPUs, and what it keeps in each GPU's memory."""

    gpus: int
    gpu_memory_bytes: int
    coefficients: Coefficients


def step_cost(coefficients: Coefficients, *, decoding_sequences: int, prefill_tokens: int) -> Cost:
    """Return what one step costs.

    What does not depend on the work (`step_seconds` at `busy_watts`) belongs to the phase that runs, or in
    equal halves to both: the Shapley value of two players.
    """
    c = coefficients
    floor_joules = c.busy_watts * c.step_seconds
    prefill_share = 0.0 if not prefill_tokens else 0.5 if decoding_sequences else 1.0
    return Cost(
        seconds=c.step_seconds
        + c.sequence_seconds * decoding_sequences
        + c.prefill_token_seconds * prefill_tokens,
        prefill_joules=floor_joules * prefill_share
        + (c.busy_watts * c.prefill_token_seconds + c.prefill_token_joules) * prefill_tokens,
        decode_joules=floor_joules * (1.0 - prefill_share)
        + (c.busy_watts * c.sequence_seconds + c.decode_token_joules) * decoding_sequences,
    )


_GIB: Final = 2**30

MODELS: Final[Mapping[str, ServedModel]] = MappingProxyType(
    {
        "meta-llama/Llama-3.1-8B-Instruct": ServedModel(
            1, 32 * _GIB, Coefficients(6.67e-3, 73e-6, 41e-6, 454.0, 25.5e-3, 9.6e-3)
        ),
        "Qwen/Qwen3-8B": ServedModel(
            1, 32 * _GIB, Coefficients(7.76e-3, 83e-6, 41e-6, 403.0, 18.5e-3, 9.8e-3)
        ),
        "Qwen/Qwen3-32B": ServedModel(
            2, 72 * _GIB, Coefficients(14.4e-3, 122e-6, 74e-6, 835.0, 52.5e-3, 34e-3)
        ),
        "meta-llama/Llama-3.3-70B-Instruct": ServedModel(
            4, 72 * _GIB, Coefficients(16.5e-3, 117e-6, 79e-6, 1670.0, 122e-3, 74e-3)
        ),
    }
)
