"""`joulemeter demo`: the real daemon on a simulated node, with a live table of its models in the terminal."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from joulemeter.config import parse, with_overrides
from joulemeter.runtime.daemon import run_daemon
from joulemeter.runtime.exposition import Exposition
from joulemeter.runtime.observer import Observer
from joulemeter.server_config import ServerConfig
from joulemeter.simulation.library import LIBRARY_VARIABLE, load, virtual_library
from joulemeter.simulation.model_table import ModelTable
from joulemeter.simulation.node import DEMO, VirtualNode
from joulemeter.snapshot import Snapshot

REFRESH_SECONDS: Final = 2.0
SITE: Final = parse(
    {
        "zero_hold_seconds": 5,  # shorter than the default, so that the first figures show within twenty seconds
        "time_zone": "UTC",
        "pue": 1.2,
        "price": {
            "per_kwh": 0.26,
            "time_of_use": [
                {"from": "17:00", "to": "21:00", "per_kwh": 0.34},
                {"from": "22:00", "to": "06:00", "per_kwh": 0.19},
            ],
            "currency": "EUR",
            "gpu_hour": 2.0,
        },
        "grid": {
            "sources": ["fixed"],
            "fixed": {
                "intensity_grams_per_kwh": 310,
                "time_of_day": [
                    {"from": "10:00", "to": "16:00", "intensity_grams_per_kwh": 190},
                    {"from": "18:00", "to": "22:00", "intensity_grams_per_kwh": 420},
                ],
            },
        },
    }
)
"""What the node's power costs and causes, made up, as the configuration file of a real one would say it."""


def run_demo(listen: str, seconds: float | None) -> None:
    """Run the demo until interrupted, or for `seconds`.

    Raises:
        JoulemeterError: no C compiler, a virtual server that does not start, the address is taken.
    """
    print("Building the virtual NVML library and starting three virtual vLLM servers ...", flush=True)
    library = virtual_library()
    load(library)  # a real driver's library, named by the environment, would be marked simulated
    os.environ[LIBRARY_VARIABLE] = str(library)
    with VirtualNode(DEMO) as node:
        os.environ.update(node.environment)
        servers = tuple(
            ServerConfig(f"{server.url}/metrics", server_name(server.plan.model)) for server in node.servers
        )
        config = with_overrides(replace(SITE, servers=servers), (), listen)
        asyncio.run(
            run_daemon(
                config,
                simulated=True,
                extras=lambda exposition, observer: [
                    LiveTable(exposition, observer, seconds, write=_say, redraws=sys.stdout.isatty())
                ],
            )
        )


def server_name(model: str) -> str:
    """Return what the demo calls the server of a model."""
    return model.rpartition("/")[2].lower()


def _say(text: str) -> None:
    print(text, end="", flush=True)


class LiveTable:
    """Prints what the page says, model by model, until stopped or its time is up."""

    name = "live table"

    def __init__(
        self,
        exposition: Exposition,
        observer: Observer,
        seconds: float | None,
        *,
        write: Callable[[str], object],
        redraws: bool,
    ) -> None:
        self._exposition = exposition
        self._observer = observer
        self._seconds = seconds
        self._write = write
        self._redraws = redraws
        self._table = ModelTable()

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
        self._table.advance(snapshot)
        text = f"SIMULATED node: virtual GPUs, virtual servers. Metrics: http://{host}:{port}/metrics\n{self._table.text()}"
        rewind = f"\x1b[{lines}F\x1b[J" if lines and self._redraws else ""
        self._write(f"{rewind}{text}\n")
        return text.count("\n") + 1
