"""The one listener: /metrics, /healthz, /readyz, /grid.json and a page that links to them."""

import asyncio
import gzip
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client.exposition import choose_encoder

from joulemeter.collector import Renderer
from joulemeter.errors import ListenError
from joulemeter.runtime.web_access import WebAccess
from joulemeter.snapshot import Snapshot

log = logging.getLogger(__name__)
requests_log = logging.getLogger(f"{__name__}.requests")
"""aiohttp's words about requests that failed."""

GZIP_LEVEL = 1
"""Level 9 takes seven times as long for a few percent (1,000 series: 2.4 ms against 0.33 ms)."""
GZIP_REFUSED = re.compile(r"gzip\s*;\s*q=0(\.0*)?\s*(,|$)", re.IGNORECASE)
PATHS = {
    "/metrics": "the series, as text or OpenMetrics; 503 before the first snapshot",
    "/healthz": "200 while the loops tick, else 503 with the reason",
    "/readyz": "200 once the first snapshot is published, GPU or not; 503 before",
    "/grid.json": "what is known of the grid from the live source in use, for the source `relay` of other nodes",
}
INDEX = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>joulemeter</title></head>
<body><h1>joulemeter</h1><p>GPU energy by model, phase and server. Energy of GPU boards only.</p>
<ul>{"".join(f'<li><a href="{path}">{path}</a>: {says}</li>' for path, says in PATHS.items())}</ul></body></html>
"""


Render = Callable[[Snapshot, str], tuple[bytes, str]]
"""A snapshot and an Accept header in; a page and its content type out."""


def is_our_fault(record: logging.LogRecord) -> bool:
    """Leave out requests that were not HTTP: strangers could fill the log, and the message repeats a password."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


requests_log.addFilter(is_our_fault)


@dataclass(frozen=True, slots=True)
class Body:
    """A formatted page."""

    content: bytes
    content_type: str
    encoding: str | None


class PageCache:
    """Formats each snapshot once per format, in a worker thread, however many scrape (law 4)."""

    def __init__(self, latest: Callable[[], Snapshot | None], render: Render | None = None) -> None:
        self._latest = latest
        self._render = render or Renderer()
        self._shown: Snapshot | None = None
        self._bodies: dict[tuple[str, bool], asyncio.Task[Body]] = {}

    async def body(self, accept: str, *, compressed: bool) -> Body | None:
        """Return the page of the latest snapshot, or None before the first."""
        snapshot = self._latest()
        if snapshot is None:
            return None
        if snapshot is not self._shown:
            self._shown, self._bodies = snapshot, {}
        key = (choose_encoder(accept)[1], compressed)
        if key not in self._bodies:
            self._bodies[key] = asyncio.create_task(
                asyncio.to_thread(self._format, snapshot, accept, compressed)
            )
        return await asyncio.shield(self._bodies[key])

    def _format(self, snapshot: Snapshot, accept: str, compressed: bool) -> Body:
        content, content_type = self._render(snapshot, accept)
        if compressed:
            return Body(gzip.compress(content, GZIP_LEVEL), content_type, "gzip")
        return Body(content, content_type, None)


class Exposition:
    """Serves the page until stopped.

    Args:
        host, port: where to listen; port 0 takes a free one.
        latest: the last published snapshot, or None before the first.
        problem: what is wrong with the daemon's loops, or None while they tick.
        grid: the text of /grid.json.
        render: formats a page, by default a `Renderer`; runs in a worker thread.
        access: who may ask, and whether over TLS; None for everyone, in plain HTTP.
    """

    name = "exposition"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        latest: Callable[[], Snapshot | None],
        problem: Callable[[], str | None],
        grid: Callable[[], str],
        render: Render | None = None,
        access: WebAccess | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._latest = latest
        self._problem = problem
        self._grid = grid
        self._pages = PageCache(latest, render)
        self._access = access
        self.bound: tuple[str, int] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`. Raises ListenError if the address is taken or not ours."""
        access = self._access
        app = web.Application()
        if access is not None:
            access.protect(app)
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/grid.json", self._grid_json)
        runner = web.AppRunner(
            app, access_log=None, logger=requests_log, handle_signals=False, shutdown_timeout=0.5
        )
        await runner.setup()
        tls = access.tls if access else None
        try:
            site = web.TCPSite(runner, self._host, self._port, ssl_context=tls)
            try:
                await site.start()
            except OSError as error:
                raise ListenError(
                    f"listen: {self._host}:{self._port}: {error.strerror or error}:"
                    " stop what listens there, or choose another with --listen HOST:PORT"
                ) from error
            self.bound = runner.addresses[0][:2]
            log.info("listening on %s://%s:%d/metrics", "https" if tls else "http", *self.bound)
            await (access.follow(runner, stop) if access else stop.wait())
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encodings = request.headers.get("Accept-Encoding", "")
        compressed = "gzip" in encodings.lower() and not GZIP_REFUSED.search(encodings)
        body = await self._pages.body(request.headers.get("Accept", ""), compressed=compressed)
        if body is None:
            return web.Response(status=503, text="no snapshot yet\n")
        headers = {"Content-Type": body.content_type, "Vary": "Accept, Accept-Encoding"}
        if body.encoding:
            headers["Content-Encoding"] = body.encoding
        return web.Response(body=body.content, headers=headers)

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._problem()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._latest() is not None
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "no snapshot yet\n")

    async def _grid_json(self, _: web.Request) -> web.Response:
        return web.Response(text=self._grid(), content_type="application/json")

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=INDEX, content_type="text/html")
