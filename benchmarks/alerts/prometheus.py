"""A real Prometheus over back-filled series: raw ones from OpenMetrics, recorded ones from the real rules."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.alerts.weeks import Key

ROOT: Final = Path(__file__).parents[2]
UNPACKED: Final = ROOT / ".cache/tools/usr/bin"
RAW_BLOCKS: Final = "--max-block-duration=700h"
"""With blocks of two hours promtool would read the file 336 times."""
RECORDED_BLOCKS: Final = "--max-block-duration=162h"
"""It asks for a block at once, and Prometheus refuses more than 11,000 points per series in an answer."""
READY_SECONDS: Final = 60.0
MOST_POINTS: Final = 10_000
Range = dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]


class PrometheusError(Exception):
    """Prometheus or promtool is not there, or refuses something."""


def tool(name: str) -> str:
    """Return the path of promtool or prometheus."""
    found = shutil.which(name) or (str(UNPACKED / name) if (UNPACKED / name).exists() else None)
    if found is None:
        raise PrometheusError(f"{name}: not on the PATH and not in .cache/tools; run tools/install-tools.sh")
    return found


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


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusError(f"promtool {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")


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
        (folder / "prometheus.yaml").write_text("{}\n")
        self.url = ""

    def backfill(self, series: Mapping[Key, Sequence[tuple[float, float]]]) -> None:
        """Take in raw series."""
        path = self._folder / "series.om"
        write_openmetrics(series, path)
        _promtool("tsdb", "create-blocks-from", RAW_BLOCKS, "--quiet", "openmetrics", path, self._data)
        path.unlink()

    def record(self, rules: Path, begin: float, end: float) -> None:
        """Evaluate the file's recording rules by the minute from a time to another, and take in what they record."""
        for number, rules_of_pass in enumerate(passes(rules)):
            path = self._folder / f"pass{number}.yaml"
            path.write_text(yaml.safe_dump(rules_of_pass))
            made = self._folder / f"made{number}"
            with self.running():
                span = (f"--start={begin:.0f}", f"--end={end:.0f}", "--eval-interval=1m")
                _promtool(
                    "tsdb",
                    "create-blocks-from",
                    RECORDED_BLOCKS,
                    "--quiet",
                    "rules",
                    f"--url={self.url}",
                    *span,
                    f"--output-dir={made}",
                    path,
                )
            for block in made.iterdir():
                shutil.move(block, self._data)

    @contextmanager
    def running(self) -> Iterator["Prometheus"]:
        """Run it on a port of this machine alone."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        log = (self._folder / "prometheus.log").open("ab")
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={self._folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._data}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            self._wait(process)
            yield self
        finally:
            process.terminate()
            process.wait(READY_SECONDS)
            log.close()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):  # noqa: S310 - our own
                    return
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        text = (self._folder / "prometheus.log").read_text(errors="replace")
        raise PrometheusError(f"prometheus did not start: {text[-2000:]}")

    def range(self, expr: str, begin: float, end: float, step: float = 60.0) -> Range:
        """Evaluate an expression from a time to another, both included; values by labels, without the name."""
        found: Range = {}
        while begin <= end:
            until = min(end, begin + (MOST_POINTS - 1) * step)
            for one in self._get("query_range", query=expr, start=begin, end=until, step=step)["result"]:
                labels = tuple(sorted(pair for pair in one["metric"].items() if pair[0] != "__name__"))
                found.setdefault(labels, []).extend((float(at), float(value)) for at, value in one["values"])
            begin = until + step
        return found

    def _get(self, path: str, **arguments: object) -> Any:
        body = urllib.parse.urlencode(arguments).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=600) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{path} {arguments}: {error.read().decode()}") from error
