"""What is played: what runs on a node, what its power costs and causes, and how finely to look."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.truth.books import BEGIN_SECONDS
from benchmarks.truth.scenario import Scenario
from joulemeter.accounting import Step, Tariff
from joulemeter.baselines import Baselines
from joulemeter.grid_view import GridView
from joulemeter.model import Gpu, GpuStatus

HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 24 * HOUR_SECONDS
LIMIT_WATTS: Final = 700.0
"""Of a board that does not say."""


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely a node is played: more rarely than the daemon looks, for speed.

    What a model alone on its GPUs used does not depend on it.
    """

    observe_seconds: float = 10.0
    scrape_seconds: float = 60.0
    read_seconds: float = 5.0
    requests: bool = True
    """Whether servers show the lengths of finished requests: as much work as all else together."""


FINE: Final = Grain()
COARSE: Final = Grain(20.0, 120.0, requests=False)


@dataclass(frozen=True, slots=True)
class Group:
    """Servers on GPUs that nobody else uses. `servers` are their names, in the scenario's order."""

    scenario: Scenario
    servers: tuple[str, ...]
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """What runs on a node, what its power costs and causes, and what its boards say of themselves.

    Args:
        groups: run side by side.
        unused: GPUs without a server; each draws `unused_watts`.
        begin_timestamp_seconds: Unix time of the run's beginning.
        intensity: gCO2e/kWh at an instant of the books' clock, and until when.
        grid: what the page says of the grid then.
        status: what a board says, by its UUID and its power in watts.
        held_back_above: share of its power limit from which a board's clocks are said to be held back.
    """

    groups: tuple[Group, ...]
    unused: tuple[Gpu, ...]
    unused_watts: float
    begin_timestamp_seconds: float
    pue: float
    tariff: Tariff
    intensity: Callable[[float], Step]
    grid: Callable[[float], GridView]
    baselines: Baselines
    status: Callable[[str, float], GpuStatus]
    held_back_above: float = math.inf

    @property
    def boards(self) -> dict[str, Gpu]:
        """All GPUs, by UUID."""
        used = [gpu for group in self.groups for gpu in group.gpus]
        return {gpu.uuid: gpu for gpu in (*used, *self.unused)}

    @property
    def offset_seconds(self) -> float:
        """Unix time less the books' clock."""
        return self.begin_timestamp_seconds - BEGIN_SECONDS
