"""`joulemeter serve` as a user runs it, beside a virtual GPU, and a watcher that checks every page."""

import asyncio
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import yaml
from loadgen import Tokens
from pages import Page
from vllm_server import MODEL, free_port

from joulemeter.simulation import library
from joulemeter.simulation.state import NvmlState, VirtualGpu

SERVER: Final = "real"
POLL_SECONDS: Final = 0.25
IDLE_WATTS: Final = 120.0
BUSY_WATTS: Final = 280.0
"""Drawn on top while requests run."""
CONSERVED_WITHIN: Final = 1e-9

LAWS: Final = {
    "joulemeter_gpu_energy_joules_total": (
        "joulemeter_model_energy_joules_total",
        "joulemeter_unattributed_energy_joules_total",
        "joulemeter_pending_energy_joules",
        "joulemeter_retired_energy_joules",
    ),
    "joulemeter_gpu_co2e_grams_total": (
        "joulemeter_model_co2e_grams_total",
        "joulemeter_unattributed_co2e_grams_total",
        "joulemeter_pending_co2e_grams",
        "joulemeter_retired_co2e_grams",
    ),
}
"""What must equal the sum of its parts on every page."""


def imbalance_ratio(page: Page) -> float:
    """Return by how much the worst law is broken, relative to the whole; 0 before the first joule."""
    return max(
        _imbalance(page.total(whole), [page.total(part) for part in parts]) for whole, parts in LAWS.items()
    )


def _imbalance(whole: float, parts: list[float]) -> float:
    gap = abs(whole - math.fsum(parts))
    return gap / whole if whole else (math.inf if gap else 0.0)


def fallen_counters(before: Page, after: Page) -> list[str]:
    """Return the counters of joulemeter that went down or away between two pages."""
    now = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in after.samples}
    return [
        f"{s.name}{s.labels} fell from {s.value} to {now.get(key)}"
        for s in before.samples
        if s.name.startswith("joulemeter_") and s.name.endswith(("_total", "_count", "_bucket"))
        for key in [(s.name, tuple(sorted(s.labels.items())))]
        if now.get(key, -math.inf) < s.value
    ]


def counted_tokens(page: Page, name: str = "joulemeter_model_tokens_total") -> Tokens:
    """Return the tokens that joulemeter shows for the server."""

    def of(kind: str) -> float:
        return page.total(name, server=SERVER, model=MODEL, kind=kind)

    return Tokens(of("prompt"), of("cached_prompt"), of("generation"))


@dataclass
class VirtualNode:
    """One virtual GPU, drawing more while requests run."""

    folder: Path

    def __post_init__(self) -> None:
        self._state = NvmlState.create(self.folder / "gpus", [VirtualGpu(idle_watts=IDLE_WATTS)])

    def set_busy(self, busy: bool) -> None:
        """Draw as a GPU that works, or as one that waits."""
        self._state.slot(0, 0).draw(BUSY_WATTS if busy else 0.0)

    def energy_joules(self) -> float:
        """Return what the GPU has really used."""
        return self._state.energy_joules(0)

    def environment(self) -> dict[str, str]:
        """Return the variables that make joulemeter read this GPU."""
        return {library.LIBRARY_VARIABLE: str(library.build()), library.STATE_VARIABLE: str(self._state.path)}


@dataclass
class Daemon:
    """The daemon; its output goes to a file in `folder`."""

    folder: Path
    server_url: str
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "joulemeter.log"

    def start(self, environment: dict[str, str]) -> None:
        """Start it; a server that is away for a restart must not be given up."""
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "zero_hold_seconds": 0,
            "observation": {"interval_seconds": 1, "timeout_seconds": 2, "give_up_seconds": 600},
            "servers": [{"url": self.server_url, "name": SERVER, "gpus": [0]}],
            "grid": {"zone": "FR", "sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": 56}},
        }
        config = self.folder / "joulemeter.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [str(Path(sys.executable).with_name("joulemeter")), "serve", "--config", str(config)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def is_running(self) -> bool:
        """Say whether it is still there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Ask it to end and return its exit status; killed if it does not end within 5 s."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@dataclass
class Watcher:
    """Asks the daemon for its page again and again, checks each one, and remembers what was wrong."""

    daemon: Daemon
    latest: Page = field(default_factory=lambda: Page(()))
    pages: int = 0
    worst_imbalance_ratio: float = 0.0
    faults: list[str] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until told to stop."""
        async with aiohttp.ClientSession(self.daemon.url, timeout=aiohttp.ClientTimeout(total=10)) as client:
            while not stop.is_set():
                await self._look(client)
                await asyncio.sleep(POLL_SECONDS)

    async def until(self, condition: Callable[[Page], bool], seconds: float, what: str) -> Page:
        """Return the first page that fulfils the condition.

        Raises:
            AssertionError: none did in time, a page was wrong, or the daemon ended.
        """
        deadline = time.monotonic() + seconds
        while not condition(self.latest):
            self.check()
            if time.monotonic() > deadline:
                shown = counted_tokens(self.latest)
                raise AssertionError(f"not within {seconds:g} s: {what}; it shows {shown};\n{self._tail()}")
            await asyncio.sleep(POLL_SECONDS / 2)
        self.check()
        return self.latest

    def check(self) -> None:
        """Raise AssertionError if any page was wrong or the daemon ended."""
        assert not self.faults, "\n".join(self.faults)
        assert self.daemon.is_running(), f"joulemeter ended:\n{self._tail()}"

    def answer_milliseconds(self) -> tuple[float, float]:
        """Return median and highest time to answer."""
        return statistics.median(self.answer_seconds) * 1e3, max(self.answer_seconds) * 1e3

    async def _look(self, client: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        try:
            async with client.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"}) as answer:
                text = await answer.text()
        except aiohttp.ClientConnectorError as error:
            if self.pages:  # before the first page it is only starting
                self.faults.append(f"page {self.pages + 1}: {error}")
            return
        self.answer_seconds.append(time.monotonic() - began)
        self._judge(Page.parse(text))

    def _judge(self, page: Page) -> None:
        imbalance = imbalance_ratio(page)
        if imbalance > CONSERVED_WITHIN:
            self.faults.append(f"page {self.pages + 1} does not add up: off by {imbalance:.3g} of the whole")
        self.faults += fallen_counters(self.latest, page)
        self.worst_imbalance_ratio = max(self.worst_imbalance_ratio, imbalance)
        self.pages += 1
        self.latest = page

    def _tail(self) -> str:
        return self.daemon.log.read_text(errors="replace")[-3000:]
