"""A simulated node: virtual GPUs in a state file, and virtual servers as processes of their own."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from joulemeter.errors import JoulemeterError
from joulemeter.simulation.library import STATE_VARIABLE
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.state import NvmlState, VirtualGpu

START_SECONDS: Final = 15.0
GRACE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class ScenarioServer:
    """A server to start. Servers on one GPU share its time equally."""

    model: str
    gpus: tuple[int, ...]
    requests_per_second: float = 0.0
    seed: int = 0
    served_model_name: str = ""
    """Empty: the model's own."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a simulated node consists of."""

    gpus: tuple[VirtualGpu, ...]
    servers: tuple[ScenarioServer, ...] = ()

    def __post_init__(self) -> None:
        for index, server in enumerate(self.servers):
            absent = [gpu for gpu in server.gpus if not 0 <= gpu < len(self.gpus)]
            if absent or server.model not in MODELS:
                place = f"servers[{index}]: {server.model} on GPUs {server.gpus}"
                raise ValueError(f"{place}: the node has {len(self.gpus)}; models: {', '.join(MODELS)}")


DEMO: Final = Scenario(
    gpus=(VirtualGpu(),) * 4,
    servers=(
        ScenarioServer("Qwen/Qwen3-32B", (0, 1), requests_per_second=0.6, seed=1),
        ScenarioServer("meta-llama/Llama-3.1-8B-Instruct", (2,), requests_per_second=0.5, seed=2),
        ScenarioServer("Qwen/Qwen3-8B", (2,), requests_per_second=0.25, seed=3),
    ),
)
"""One server on GPUs 0 and 1, two servers sharing GPU 2, nobody on GPU 3."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A virtual server that listens."""

    plan: ScenarioServer
    url: str
    pid: int


class VirtualNode:
    """Runs a scenario while the `with` block lasts; the servers also end when this process does.

    Raises:
        JoulemeterError: a server did not come up; the message has its own words.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._resources = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.servers: tuple[RunningServer, ...] = ()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="joulemeter-")))
            self.state = NvmlState.create(self._folder / "nvml.state", self._scenario.gpus)
            resources.callback(self._stop)
            for index in range(len(self._scenario.servers)):
                self._start(index)
            deadline = time.monotonic() + START_SECONDS
            self.servers = tuple(self._wait(index, deadline) for index in range(len(self._scenario.servers)))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment for the virtual library to answer for this node."""
        return {STATE_VARIABLE: str(self.state.path)}

    def _start(self, index: int) -> None:
        plan = self._scenario.servers[index]
        sharers = max(sum(gpu in other.gpus for other in self._scenario.servers) for gpu in plan.gpus)
        command = [
            *(sys.executable, "-m", "joulemeter.simulation.server", "--stop-with-stdin"),
            *("--state", str(self.state.path), "--ready-file", str(self._ready(index))),
            *("--model", plan.model, "--served-model-name", plan.served_model_name or plan.model),
            *("--gpus", ",".join(map(str, plan.gpus)), "--slot", str(index), "--sharers", str(sharers)),
            *("--rate", str(plan.requests_per_second), "--seed", str(plan.seed)),
        ]
        with self._log(index).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own words only
                command, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self._processes.append(process)

    def _wait(self, index: int, deadline: float) -> RunningServer:
        plan, process = self._scenario.servers[index], self._processes[index]
        while not self._ready(index).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                state = "is not up" if process.returncode is None else f"ended with {process.returncode}"
                words = self._log(index).read_text(errors="replace").strip()
                raise JoulemeterError(f"virtual server of {plan.model} {state}: {words or 'it said nothing'}")
            time.sleep(0.02)
        port = json.loads(self._ready(index).read_text())["port"]
        return RunningServer(plan, f"http://127.0.0.1:{port}", process.pid)

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for index, process in enumerate(self._processes):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()
            for gpu in self._scenario.servers[index].gpus:  # a killed one could not do it
                self.state.slot(gpu, index).vacate()

    def _ready(self, index: int) -> Path:
        return self._folder / f"server-{index}.ready"

    def _log(self, index: int) -> Path:
        return self._folder / f"server-{index}.log"
