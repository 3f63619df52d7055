"""Weeks of series in a real Prometheus: raw ones from OpenMetrics, recorded ones from the real rules."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import prometheus
from benchmarks.alerts.weeks import Key

RAW_HOURS: Final = 700
RECORDED_BLOCKS: Final = "--max-block-duration=162h"
"""It asks for a block at once, and Prometheus refuses more than 11,000 points per series in an answer."""
MOST_POINTS: Final = 10_000
Range = dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]


def written(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """Return a series as Prometheus writes it."""
    return f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in labels)}}}"


def write_openmetrics(series: Mapping[Key, Sequence[tuple[float, float]]], path: Path) -> None:
    """Write series with their timestamps, as promtool reads them."""
    with path.open("w", encoding="utf-8") as file:
        for (name, labels), samples in series.items():
            text = written(name, labels)
            file.writelines(f"{text} {value!r} {at:.3f}\n" for at, value in samples)
        file.write("# EOF\n")


def passes(rules: Path) -> list[dict[str, Any]]:
    """Return the recording rules as files to be back-filled in turn: promtool does not see what it makes itself."""
    records = [
        rule
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    left = {rule["record"]: rule for rule in records}
    known, found = set[str](), list[dict[str, Any]]()
    while left:
        names = [
            name
            for name, rule in left.items()
            if not (set(re.findall(r"[a-z_]+:\w+:\w+", rule["expr"])) & left.keys() - known)
        ]
        found.append({"groups": [{"name": f"pass{len(found)}", "rules": [left.pop(name) for name in names]}]})
        known |= set(names)
    return found


class Prometheus:
    """A Prometheus of our own below a folder; it holds what is back-filled and scrapes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        self.url = ""

    def backfill(self, series: Mapping[Key, Sequence[tuple[float, float]]]) -> None:
        """Take in raw series."""
        path = self._folder / "series.om"
        write_openmetrics(series, path)
        prometheus.fill(path, self._data, block_hours=RAW_HOURS)
        path.unlink()

    def record(self, rules: Path, begin: float, end: float) -> None:
        """Evaluate the file's recording rules by the minute from a time to another, and take in what they record."""
        for number, rules_of_pass in enumerate(passes(rules)):
            path = self._folder / f"pass{number}.yaml"
            path.write_text(yaml.safe_dump(rules_of_pass))
            made = self._folder / f"made{number}"
            with self.running():
                prometheus.promtool(
                    *("tsdb", "create-blocks-from", RECORDED_BLOCKS, "--quiet", "rules", f"--url={self.url}"),
                    *(f"--start={begin:.0f}", f"--end={end:.0f}", "--eval-interval=1m"),
                    *(f"--output-dir={made}", path),
                )
            for block in made.iterdir():
                shutil.move(block, self._data)

    @contextmanager
    def running(self) -> Iterator["Prometheus"]:
        """Run it on a port of this machine alone."""
        with prometheus.running(self._data) as self.url:
            yield self

    def range(self, expr: str, begin: float, end: float, step: float = 60.0) -> Range:
        """Evaluate an expression from a time to another, both included; values by labels, without the name."""
        found: Range = {}
        while begin <= end:
            until = min(end, begin + (MOST_POINTS - 1) * step)
            answer = prometheus.asked(self.url, "query_range", query=expr, start=begin, end=until, step=step)
            for one in answer["result"]:
                labels = tuple(sorted(pair for pair in one["metric"].items() if pair[0] != "__name__"))
                found.setdefault(labels, []).extend((float(at), float(value)) for at, value in one["values"])
            begin = until + step
        return found
