"""Asks grid providers: bounded in size and time, one question at a time."""

import asyncio
import os
import ssl
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

import aiohttp

from joulemeter.authorities import trusting
from joulemeter.errors import GridError
from joulemeter.grid_answers import answered_at
from joulemeter.grids import HttpAnswer, HttpRequest, LiveSource
from joulemeter.model import GridAnswer
from joulemeter.settings import Secret

TIMEOUT_SECONDS: Final = 10.0
MAX_BODY_BYTES: Final = 2**20
MAX_SECRET_BYTES: Final = 64 * 1024


class GridClient:
    """Holds dialogues with live sources; an async context manager.

    Unlike the servers on this node, providers are far away: proxies named by the environment are used.

    Args:
        timeout_seconds: for one whole answer.
        environment: where secrets may be, by variable.
    """

    def __init__(
        self, *, timeout_seconds: float = TIMEOUT_SECONDS, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "User-Agent": f"joulemeter/{version('joulemeter')}"},
            trust_env=True,
            timeout=aiohttp.ClientTimeout(total=None),  # `_ask` bounds the whole instead
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def converse(
        self, source: LiveSource, now_timestamp_seconds: float
    ) -> tuple[GridAnswer, float | None]:
        """Hold one dialogue.

        Returns:
            What the source knows, and the provider's own time of its last answer (Unix time) where it says.

        Raises:
            GridError: no usable answer came. Its message does not hold the secret.
        """
        secret = await asyncio.to_thread(self._read, source)
        try:
            dialogue = source.ask(secret, now_timestamp_seconds)
            request = next(dialogue)
            said_timestamp: float | None = None
            while True:
                try:
                    answer = await self._ask(source, request)
                except GridError as error:
                    step = partial(dialogue.throw, error)  # it may do without this answer
                else:
                    said_timestamp = answered_at(answer) or said_timestamp
                    step = partial(dialogue.send, answer)
                try:
                    request = step()
                except StopIteration as done:
                    return _with_data(done.value, source), said_timestamp
        except GridError as error:
            if secret and secret in str(error):  # some providers repeat what they were sent
                raise GridError(
                    error.outcome,
                    str(error).replace(secret, "<secret>"),
                    retry_after_seconds=error.retry_after_seconds,
                    permanent=error.permanent,
                ) from None
            raise

    async def _ask(self, source: LiveSource, request: HttpRequest) -> HttpAnswer:
        if self._session is None:
            raise RuntimeError("GridClient is used outside `async with`")
        place = f"grid.{source.name}: {request.url}"
        try:
            tls = await asyncio.to_thread(_tls, request)
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.get(
                    request.url,
                    params=dict(request.query),
                    headers=dict(request.headers),
                    ssl=tls,
                    allow_redirects=False,
                ) as response,
            ):
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise GridError(
                            "invalid", f"{place}: the answer is larger than {MAX_BODY_BYTES >> 20} MiB"
                        )
                headers = {name.lower(): value for name, value in response.headers.items()}
                return HttpAnswer(response.status, body, headers)
        except TimeoutError as error:
            raise GridError(
                "error", f"{place}: no whole answer within {self._timeout_seconds:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GridError(
                "error", f"{place}: {str(error) or type(error).__name__}; can this node reach it?"
            ) from error

    def _read(self, source: LiveSource) -> str:
        where = source.secret
        return "" if where is None else read_secret(where, source.name, self._environment)


def _with_data(answer: GridAnswer, source: LiveSource) -> GridAnswer:
    if not answer.intervals:
        raise GridError("no_data", f"grid.{source.name}: the answer holds no value")
    return answer


def read_secret(where: Secret, source: str, environment: Mapping[str, str]) -> str:
    """Read a token or password; blocking.

    Raises:
        GridError: it is not there, or is no single line of text. The message does not hold it.
    """
    try:
        if where.file is not None:
            with where.file.open("rb") as file:
                text = file.read(MAX_SECRET_BYTES).decode().strip()
            place = f"file {where.file}"
        else:
            text = environment[where.variable or ""].strip()
            place = f"environment variable {where.variable}"
    except KeyError:
        raise GridError(
            "auth", f"grid.{source}: environment variable {where.variable} is not set; set it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise GridError(
            "auth",
            f"grid.{source}: file {where.file} cannot be read as text: {type(error).__name__}; mend it",
        ) from None
    if not text or not text.isprintable():
        raise GridError("auth", f"grid.{source}: {place} must hold one line of text; rewrite it")
    return text


def _tls(request: HttpRequest) -> ssl.SSLContext | bool:
    """Read the certificates anew, for they may have been renewed."""
    if request.ca_file is None and request.client_files is None:
        return True
    try:
        context = trusting(request.ca_file)
        if request.client_files is not None:
            certificate, key = map(str, request.client_files)
            context.load_cert_chain(
                certificate, key, password=""
            )  # an encrypted one is refused, not asked for
    except OSError as error:
        files = ", ".join(str(file) for file in (request.ca_file, *(request.client_files or ())) if file)
        raise OSError(f"a file of {files} cannot be used: {error}") from error
    return context
