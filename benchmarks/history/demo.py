"""The node that `joulemeter demo` plays, over the days before: same GPUs, servers, models, prices and labels."""

from collections.abc import Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Final

from benchmarks.history.plan import DAY_SECONDS, HOUR_SECONDS, Grain, Group, Node
from benchmarks.truth.books import BEGIN_SECONDS
from benchmarks.truth.scenario import Scenario, Server
from benchmarks.truth.traffic import Kind, Load, Traffic
from joulemeter.accounting import Step
from joulemeter.baselines import Baselines
from joulemeter.grid_book import GridBook
from joulemeter.grid_view import GridView, view
from joulemeter.model import EnergySource, Gpu, GpuStatus
from joulemeter.simulation import workload
from joulemeter.simulation.demo import SITE, server_name
from joulemeter.simulation.node import DEMO, ScenarioServer
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.state import DRIVER_VERSION

TARGET: Final = MappingProxyType({"cluster": "demo", "job": "joulemeter", "instance": "demo-node"})
"""What Prometheus calls it (deploy/compose/targets/joulemeter.yaml)."""
GRAIN: Final = Grain(observe_seconds=60.0, scrape_seconds=60.0)
"""Windows of a minute move some percent of a model's energy between idle and decode, and take half the time."""
NIGHT_RATIO: Final = 0.1
"""Of the requests that come when the history ends, and goes over into the demo's even traffic."""


def node(hours: int, end_timestamp_seconds: float) -> Node:
    """Return the demo's node over whole hours up to an instant (Unix time)."""
    begin_timestamp_seconds = end_timestamp_seconds - hours * HOUR_SECONDS
    offset_seconds = begin_timestamp_seconds - BEGIN_SECONDS
    tariff = SITE.price.tariff(SITE.time_zone)
    if tariff is None:
        raise ValueError("the demo's site has no price")
    book = GridBook(SITE.place, SITE.grid.sources)

    def intensity(at_seconds: float) -> Step:
        in_use = book.at(at_seconds, offset_seconds)
        return in_use.interval.intensity_grams_per_kwh, in_use.until_seconds

    def grid(at_seconds: float) -> GridView:
        return view(book, {}, at_seconds, offset_seconds)

    groups = _groups(hours)
    used = {gpu for group in groups for gpu in group.gpus}
    unused = tuple(gpu for gpu in _gpus() if gpu not in used)
    return Node(
        groups=groups,
        unused=unused,
        unused_watts=DEMO.gpus[unused[0].index].idle_watts,
        begin_timestamp_seconds=begin_timestamp_seconds,
        pue=SITE.pue,
        tariff=tariff,
        intensity=intensity,
        grid=grid,
        baselines=Baselines(SITE.baseline.learn_days * DAY_SECONDS, lambda: begin_timestamp_seconds),
        status=_status,
    )


def _gpus() -> tuple[Gpu, ...]:
    return tuple(
        Gpu(
            index,
            gpu.uuid_at(index),
            gpu.product,
            DRIVER_VERSION,
            EnergySource.COUNTER,
            gpu.max_power_limit_watts,
        )
        for index, gpu in enumerate(DEMO.gpus)
    )


def _groups(hours: int) -> tuple[Group, ...]:
    """Servers by the GPUs that they use, in the demo's order."""
    boards = _gpus()
    return tuple(
        _group(hours, list(plans), tuple(boards[index] for index in gpus), number)
        for number, (gpus, plans) in enumerate(groupby(DEMO.servers, lambda plan: plan.gpus))
    )


def _group(hours: int, plans: Sequence[ScenarioServer], gpus: tuple[Gpu, ...], seed: int) -> Group:
    scenario = Scenario(
        tuple(Server(plan.model, _traffic(plan.requests_per_second, hours)) for plan in plans),
        seconds=hours * HOUR_SECONDS,
        seed=seed,
        gpus=len(gpus),
        idle_watts=sum(DEMO.gpus[gpu.index].idle_watts for gpu in gpus),
        window_seconds=GRAIN.observe_seconds,
        observe_seconds=GRAIN.observe_seconds,
    )
    return Group(scenario, tuple(server_name(plan.model) for plan in plans), gpus)


def _traffic(requests_per_second: float, hours: int) -> Traffic:
    """Requests like those of the demo, that come by day and night as if it were now the busiest hour."""
    usual = workload.Traffic(requests_per_second)
    own = Kind(usual.prompt_tokens, usual.output_tokens, weight=1 - usual.prefixed_ratio)
    prefixed = Kind(
        usual.prompt_tokens,
        usual.output_tokens,
        weight=usual.prefixed_ratio,
        prefixes=usual.prefixes,
        prefix_tokens=usual.prefix_tokens,
    )
    load = Load(requests_per_second, night_ratio=NIGHT_RATIO, peak_hour=hours % 24, hour_spread=0.1)
    return Traffic(load, (own, prefixed))


def _status(uuid: str, watts: float) -> GpuStatus:
    """Say of a board what the virtual one says; its utilisation follows from its power."""
    index = next(gpu.index for gpu in _gpus() if gpu.uuid == uuid)
    gpu, plans = DEMO.gpus[index], [plan for plan in DEMO.servers if index in plan.gpus]
    busy_watts = max((_busy_watts(plan) for plan in plans), default=gpu.power_limit_watts)
    busy = (watts - gpu.idle_watts) / (busy_watts - gpu.idle_watts)
    return GpuStatus(
        power_watts=watts,
        power_limit_watts=gpu.power_limit_watts,
        utilization_ratio=min(1.0, max(0.0, busy)),
        memory_used_bytes=float(sum(MODELS[plan.model].gpu_memory_bytes for plan in plans)),
        memory_total_bytes=float(gpu.memory_total_bytes),
        temperature_celsius=float(gpu.temperature_celsius),
    )


def _busy_watts(plan: ScenarioServer) -> float:
    """What a board of a server draws while a step runs."""
    return MODELS[plan.model].coefficients.busy_watts / len(plan.gpus)
