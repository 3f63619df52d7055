"""Does the memory stay flat? The node's books over a simulated day, as fast as they can be kept.

    python -m benchmarks.books --seconds 86400 --reading-seconds 1

Eight GPUs are read and eight servers asked as the daemon does it, each tick is settled, composed and, every
fifteen seconds, formatted. One server restarts every ten minutes and one changes its model every hour, so
that series come, go and are retired. Prints a JSON list: simulated hours, allocated blocks, resident MiB.
"""

import argparse
import gc
import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.processes import memory_mib
from benchmarks.servers import GROWTH_PER_SECOND, RECORDED, RUNNING
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import OBSERVATION_DURATION, SAMPLE_INTERVAL
from joulemeter.collector import Renderer
from joulemeter.dialects import read_page, recognise
from joulemeter.grid_book import GridBook
from joulemeter.grid_view import view
from joulemeter.grids import Place, static
from joulemeter.histogram import Histogram
from joulemeter.model import (
    GAUGES,
    Amount,
    EnergyReading,
    EnergySource,
    Gpu,
    GpuStatus,
    Observation,
    PageReading,
)
from joulemeter.snapshot import Priced, ServerState, Snapshot, Surroundings, compose

GPUS = 8
MEASURED_EVERY_SECONDS = 600.0
SCRAPED_EVERY_SECONDS = 15.0
RESTARTS_EVERY_SECONDS = 600.0
RENAMED_EVERY_SECONDS = 3600.0
START_SECONDS = 1_000_000.0
GRID = view(GridBook(Place(static.WORLD), ()), {}, 0.0, 0.0)


class Simulation:
    """A node whose clock is an argument."""

    def __init__(self, reading_seconds: float) -> None:
        self._reading_seconds = reading_seconds
        self._gpus = [
            Gpu(i, f"GPU-{i}", "NVIDIA H100 80GB HBM3", "580.95.05", EnergySource.COUNTER, 700.0)
            for i in range(GPUS)
        ]
        self._books = Bookkeeper(
            Terms(),
            price=lambda joules, _begin, _end: Amount(joules, joules * 1e-5),
            attributor=Attributor(),
        )
        body = RECORDED.read_text(encoding="utf-8")
        self._recorded = read_page(body, recognise(body))
        self._durations = Histogram(OBSERVATION_DURATION.buckets)
        self._intervals = Histogram(SAMPLE_INTERVAL.buckets)
        self._readings: deque[EnergyReading] = deque()
        self._renderer = Renderer()
        for index, gpu in enumerate(self._gpus):
            name = f"server-{index}"
            self._books.expect_server(name, name, START_SECONDS, counts_tokens=True)
            self._books.own(name, frozenset({gpu.uuid}), START_SECONDS)

    def second(self, second: int) -> None:
        """Let one second pass."""
        for step in range(round(1 / self._reading_seconds)):
            at_seconds = START_SECONDS + second + step * self._reading_seconds
            self._intervals.observe(self._reading_seconds)
            for gpu in self._gpus:
                lump = math.floor(at_seconds * 10) / 10  # the counter moves every 100 ms
                self._readings.append(EnergyReading(gpu.uuid, 400.0 * (lump - START_SECONDS), at_seconds))
        now = START_SECONDS + second + 1.0
        by_uuid = {gpu.uuid: gpu for gpu in self._gpus}
        while self._readings:
            reading = self._readings.popleft()
            self._books.meter(by_uuid[reading.uuid], (reading,))
        for index in range(GPUS):
            self._durations.observe(0.002)
            page = self._page(index, float(second))
            self._books.observe(Observation(f"server-{index}", now - 0.02, page), has_phases=True)
        self._books.settle(now)
        snapshot = self._snapshot(now)
        if second % SCRAPED_EVERY_SECONDS == 0:
            self._renderer(snapshot, "application/openmetrics-text;version=1.0.0")

    def _page(self, index: int, second: float) -> PageReading:
        """Return a server's page: number 0 restarts, number 1 gets another model from time to time."""
        age = second % RESTARTS_EVERY_SECONDS if index == 0 else second
        model = f"model-{index}"
        if index == 1:
            model += f"-{second // RENAMED_EVERY_SECONDS:.0f}"
        readings = tuple(
            replace(
                reading,
                model=model,
                series=reading.series.replace("tiny", model),
                value=RUNNING if reading.role in GAUGES else reading.value * (1 + GROWTH_PER_SECOND * age),
            )
            for reading in self._recorded.readings
        )
        return PageReading(self._recorded.dialect, readings, START_SECONDS + second - age)

    def _snapshot(self, now: float) -> Snapshot:
        durations, uuids = self._durations.value(), [gpu.uuid for gpu in self._gpus]
        return compose(
            self._books,
            Surroundings(
                at_timestamp_seconds=now,
                version="",
                python_version="",
                simulated=True,
                meter="nvml",
                meter_up=True,
                gpus_up=frozenset(uuids),
                statuses={uuid: GpuStatus(power_watts=400.0) for uuid in uuids},
                server_use={},
                throttle_seconds={(uuid, "thermal"): 0.0 for uuid in uuids},
                servers={
                    name: ServerState(
                        up=True,
                        dialect="vllm",
                        version="0.32.0",
                        response_seconds=durations,
                        refused_pages={},
                    )
                    for name in self._books.servers
                },
                grid=GRID,
                pue=1.0,
                priced=Priced(),
                sample_intervals=self._intervals.value(),
            ),
        )


def run(seconds: int, reading_seconds: float) -> Iterator[tuple[float, int, float]]:
    """Yield simulated hours, allocated blocks and resident MiB, every ten simulated minutes."""
    simulation = Simulation(reading_seconds)
    for second in range(seconds):
        simulation.second(second)
        if (second + 1) % MEASURED_EVERY_SECONDS == 0:
            gc.collect()
            yield (second + 1) / 3600, sys.getallocatedblocks(), memory_mib().resident


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--reading-seconds", type=float, required=True)
    options = parser.parse_args()
    sys.stdout.write(f"{json.dumps(list(run(options.seconds, options.reading_seconds)))}\n")


if __name__ == "__main__":
    main()
