"""One GPU's window -> joules by model and phase. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from joulemeter.model import Phase, User


@dataclass(frozen=True, slots=True)
class Use:
    """What one model's work in a window should have taken of this GPU, in joules that count only in proportion.

    `has_phases` if prefill and decode can be told apart, `loaded` if the model still holds the GPU.
    """

    prefill_joules: float = 0.0
    decode_joules: float = 0.0
    has_phases: bool = True
    loaded: bool = True


@dataclass(frozen=True, slots=True)
class GpuWindow:
    """One GPU's measured energy over a stretch of time, and what of it was drawn while no engine step ran."""

    energy_joules: float
    idle_joules: float


def split(window: GpuWindow, uses: Mapping[User, Use]) -> dict[tuple[User, Phase], float]:
    """Split one GPU's energy over one window among the models loaded on it, by phase.

    What is not idle is shared in proportion to the estimated joules of the work; if nobody did any, all is idle.
    Idle is shared in equal parts by the models that hold the GPU.

    Args:
        window: what was measured; finite, >= 0.
        uses: every model loaded on the GPU, with work or without, and those unloaded in the window; not empty.

    Returns:
        Joules >= 0 per model and phase; their sum is `window.energy_joules` to one part in 1e9.

    Raises:
        ValueError: the window is not finite or negative, or nobody is loaded. Never clamped silently.
    """
    if not (math.isfinite(window.energy_joules) and 0 <= window.idle_joules <= window.energy_joules):
        raise ValueError(f"not a window: {window}")
    if not uses:
        raise ValueError("a GPU without users has nothing to split")
    weights: dict[tuple[User, Phase], float] = {}
    for user, use in uses.items():
        if use.has_phases:
            weights[user, Phase.PREFILL] = use.prefill_joules
            weights[user, Phase.DECODE] = use.decode_joules
        else:
            weights[user, Phase.UNSPLIT] = use.prefill_joules + use.decode_joules
    total_weight = math.fsum(weights.values())
    idle_joules = window.idle_joules if total_weight > 0 else window.energy_joules
    holders = [user for user, use in uses.items() if use.loaded] or list(uses)
    parts = {(user, Phase.IDLE): idle_joules / len(holders) for user in holders}
    active_joules = window.energy_joules - idle_joules
    for key, weight in weights.items():
        parts[key] = active_joules * (weight / total_weight) if total_weight > 0 else 0.0
    return parts
