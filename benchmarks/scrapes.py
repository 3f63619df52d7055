"""Scrapes while everything runs: how long the page takes, how large it is, how old what it says."""

import gzip
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.report import Row, percentile
from benchmarks.rig import GPUS, WATTS, Page, Rig, Running

MEASURED_TARGET_SECONDS: Final = 1.5
"""Observation interval + 0.5 s."""
ATTRIBUTED_TARGET_SECONDS: Final = 12.0
SAMPLE: Final = re.compile(r"^(joulemeter_\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrapes:
    """One exporter's scrapes of a round; ages are of our page when it had arrived."""

    latency_seconds: list[float] = field(default_factory=list)
    tick_age_seconds: list[float] = field(default_factory=list)
    measured_age_seconds: list[float] = field(default_factory=list)
    attributed_age_seconds: list[float] = field(default_factory=list)


def scrape_round(
    rig: Rig, ours: Running, peers: Sequence[Running], count: int, every_seconds: float
) -> dict[str, Scrapes]:
    """Scrape each exporter in turn, as Prometheus does."""
    found = {one.name: Scrapes() for one in (ours, *peers)}
    for _ in range(count):
        page = ours.scraper.get()
        arrived_seconds, used_joules = time.time(), rig.joules()
        scrapes = found[ours.name]
        scrapes.latency_seconds.append(page.seconds)
        sums = _sums(page)
        scrapes.tick_age_seconds.append(arrived_seconds - sums["joulemeter_last_tick_timestamp_seconds"])
        missing_joules = used_joules - sums["joulemeter_gpu_energy_joules_total"]
        scrapes.measured_age_seconds.append(missing_joules / (GPUS * WATTS))
        scrapes.attributed_age_seconds.append(sums["joulemeter_pending_energy_joules"] / (GPUS * WATTS))
        for one in peers:
            found[one.name].latency_seconds.append(one.scraper.get().seconds)
        time.sleep(every_seconds)
    return found


def _sums(page: Page) -> dict[str, float]:
    body = gzip.decompress(page.body) if page.encoding == "gzip" else page.body
    sums: dict[str, float] = {}
    for name, value in SAMPLE.findall(body.decode()):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def latency_rows(rounds: Sequence[Mapping[str, Scrapes]], exporters: Sequence[Running]) -> list[Row]:
    """Medians and 99th percentiles of the rounds; ours must stay below the first peer's."""
    rows = []
    for percent, name in ((50, "median"), (99, "99th percentile")):
        by_exporter = {
            one.name: tuple(percentile(each[one.name].latency_seconds, percent) * 1000 for each in rounds)
            for one in exporters
        }
        ours, *peers = by_exporter
        target = median(by_exporter[peers[0]]) if peers else None
        rows.append(Row(f"{ours}: /metrics, {name}", "ms", by_exporter[ours], target))
        rows += [Row(f"{peer}: /metrics, {name}", "ms", by_exporter[peer]) for peer in peers]
    return rows


def size_rows(exporters: Sequence[Running]) -> list[Row]:
    """How much there is on each page."""
    rows = []
    for one in exporters:
        text = one.scraper.text()
        series = sum(not line.startswith("#") for line in text.splitlines())
        rows += [
            Row(f"{one.name}: series", "", (float(series),)),
            Row(f"{one.name}: page, as text", "kB", (len(text.encode()) / 1000,)),
            Row(f"{one.name}: page, as sent", "kB", (len(one.scraper.get().body) / 1000,)),
        ]
    return rows


def age_rows(rounds: Sequence[Scrapes]) -> list[Row]:
    """99th percentiles of the rounds."""
    ages: tuple[tuple[str, Callable[[Scrapes], list[float]], float], ...] = (
        ("since its last tick", lambda each: each.tick_age_seconds, MEASURED_TARGET_SECONDS),
        ("of measured energy, by the truth", lambda each: each.measured_age_seconds, MEASURED_TARGET_SECONDS),
        (
            "of attributed energy and tokens",
            lambda each: each.attributed_age_seconds,
            ATTRIBUTED_TARGET_SECONDS,
        ),
    )
    return [
        Row(f"age {what}, 99th percentile", "s", tuple(percentile(of(each), 99) for each in rounds), target)
        for what, of, target in ages
    ]
