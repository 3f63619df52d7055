"""The one HTTP client: bounded in size and time, and polite to the servers it asks."""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from joulemeter.authorities import trusting
from joulemeter.errors import PageError, ServerUnreachableError
from joulemeter.runtime.answers import read_body, refuse_status
from joulemeter.server_config import ServerConfig

ACCEPT: Final = "text/plain;version=0.0.4"
"""Text, for prometheus_client 0.23 to 0.26 answers OpenMetrics with sample names that lost their colons."""
MAX_SECRET_BYTES: Final = 64 * 1024
KEEP_ALIVE_SECONDS: Final = 4.0
"""Below the 5 s after which uvicorn closes an idle connection, so that we never ask on a dying one."""
REMEMBERED_TARGETS: Final = 256
"""A node's servers are asked the same every second; quoting twenty names costs as much as asking."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete body, and (monotonic) when it was asked for and when its first byte came.

    Servers render the whole page before they send its head, so the numbers are from between the two.
    """

    body: str
    asked_at_seconds: float
    answered_at_seconds: float

    @property
    def at_seconds(self) -> float:
        """Midpoint of asking and being answered."""
        return (self.asked_at_seconds + self.answered_at_seconds) / 2

    @property
    def duration_seconds(self) -> float:
        """Time that the server took."""
        return self.answered_at_seconds - self.asked_at_seconds


class PageClient:
    """Asks servers for small texts, over kept connections; an async context manager.

    No cookies, no proxies from the environment, no redirects. It asks for uncompressed text: on a node's own
    network compression costs the server more than it saves.

    Args:
        timeout_seconds: for one whole answer, from connecting to its last byte.
        clock: monotonic seconds.
    """

    def __init__(self, timeout_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._authorities: dict[Path, ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=4, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": ACCEPT,
                "Accept-Encoding": "identity",
                "User-Agent": f"joulemeter/{version('joulemeter')}",
            },
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # `get` bounds the whole instead
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, server: ServerConfig, *, query: Sequence[tuple[str, str]] = ()) -> Answer:
        """Ask one of a server's URLs.

        Args:
            url: on this server; elsewhere it is asked without the server's credentials.
            server: how to authenticate, and its name for messages.
            query: added to the URL's own.

        Raises:
            PageError: an answer came and is refused (`redirect`, `http_status`, `too_large`, `not_metrics`).
            ServerUnreachableError: no whole answer came in time, or the server is not ready yet.
        """
        target, written = _target(url, tuple(query))
        place = f"{server.name} ({written})"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                headers = await self._authorization(target, server, place)
                return await self._ask(target, server, headers, place)
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"{place}: no whole answer within {self._timeout_seconds:g} s;"
                " if the server is well but slow, raise observation.timeout_seconds"
            ) from error
        except aiohttp.ClientResponseError as error:
            raise PageError("not_metrics", f"{place}: the answer is not HTTP; is the port right?") from error
        except (ssl.SSLError, aiohttp.ClientSSLError) as error:
            self._authorities.clear()  # the file may have been renewed
            raise ServerUnreachableError(
                f"{place}: TLS failed: {error.__cause__ or error}; set tls_config.ca_file to the authority"
                " that signed the server's certificate, and use the host name that it was issued for"
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise ServerUnreachableError(
                f"{place}: cannot connect: {error.strerror or error}; does the server run, and listen there?"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServerUnreachableError(
                f"{place}: the connection broke before the answer was whole ({type(error).__name__});"
                " did the server stop?"
            ) from error

    async def _ask(self, target: URL, server: ServerConfig, headers: dict[str, str], place: str) -> Answer:
        if self._session is None:
            raise RuntimeError("PageClient is used outside `async with`")
        tls = await self._tls(target, server, place)
        asked_at_seconds = self._clock()
        async with self._session.get(target, headers=headers, ssl=tls, allow_redirects=False) as response:
            answered_at_seconds = self._clock()
            if response.status != HTTPStatus.OK:
                await refuse_status(response, place)
            body = await read_body(response, place)
        return Answer(body.decode("utf-8", errors="replace"), asked_at_seconds, answered_at_seconds)

    async def _authorization(self, target: URL, server: ServerConfig, place: str) -> dict[str, str]:
        """Read the token anew each time, for it may be rotated; it appears in no message."""
        if server.credentials_file is None or target.origin() != URL(server.url).origin():
            return {}
        path = server.credentials_file
        wanted = f"{place}: authorization.credentials_file {str(path)!r}"
        try:
            secret = (await asyncio.to_thread(_read_secret, path)).decode("ascii").strip()
        except OSError as error:
            raise ServerUnreachableError(
                f"{wanted} cannot be read: {error.strerror}; make it readable"
            ) from error
        except UnicodeDecodeError:
            secret = ""
        if not secret.isprintable() or not secret or " " in secret:
            raise ServerUnreachableError(
                f"{wanted} must hold one token, in ASCII and without blanks; rewrite it"
            )
        return {"Authorization": f"Bearer {secret}"}

    async def _tls(self, target: URL, server: ServerConfig, place: str) -> ssl.SSLContext | bool:
        if target.scheme != "https" or server.insecure_skip_verify:
            return not server.insecure_skip_verify
        path = server.ca_file
        if path is None:
            return True
        if path not in self._authorities:
            try:
                context = await asyncio.to_thread(trusting, path)
            except OSError as error:  # ssl.SSLError is one
                raise ServerUnreachableError(
                    f"{place}: tls_config.ca_file {str(path)!r} cannot be used: {error.strerror or error};"
                    " give a readable PEM file of certificates"
                ) from error
            self._authorities[path] = context
        return self._authorities[path]


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_SECRET_BYTES)


@lru_cache(REMEMBERED_TARGETS)
def _target(url: str, query: tuple[tuple[str, str], ...]) -> tuple[URL, str]:
    """Return what to ask, the query added, and how messages write it, without any query."""
    target = _politely(URL(url), query)
    return target, str(target.with_query(None))


def _politely(url: URL, query: Sequence[tuple[str, str]]) -> URL:
    """Add a query; a llama.cpp router that is asked about a model must not load it only to answer us."""
    pairs = [*url.query.items(), *query]
    names = {name for name, _ in pairs}
    if "model" in names and "autoload" not in names:
        pairs.append(("autoload", "false"))
    return url.with_query(pairs) if pairs else url
