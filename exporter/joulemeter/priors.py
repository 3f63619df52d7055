"""What is believed before anything was measured: shares of a board's power limit, and proportions of joules. Pure.

Figures: least-squares fits of the ML.ENERGY v3 leaderboard (vLLM 0.11.1 on H100 and B200, GPU energy only,
ml-energy/leaderboard commit 0cd52da) to

    t_step = t0 + a n + k C + tau p,   E_step = P_busy t_step + e_dec n + e_kv C + e_pre p

for n decoding sequences with C tokens of context, and p computed prompt tokens. The proportions of step, prompt
token and decoded token are alike from Llama-3.1-8B on one H100 (107 : 1 : 2.1) to Llama-70B on four (134 : 1 : 1.5),
so one set of proportions begins for every model; its size, and soon its proportions, come from the data.
"""

from dataclasses import dataclass
from typing import Final

from joulemeter.model import Gpu

IDLE_SHARE_OF_LIMIT: Final = 0.17
"""120 W of an H100's 700 W: a board with a context loaded and nothing running."""
BUSY_SHARE_OF_LIMIT: Final = 0.62
"""454 W (8B on one H100), 418 W a board (70B on four) of 700 W: the floor while any engine step runs."""
UNKNOWN_LIMIT_WATTS: Final = 350.0
"""A board that does not tell its limit is taken for a mid-range one."""
ENGINE_JOULES: Final = (3.03, 0.0282, 0.0586, 3.4e-5)
"""Per step, computed prompt token, decoded token, and context token read, with the busy floor of the time that each
takes: Llama-3.1-8B on one H100."""

PREFILL_SURPLUS_RATIO: Final = 0.35
"""Of the energy of computing a prompt, what is above the busy floor: 0.34 to 0.41 in fits of six dense models, 0.37
in one mixture of experts (prefill assumed at 0.92 to 0.98 of the power limit)."""
PHASE_WATTS: Final = (1.0 / (1.0 - PREFILL_SURPLUS_RATIO), 1.2)
"""Prefill and decode over the busy floor; decode rises from 1 to 1.5 with the batch."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A GPU's draw with its models loaded and no step running, and the floor of it while steps run."""

    idle_watts: float
    busy_watts: float


def levels(gpu: Gpu) -> Levels:
    """Return what to expect of a board, by its power limit."""
    limit_watts = gpu.max_power_watts or UNKNOWN_LIMIT_WATTS
    return Levels(IDLE_SHARE_OF_LIMIT * limit_watts, BUSY_SHARE_OF_LIMIT * limit_watts)
