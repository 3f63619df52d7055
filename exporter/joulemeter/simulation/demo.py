"""`joulemeter demo`: the real daemon on a simulated node, with a live table of its models in the terminal."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

from joulemeter import catalog
from joulemeter.config import Config, with_overrides
from joulemeter.runtime.daemon import run_daemon
from joulemeter.runtime.exposition import Exposition
from joulemeter.runtime.observer import Observer
from joulemeter.server_config import ServerConfig
from joulemeter.simulation.library import LIBRARY_VARIABLE, virtual_library
from joulemeter.simulation.node import DEMO, VirtualNode
from joulemeter.snapshot import Snapshot

REFRESH_SECONDS: Final = 2.0
ZERO_HOLD_SECONDS: Final = 5.0
"""Shorter than the daemon's default, so that the first figures show within twenty seconds."""

ModelSums = dict[tuple[str, str], dict[str, float]]


def run_demo(listen: str, seconds: float | None) -> None:
    """Run the demo until interrupted, or for `seconds`.

    Raises:
        JoulemeterError: no C compiler, a virtual server that does not start, the address is taken.
    """
    print("Building the virtual NVML library and starting three virtual vLLM servers ...", flush=True)
    os.environ[LIBRARY_VARIABLE] = str(virtual_library())
    with VirtualNode(DEMO) as node:
        os.environ.update(node.environment)
        servers = tuple(
            ServerConfig(f"{server.url}/metrics", server.plan.model.rpartition("/")[2].lower())
            for server in node.servers
        )
        config = with_overrides(Config(servers=servers, zero_hold_seconds=ZERO_HOLD_SECONDS), (), listen)
        asyncio.run(
            run_daemon(
                config,
                simulated=True,
                extras=lambda exposition, observer: [LiveTable(exposition, observer, seconds)],
            )
        )


class LiveTable:
    """Prints what the page says, model by model, until stopped or its time is up."""

    name = "live table"

    def __init__(
        self,
        exposition: Exposition,
        observer: Observer,
        seconds: float | None,
        *,
        write: Callable[[str], object] = sys.stdout.write,
    ) -> None:
        self._exposition = exposition
        self._observer = observer
        self._seconds = seconds
        self._write = write

    async def run(self, stop: asyncio.Event) -> None:
        """Show until `stop`; with a time limit, set it."""
        loop = asyncio.get_running_loop()
        end = None if self._seconds is None else loop.time() + self._seconds
        lines = 0
        while not stop.is_set():
            if self._observer.latest is not None and self._exposition.bound is not None:
                lines = self._show(self._observer.latest, lines)
            if end is not None and loop.time() >= end:
                stop.set()
            try:
                async with asyncio.timeout(
                    REFRESH_SECONDS if end is None else min(REFRESH_SECONDS, max(0.0, end - loop.time()))
                ):
                    await stop.wait()
            except TimeoutError:
                continue
        self._write("\n")

    def _show(self, snapshot: Snapshot, lines: int) -> int:
        host, port = self._exposition.bound or ("", 0)
        text = f"SIMULATED node: virtual GPUs, virtual servers. Metrics: http://{host}:{port}/metrics\n{table(snapshot)}"
        rewind = f"\x1b[{lines}F\x1b[J" if lines and sys.stdout.isatty() else ""
        self._write(f"{rewind}{text}\n")
        sys.stdout.flush()
        return text.count("\n") + 1


def table(snapshot: Snapshot) -> str:
    """Per model: tokens, mean J/token by phase since the start, and the share of the node's energy."""
    joules, tokens = _by_model(snapshot, catalog.MODEL_ENERGY), _by_model(snapshot, catalog.MODEL_TOKENS)
    measured = sum(snapshot.samples.get(catalog.GPU_ENERGY.name, {}).values())
    pending = sum(snapshot.samples.get(catalog.PENDING_ENERGY.name, {}).values())
    rows = [
        f"{'model':<34}{'energy kJ':>11}{'prompt tok':>12}{'gener. tok':>12}"
        f"{'J/prompt':>10}{'J/gener.':>10}{'idle':>7}{'of node':>9}"
    ]
    for key in sorted(joules):
        phases, kinds = joules[key], tokens.get(key, {})
        total = sum(phases.values())
        rows.append(
            f"{key[1]:<34}{total / 1e3:>11.2f}{kinds.get('prompt', 0):>12.0f}{kinds.get('generation', 0):>12.0f}"
            f"{_ratio(phases.get('prefill', 0), kinds.get('prompt', 0)):>10}"
            f"{_ratio(phases.get('decode', 0), kinds.get('generation', 0)):>10}"
            f"{_share(phases.get('idle', 0), total):>7}{_share(total, measured):>9}"
        )
    rows.append(
        f"measured {measured / 1e3:.2f} kJ, of which {_share(pending, measured)} pending"
        " (the split works in windows of 10 s)"
    )
    return "\n".join(rows)


def _by_model(snapshot: Snapshot, metric: catalog.Metric) -> ModelSums:
    sums: ModelSums = {}
    for (server, model, _, _, part), value in snapshot.samples.get(metric.name, {}).items():
        sums.setdefault((server, model), {})[part] = value
    return sums


def _ratio(joules: float, tokens: float) -> str:
    return f"{joules / tokens:.3f}" if tokens else "-"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
