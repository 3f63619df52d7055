"""A virtual inference server: a process that uses virtual GPUs and speaks vLLM's HTTP.

    python -m joulemeter.simulation.server --state FILE --model Qwen/Qwen3-8B --gpus 2 --slot 0 --rate 0.5

`/simulation/truth` says what it has exactly done, to compare with what was measured.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest

from joulemeter.errors import JoulemeterError
from joulemeter.simulation.completions import answer, asked
from joulemeter.simulation.engine import Engine
from joulemeter.simulation.library import STATE_VARIABLE
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.serving import Serving
from joulemeter.simulation.state import NvmlState
from joulemeter.simulation.vllm_page import VERSION, Served, VllmPage
from joulemeter.simulation.workload import PrefixCache, Traffic, arrivals

MAX_MODEL_TOKENS: Final = 131_072
CACHE_TOKENS: Final = 400_000
_TEXT: Final = "text/plain; version=1.0.0; charset=utf-8"


class VirtualServer:
    """The HTTP face of a `Serving`, and its place on the GPUs."""

    def __init__(self, options: argparse.Namespace) -> None:
        served, gpus = MODELS[options.model], options.gpus
        self._model: str = options.served_model_name or options.model
        self._memory_bytes = served.gpu_memory_bytes
        self._registry = CollectorRegistry()
        for collector in (GCCollector, PlatformCollector, ProcessCollector):
            collector(registry=self._registry)
        node = NvmlState.open(options.state)
        try:
            self._slots = [node.slot(gpu, options.slot) for gpu in gpus]
        except ValueError as error:
            raise JoulemeterError(f"--gpus, --slot: {error}") from error
        idle_watts = sum(node.idle_watts(gpu) for gpu in gpus)
        if idle_watts > served.coefficients.busy_watts:
            raise JoulemeterError(
                f"--gpus: idle they draw {idle_watts:g} W, {options.model} at work draws"
                f" {served.coefficients.busy_watts:g} W; lower the virtual GPUs' idle_watts"
            )
        self._serving = Serving(
            Engine(served.coefficients),
            VllmPage(
                self._model, self._registry, max_model_tokens=MAX_MODEL_TOKENS, cache_tokens=CACHE_TOKENS
            ),
            self._slots,
            idle_watts=lambda: sum(node.idle_watts(gpu) for gpu in gpus),
            traffic=arrivals(Traffic(options.rate), options.seed),
            sharers=options.sharers,
            start_seconds=time.monotonic(),
        )
        self._prefixes = PrefixCache()
        self._stopping = False
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping = True
        self._wake.set()

    @contextlib.contextmanager
    def on_gpus(self) -> Iterator[None]:
        """Be in the GPUs' process lists."""
        try:
            for slot in self._slots:
                slot.occupy(os.getpid(), memory_bytes=self._memory_bytes)
            yield
        finally:
            for slot in self._slots:
                slot.vacate()

    async def run(self) -> None:
        """Work in real time until stopped."""
        while not self._stopping:
            wait_seconds = self._serving.advance(time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            self._wake.clear()

    def routes(self) -> list[web.RouteDef]:
        """Return what it answers; `/metrics` and `/metrics/` differ as they do in vLLM."""
        return [
            web.get("/metrics", self._metrics),
            web.get("/metrics/", self._filtered_metrics),
            web.get("/health", self._health),
            web.get("/version", self._version),
            web.get("/v1/models", self._models),
            web.post("/v1/completions", self._complete),
            web.get("/simulation/truth", self._truth),
        ]

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": _TEXT})

    async def _filtered_metrics(self, request: web.Request) -> web.Response:
        names = request.query.getall("name[]", [])
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        page = encode(self._registry.restricted_registry(names) if names else self._registry)
        response = web.Response(body=page, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._model, "object": "model", "owned_by": "joulemeter simulation"}
        return web.json_response({"object": "list", "data": [{**model, "max_model_len": MAX_MODEL_TOKENS}]})

    async def _complete(self, request: web.Request) -> web.Response:
        try:
            wanted = asked(await request.read(), self._prefixes, max_model_tokens=MAX_MODEL_TOKENS)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error), "code": 400}}, status=400)
        done: asyncio.Future[Served] = asyncio.get_running_loop().create_future()

        def finish(served: Served) -> None:
            if not done.done():  # the client may have hung up
                done.set_result(served)

        self._serving.submit(wanted, time.monotonic(), finish)
        self._wake.set()
        return web.json_response(answer(self._model, await done, int(time.time())))

    async def _truth(self, _: web.Request) -> web.Response:
        return web.json_response(dataclasses.asdict(self._serving.truth))


async def serve(options: argparse.Namespace) -> None:
    """Listen on loopback, say so in the ready file, and work until a signal, a time limit or stdin's end."""
    server = VirtualServer(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    if options.max_seconds is not None:
        loop.call_later(options.max_seconds, server.stop)
    if options.stop_with_stdin:
        loop.add_reader(sys.stdin, server.stop)  # readable without being written to: closed
    app = web.Application()
    app.add_routes(server.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", options.port)
        await site.start()
        with server.on_gpus():
            if options.ready_file:
                _announce(options.ready_file, runner.addresses[0][1])
            await server.run()
    finally:
        await runner.cleanup()


def _announce(path: Path, port: int) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({"port": port, "pid": os.getpid()}))
    scratch.replace(path)  # whole, or not there


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; what cannot work ends with argparse's usage and status 2."""
    parser = argparse.ArgumentParser(prog="python -m joulemeter.simulation.server", description=__doc__)
    parser.add_argument(
        "--state",
        type=Path,
        default=os.environ.get(STATE_VARIABLE),
        help=f"state file; default: ${STATE_VARIABLE}",
    )
    parser.add_argument(
        "--model", required=True, choices=MODELS, help="what to serve; decides time and energy"
    )
    parser.add_argument("--served-model-name", help="name on the page; default: the model's")
    parser.add_argument("--gpus", required=True, type=_indices, help="indices, such as 0,1")
    parser.add_argument(
        "--slot", type=int, default=0, help="draw slot; no other server on these GPUs may use it"
    )
    parser.add_argument("--sharers", type=int, default=1, help="servers on these GPUs, this one included")
    parser.add_argument(
        "--port", type=int, default=0, help="on 127.0.0.1; default: any free one, see --ready-file"
    )
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests per second; default: only what is posted"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the traffic")
    parser.add_argument("--ready-file", type=Path, help="written once it listens: JSON with port and pid")
    parser.add_argument("--max-seconds", type=float, help="stop by itself after this time")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args(arguments)
    if options.state is None:
        parser.error(f"--state: name the state file of the virtual node, here or in ${STATE_VARIABLE}")
    expected = MODELS[options.model].gpus
    if len(options.gpus) != expected:
        parser.error(f"--gpus: {options.model} runs on {expected}, got {len(options.gpus)}")
    return options


def _indices(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main() -> None:
    """Run a virtual server; status 1 if the virtual node cannot be used."""
    options = parse()
    try:
        asyncio.run(serve(options))
    except (JoulemeterError, OSError) as error:  # OSError: the port is taken
        sys.exit(f"virtual server: {error}")


if __name__ == "__main__":
    main()
