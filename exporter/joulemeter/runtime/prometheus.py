"""A client of Prometheus's HTTP API: raw samples in pieces that the server can bear, errors with a remedy."""

import asyncio
import json
import math
import ssl
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp

from joulemeter.authorities import trusting
from joulemeter.errors import ConfigError, PrometheusError, TooMuchError
from joulemeter.http_config import HttpConfig
from joulemeter.report.sources import Series
from joulemeter.settings import shown

TIMEOUT_SECONDS: Final = 150.0
"""For one whole answer; Prometheus itself gives up after 120 s (`--query.timeout`)."""
MAX_BODY_BYTES: Final = 256 * 2**20
MAX_SECRET_BYTES: Final = 64 * 1024
SHOWN_CHARACTERS: Final = 300
QUERY_PATH: Final = "/api/v1/query"


def base_url(text: str) -> str:
    """Return a Prometheus's URL without the slash at its end.

    Raises:
        ConfigError: it is none, or holds a password; that is not repeated in the message.
    """
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError([f"--prometheus: expected a URL such as http://127.0.0.1:9090, got {shown(text)}"])
    if "@" in parts.netloc:
        raise ConfigError(["--prometheus: the URL holds a user or password; use --http-config instead"])
    if parts.query or parts.fragment:
        raise ConfigError([f"--prometheus: expected a URL without ? and #, got {shown(text)}"])
    return text.strip().rstrip("/")


class Prometheus:
    """Evaluates queries; an async context manager.

    Args:
        url: as `base_url` returns it; whatever serves Prometheus's API below it (Thanos, Mimir) will do.
        how: authentication and TLS.
        timeout_seconds: for one whole answer.
    """

    def __init__(self, url: str, how: HttpConfig, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._how = how
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self.warnings: list[str] = []
        """What the server said about its answers, each once."""

    async def __aenter__(self) -> Self:
        tls = _tls(self._how) if self._url.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "application/json",
                "User-Agent": f"joulemeter/{version('joulemeter')}",
                **_authorization(self._how),
            },
            trust_env=self._how.proxy_from_environment,
            timeout=aiohttp.ClientTimeout(total=None),  # `_get` bounds the whole instead
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def query(self, expression: str, at_seconds: float) -> list[Series]:
        """Evaluate an instant query: a vector's series have one sample each, a matrix's all of their range.

        Raises:
            TooMuchError: the answer is more than the server gives, or we take, at once: ask for less.
            PrometheusError: no usable answer came.
        """
        status, body = await self._get(expression, at_seconds)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        refused = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        if refused or not isinstance(answer, dict) or answer.get("status") not in {"success", "error"}:
            raise PrometheusError(self._strange(status))
        if answer["status"] == "error":
            self._refuse(status, answer, expression)
        for warning in answer.get("warnings", []):
            if str(warning) not in self.warnings:
                self.warnings.append(str(warning)[:SHOWN_CHARACTERS])
        try:
            return [_series(one) for one in answer["data"]["result"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PrometheusError(
                f"{self._url}: the answer to a query is not Prometheus's ({error!r}); is the URL right?"
            ) from None

    async def _get(self, expression: str, at_seconds: float) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("Prometheus is used outside `async with`")
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.get(
                    self._url + QUERY_PATH,
                    params={"query": expression, "time": f"{at_seconds:.3f}"},
                    allow_redirects=False,
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise TooMuchError(f"{self._url}: an answer of more than {MAX_BODY_BYTES >> 20} MiB")
                return response.status, bytes(body)
        except TimeoutError:
            raise TooMuchError(f"{self._url}: no whole answer within {self._timeout_seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise PrometheusError(
                f"{self._url}: TLS failed: {error.certificate_error}; give the authority that signed the certificate"
                " as tls_config.ca_file with --http-config"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise PrometheusError(
                f"{self._url}: cannot be asked: {str(error) or type(error).__name__}; does Prometheus run,"
                " and listen there?"
            ) from None

    def _refuse(self, status: int, answer: Mapping[str, Any], expression: str) -> None:
        kind, said = str(answer.get("errorType", "")), str(answer.get("error", ""))[:SHOWN_CHARACTERS]
        # A server too busy for a large question can often answer smaller ones.
        too_often = status == HTTPStatus.TOO_MANY_REQUESTS
        if (
            kind in {"timeout", "canceled"}
            or "too many samples" in said
            or ("limit" in said and not too_often)
        ):
            raise TooMuchError(f"{self._url}: {said}")
        if kind == "bad_data":
            raise PrometheusError(f"{self._url}: {said}; check --selector (the query was {expression})")
        raise PrometheusError(f"{self._url}: HTTP {status}, {kind}: {said}; look into its log")

    def _strange(self, status: int) -> str:
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return (
                f"{self._url}: HTTP {status}; give basic_auth or authorization in a file with --http-config,"
                " and check what it holds"
            )
        if status // 100 == 3:  # noqa: PLR2004 - the class of redirects
            return f"{self._url}: redirects elsewhere, not followed; give --prometheus the address itself"
        if status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}:
            return (
                f"{self._url}: HTTP {status}; Prometheus does not answer yet (it may be starting), try again"
            )
        return (
            f"{self._url}: no Prometheus answers there (HTTP {status}); is the address right, with its path?"
        )


def _series(one: Mapping[str, Any]) -> Series:
    """Read one series; what is no number (a marker) is no sample."""
    samples = one["values"] if "values" in one else [one["value"]]
    times, values = [at for at, _ in samples], [float(value) for _, value in samples]
    labels = {name: value for name, value in one["metric"].items() if name != "__name__"}
    if not all(map(math.isfinite, values)):
        finite = [index for index, value in enumerate(values) if math.isfinite(value)]
        times, values = [times[index] for index in finite], [values[index] for index in finite]
    return Series(labels, times, values)


def _authorization(how: HttpConfig) -> dict[str, str]:
    if how.password_file is not None:
        password = _secret("basic_auth.password_file", how.password_file)
        pair = b64encode(f"{how.username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if how.credentials_file is not None:
        token = _secret("authorization.credentials_file", how.credentials_file)
        return {"Authorization": f"{how.authorization_type} {token}"}
    return {}


def _secret(key: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError([f"--http-config: {key} {str(path)!r} cannot be read: {reason}"]) from None
    if not secret or not secret.isprintable():
        raise ConfigError([f"--http-config: {key} {str(path)!r} must hold one line of text; rewrite it"])
    return secret


def _tls(how: HttpConfig) -> ssl.SSLContext:
    try:
        context = trusting(how.ca_file)
        if how.cert_file is not None:
            context.load_cert_chain(how.cert_file, how.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            [
                f"--http-config: tls_config: its files cannot be used: {error.strerror or error}; give PEM files"
            ]
        ) from None
    if how.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
