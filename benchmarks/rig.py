"""What is measured, as processes: the virtual node, joulemeter's daemon, and its peers on the same node."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from joulemeter.errors import JoulemeterError
from joulemeter.simulation import library
from joulemeter.simulation.state import NvmlState, VirtualGpu

GPUS: Final = 8
WATTS: Final = 400.0
"""What each GPU draws from the moment that a daemon has seen its counter."""
START_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 5.0
HOLD_SECONDS: Final = 5
"""Shorter than the default, so that energy is attributed when the warming up is over."""
PROMETHEUS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.4.0",
}
"""How Prometheus 3 asks."""
PEER_ENVIRONMENT: Final = Path(__file__).parents[1] / ".venv-bench"


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def node_exporter() -> str | None:
    """Return the path of node_exporter, where it is installed."""
    return shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")


class RigError(JoulemeterError):
    """Something that is to be measured did not come up."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, and how long it took."""

    body: bytes
    encoding: str
    seconds: float


class Scraper:
    """Asks one exporter as Prometheus does, over a kept connection where the exporter keeps it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def get(self, headers: Mapping[str, str] = PROMETHEUS) -> Page:
        """Ask for /metrics. Raises OSError or http.client.HTTPException."""
        begun = time.perf_counter()
        try:
            self._connection.request("GET", "/metrics", headers=dict(headers))
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        seconds = time.perf_counter() - begun
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{answer.status}: {body[:99]!r}")
        return Page(body, answer.headers.get("Content-Encoding", ""), seconds)

    def text(self) -> str:
        """Ask for the page as plain text."""
        return self.get({"Accept": "text/plain"}).body.decode()

    def wait(self, process: subprocess.Popen[bytes], wanted: str) -> None:
        """Ask until the page has `wanted`. Raises RigError if the process ends or it takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if wanted in self.text():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise RigError(f"{process.args!r}: no {wanted} on its page (exit status {process.poll()})")


@dataclass(frozen=True, slots=True)
class Running:
    """An exporter that serves its page."""

    name: str
    pid: int
    scraper: Scraper


class Rig:
    """A virtual node with eight GPUs and eight servers; a context manager.

    Nothing is drawn until `draw`, so that whoever has read the counters before it knows their origin.
    """

    def __enter__(self) -> Self:
        self.library = library.virtual_library()
        self._folder = tempfile.TemporaryDirectory(prefix="joulemeter-bench-")
        self.folder = Path(self._folder.name)
        self.state = NvmlState.create(self.folder / "nvml.state", [VirtualGpu(idle_watts=0.0)] * GPUS)
        self._servers = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.servers", "--state", str(self.state.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._servers.stdout is not None
        said = self._servers.stdout.readline()
        if not said:
            self.__exit__()
            raise RigError("the servers did not come up")
        self.ports: dict[str, list[int]] = json.loads(said)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._servers.stdin is not None
        assert self._servers.stdout is not None
        self._servers.stdin.close()
        self._servers.wait(10)
        self._servers.stdout.close()
        self._folder.cleanup()

    def draw(self) -> None:
        """Let every GPU draw."""
        for gpu in range(GPUS):
            self.state.set_idle_watts(gpu, WATTS)

    def joules(self) -> float:
        """What the node has really used so far."""
        now = time.monotonic()
        return sum(self.state.energy_joules(gpu, now) for gpu in range(GPUS))

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which every NVML client finds this node."""
        return {
            **os.environ,
            library.STATE_VARIABLE: str(self.state.path),
            "LD_LIBRARY_PATH": str(self.library.parent),
        }

    @contextmanager
    def joulemeter(
        self,
        name: str,
        ports: Sequence[int],
        *,
        more: Mapping[str, str] | None = None,
        connect: Callable[[int], Scraper] = Scraper,
    ) -> Iterator[Running]:
        """Run `joulemeter serve` for servers on these ports, until its page has energy on it.

        Args:
            name: what the rows call it.
            ports: those of the servers.
            more: settings beside those.
            connect: makes what asks it, given its port.
        """
        port = free_port()
        config = self.folder / f"{port}.yaml"
        servers = [{"url": f"http://127.0.0.1:{one}", "name": f"server-{i}"} for i, one in enumerate(ports)]
        settings = {"listen": f"127.0.0.1:{port}", "servers": servers, "zero_hold_seconds": HOLD_SECONDS}
        settings |= more or {}
        config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        command = [str(Path(sys.executable).with_name("joulemeter")), "serve", "--config", str(config)]
        with self._process(command) as process:
            scraper = connect(port)
            scraper.wait(process, "joulemeter_gpu_energy_joules_total{")
            yield Running(name, process.pid, scraper)

    @contextmanager
    def sampling(self) -> Iterator[Running]:
        """Run the daemon's energy thread by itself."""
        with self._process([sys.executable, "-m", "benchmarks.sampling"]) as process:
            yield Running("energy thread", process.pid, Scraper(0))

    @contextmanager
    def nvitop_exporter(self) -> Iterator[Running]:
        """Run the peer, which reads the GPUs once a second, as it does by default."""
        program = PEER_ENVIRONMENT / "bin/nvitop-exporter"
        if not program.exists():
            raise RigError(f"no {program}: `make bench` installs it")
        port = free_port()
        with self._process([str(program), "--bind-address", "127.0.0.1", "--port", str(port)]) as process:
            scraper = Scraper(port)
            scraper.wait(process, "gpu_power_usage")
            yield Running("nvitop-exporter", process.pid, scraper)

    @contextmanager
    def node_exporter(self) -> Iterator[list[Running]]:
        """Run node_exporter, where it is installed."""
        program = node_exporter()
        if program is None:
            yield []
            return
        port = free_port()
        with self._process([program, f"--web.listen-address=127.0.0.1:{port}"]) as process:
            scraper = Scraper(port)
            scraper.wait(process, "node_cpu_seconds_total")
            yield [Running("node_exporter", process.pid, scraper)]

    @contextmanager
    def _process(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process that finds this node; it is told to end when the block does."""
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.PIPE, stdout=out, stderr=out
            )
        try:
            yield process
        except RigError as error:
            raise RigError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from error
        else:
            if process.poll() is not None:
                raise RigError(f"{command}: it ended\n{log.read_text(errors='replace')[-2000:]}")
        finally:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()
