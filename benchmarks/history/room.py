"""What a simulated node's page shows beside the books.

Made up: temperatures, memory, throttling and the exporter's own timings.
"""

import math
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from benchmarks.history.plan import LIMIT_WATTS, Group, Node
from benchmarks.truth.books import BEGIN_SECONDS, VLLM
from benchmarks.truth.run import Chunk
from joulemeter.catalog import (
    COST_COMPONENTS,
    OBSERVATION_DURATION,
    PROCESS_CPU,
    PROCESS_MEMORY,
    SAMPLE_INTERVAL,
)
from joulemeter.histogram import HistogramValue
from joulemeter.model import EnergyReading, Gpu
from joulemeter.simulation.vllm_page import VERSION
from joulemeter.snapshot import Priced, ServerState, Surroundings


@dataclass(slots=True)
class Room:
    """What a page shows beside the books."""

    node: Node
    watts: dict[str, float] = field(default_factory=dict)
    throttled: dict[tuple[str, str], float] = field(default_factory=dict)
    busy_ratios: dict[str, list[float]] = field(default_factory=dict)
    """How much of each window a server's steps ran."""
    _last: dict[str, EnergyReading] = field(default_factory=dict)
    _boards: dict[str, Gpu] = field(init=False)

    def __post_init__(self) -> None:
        self._boards = self.node.boards

    def with_power(self, reading: EnergyReading) -> EnergyReading:
        """Return the reading with the power since the one before."""
        before = self._last.get(reading.uuid)
        self._last[reading.uuid] = reading
        if before is None:
            return reading
        seconds = reading.at_seconds - before.at_seconds
        watts = (reading.total_joules - before.total_joules) / seconds
        self.watts[reading.uuid] = watts
        limit_watts = self._boards[reading.uuid].max_power_watts or LIMIT_WATTS
        held_back = seconds * max(0.0, watts / limit_watts - self.node.held_back_above)
        for reason, held_seconds in (("power_cap", held_back), ("thermal", 0.0)):
            key = (reading.uuid, reason)
            self.throttled[key] = self.throttled.get(key, 0.0) + held_seconds
        return replace(reading, power_watts=watts)

    def look(self, group: Group, chunk: Chunk) -> None:
        """Take in what a stretch of a group's run was like."""
        ratios = chunk.true("busy_seconds") / chunk.window_seconds
        for name, of_server in zip(group.servers, ratios.T.tolist(), strict=True):
            self.busy_ratios.setdefault(name, []).extend(of_server)

    def _server_use(self, seconds: float) -> dict[tuple[str, str], float]:
        """What the driver says of the servers on GPUs that they share."""
        shared = [group for group in self.node.groups if len(group.servers) > 1]
        return {
            (name, gpu.uuid): min(
                1.0, self.busy_ratios[name][round(seconds / group.scenario.window_seconds) - 1]
            )
            for group in shared
            for name in group.servers
            for gpu in group.gpus
        }

    def around(self, seconds: float) -> Surroundings:
        """Return the surroundings at an instant of the run."""
        rounds = round(seconds / 0.05)
        late = round(rounds * 0.004)
        node = self.node
        timestamp_seconds = node.begin_timestamp_seconds + seconds
        per_kwh = node.tariff.per_kwh
        response_seconds = _counted(OBSERVATION_DURATION.buckets, {0.004: rounds // 20 - late, 0.03: late})
        return Surroundings(
            at_timestamp_seconds=timestamp_seconds,
            version=version("joulemeter"),
            python_version=platform.python_version(),
            simulated=True,
            meter="nvml",
            meter_up=True,
            gpus_up=frozenset(self._boards),
            statuses={uuid: node.status(uuid, self.watts.get(uuid, 0.0)) for uuid in self._boards},
            throttle_seconds=dict(self.throttled),
            server_use=self._server_use(seconds),
            servers={
                name: ServerState(True, VLLM.dialect, VERSION, response_seconds, {})
                for group in node.groups
                for name in group.servers
            },
            grid=node.grid(BEGIN_SECONDS + seconds),
            pue=node.pue,
            priced=Priced(
                node.tariff.currency,
                COST_COMPONENTS,
                None if per_kwh is None else per_kwh.at(timestamp_seconds)[0],
            ),
            sample_intervals=_counted(SAMPLE_INTERVAL.buckets, {0.05: rounds - late, 0.06: late}),
            process={PROCESS_CPU: 0.015 * seconds, PROCESS_MEMORY: 54e6 + 1e6 * math.sin(seconds / 7e3)},
        )


def _counted(bounds: tuple[float, ...], counts: dict[float, int]) -> HistogramValue:
    """Return a histogram in which every value occurred so often."""
    cumulative = tuple(
        sum(count for value, count in counts.items() if value <= bound) for bound in (*bounds, math.inf)
    )
    return HistogramValue(bounds, cumulative, sum(value * count for value, count in counts.items()))
