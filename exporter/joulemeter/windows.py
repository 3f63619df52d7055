"""A closed window of an owner group: what its GPUs drew, and what its models did. Pure."""

from dataclasses import dataclass, field

from joulemeter.busy import Tick
from joulemeter.model import Gpu
from joulemeter.work import Work


@dataclass(frozen=True, slots=True)
class Measured:
    """One GPU's energy (finite, >= 0 J) over a stretch of time (> 0 s), and its counter's ticks in it."""

    gpu: Gpu
    energy_joules: float
    duration_seconds: float
    ticks: tuple[Tick, ...] = ()


@dataclass(frozen=True, slots=True)
class Used:
    """What one model did in the same time, on all its GPUs together."""

    work: Work
    gpus: frozenset[str]
    has_phases: bool = True
    loaded: bool = True
    opening: Work = field(default_factory=Work)
    """The part of it that was counted in the first second."""
    page_seconds: float = 0.0
    """Mean time between the server's pages in it."""
    running: tuple[float, float] = (0.0, 0.0)
    """Requests that ran at its beginning and at its end."""
