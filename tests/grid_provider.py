"""A provider of grid data, played by a real HTTP server on the loopback interface."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit

from aiohttp import web

from joulemeter.errors import GridError
from joulemeter.grids import Dialogue, HttpAnswer, HttpRequest, LiveSource
from joulemeter.model import GridAnswer, Signal
from joulemeter.settings import Secret


@dataclass
class Clocks:
    """Monotonic and wall time that pass when a test says so."""

    mono: float = 5000.0
    unix: float = 1_795_000_000.0

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.unix

    def pass_seconds(self, seconds: float) -> None:
        self.mono += seconds
        self.unix += seconds


@dataclass
class Answer:
    """What the provider does when it is asked next."""

    body: object = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    cut: bool = False
    """Close the connection in the middle of the body."""


@dataclass
class Provider:
    """Answers as `answer` says, by its own clock; `asked` holds the paths and queries that came."""

    clocks: Clocks
    url: str = ""
    answer: Callable[[web.Request], Answer] = lambda _request: Answer("{}")
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def says(self, body: object = "", status: int = 200, **more: object) -> None:
        """Give the same answer from now on."""
        self.answer = lambda _request: Answer(body, status, **more)  # type: ignore[arg-type]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(str(request.rel_url))
        self.headers.append(dict(request.headers))
        answer = self.answer(request)
        await asyncio.sleep(answer.delay_seconds)
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        if answer.cut:
            response = web.StreamResponse(headers={"Content-Length": str(len(body) + 100)})
            await response.prepare(request)
            await response.write(body.encode())
            assert request.transport is not None
            request.transport.close()
            return response
        date = format_datetime(datetime.fromtimestamp(self.clocks.unix, UTC), usegmt=True)
        return web.Response(text=body, status=answer.status, headers={"Date": date} | answer.headers)


@asynccontextmanager
async def provider(clocks: Clocks) -> AsyncIterator[Provider]:
    """Run a provider on a free port of the loopback interface."""
    played = Provider(clocks)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", played.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        played.url = f"http://{host}:{port}"
        yield played
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Played:
    """A real source whose questions go to the played provider instead: same paths, queries and headers."""

    real: LiveSource
    url: str

    @property
    def name(self) -> str:
        return self.real.name

    @property
    def signal(self) -> Signal:
        return self.real.signal

    @property
    def secret(self) -> Secret | None:
        return self.real.secret

    @property
    def poll_seconds(self) -> float:
        return self.real.poll_seconds

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:
        dialogue = self.real.ask(secret, now_timestamp_seconds)
        return self._relayed(dialogue)

    def _relayed(self, dialogue: Dialogue) -> Generator[HttpRequest, HttpAnswer, GridAnswer]:
        request = next(dialogue)
        while True:
            here = replace(request, url=f"{self.url}{urlsplit(request.url).path}")
            try:
                try:
                    answer = yield here
                except GridError as error:
                    request = dialogue.throw(error)
                else:
                    request = dialogue.send(answer)
            except StopIteration as done:
                found: GridAnswer = done.value
                return found
