"""The two questions to the Kubernetes API server: which pods are on this node, and what becomes of them."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from joulemeter.authorities import trusting
from joulemeter.discovery.pod_table import BOOKMARK, Event, read_event, read_list
from joulemeter.errors import DiscoveryError, ExpiredError

PODS_PATH: Final = "/api/v1/pods"
ANY_VERSION: Final = "0"
"""What the API server remembers will do: etcd is not asked. A list that is too old mends itself in the watch."""
NEWEST: Final = ""
WATCH_SECONDS: Final = (240, 300)
"""The API server ends a watch after a time of our choice; at random, or all nodes would come back at once."""
GRACE_SECONDS: Final = 15.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""A pod is at most 1.5 MiB (etcd's limit) and usually 10 kB; a node has some 110, at most a few hundred."""
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
MAX_TOKEN_BYTES: Final = 64 * 1024
TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
CA_FILE: Final = "ca.crt"
REMEDIES: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "the token is not accepted: let Kubernetes mount the ServiceAccount's token"
    " (automountServiceAccountToken: true), for an old one expires",
    HTTPStatus.FORBIDDEN: "the ServiceAccount may not: it needs a ClusterRole with the verbs list and watch on pods"
    " (apiGroups: ['']), bound with a ClusterRoleBinding",
    HTTPStatus.NOT_FOUND: "this is not the API server's address; correct discovery.api_server",
    HTTPStatus.TOO_MANY_REQUESTS: "the API server is overloaded; it will answer again",
}


class ApiServer:
    """Asks for the pods of one node; an async context manager.

    The token is read anew for every question, for Kubernetes renews the file every hour; the certificates are
    when they no longer fit.

    Args:
        address: of the API server, such as https://10.96.0.1:443.
        node: name of the node.
        account: directory with the ServiceAccount's `token` and `ca.crt`.
        timeout_seconds: for a list, and for a watch to begin.
    """

    def __init__(self, address: str, node: str, account: Path, *, timeout_seconds: float = 20.0) -> None:
        self._url = f"{address.rstrip('/')}{PODS_PATH}"
        self._is_tls = address.startswith("https:")
        self._node = node
        self._account = account
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._authority: ssl.SSLContext | None = None
        self._place = f"API server ({address})"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"joulemeter/{version('joulemeter')}",
            },
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # each question bounds itself
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def list(self, resource_version: str = ANY_VERSION) -> tuple[list[Mapping[str, Any]], str]:
        """Return the node's pods as they are, and the version that a watch goes on from.

        Raises:
            DiscoveryError: there was no usable answer; with the remedy.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with await self._ask({"resourceVersion": resource_version}) as response:
                    body = await self._body(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        return read_list(body)

    async def watch(self, resource_version: str) -> AsyncGenerator[Event]:
        """Yield what becomes of the pods after a version, until the watch ends or its connection breaks.

        The first event is a bookmark of ours without a pod: the watch has begun. After its end another may begin at
        the last event's version; proxies cut watches off, and nothing is lost.

        Raises:
            ExpiredError: the version is too old; list anew.
            DiscoveryError: the watch could not begin, or what came is no event.
        """
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._ask({"resourceVersion": resource_version, **query})
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        async with response:
            yield Event(BOOKMARK, {}, resource_version)
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with asyncio.timeout(seconds + GRACE_SECONDS):
                    async for line in self._lines(response):
                        yield read_event(line)

    async def _ask(self, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("ApiServer is used outside `async with`")
        headers, tls = await asyncio.to_thread(lambda: (self._authorization(), self._tls()))
        query = {"fieldSelector": f"spec.nodeName={self._node}", **query}
        response = await self._session.get(
            self._url, params=query, headers=headers, ssl=tls, allow_redirects=False
        )
        if response.status == HTTPStatus.OK:
            return response
        async with response:
            if response.status == HTTPStatus.GONE:
                raise ExpiredError(f"{self._place}: HTTP 410: the version is too old")
            remedy = REMEDIES.get(response.status, "look into the API server's log")
            raise DiscoveryError(f"{self._place}: pods: HTTP {response.status}: {remedy}")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise DiscoveryError(f"{self._place}: a list of pods of more than {MAX_BODY_BYTES} bytes")
        return bytes(body)

    async def _lines(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line
            if len(rest) > MAX_LINE_BYTES:
                raise DiscoveryError(f"{self._place}: an event of more than {MAX_LINE_BYTES} bytes")

    def _authorization(self) -> dict[str, str]:
        """Return the token's header; no token goes over a connection that everybody can read."""
        if not self._is_tls:
            return {}
        path = self._account / TOKEN_FILE
        try:
            with path.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except OSError as error:
            raise DiscoveryError(
                f"{self._place}: token {path}: {error.strerror}; let Kubernetes mount the ServiceAccount's token"
                " (automountServiceAccountToken: true), or set discovery.service_account_dir"
            ) from error
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable() or " " in token:
            raise DiscoveryError(f"{self._place}: token {path}: holds no token; it is one line of ASCII")
        return {"Authorization": f"Bearer {token}"}

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._is_tls:
            return True
        if self._authority is None:
            path = self._account / CA_FILE
            try:
                self._authority = trusting(path)
            except OSError as error:  # ssl.SSLError is one
                raise DiscoveryError(
                    f"{self._place}: certificates {path}: {error.strerror or error}; Kubernetes mounts them with"
                    " the token (automountServiceAccountToken: true); or set discovery.service_account_dir"
                ) from error
        return self._authority

    def _unreachable(self, error: Exception) -> DiscoveryError:
        """Say what is wrong with the connection."""
        if isinstance(error, TimeoutError):
            return DiscoveryError(f"{self._place}: no whole answer in time; is it overloaded?")
        if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
            self._authority = None  # the file may have been renewed
            return DiscoveryError(
                f"{self._place}: TLS failed: {error.__cause__ or error}; does {self._account / CA_FILE} belong to"
                " this cluster?"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return DiscoveryError(
                f"{self._place}: cannot connect: {error.strerror or error}; does a NetworkPolicy forbid it?"
            )
        return DiscoveryError(f"{self._place}: the connection broke ({type(error).__name__})")
