"""Two simulated nodes over some days: their pages, minute by minute, from the real books, and the truth beside them.

Energy, tokens and requests are the simulator's, attribution, baselines, grams and money the daemon's own. Made up
for the page alone: temperatures, memory, throttling and the exporter's own timings. Every node serves one model, so
that the truth of a model's energy is no estimate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from benchmarks.truth.books import BEGIN_SECONDS, VLLM, gpus, server_name, to_books
from benchmarks.truth.kernel import Floats
from benchmarks.truth.run import Chunk, simulate
from benchmarks.truth.scenario import Scenario
from benchmarks.truth.scenarios import chat_day, regressed, tensor_parallel
from joulemeter.accounting import JOULES_PER_KWH, Pricer, Tariff
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.baselines import Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import (
    COST_COMPONENTS,
    OBSERVATION_DURATION,
    PROCESS_CPU,
    PROCESS_MEMORY,
    SAMPLE_INTERVAL,
)
from joulemeter.grid_polls import Polls
from joulemeter.grid_view import GridView
from joulemeter.histogram import HistogramValue
from joulemeter.model import (
    EnergyReading,
    Gpu,
    GpuStatus,
    GridInterval,
    GridOrigin,
    GridQuality,
)
from joulemeter.schedule import Schedule, Span
from joulemeter.snapshot import Priced, ServerState, Snapshot, Surroundings, compose

BEGIN_TIMESTAMP_SECONDS: Final = 1_762_128_000.0
"""Monday, 3 November 2025, 00:00 UTC: long ago, so that what Prometheus writes meanwhile is later."""
HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 24 * HOUR_SECONDS
READ_SECONDS: Final = 5.0
LEARN_DAYS: Final = 1.0
CURRENCY: Final = "EUR"
UNUSED_WATTS: Final = 62.0
"""Of a GPU that no server uses."""
EVERY_DAY: Final = (frozenset(range(7)), frozenset(range(1, 13)))
PER_KWH: Final = Schedule(
    0.26, (Span(17 * 60, 21 * 60, *EVERY_DAY, 0.34), Span(22 * 60, 6 * 60, *EVERY_DAY, 0.19))
)


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely a node is played: more rarely than the daemon looks, for speed.

    What a model alone on its GPUs used does not depend on it.
    """

    observe_seconds: float = 10.0
    scrape_seconds: float = 60.0
    requests: bool = True
    """Whether servers show the lengths of finished requests: as much work as all else together."""


FINE: Final = Grain()
COARSE: Final = Grain(20.0, 120.0, requests=False)


@dataclass(frozen=True, slots=True)
class Site:
    """A node: what runs there, and what its power costs and causes."""

    instance: str
    zone: str
    scenario: Scenario
    pue: float
    gpu_hour: float
    mean_grams_per_kwh: float
    swing_grams_per_kwh: float
    """Added at night, taken off at noon."""
    unused_gpus: int = 0

    def grams_per_kwh(self, seconds: float) -> float:
        """Return the intensity of the hour that an instant of the run lies in."""
        hour = seconds // HOUR_SECONDS % 24
        return self.mean_grams_per_kwh + self.swing_grams_per_kwh * math.cos(2 * math.pi * (hour - 1) / 24)

    @property
    def model(self) -> str:
        """The model that is served."""
        return self.scenario.servers[0].model


def sites(seconds: float, grain: Grain, seed: int = 0) -> tuple[Site, Site]:
    """Return a node with a small model and a GPU to spare, and one whose four GPUs serve a large model.

    Six hours before the end the large one's decoding takes 15 % more energy, with nothing else changed.
    """
    every = grain.observe_seconds
    small, large = (
        replace(scenario, observe_seconds=every, window_seconds=every)
        for scenario in (chat_day(seconds, seed), tensor_parallel(seconds, seed))
    )
    large = regressed(large, seconds - 6 * HOUR_SECONDS, decode_power=0.15)
    return (
        Site("gpu-node-1", "FR", small, 1.2, 1.5, 45.0, 15.0, unused_gpus=1),
        Site("gpu-node-2", "DE", large, 1.35, 2.0, 330.0, 170.0),
    )


@dataclass(slots=True)
class Truth:
    """What really happened, as running totals at the edges of windows."""

    site: Site
    _columns: dict[str, list[Floats]] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        """Take in a stretch of the run."""
        site, count = self.site, len(chunk.idle_joules)
        at = chunk.start_seconds + chunk.window_seconds * np.arange(count)
        model = (chunk.true("prefill_joules") + chunk.true("decode_joules"))[:, 0] + chunk.idle_joules
        unused = np.full(count, site.unused_gpus * UNUSED_WATTS * chunk.window_seconds)
        grams = np.array([site.grams_per_kwh(one) for one in at.tolist()]) * site.pue / JOULES_PER_KWH
        price = np.array([PER_KWH.at(BEGIN_TIMESTAMP_SECONDS + one)[0] for one in at.tolist()])
        money = price * site.pue / JOULES_PER_KWH
        hours = chunk.window_seconds / HOUR_SECONDS * site.gpu_hour
        for name, values in (
            ("model_joules", model),
            ("gpu_joules", model + unused),
            ("model_grams", model * grams),
            ("gpu_grams", (model + unused) * grams),
            ("model_cost", model * money + hours * site.scenario.gpus),
            ("gpu_cost", (model + unused) * money + hours * (site.scenario.gpus + site.unused_gpus)),
        ):
            self._columns.setdefault(name, []).append(values)
        for name, column in (
            ("generated", "generated"),
            ("prompt", "prompt_computed"),
            ("requests", "requests"),
        ):
            self._columns.setdefault(name, []).append(chunk.showed(column)[:, 0])

    def gained(self, name: str, since_seconds: float, until_seconds: float) -> float:
        """Return what happened between two instants of the run."""
        values = np.concatenate(self._columns[name])
        counted = name in ("generated", "prompt", "requests")
        totals = values if counted else np.concatenate([[0.0], np.cumsum(values)])
        edges = self.site.scenario.window_seconds * np.arange(len(totals))
        since, until = np.interp([since_seconds, until_seconds], edges, totals)
        return float(until - since)


def pages(site: Site, truth: Truth, grain: Grain) -> Iterator[tuple[float, Snapshot]]:
    """Yield what a node's page showed at each scrape, with its Unix time; the truth is noted on the way."""
    scenario = site.scenario
    books = _books(site)
    used = {gpu.uuid: gpu for gpu in gpus(scenario)}
    boards = dict(used)
    for number in range(site.unused_gpus):
        index = len(used) + number
        boards[f"GPU-{index}"] = replace(used["GPU-0"], index=index, uuid=f"GPU-{index}")
    model = site.model
    books.expect_server(server_name(0), model, BEGIN_SECONDS, counts_tokens=True)
    books.own(server_name(0), frozenset(used), BEGIN_SECONDS)
    room = Room(site, boards)

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(scenario, requests=grain.requests):
            truth.add(chunk)
            yield chunk

    events = to_books(scenario, noted(), VLLM, read_seconds=READ_SECONDS, requests=grain.requests)
    for event in events:
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [room.with_power(event)])
            if event.uuid == "GPU-0":
                for uuid in boards.keys() - used.keys():
                    idle = UNUSED_WATTS * (event.at_seconds - BEGIN_SECONDS)
                    reading = EnergyReading(uuid, idle, event.at_seconds)
                    books.meter(boards[uuid], [room.with_power(reading)])
            continue
        books.observe(event, has_phases=True)
        books.settle(event.at_seconds)
        seconds = event.at_seconds - BEGIN_SECONDS
        if seconds > 0 and seconds % grain.scrape_seconds == 0:
            yield BEGIN_TIMESTAMP_SECONDS + seconds, compose(books, room.around(seconds))


def _books(site: Site) -> Bookkeeper:
    """Return fresh books with the site's price, and a clock for the baselines."""

    def intensity(at_seconds: float) -> tuple[float, float]:
        seconds = max(0.0, at_seconds - BEGIN_SECONDS)
        until = (seconds // HOUR_SECONDS + 1) * HOUR_SECONDS
        return site.grams_per_kwh(seconds), BEGIN_SECONDS + until

    offset = BEGIN_TIMESTAMP_SECONDS - BEGIN_SECONDS
    price = Pricer(
        intensity,
        pue=site.pue,
        tariff=Tariff(CURRENCY, PER_KWH, site.gpu_hour),
        unix_offset_seconds=lambda: offset,
    )
    return Bookkeeper(
        Terms(),
        price=price,
        attributor=Attributor(),
        baselines=Baselines(LEARN_DAYS * DAY_SECONDS, lambda: BEGIN_TIMESTAMP_SECONDS),
    )


@dataclass(slots=True)
class Room:
    """What a page shows beside the books."""

    site: Site
    boards: dict[str, Gpu]
    watts: dict[str, float] = field(default_factory=dict)
    throttled: dict[tuple[str, str], float] = field(default_factory=dict)
    _last: dict[str, EnergyReading] = field(default_factory=dict)

    def with_power(self, reading: EnergyReading) -> EnergyReading:
        """Return the reading with the power since the one before."""
        before = self._last.get(reading.uuid)
        self._last[reading.uuid] = reading
        if before is None:
            return reading
        seconds = reading.at_seconds - before.at_seconds
        watts = (reading.total_joules - before.total_joules) / seconds
        self.watts[reading.uuid] = watts
        held_back = seconds * max(0.0, watts / self._limit_watts(reading.uuid) - 0.8)
        for reason, held_seconds in (("power_cap", held_back), ("thermal", 0.0)):
            key = (reading.uuid, reason)
            self.throttled[key] = self.throttled.get(key, 0.0) + held_seconds
        return replace(reading, power_watts=watts)

    def _limit_watts(self, uuid: str) -> float:
        return self.boards[uuid].max_power_watts or 700.0

    def around(self, seconds: float) -> Surroundings:
        """Return the surroundings at an instant of the run."""
        rounds = round(seconds / 0.05)
        late = round(rounds * 0.004)
        return Surroundings(
            at_timestamp_seconds=BEGIN_TIMESTAMP_SECONDS + seconds,
            version="0.1.0",
            python_version="3.11.7",
            simulated=True,
            meter="nvml",
            meter_up=True,
            gpus_up=frozenset(self.boards),
            statuses={uuid: self._status(uuid) for uuid in self.boards},
            throttle_seconds=dict(self.throttled),
            server_use={},
            servers={
                server_name(0): ServerState(
                    True,
                    "vllm",
                    "0.32.0",
                    _counted(OBSERVATION_DURATION.buckets, {0.004: rounds // 20 - late, 0.03: late}),
                    {},
                )
            },
            grid=self._grid(seconds),
            pue=self.site.pue,
            priced=Priced(CURRENCY, COST_COMPONENTS, PER_KWH.at(BEGIN_TIMESTAMP_SECONDS + seconds)[0]),
            sample_intervals=_counted(SAMPLE_INTERVAL.buckets, {0.05: rounds - late, 0.06: late}),
            process={PROCESS_CPU: 0.015 * seconds, PROCESS_MEMORY: 54e6 + 1e6 * math.sin(seconds / 7e3)},
        )

    def _status(self, uuid: str) -> GpuStatus:
        watts = self.watts.get(uuid, 0.0)
        limit = self._limit_watts(uuid)
        used = uuid != f"GPU-{len(self.boards) - 1}" or not self.site.unused_gpus
        return GpuStatus(
            power_watts=watts,
            power_limit_watts=limit,
            utilization_ratio=min(1.0, max(0.0, watts - 130.0) / 150.0) if used else 0.0,
            memory_used_bytes=72e9 if used else 0.6e9,
            memory_total_bytes=85.5e9,
            temperature_celsius=float(round(29 + 0.062 * watts)),
        )

    def _grid(self, seconds: float) -> GridView:
        begun = seconds // HOUR_SECONDS * HOUR_SECONDS
        site = self.site
        origin = GridOrigin("energy_charts", "direct", "consumption", "1h", "made up for a simulation")
        quality = GridQuality.FORECAST if begun % (6 * HOUR_SECONDS) == 0 else GridQuality.MEASURED
        polls = Polls(900.0, outcome="ok")
        polls.outcomes["ok"] = 1 + int(seconds // 900)
        polls.last_success_timestamp_seconds = BEGIN_TIMESTAMP_SECONDS + seconds // 900 * 900
        return GridView(
            zone=site.zone,
            interval=GridInterval(
                BEGIN_TIMESTAMP_SECONDS + begun, HOUR_SECONDS, site.grams_per_kwh(seconds), quality, origin
            ),
            quality=quality,
            constant="static",
            polls={"energy_charts": polls},
            forecasts_grams_per_kwh={
                f"{hours}h": site.grams_per_kwh(seconds + hours * HOUR_SECONDS) for hours in (1, 3, 6)
            },
            renewable_ratio=0.55
            - 0.35 * (site.grams_per_kwh(seconds) - site.mean_grams_per_kwh) / site.swing_grams_per_kwh,
        )


def _counted(bounds: tuple[float, ...], counts: dict[float, int]) -> HistogramValue:
    """Return a histogram in which every value occurred so often."""
    cumulative = tuple(
        sum(count for value, count in counts.items() if value <= bound) for bound in (*bounds, math.inf)
    )
    return HistogramValue(bounds, cumulative, sum(value * count for value, count in counts.items()))
