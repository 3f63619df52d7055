"""Where the coefficients of the split come from: for now a fixed hardware prior. Pure.

Figures: least-squares fits of the ML.ENERGY v3 leaderboard (vLLM 0.11.1 on H100 and B200, GPU energy only,
ml-energy/leaderboard commit 0cd52da) to

    t_step = t0 + a n + tau p,   E_step = P_busy t_step + e_dec n + e_pre p

for n decoding sequences and p computed prompt tokens. The ratios step : generated token : prompt token are
alike from Llama-3.1-8B on one H100 (107 : 2.1 : 1) to Llama-70B on four (134 : 1.5 : 1), so one set serves every
model; its error is named on the page (`split="prior"`).
"""

from dataclasses import dataclass

IDLE_SHARE_OF_LIMIT = 0.17
"""120 W of an H100's 700 W: a board with a context loaded and nothing running."""
BUSY_SHARE_OF_LIMIT = 0.62
"""454 W (8B on one H100), 418 W a board (70B on four) of 700 W: the floor while any engine step runs."""
UNKNOWN_LIMIT_WATTS = 350.0
"""A board that does not tell its limit is taken for a mid-range one."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What `attribution.split` needs to know of a GPU and the models on it.

    Watts are per GPU. Joules per step and token carry the busy floor of the time that they take, and only
    their ratios matter: parts are scaled to the energy that was measured.
    """

    idle_watts: float
    busy_watts: float
    joules_per_step: float = 3.03
    joules_per_generated_token: float = 0.0586
    joules_per_prompt_token: float = 0.0282


def prior(power_limit_watts: float | None) -> Coefficients:
    """Coefficients for a board of this power limit, before anything was learned."""
    limit_watts = power_limit_watts or UNKNOWN_LIMIT_WATTS
    return Coefficients(IDLE_SHARE_OF_LIMIT * limit_watts, BUSY_SHARE_OF_LIMIT * limit_watts)
