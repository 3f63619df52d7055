"""The pairs of model and GPUs that can be simulated, with their coefficients and where those come from.

Least-squares fits of the ML.ENERGY v3 leaderboard (vLLM 0.11.1, energy of the GPUs alone, steady state;
ml-energy/leaderboard commit 0cd52da) to the forms of `physics.py`; whole tensor-parallel group. What that data
cannot tell is *assumed* and named: idle power (120 W a board with a context, 140 W for B200), prefill (2 FLOP per
parameter and token at 40 to 45 % of peak, near the power limit), for some pairs what reading the context costs
(100 to 140 pJ per byte of cache, at memory bandwidth). The mixture of experts gpt-oss-120b on two H100 fits no
linear form (its power falls above 400 sequences), so it is the leaderboard's own table at its own context
lengths (gpqa, about 1,100 tokens); its row of one sequence is extrapolated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from joulemeter.simulation.physics import Coefficients, TableRow

_GIB: Final = 2**30
_PREFILL: Final = frozenset({"prefill_token_seconds", "prefill_token_joules"})
_CONTEXT: Final = frozenset({"context_token_seconds", "context_token_joules"})


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a virtual server can serve, on how many GPUs, and what it keeps in each GPU's memory.

    `assumed` names the coefficients that no measurement was fitted for; the error ratios are the fit's mean
    errors over the measured batch sizes, 0 where there is no fit.
    """

    gpus: int
    gpu_memory_bytes: int
    coefficients: Coefficients
    idle_watts: float
    assumed: frozenset[str] = _PREFILL
    step_error_ratio: float = 0.0
    power_error_ratio: float = 0.0


MODELS: Final[Mapping[str, ServedModel]] = MappingProxyType(
    {
        "meta-llama/Llama-3.1-8B-Instruct": ServedModel(
            gpus=1,
            gpu_memory_bytes=32 * _GIB,
            coefficients=Coefficients(
                6.67e-3, 73e-6, 39e-9, 41e-6, 454.0, 25.5e-3, 16.5e-6, 9.6e-3, limit_watts=700.0
            ),
            idle_watts=120.0,
            assumed=_PREFILL | _CONTEXT,
            step_error_ratio=0.015,
            power_error_ratio=0.002,
        ),
        "Qwen/Qwen3-8B": ServedModel(
            gpus=1,
            gpu_memory_bytes=32 * _GIB,
            coefficients=Coefficients(
                7.76e-3, 83e-6, 39e-9, 41e-6, 403.0, 18.5e-3, 20.2e-6, 9.8e-3, limit_watts=700.0
            ),
            idle_watts=120.0,
            step_error_ratio=0.029,
            power_error_ratio=0.010,
        ),
        "Qwen/Qwen3-32B": ServedModel(
            gpus=2,
            gpu_memory_bytes=72 * _GIB,
            coefficients=Coefficients(
                14.4e-3, 122e-6, 41e-9, 74e-6, 835.0, 52.5e-3, 25.6e-6, 34e-3, limit_watts=1400.0
            ),
            idle_watts=240.0,
            step_error_ratio=0.025,
            power_error_ratio=0.020,
        ),
        "meta-llama/Llama-3.3-70B-Instruct": ServedModel(
            gpus=4,
            gpu_memory_bytes=72 * _GIB,
            coefficients=Coefficients(
                16.5e-3, 117e-6, 24e-9, 79e-6, 1670.0, 122e-3, 41e-6, 74e-3, limit_watts=2800.0
            ),
            idle_watts=480.0,
            assumed=_PREFILL | _CONTEXT,
            step_error_ratio=0.023,
            power_error_ratio=0.012,
        ),
        "meta-llama/Llama-3.1-405B-Instruct-FP8": ServedModel(
            gpus=8,
            gpu_memory_bytes=76 * _GIB,
            coefficients=Coefficients(
                31.0e-3, 265e-6, 19e-9, 146e-6, 3073.0, 782e-3, 65e-6, 312e-3, limit_watts=5600.0
            ),
            idle_watts=960.0,
            assumed=_PREFILL | _CONTEXT,
            step_error_ratio=0.023,
            power_error_ratio=0.008,
        ),
        "Qwen/Qwen3-30B-A3B": ServedModel(
            gpus=1,
            gpu_memory_bytes=72 * _GIB,
            coefficients=Coefficients(
                11.4e-3, 278e-6, 0.0, 33e-6, 391.0, 20.2e-3, 38.4e-6, 8.6e-3, limit_watts=700.0
            ),
            idle_watts=120.0,
            step_error_ratio=0.073,
            power_error_ratio=0.022,
        ),
        "meta-llama/Llama-3.3-70B-Instruct on B200": ServedModel(
            gpus=2,
            gpu_memory_bytes=160 * _GIB,
            coefficients=Coefficients(
                16.8e-3, 85e-6, 20e-9, 78e-6, 1718.0, 17.6e-3, 41e-6, 11e-3, limit_watts=2000.0
            ),
            idle_watts=280.0,
            assumed=_PREFILL | _CONTEXT,
            step_error_ratio=0.050,
            power_error_ratio=0.021,
        ),
        "openai/gpt-oss-120b": ServedModel(
            gpus=2,
            gpu_memory_bytes=72 * _GIB,
            coefficients=Coefficients(
                *(0.0, 0.0, 0.0, 40e-6, 780.0, 0.0, 0.0, 18e-3),
                limit_watts=1400.0,
                table=(
                    TableRow(1, 4.2e-3, 780.0),
                    TableRow(8, 7.24e-3, 864.2),
                    TableRow(16, 9.31e-3, 992.4),
                    TableRow(32, 12.27e-3, 1086.5),
                    TableRow(64, 16.37e-3, 1164.0),
                    TableRow(128, 23.58e-3, 1208.4),
                    TableRow(192, 29.75e-3, 1264.5),
                    TableRow(256, 31.11e-3, 1238.1),
                    TableRow(384, 41.31e-3, 1258.9),
                    TableRow(512, 50.45e-3, 1163.9),
                    TableRow(1024, 85.75e-3, 1139.0),
                    TableRow(1536, 138.97e-3, 973.3),
                ),
            ),
            idle_watts=240.0,
        ),
    }
)
