"""The daemon as a process of its own, asked over real HTTP, and its pages read."""

import math
import os
import re
import signal
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

LISTENING = re.compile(r"listening on (https?://\S+)/metrics")
BUSY_MACHINE_SECONDS = 30.0

Labels = frozenset[tuple[str, str]]


def until(condition: Callable[[], object], seconds: float = BUSY_MACHINE_SECONDS) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {condition}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def get(url: str, **headers: str) -> Response:
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=BUSY_MACHINE_SECONDS) as answer:
            return Response(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, dict(error.headers), error.read())


class Daemon:
    """`joulemeter ...` that serves a page until the block ends. Its words go to a file."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        name: str = "daemon",
    ) -> None:
        self._log = folder / f"{name}.log"
        self._output = folder / f"{name}.out"
        with self._log.open("wb") as log, self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command(*arguments), env=clean(environment or {}), stdout=output, stderr=log
            )
        self.url = ""

    def __enter__(self) -> Self:
        try:
            until(lambda: LISTENING.search(self.log) or self._process.poll() is not None)
            found = LISTENING.search(self.log)
            assert found, self.log
            self.url = found[1]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def get(self, path: str, **headers: str) -> Response:
        return get(self.url + path, **headers)

    def page(self) -> "Page":
        answer = self.get("/metrics")
        assert answer.status == 200, answer
        return Page(answer.text)

    def becomes_ready(self) -> Self:
        until(lambda: self.get("/readyz").status == 200)
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> tuple[int, float]:
        """Ask it to stop; return its status, and how long it took."""
        begun = time.monotonic()
        self.send(signal.SIGTERM)
        return self.wait(), time.monotonic() - begun

    def wait(self) -> int:
        return self._process.wait(BUSY_MACHINE_SECONDS)


def command(*arguments: str) -> list[str]:
    return [str(Path(sysconfig.get_path("scripts")) / "joulemeter"), *arguments]


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what chooses an NVML library, and with what a test adds."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOULEMETER_")}
    return inherited | dict(environment)


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        env=clean(environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=BUSY_MACHINE_SECONDS,
    )


class Page:
    """A metrics page, read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, Labels], float] = {}
        self.cumulative: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name.removeprefix("joulemeter_"), frozenset(sample.labels.items()))
                self.samples[key] = sample.value
                if family.type in {"counter", "histogram"}:
                    self.cumulative[key] = sample.value

    def values(self, name: str, **labels: str) -> list[float]:
        """Values of the samples of that name which have these labels, among others."""
        wanted = set(labels.items())
        return [value for (found, of), value in self.samples.items() if found == name and wanted <= of]

    def value(self, name: str, **labels: str) -> float:
        """The value of the one such sample."""
        (found,) = self.values(name, **labels)
        return found

    def total(self, name: str, **labels: str) -> float:
        return math.fsum(self.values(name, **labels))

    def labels(self, name: str, *wanted: str) -> set[tuple[str, ...]]:
        """Label values of every sample of that name."""
        return {tuple(dict(of)[label] for label in wanted) for found, of in self.samples if found == name}

    def imbalance(self) -> float:
        """How far law 1 is from holding, relative: for joules, grams and money of each kind, whichever is worst."""
        return max(
            self._imbalance("energy_joules"),
            self._imbalance("co2e_grams"),
            *(
                self._imbalance("cost", component=kind)
                for (kind,) in self.labels("gpu_cost_total", "component")
            ),
        )

    def _imbalance(self, unit: str, **labels: str) -> float:
        measured = self.total(f"gpu_{unit}_total", **labels)
        parts = [
            *self.values(f"model_{unit}_total", **labels),
            *self.values(f"unattributed_{unit}_total", **labels),
            *self.values(f"pending_{unit}", **labels),
            *self.values(f"retired_{unit}", **labels),
        ]
        assert all(math.isfinite(part) and part >= -1e-9 for part in parts), parts
        return abs(math.fsum(parts) - measured) / max(measured, 1e-3)


def falls(pages: Sequence[Page]) -> list[object]:
    """Counters that fell, or were gone, from one page to the next."""
    found: list[object] = []
    for number in range(1, len(pages)):
        before, after = pages[number - 1].cumulative, pages[number].cumulative
        found += [
            (number, key, value, after.get(key))
            for key, value in before.items()
            if after.get(key, -1) < value
        ]
    return found
