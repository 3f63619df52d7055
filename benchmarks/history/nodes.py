"""The two simulated nodes of tests and pictures, and the truth beside their pages.

Each serves one model, so that the truth of a model's energy is no estimate.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from benchmarks.history.plan import DAY_SECONDS, HOUR_SECONDS, LIMIT_WATTS, Grain, Group, Node
from benchmarks.truth import books as truth_books
from benchmarks.truth.books import BEGIN_SECONDS
from benchmarks.truth.kernel import Floats
from benchmarks.truth.run import Chunk
from benchmarks.truth.scenario import Scenario
from benchmarks.truth.scenarios import chat_day, regressed, tensor_parallel
from joulemeter.accounting import JOULES_PER_KWH, Step, Tariff
from joulemeter.baselines import Baselines
from joulemeter.grid_polls import Polls
from joulemeter.grid_view import GridView
from joulemeter.model import GpuStatus, GridInterval, GridOrigin, GridQuality
from joulemeter.schedule import Schedule, Span

BEGIN_TIMESTAMP_SECONDS: Final = 1_762_128_000.0
"""Monday, 3 November 2025, 00:00 UTC: long ago, so that what Prometheus writes meanwhile is later."""
LEARN_DAYS: Final = 1.0
CURRENCY: Final = "EUR"
UNUSED_WATTS: Final = 62.0
"""Of a GPU that no server uses."""
EVERY_DAY: Final = (frozenset(range(7)), frozenset(range(1, 13)))
PER_KWH: Final = Schedule(
    0.26, (Span(17 * 60, 21 * 60, *EVERY_DAY, 0.34), Span(22 * 60, 6 * 60, *EVERY_DAY, 0.19))
)


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


def node(site: Site) -> Node:
    """Return what is played of a site."""
    used = truth_books.gpus(site.scenario)
    unused = tuple(
        replace(used[0], index=len(used) + number, uuid=f"GPU-{len(used) + number}")
        for number in range(site.unused_gpus)
    )

    def intensity(at_seconds: float) -> Step:
        seconds = max(0.0, at_seconds - BEGIN_SECONDS)
        until = (seconds // HOUR_SECONDS + 1) * HOUR_SECONDS
        return site.grams_per_kwh(seconds), BEGIN_SECONDS + until

    def status(uuid: str, watts: float) -> GpuStatus:
        idle = uuid in {gpu.uuid for gpu in unused}
        return GpuStatus(
            power_watts=watts,
            power_limit_watts=used[0].max_power_watts or LIMIT_WATTS,
            utilization_ratio=0.0 if idle else min(1.0, max(0.0, watts - 130.0) / 150.0),
            memory_used_bytes=0.6e9 if idle else 72e9,
            memory_total_bytes=85.5e9,
            temperature_celsius=float(round(29 + 0.062 * watts)),
        )

    return Node(
        groups=(Group(site.scenario, (truth_books.server_name(0),), used),),
        unused=unused,
        unused_watts=UNUSED_WATTS,
        begin_timestamp_seconds=BEGIN_TIMESTAMP_SECONDS,
        pue=site.pue,
        tariff=Tariff(CURRENCY, PER_KWH, site.gpu_hour),
        intensity=intensity,
        grid=lambda at_seconds: _grid(site, at_seconds - BEGIN_SECONDS),
        baselines=Baselines(LEARN_DAYS * DAY_SECONDS, lambda: BEGIN_TIMESTAMP_SECONDS),
        status=status,
        held_back_above=0.8,
    )


def _grid(site: Site, seconds: float) -> GridView:
    begun = seconds // HOUR_SECONDS * HOUR_SECONDS
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
