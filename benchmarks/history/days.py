"""Days of simulated nodes in a folder of Prometheus's, with what the rules recorded and which alerts fired."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import prometheus
from benchmarks.alerts.firing import firing
from benchmarks.history import nodes, openmetrics, panels
from benchmarks.history.nodes import BEGIN_TIMESTAMP_SECONDS, Truth
from benchmarks.history.openmetrics import Target
from benchmarks.history.plan import HOUR_SECONDS, Grain, Node
from benchmarks.history.play import pages
from dashboards import alert_records
from dashboards.alerts import ALERTS
from dashboards.records import RECORDS, Record
from joulemeter.snapshot import Snapshot

JOB: Final = "joulemeter"
CLUSTER: Final = "demo"
RECORD_SECONDS: Final = 240
"""Between two evaluations of a record: below the five minutes after which Prometheus takes a series for gone."""
ALERT_SECONDS: Final = 60
"""Between two evaluations of an alert, as usual: the shortest of their `for` is as long."""
MOST_POINTS: Final = 10_000
"""Per series: Prometheus answers with 11,000 at most."""
SHOWN: Final = (*RECORDS, alert_records.COMPARED, alert_records.EXPECTED, alert_records.RATIO)
"""Records that panels show, and what those are made of."""
Point = tuple[float, str]
Series = tuple[dict[str, str], list[Point]]
"""Labels, and values by their Unix times."""


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
    record(data, (*RECORDS, *alert_records.RECORDS), BEGIN_TIMESTAMP_SECONDS, end)
    _add(data, partial(_fired, since=BEGIN_TIMESTAMP_SECONDS, until=end))
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
    """Play one node, and fill a new folder with what it showed and what panels need of records.

    Not with what alerts remember: where models share a GPU, as in the demo, the split between them takes hours to
    learn (ADR 10), and what alerts made of the first would be held against the present.
    """
    path = data.with_suffix(".om")
    write(path, pages(node, grain), target)
    prometheus.fill(path, data)
    path.unlink()
    record(data, SHOWN, node.begin_timestamp_seconds, until_timestamp_seconds)


def record(data: Path, rules: Sequence[Record], since: float, until: float) -> None:
    """Add what rules would have recorded between two Unix times.

    Rules that read others' records come in a later pass, when Prometheus has those.
    """
    for ready in passes(rules):
        _add(data, partial(_recorded, rules=ready, since=since, until=until))


def _add(data: Path, answered: Callable[[str], Iterable[Series]]) -> None:
    """Add series that are made of what Prometheus, running on a folder, answers."""
    page = data.with_name("made.om")
    with prometheus.running(data) as url, page.open("w") as out:
        for labels, points in answered(url):
            openmetrics.write_series(out, labels, points)
        any_series = out.tell() > 0
        out.write("# EOF\n")
    if any_series:  # promtool takes no page without a sample
        prometheus.fill(page, data)
    page.unlink()


def passes(rules: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield rules, each after those whose records it reads.

    Raises:
        ValueError: some read each other's.
    """
    left = list(rules)
    while left:
        ready = [rule for rule in left if not any(other.record in rule.expr for other in left)]
        if not ready:
            raise ValueError(f"rules read each other: {', '.join(rule.record for rule in left)}")
        yield ready
        left = [rule for rule in left if rule not in ready]


def _recorded(url: str, rules: Iterable[Record], since: float, until: float) -> Iterator[Series]:
    for rule in rules:
        for labels, points in _range(url, rule.expr, since, until, RECORD_SECONDS):
            yield {**labels, "__name__": rule.record}, points


def _fired(url: str, since: float, until: float) -> Iterator[Series]:
    """Yield the series `ALERTS` where alerts fired; where they were pending, no panel asks."""
    evaluations = [
        since + number * ALERT_SECONDS for number in range(int((until - since) // ALERT_SECONDS) + 1)
    ]
    for alert in ALERTS:
        own = {"__name__": "ALERTS", "alertname": alert.name, "alertstate": "firing"}
        hold, keep = (float(panels.seconds(one)) if one else 0.0 for one in (alert.hold, alert.keep))
        for labels, points in _range(url, alert.expr, since, until, ALERT_SECONDS):
            spans = firing((at for at, _ in points), evaluations, hold=hold, keep=keep)
            fired = [(at, "1") for at in evaluations if any(first <= at <= last for first, last in spans)]
            if fired:
                yield {**labels, "severity": alert.severity, **own}, fired


def _range(url: str, expr: str, since: float, until: float, step: int) -> Iterator[Series]:
    """Evaluate an expression from a time to another, in as many questions as Prometheus wants."""
    found: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    while since <= until:
        last = min(until, since + (MOST_POINTS - 1) * step)
        answer = prometheus.asked(url, "query_range", query=expr, start=since, end=last, step=step)
        for series in answer["result"]:
            found.setdefault(tuple(series["metric"].items()), []).extend(series["values"])
        since = last + step
    for labels, points in found.items():
        yield dict(labels), points
