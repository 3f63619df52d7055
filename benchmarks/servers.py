"""Eight processes that answer with a recorded vLLM page whose counters move, and hold a virtual GPU each.

    python -m benchmarks.servers --state FILE

A process has two ports with the same counters: one whose `/metrics/?name[]=...` renders only what was asked
for, as vLLM's does, and one that answers everything with the whole page. Standard output has one JSON line
with both lists of ports once all listen; they end when standard input is closed.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

from aiohttp import web

from joulemeter.simulation.state import NvmlState

RECORDED: Final = Path(__file__).parents[1] / "tests/fixtures/dialects/vllm/0.32.0-burst-after.prom"
"""Recorded from vLLM 0.32.0; 50 kB, as a served model's page."""
GROWTH_PER_SECOND: Final = 0.05
"""Of the recorded count: 120 generated tokens a second."""
RUNNING: Final = 4.0
SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{.*\})? (?P<value>\S+)")
MOVES: Final = re.compile(r"vllm:.*_(total|bucket|count|sum)")
CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the page: a comment (`name` is the family it belongs to) or a sample, moving or not."""

    name: str
    text: str
    base: float | None = None

    def at(self, growth: float) -> str:
        """Write the line when counters have grown by `growth` of what was recorded."""
        if self.base is None:
            return self.text
        value = self.base * (1 + growth)
        return f"{self.text}{float(round(value)) if self.base.is_integer() else value}"


def lines(page: str, model: str) -> list[Line]:
    """Take a page apart, as a page of `model`."""
    found = []
    for text in page.replace('model_name="tiny"', f'model_name="{model}"').splitlines():
        sample = SAMPLE.fullmatch(text)
        if sample is None:
            found.append(Line(text.split()[2], text))
        elif sample["name"] == "vllm:num_requests_running":
            found.append(Line(sample["name"], text[: sample.start("value")] + str(RUNNING)))
        elif MOVES.fullmatch(sample["name"]):
            value = float(sample["value"])
            found.append(Line(sample["name"], text[: sample.start("value")], value))
        else:
            found.append(Line(sample["name"], text))
    return found


def restricted(page: Collection[Line], names: Collection[str]) -> list[Line]:
    """Keep what prometheus_client's restricted registry renders: these samples and their families' comments."""
    families = {name.removesuffix("_total") for name in names} | set(names)
    return [line for line in page if line.name in (families if line.text.startswith("#") else names)]


def app(page: list[Line], *, filters: bool) -> web.Application:
    """One server's HTTP face."""
    begun = time.monotonic()

    async def metrics(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", []) if filters else []
        shown = restricted(page, frozenset(names)) if names else page
        growth = GROWTH_PER_SECOND * (time.monotonic() - begun)
        body = "".join(f"{line.at(growth)}\n" for line in shown)
        return web.Response(body=body.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    built = web.Application()
    built.router.add_get("/metrics", metrics)
    built.router.add_get("/metrics/", metrics)
    built.router.add_get("/version", version)
    return built


async def serve(index: int, state: Path, ready: "SimpleQueue[tuple[int, int, int]]") -> None:
    """Serve one model on two ports, for ever."""
    page = lines(RECORDED.read_text(encoding="utf-8"), f"model-{index}")
    ports = []
    for filters in (True, False):
        runner = web.AppRunner(app(page, filters=filters), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(int(runner.addresses[0][1]))
    NvmlState.open(state).slot(index, 0).occupy(os.getpid(), memory_bytes=2**34)
    ready.put((index, ports[0], ports[1]))
    await asyncio.Event().wait()


def _child(index: int, state: Path, ready: "SimpleQueue[tuple[int, int, int]]") -> None:
    asyncio.run(serve(index, state, ready))


def main() -> None:
    """Start one process a GPU, say where they listen, and end them when standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--state", type=Path, required=True)
    options = parser.parse_args()
    fork = multiprocessing.get_context("fork")  # aiohttp is imported once, and its memory shared
    ready: SimpleQueue[tuple[int, int, int]] = fork.SimpleQueue()
    count = NvmlState.open(options.state).gpu_count
    for index in range(count):
        fork.Process(target=_child, args=(index, options.state, ready), daemon=True).start()
    ports = sorted(ready.get() for _ in range(count))
    answer = {"filtering": [one for _, one, _ in ports], "whole": [other for _, _, other in ports]}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()
    sys.stdin.read()  # daemonic children end with this process


if __name__ == "__main__":
    main()
