"""Running daemons side by side: processor time, memory, then the scrapes; and the time to start."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Final

from benchmarks.processes import cpu_seconds, memory_mib
from benchmarks.report import Row
from benchmarks.rig import Rig, Running
from benchmarks.scrapes import age_rows, latency_rows, scrape_round, size_rows

CPU_TARGET_PERCENT: Final = 2.0
SAMPLING_TARGET_PERCENT: Final = 0.5
MEMORY_TARGET_MIB: Final = 64.0
START_TARGET_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. A round of processor time is as long as a Prometheus's scrape interval."""

    warm_up_seconds: float
    cpu_rounds: int
    cpu_round_seconds: float
    latency_rounds: int
    scrapes_per_round: int
    scrape_every_seconds: float
    starts: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One process in each round: percent of a core; MiB in memory and its share of them at the end."""

    percent: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    proportional: list[float] = field(default_factory=list)


def measure(rig: Rig, effort: Effort, *, with_peer: bool, say: Callable[[str], None]) -> list[Row]:
    """Run everything side by side and measure it in the same rounds."""
    with ExitStack() as running:
        filtered = running.enter_context(rig.joulemeter("joulemeter", rig.ports["filtering"]))
        whole = running.enter_context(rig.joulemeter("joulemeter, whole pages", rig.ports["whole"]))
        unused = running.enter_context(rig.joulemeter("joulemeter, no servers, no scrapes", []))
        sampling = running.enter_context(rig.sampling())
        peers = [running.enter_context(rig.nvitop_exporter())] if with_peer else []
        peers += running.enter_context(rig.node_exporter())
        rig.draw()
        say(f"warming up for {effort.warm_up_seconds:g} s")
        time.sleep(effort.warm_up_seconds)
        say(f"processor time: {effort.cpu_rounds} rounds of {effort.cpu_round_seconds:g} s, a scrape in each")
        costs = _costs(effort, [filtered, whole, *peers], [unused, sampling])
        say(
            f"scrapes: {effort.latency_rounds} rounds of {effort.scrapes_per_round} of each exporter,"
            f" in turns, every {effort.scrape_every_seconds:g} s"
        )
        rounds = [
            scrape_round(rig, filtered, peers, effort.scrapes_per_round, effort.scrape_every_seconds)
            for _ in range(effort.latency_rounds)
        ]
        return [
            *_cpu_rows(
                costs,
                [
                    (filtered, "joulemeter: 8 servers that filter their pages", CPU_TARGET_PERCENT),
                    (whole, "joulemeter: 8 servers with whole pages", CPU_TARGET_PERCENT),
                    (sampling, "joulemeter: its energy thread by itself", SAMPLING_TARGET_PERCENT),
                    (unused, "joulemeter: without servers, nobody scrapes", None),
                    *((one, one.name, None) for one in peers),
                ],
            ),
            *_memory_rows(costs, filtered, peers),
            *latency_rows(rounds, [filtered, *peers]),
            *size_rows([filtered, *peers]),
            *age_rows([one[filtered.name] for one in rounds]),
        ]


def measure_starts(rig: Rig, effort: Effort, *, with_peer: bool) -> list[Row]:
    """Start again and again, until the first page with what it is there for."""
    ours = _start_seconds(lambda: rig.joulemeter("joulemeter", rig.ports["filtering"]), effort.starts)
    rows = [Row("joulemeter: start to first useful /metrics", "s", ours, START_TARGET_SECONDS)]
    if with_peer:
        theirs = _start_seconds(rig.nvitop_exporter, effort.starts)
        rows.append(Row("nvitop-exporter: the same", "s", theirs))
    return rows


def _start_seconds(start: Callable[[], AbstractContextManager[Running]], count: int) -> tuple[float, ...]:
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        with start():
            taken.append(time.monotonic() - begun)
    return tuple(taken)


def _costs(effort: Effort, scraped: Sequence[Running], others: Sequence[Running]) -> dict[str, Cost]:
    costs = {one.name: Cost() for one in (*scraped, *others)}
    for _ in range(effort.cpu_rounds):
        begun = time.monotonic()
        before = {one.name: cpu_seconds(one.pid) for one in (*scraped, *others)}
        time.sleep(effort.cpu_round_seconds)
        for one in scraped:
            one.scraper.get()
        for one in (*scraped, *others):
            seconds = time.monotonic() - begun
            costs[one.name].percent.append(100 * (cpu_seconds(one.pid) - before[one.name]) / seconds)
            memory = memory_mib(one.pid)
            costs[one.name].resident.append(memory.resident)
            costs[one.name].proportional.append(memory.proportional)
    return costs


def _cpu_rows(costs: dict[str, Cost], what: Sequence[tuple[Running, str, float | None]]) -> list[Row]:
    return [
        Row(f"CPU, {doing}", "% of a core", tuple(costs[one.name].percent), target)
        for one, doing, target in what
    ]


def _memory_rows(costs: dict[str, Cost], ours: Running, peers: Sequence[Running]) -> list[Row]:
    rows = []
    for one in (ours, *peers):
        target = MEMORY_TARGET_MIB if one is ours else None
        rows += [
            Row(f"{one.name}: resident memory", "MiB", tuple(costs[one.name].resident), target),
            Row(f"{one.name}: its share of it (PSS)", "MiB", tuple(costs[one.name].proportional)),
        ]
    return rows
