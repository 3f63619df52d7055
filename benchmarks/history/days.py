"""Days of simulated nodes in a folder of Prometheus's, recording rules included."""

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import prometheus
from benchmarks.history import nodes, openmetrics
from benchmarks.history.nodes import BEGIN_TIMESTAMP_SECONDS, Truth
from benchmarks.history.openmetrics import Target
from benchmarks.history.plan import HOUR_SECONDS, Grain, Node
from benchmarks.history.play import pages
from dashboards.records import RECORDS, Record
from joulemeter.snapshot import Snapshot

JOB: Final = "joulemeter"
CLUSTER: Final = "demo"
RECORD_SECONDS: Final = 240
"""Between two evaluations of a record: below the five minutes after which Prometheus takes a series for gone."""


@dataclass(frozen=True, slots=True)
class Days:
    """Where the data is, what is true, and from when to when it goes (Unix time)."""

    data: Path
    truths: Sequence[Truth]
    grain: Grain
    begin_timestamp_seconds: float
    end_timestamp_seconds: float

    def true(self, name: str, since: float, until: float, instance: str = ".+") -> float:
        """Return what happened between two Unix times, on one node or on all."""
        begin = self.begin_timestamp_seconds
        return sum(
            truth.gained(name, since - begin, until - begin)
            for truth in self.truths
            if instance in (".+", truth.site.instance)
        )


def simulate_days(folder: Path, hours: float, grain: Grain) -> Days:
    """Play both nodes, two processes at once, and fill a new folder with what they showed."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = hours * HOUR_SECONDS
    files = [folder / f"node-{number}.om" for number in range(len(nodes.sites(seconds, grain)))]
    with ProcessPoolExecutor(len(files), mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_play, number, seconds, grain, path) for number, path in enumerate(files)]
        truths = [one.result() for one in waiting]
    data = folder / "data"
    for path in files:
        prometheus.fill(path, data)
        path.unlink()
    end = BEGIN_TIMESTAMP_SECONDS + seconds
    record(data, BEGIN_TIMESTAMP_SECONDS, end)
    return Days(data, truths, grain, BEGIN_TIMESTAMP_SECONDS, end)


def _play(number: int, seconds: float, grain: Grain, path: Path) -> Truth:
    site = nodes.sites(seconds, grain)[number]
    truth = Truth(site)
    target = {"cluster": CLUSTER, "job": JOB, "instance": site.instance}
    write(path, pages(nodes.node(site), grain, truth.add), target)
    return truth


def write(path: Path, scrapes: Iterable[tuple[float, Snapshot]], target: Target) -> None:
    """Write a file of scrapes that `prometheus.fill` takes."""
    with path.open("w") as out:
        openmetrics.write(out, scrapes, target)
        out.write("# EOF\n")


def fill(data: Path, node: Node, grain: Grain, target: Target, until_timestamp_seconds: float) -> None:
    """Play one node, and fill a new folder with what it showed and what would have been recorded."""
    path = data.with_suffix(".om")
    write(path, pages(node, grain), target)
    prometheus.fill(path, data)
    path.unlink()
    record(data, node.begin_timestamp_seconds, until_timestamp_seconds)


def record(data: Path, since: float, until: float) -> None:
    """Add what the recording rules would have recorded between two Unix times.

    A rule that reads another's record gets the expression in its place: what it would have read.
    """
    page = data.with_name("records.om")
    with prometheus.running(data) as url, page.open("w") as out:
        for rule in RECORDS:
            answer = prometheus.asked(
                url, "query_range", query=in_full(rule), start=since, end=until, step=RECORD_SECONDS
            )
            for series in answer["result"]:
                labels = {**series["metric"], "__name__": rule.record}
                openmetrics.write_series(out, labels, series["values"])
        out.write("# EOF\n")
    prometheus.fill(page, data)
    page.unlink()


def in_full(rule: Record) -> str:
    """Return a rule's expression without the names of other rules in it."""
    expr = rule.expr
    for other in RECORDS:
        if other.record in expr:
            expr = expr.replace(other.record, f"({in_full(other)})")
    return expr
