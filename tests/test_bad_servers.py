"""One daemon with a good server and, beside it, everything that can stand behind a port; and a clock that jumps.

The real loop, meter and client, on virtual GPUs. The good server's GPU fails one call in ten all the while.
"""

import ast
import asyncio
import itertools
import json
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pynvml
import pytest
from daemons import Page, falls

import joulemeter
from joulemeter.baselines import Baselines
from joulemeter.collector import render
from joulemeter.config import Config, ObservationSettings
from joulemeter.meters.nvml import NvmlMeter
from joulemeter.runtime.daemon import build_observer, grid_keeper
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.http import PageClient
from joulemeter.runtime.observer import Observer
from joulemeter.runtime.watch import MAX_INTERVAL_SECONDS
from joulemeter.server_config import ServerConfig
from joulemeter.simulation.library import STATE_VARIABLE
from joulemeter.simulation.node import Scenario, ScenarioServer, VirtualNode
from joulemeter.simulation.state import VirtualGpu
from joulemeter.snapshot import Snapshot

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
IDLE_WATTS = 90.0
LOADED_SECONDS = 14.0
INTERVAL_SECONDS = 0.5
ENERGY = "DeviceGetTotalEnergyConsumption"

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# ---------------------------------------------------------------------------------------------- bad servers


def page(*values: str) -> str:
    return "".join(
        f'vllm:generation_tokens_total{{engine="{engine}",model_name="m"}} {value}\n'
        for engine, value in enumerate(values)
    )


def answering(body: str | bytes, head: str = "HTTP/1.1 200 OK\r\n") -> Reply:
    data = body.encode() if isinstance(body, str) else body
    whole = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole)

    return reply


async def hundred_megabytes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(1600):
        writer.write(b"# " + b"x" * 65_533 + b"\n")
        await writer.drain()


async def one_byte_a_second(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = page("7").encode()
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    for byte in body:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client has had enough


async def closing_in_the_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + page("7").encode())


async def noise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(random.Random(1).randbytes(2000) + b"\r\n\r\n")


BAD: dict[str, tuple[Reply, str | None, str]] = {
    "html": (answering("<!DOCTYPE html><html><body>vllm</body></html>"), "not_metrics", "html ("),
    "garbage": (answering(random.Random(2).randbytes(5000)), "not_metrics", "garbage ("),
    "noise": (noise, "not_metrics", "the answer is not HTTP; is the port right?"),
    "nan": (answering(page("NaN")), "bad_value", "generation_tokens_total"),
    "negative": (answering(page("-1")), "bad_value", "generation_tokens_total"),
    "huge": (hundred_megabytes, "too_large", "body of more than 16 MiB; is this the URL of a metrics page?"),
    "many": (answering(page(*["1"] * 50_000)), "too_many_series", "series"),
    "moved": (
        answering("", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/metrics\r\n"),
        "redirect",
        "redirects to 'http://127.0.0.1:1/metrics', not followed; set the server's url to it",
    ),
    "broken": (answering("oops", "HTTP/1.1 500 Internal Server Error\r\n"), "http_status", "HTTP 500"),
    "dripping": (one_byte_a_second, None, "no whole answer within 1 s"),
    "silent": (nothing, None, "no whole answer within 1 s"),
    "closing": (closing_in_the_body, None, "the connection broke before the answer was whole"),
}
"""What each server does, the reason for which its answers are refused (None: there is none), and what is said."""


@contextmanager
def bad_servers() -> Iterator[dict[str, int]]:
    """Run them in a thread of their own; gives their ports."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ports: dict[str, int] = {}
    ready = threading.Event()

    async def serve(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reply(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # cut off, as they should be
        finally:
            writer.close()

    async def run() -> None:
        servers: list[asyncio.Server] = []
        for name, (reply, _, _) in BAD.items():

            def connected(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply = reply
            ) -> Awaitable[None]:
                return serve(reply, reader, writer)

            servers.append(await asyncio.start_server(connected, "127.0.0.1", 0))
            ports[name] = servers[-1].sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        for server in servers:
            server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # all clients are gone: they notice when they read or write
            await asyncio.wait(left, timeout=5)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield ports
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


# ---------------------------------------------------------------------------------------------- the recording


@dataclass
class Recording:
    """Every page of a run, and what was true meanwhile."""

    pages: list[Page]
    seconds: float
    usage: dict[str, int]
    used_joules: list[float]
    log: list[logging.LogRecord]


class Keeper(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def keeping_the_log() -> Iterator[Keeper]:
    log, keeper = logging.getLogger("joulemeter"), Keeper()
    level = log.level
    log.addHandler(keeper)
    log.setLevel(logging.INFO)
    try:
        yield keeper
    finally:
        log.removeHandler(keeper)
        log.setLevel(level)


@pytest.fixture(scope="module")
def recording(nvml_library: Path) -> Iterator[Recording]:
    gpus = (VirtualGpu(idle_watts=0.0),) * (1 + len(BAD))
    with ExitStack() as stack:
        node = stack.enter_context(VirtualNode(Scenario(gpus, (ScenarioServer(LLAMA, (0,)),))))
        ports = stack.enter_context(bad_servers())
        keeper = stack.enter_context(keeping_the_log())
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv(STATE_VARIABLE, os.fspath(node.state.path))
        for function in (ENERGY, "DeviceGetFieldValues"):
            node.state.set_error(0, function, pynvml.NVML_ERROR_UNKNOWN, one_in=10)
        yield asyncio.run(record(node, ports, keeper))


async def record(node: VirtualNode, ports: dict[str, int], keeper: Keeper) -> Recording:
    """Tell the story: the good server works, then rests until its work is on the page."""
    servers = [ServerConfig(f"{node.servers[0].url}/metrics", "good", gpus=(0,))]
    for gpu, (name, port) in enumerate(ports.items(), start=1):
        servers.append(ServerConfig(f"http://127.0.0.1:{port}/metrics", name, gpus=(gpu,)))
    config = Config(
        servers=tuple(servers),
        zero_hold_seconds=0.0,
        observation=ObservationSettings(INTERVAL_SECONDS, timeout_seconds=1.0, give_up_seconds=6.0),
    )
    jumps = itertools.cycle([1.9e9, 1.0e9, 0.0, 1.7e9])
    async with PageClient(timeout_seconds=1.0) as client:
        observer = build_observer(
            config,
            client,
            NvmlMeter(),
            grid=grid_keeper(config, GridClient()),  # nothing to ask: the shipped factor
            baselines=Baselines(604_800.0, lambda: 0.0),
            simulated=True,
            wall_clock=lambda: next(jumps),
        )
        stop = asyncio.Event()
        begun = time.monotonic()
        running = asyncio.create_task(observer.run(stop))
        snapshots: list[Snapshot] = []
        keeping = asyncio.create_task(keep(observer, snapshots))
        try:
            usage, used_joules = await tell(node, snapshots, running)
        finally:
            seconds = time.monotonic() - begun
            keeping.cancel()
            stop.set()
            await running
    pages = [Page(render(snapshot, "")[0].decode()) for snapshot in snapshots]
    return Recording(pages, seconds, usage, used_joules, keeper.records)


async def keep(observer: Observer, snapshots: list[Snapshot]) -> None:
    while True:
        if observer.latest is not None and (not snapshots or observer.latest is not snapshots[-1]):
            snapshots.append(observer.latest)
        await asyncio.sleep(0.05)


async def tell(
    node: VirtualNode, snapshots: list[Snapshot], running: asyncio.Task[None]
) -> tuple[dict[str, int], list[float]]:
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not condition():
                if running.done():
                    await running
                await asyncio.sleep(0.1)

    def shown(metric: str, **labels: str) -> float:
        return Page(render(snapshots[-1], "")[0].decode()).total(metric, **labels)

    gpus = range(node.state.gpu_count)
    await until(lambda: bool(snapshots) and shown("server_gpu_info", server="good") == 1)
    await until(lambda: len(snapshots[-1].samples["joulemeter_gpu_energy_joules_total"]) == len(gpus))
    for gpu in gpus:
        node.state.set_idle_watts(gpu, IDLE_WATTS)
    usage = await work(node.servers[0].url)
    await until(lambda: shown("model_tokens_total", server="good", kind="generation") == usage["generation"])
    for gpu in gpus:
        node.state.set_idle_watts(gpu, 0.0)
    used_joules = [node.state.energy_joules(gpu) for gpu in gpus]
    await until(lambda: abs(shown("gpu_energy_joules_total") - sum(used_joules)) < 0.1)
    return usage, used_joules


async def work(url: str) -> dict[str, int]:
    """Send the good server requests for a while; return sums of what it says it did."""
    usage = {"prompt": 0, "generation": 0}
    end = time.monotonic() + LOADED_SECONDS
    numbers = random.Random(3)
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            prompt = [numbers.randrange(50_000) for _ in range(numbers.randrange(1, 300))]
            body = {"model": LLAMA, "prompt": prompt, "max_tokens": numbers.randrange(1, 60)}
            async with session.post(f"{url}/v1/completions", json=body) as response:
                told = json.loads(await response.read())["usage"]
            usage["prompt"] += told["prompt_tokens"]
            usage["generation"] += told["completion_tokens"]
            await asyncio.sleep(0.2)
    return usage


# ---------------------------------------------------------------------------------------------- what came of it


def test_energy_adds_up_on_every_page(recording):
    assert len(recording.pages) > 20
    assert max(one.imbalance() for one in recording.pages) <= 1e-9
    assert falls(recording.pages) == []


def test_energy_is_complete_although_one_call_in_ten_fails(recording):
    last = recording.pages[-1]
    measured = [last.value("gpu_energy_joules_total", gpu=str(gpu)) for gpu in range(len(BAD) + 1)]
    assert measured == pytest.approx(recording.used_joules, abs=0.002)
    assert measured[0] > 1000
    assert last.total("energy_meter_resets_total") == 0
    assert not [one for one in recording.log if one.levelno >= logging.WARNING and "gpu" in one.getMessage()]


def test_good_server_goes_on_undisturbed(recording):
    last = recording.pages[-1]
    up = [one.value("source_up", kind="server", source="good") for one in recording.pages]
    assert set(up[up.index(1.0) :]) == {1.0}
    for kind, tokens in recording.usage.items():
        assert tokens > 100
        assert last.value("model_tokens_total", server="good", kind=kind) == tokens
    assert last.total("unattributed_tokens_total") == 0
    assert last.total("unattributed_energy_joules_total", gpu="0") == 0
    attributed = last.total("model_energy_joules_total", server="good")
    assert attributed + last.value("pending_energy_joules", gpu="0") == pytest.approx(
        recording.used_joules[0], abs=0.01
    )
    assert attributed > recording.used_joules[0] / 2
    observations = last.value("observation_duration_seconds_count", source="good")
    assert observations > recording.seconds / MAX_INTERVAL_SECONDS


@pytest.mark.parametrize("name", BAD)
def test_bad_server_is_down_counted_and_named_once(recording, name):
    _, reason, words = BAD[name]
    last = recording.pages[-1]
    assert last.value("source_up", kind="server", source=name) == 0
    refused = {
        dict(labels)["reason"]: count
        for (metric, labels), count in last.samples.items()
        if metric == "refused_pages_total" and ("source", name) in labels and count
    }
    assert set(refused) == ({reason} if reason else set())
    assert reason is None or refused[reason] >= 2
    said = [one for one in recording.log if one.getMessage().startswith(f"{name} (http://127.0.0.1:")]
    assert [one.levelname for one in said] == ["WARNING"]
    assert words in said[0].getMessage()
    assert said[0].getMessage().endswith("; its energy is pending")
    assert len(said[0].getMessage()) < 400


def test_energy_of_the_bad_servers_gpus_is_nobodys(recording):
    last = recording.pages[-1]
    for gpu in range(1, len(BAD) + 1):
        lost = last.value("unattributed_energy_joules_total", gpu=str(gpu), reason="server_unreachable")
        assert lost > recording.used_joules[gpu] / 2
        assert last.value("unattributed_energy_joules_total", gpu=str(gpu), reason="no_server") == 0


def test_wall_clock_that_jumps_moves_its_own_figure_only(recording):
    """Energy, windows and deadlines above went on while Unix time sprang by decades at each tick."""
    shown = {one.value("last_tick_timestamp_seconds") for one in recording.pages}
    assert shown == {1.9e9, 1.0e9, 0.0, 1.7e9}
    assert (
        max(one.total("unattributed_energy_joules_total", reason="meter_gap") for one in recording.pages) == 0
    )


def test_only_what_is_shown_and_tariffs_ask_for_the_wall_clock():
    """A clock that jumps must move no joule: everything that decides runs on CLOCK_MONOTONIC.

    Prices by time of day follow the calendar, and so does what a grid source says of an hour, when it says it.
    """
    package = Path(joulemeter.__file__).parent
    asking = {
        (path.relative_to(package).as_posix(), node.attr)
        for path in package.rglob("*.py")
        if "simulation" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("time", "time"), ("time", "time_ns"), ("datetime", "now")}
    }
    showing = {("runtime/daemon.py", "time"), ("runtime/probe.py", "time"), ("runtime/state.py", "time")}
    reporting = {("runtime/report_command.py", "time")}  # a command of its own: which month it is
    assert asking == showing | reporting | {("runtime/grid_keeper.py", "time")}
