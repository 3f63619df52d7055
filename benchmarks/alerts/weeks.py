"""Simulated weeks through the daemon's own books, seen once a minute as Prometheus would scrape them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from benchmarks.truth.books import BEGIN_SECONDS, VLLM, gpus, server_name, to_books
from benchmarks.truth.kernel import Floats
from benchmarks.truth.ratios import DAY_SECONDS, true_joules
from benchmarks.truth.run import Chunk, simulate
from benchmarks.truth.scenario import Scenario
from joulemeter import catalog
from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.baselines import Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.grid_book import GridBook
from joulemeter.grid_view import GridView, view
from joulemeter.grids import Place
from joulemeter.histogram import Histogram
from joulemeter.model import EnergyReading
from joulemeter.snapshot import Priced, Surroundings, compose

SCRAPE_SECONDS: Final = 60.0
MONDAY_TIMESTAMP_SECONDS: Final = 1_767_571_200.0
"""Midnight of 2026-01-05, at which every run begins."""
KEPT: Final = (
    catalog.MODEL_ENERGY,
    catalog.MODEL_TOKENS,
    catalog.MODEL_COMPARED_ENERGY,
    catalog.MODEL_EXPECTED_ENERGY,
    catalog.MODEL_BASELINE_INFO,
    catalog.MODEL_BASELINE_IN_RANGE,
)
"""What the rules on test and the naive ones ask for."""
Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Node:
    """One exporter and what it sees, from a time on; servers restart at times of their own.

    Rarer than the daemon observes (every second), for speed. Where the mix of requests stays the same, nothing is lost;
    where it changes it has to be as in the daemon: how much context is read is told by a gauge.
    """

    scenario: Scenario
    instance: str = "node-0"
    starts_seconds: float = 0.0
    restarts_seconds: tuple[float, ...] = ()
    learn_days: float = 7.0
    read_seconds: float = 5.0
    observe_seconds: float = 10.0


@dataclass(slots=True)
class Weeks:
    """Series by name and labels: (Unix time, value) by the minute; and the first node's truth since it began.

    `true` is (windows + 1, 2): joules, and what they would have been without a regression, running totals.
    """

    series: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    window_seconds: float = 10.0
    true: Floats = field(default_factory=lambda: np.zeros((1, 2)))

    def true_ratio(self, begin_seconds: float, end_seconds: float) -> float:
        """Return what was used over what should have been, between two times since the beginning."""
        edges = self.window_seconds * np.arange(len(self.true))
        joules, reference = (
            np.interp([begin_seconds, end_seconds], edges, self.true[:, column]) for column in (0, 1)
        )
        return float((joules[1] - joules[0]) / (reference[1] - reference[0]))


def weeks(case: str, nodes: tuple[Node, ...]) -> Weeks:
    """Run nodes, one after the other, and return the series that a Prometheus scraping them all would hold."""
    found = Weeks()
    for number, node in enumerate(nodes):
        true = [np.zeros((1, 2))]
        target = (("cluster", case), ("instance", node.instance), ("job", "joulemeter"))
        for at_seconds, name, labels, value in _scrapes(node, true):
            timestamp_seconds = MONDAY_TIMESTAMP_SECONDS + node.starts_seconds + at_seconds
            found.series.setdefault((name, (*target, *labels)), []).append((timestamp_seconds, value))
        if number == 0:
            found.window_seconds = node.scenario.window_seconds
            found.true = np.cumsum(np.concatenate(true), axis=0)
    return found


Sample = tuple[float, str, tuple[tuple[str, str], ...], float]


def _scrapes(node: Node, true: list[Floats]) -> Iterator[Sample]:
    """Yield (seconds since the node began, name, labels, value), and note the truth of the run's windows."""
    scenario = replace(node.scenario, observe_seconds=node.observe_seconds)
    now = [0.0]
    books = Bookkeeper(
        Terms(),
        price=unpriced,
        attributor=Attributor(),
        baselines=Baselines(node.learn_days * DAY_SECONDS, lambda: node.starts_seconds + now[0]),
    )
    boards = {gpu.uuid: gpu for gpu in gpus(scenario)}
    for index, server in enumerate(scenario.servers):
        books.expect_server(server_name(index), server.model, BEGIN_SECONDS, counts_tokens=True)
        books.own(server_name(index), frozenset(boards), BEGIN_SECONDS)

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(scenario):
            true.append(true_joules(scenario, chunk)[:, :, :2].sum(axis=1))
            yield chunk

    restarts = [(at, 0) for at in node.restarts_seconds]
    due_seconds = 0.0
    for event in to_books(scenario, noted(), VLLM, read_seconds=node.read_seconds, restarts=restarts):
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [event])
            continue
        now[0] = event.at_seconds - BEGIN_SECONDS
        books.observe(event, has_phases=True)
        if event.server == server_name(len(scenario.servers) - 1):
            books.settle(event.at_seconds)
        if now[0] >= due_seconds:
            due_seconds = SCRAPE_SECONDS * (math.floor(now[0] / SCRAPE_SECONDS) + 1)
            yield from _page(books, now[0])


def _page(books: Bookkeeper, at_seconds: float) -> Iterator[Sample]:
    """Yield what the page shows of what is kept; labels without a value are none to Prometheus."""
    samples = compose(books, _AROUND).samples
    for metric in KEPT:
        for values, value in samples.get(metric.name, {}).items():
            pairs = tuple((name, str(text)) for name, text in zip(metric.labels, values, strict=True) if text)
            yield at_seconds, metric.name, pairs, float(value)


def _grid() -> GridView:
    return view(GridBook(Place("FR"), ()), {}, 0.0, MONDAY_TIMESTAMP_SECONDS)


_AROUND: Final = Surroundings(
    at_timestamp_seconds=MONDAY_TIMESTAMP_SECONDS,
    version="",
    python_version="",
    simulated=True,
    meter="nvml",
    meter_up=True,
    gpus_up=frozenset(),
    statuses={},
    throttle_seconds={},
    server_use={},
    servers={},
    grid=_grid(),
    pue=1.0,
    priced=Priced(),
    sample_intervals=Histogram(catalog.SAMPLE_INTERVAL.buckets).value(),
)
"""What the kept series do not depend on."""
