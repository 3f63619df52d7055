"""One GPU's window -> joules by model and phase. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from joulemeter.busy import Tick, idle_seconds
from joulemeter.history import Work
from joulemeter.priors import Coefficients

SHORTEST_STEP_SECONDS = 0.001
"""No engine step of a served model is shorter: steps that were counted were busy at least this long."""


class Phase(StrEnum):
    """What the energy went into; UNSPLIT where prefill and decode cannot be told apart."""

    PREFILL = "prefill"
    DECODE = "decode"
    IDLE = "idle"
    UNSPLIT = "unsplit"


class User(NamedTuple):
    """A model loaded by a server: who can have used a GPU."""

    server: str
    model: str


@dataclass(frozen=True, slots=True)
class Use:
    """What one user did in a window, on this GPU's share of it; `loaded` if it still holds the GPU."""

    work: Work
    has_phases: bool = True
    loaded: bool = True


@dataclass(frozen=True, slots=True)
class GpuWindow:
    """One GPU's measured energy (finite, >= 0 J) over a stretch of time (> 0 s), and its counter's ticks in it."""

    energy_joules: float
    duration_seconds: float
    ticks: tuple[Tick, ...] = ()


def split(
    window: GpuWindow, uses: Mapping[User, Use], coefficients: Coefficients
) -> dict[tuple[User, Phase], float]:
    """Split one GPU's energy over one window among the models loaded on it, by phase.

    Idle is the energy while no engine step runs; while one runs, the whole busy floor belongs to that step's
    phases (docs/adr/0003-split.md). Busy time comes from the counter's ticks (`busy`); where there are none, from
    the window's energy, with power at the idle or the busy level: E = P_idle (T - B) + P_busy B, solved for B.
    What is not idle is shared in proportion to coefficient times work. Idle is shared in equal parts by the models
    that hold the GPU.

    Args:
        window: what was measured.
        uses: every model loaded on the GPU, with work or without, and those unloaded in the window; not empty.
        coefficients: watts are absolute, joules per step and token count only in proportion.

    Returns:
        Joules >= 0 per user and phase; their sum is `window.energy_joules` to one part in 1e9.

    Raises:
        ValueError: the window is not finite or negative, or nobody is loaded. Never clamped silently.
    """
    if not (
        math.isfinite(window.energy_joules) and window.energy_joules >= 0 and window.duration_seconds > 0
    ):
        raise ValueError(f"not a window: {window}")
    if not uses:
        raise ValueError("a GPU without users has nothing to split")
    weights = {
        key: weight
        for user, use in uses.items()
        for key, weight in _weights(user, use, window.duration_seconds, coefficients).items()
    }
    total_weight = math.fsum(weights.values())
    idle_joules = window.energy_joules
    if total_weight > 0:
        steps = math.fsum(_steps(use.work, window.duration_seconds) for use in uses.values())
        idle_joules = _idle_joules(window, steps, coefficients)
    holders = [user for user, use in uses.items() if use.loaded] or list(uses)
    parts = {(user, Phase.IDLE): idle_joules / len(holders) for user in holders}
    active_joules = window.energy_joules - idle_joules
    for key, weight in weights.items():
        parts[key] = active_joules * (weight / total_weight) if total_weight > 0 else 0.0
    return parts


def _idle_joules(window: GpuWindow, steps: float, coefficients: Coefficients) -> float:
    """Energy of the time in which no step ran, from the window's own energy."""
    seconds = window.duration_seconds
    shortest_seconds = min(steps * SHORTEST_STEP_SECONDS, seconds)
    if window.ticks:
        known_seconds = math.fsum(tick.duration_seconds for tick in window.ticks)
        idle_ratio = (
            idle_seconds(window.ticks, coefficients.idle_watts, coefficients.busy_watts) / known_seconds
        )
        idle = min(idle_ratio * seconds, seconds - shortest_seconds)
        return min(window.energy_joules, coefficients.idle_watts * idle)
    above_idle_joules = window.energy_joules - coefficients.idle_watts * seconds
    busy_seconds = above_idle_joules / (coefficients.busy_watts - coefficients.idle_watts)
    busy_seconds = min(max(busy_seconds, shortest_seconds), seconds)
    return min(window.energy_joules, coefficients.idle_watts * (seconds - busy_seconds))


def _weights(
    user: User, use: Use, seconds: float, coefficients: Coefficients
) -> dict[tuple[User, Phase], float]:
    """Estimated joules of a user's work, by phase."""
    work = use.work
    prefill = work.prompt_tokens * coefficients.joules_per_prompt_token
    decode = work.generation_tokens * coefficients.joules_per_generated_token
    stepped = _steps(work, seconds) * coefficients.joules_per_step
    if work.generation_tokens > 0:
        decode += stepped
    else:
        prefill += stepped
    if prefill + decode == 0 and work.running_seconds > 0:
        # Requests run and no counter moved: prompts whose tokens are counted when they are done.
        prefill = min(work.running_seconds, seconds) * coefficients.busy_watts
    if not use.has_phases:
        return {(user, Phase.UNSPLIT): prefill + decode}
    return {(user, Phase.PREFILL): prefill, (user, Phase.DECODE): decode}


def _steps(work: Work, seconds: float) -> float:
    """Engine steps: counted, or one token per running request and step."""
    if work.steps is not None:
        return max(0.0, work.steps)
    return work.generation_tokens / max(1.0, work.running_seconds / seconds)
