"""The client against servers that are no Prometheus, down, busy, locked or odd, each a real one on loopback."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from joulemeter import catalog
from joulemeter.errors import ConfigError, PrometheusError, TooMuchError
from joulemeter.http_config import HttpConfig
from joulemeter.report.range import chosen
from joulemeter.report.sources import Series
from joulemeter.runtime import prometheus
from joulemeter.runtime.prometheus import Prometheus
from joulemeter.runtime.report_command import LOOKBACK_SECONDS, Question, Reader, reported

NOTHING = {"status": "success", "data": {"resultType": "vector", "result": []}}
TOO_MANY = "query processing would load too many samples into memory in query execution"
Answer = Callable[[web.Request], web.Response | Awaitable[web.Response]]
PLAIN = HttpConfig()


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        found = answer(request)
        return await found if isinstance(found, Awaitable) else found

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    (port,) = {address[1] for address in runner.addresses}
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def text(body: str, status: int = 200, **more: object) -> Answer:
    return lambda _: web.Response(text=body, status=status, **more)  # type: ignore[arg-type]


def said(answer: object, status: int = 200) -> Answer:
    return text(json.dumps(answer), status, content_type="application/json")


def error(kind: str, message: str, status: int) -> Answer:
    return said({"status": "error", "errorType": kind, "error": message}, status)


async def ask(answer: Answer, how: HttpConfig = PLAIN, **options: float) -> list[Series]:
    async with serving(answer) as url, Prometheus(url, how, **options) as client:
        return await client.query("up", 1.0)


FAILURES = {
    "HTTP 401; give basic_auth or authorization in a file with --http-config": text("Unauthorized\n", 401),
    "HTTP 403; give basic_auth or authorization in a file": error("forbidden", "no tenant", 403),
    "no Prometheus answers there (HTTP 200); is the address right, with its path?": text("<html>Grafana"),
    "no Prometheus answers there (HTTP 404)": text("404 page not found", 404),
    "redirects elsewhere, not followed": text("", 302, headers={"Location": "/login"}),
    "HTTP 503; Prometheus does not answer yet (it may be starting), try again": text("Starting", 503),
    "the answer to a query is not Prometheus's": said({"status": "success", "data": "ok"}),
    "is not Prometheus's": said({"status": "success", "data": {"result": [{"metric": {}, "value": ["a"]}]}}),
    "HTTP 500, internal: disk is gone; look into its log": error("internal", "disk is gone", 500),
    "HTTP 429, too_many_requests: rate limit; look into its log": error(
        "too_many_requests", "rate limit", 429
    ),
    "check --selector (the query was up)": error("bad_data", "parse error: unexpected character", 400),
}


@pytest.mark.parametrize(("words", "answer"), FAILURES.items(), ids=FAILURES)
async def test_failure_has_a_remedy(words: str, answer: Answer):
    with pytest.raises(PrometheusError) as caught:
        await ask(answer)
    assert words in str(caught.value)
    assert str(caught.value).startswith("http://127.0.0.1:")
    assert not isinstance(caught.value, TooMuchError)


@pytest.mark.parametrize(
    "answer",
    [
        error("execution", TOO_MANY, 422),
        error("timeout", "query timed out in query execution", 503),
        error("bad_data", "the query time range exceeds the limit (query length: 750h, limit: 721h)", 422),
    ],
)
async def test_too_much_at_once_is_told_apart(answer: Answer):
    with pytest.raises(TooMuchError):
        await ask(answer)


async def test_nobody_listens():
    async with Prometheus("http://127.0.0.1:1", HttpConfig()) as client:
        with pytest.raises(PrometheusError, match=r"does Prometheus run, and listen there\?"):
            await client.query("up", 1.0)


async def test_connection_that_breaks():
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Prometheus(f"http://127.0.0.1:{port}", HttpConfig()) as client:
            with pytest.raises(PrometheusError, match="cannot be asked: "):
                await client.query("up", 1.0)


async def test_silence_and_floods_are_cut(monkeypatch: pytest.MonkeyPatch):
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(TooMuchError, match=r"no whole answer within 0\.05 s"):
        await ask(silent, timeout_seconds=0.05)
    monkeypatch.setattr(prometheus, "MAX_BODY_BYTES", 2**20)
    with pytest.raises(TooMuchError, match="an answer of more than 1 MiB"):
        await ask(text("x" * (2**20 + 1)))


async def test_answer_is_read():
    result = [
        {"metric": {"__name__": "a", "job": "b"}, "values": [[1.5, "2"], [2, "NaN"], [3, "+Inf"], [4.001, "1e3"]]},
        {"metric": {}, "value": [1, "7"]},
    ]  # fmt: skip
    got = await ask(said({"status": "success", "data": {"result": result}}))
    assert got == [Series({"job": "b"}, [1.5, 4.001], [2.0, 1000.0]), Series({}, [1], [7.0])]


async def test_servers_warnings_are_passed_on():
    async with (
        serving(said(NOTHING | {"warnings": ["store a: partial response"]})) as url,
        Prometheus(url, HttpConfig()) as client,
    ):
        for _ in range(2):
            await client.query("up", 1.0)
        assert client.warnings == ["store a: partial response"]


async def test_what_is_asked_and_with_which_credentials(tmp_path: Path):
    seen: list[web.Request] = []

    def note(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response(NOTHING)

    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    await ask(note, HttpConfig(username="me", password_file=secret))
    await ask(note, HttpConfig(credentials_file=secret))
    await ask(note, HttpConfig(credentials_file=secret, authorization_type="Token"))
    basic = "Basic " + b64encode(b"me:hunter2").decode()
    assert [one.headers["Authorization"] for one in seen] == [basic, "Bearer hunter2", "Token hunter2"]
    assert (seen[0].method, seen[0].path) == ("GET", "/api/v1/query")
    assert dict(seen[0].query) == {"query": "up", "time": "1.000"}


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "one line of text"), (b"\xff", "not text")]
)
async def test_secret_that_cannot_be_used(content: bytes | None, words: str, tmp_path: Path):
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        await ask(said(NOTHING), HttpConfig(credentials_file=secret))
    assert f"--http-config: authorization.credentials_file {str(secret)!r}" in str(caught.value)
    assert words in str(caught.value)


async def test_tls(tmp_path: Path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    async with serving(said(NOTHING), context) as url:
        for how in (HttpConfig(ca_file=pem), HttpConfig(insecure_skip_verify=True)):
            async with Prometheus(url, how) as client:
                assert await client.query("up", 1.0) == []
        async with Prometheus(url, HttpConfig()) as client:
            with pytest.raises(PrometheusError, match=r"TLS failed: .*give the authority that signed"):
                await client.query("up", 1.0)
        with pytest.raises(ConfigError, match=r"tls_config: its files cannot be used: .*give PEM files"):
            await Prometheus(url, HttpConfig(ca_file=tmp_path / "missing")).__aenter__()


# ---------------------------------------------------------------------------------------------- in pieces


async def test_a_range_is_asked_for_in_smaller_pieces_until_they_are_answered():
    """A server that gives an hour at a time, one sample each second."""
    when = chosen(1e6, begin="1970-01-10", end="1970-01-10T05:30")
    spans: list[tuple[float, float]] = []

    def answer(request: web.Request) -> web.Response:
        query, until = request.query["query"], float(request.query["time"])
        seconds = int(query.split("[")[1].split("ms")[0]) / 1000
        if seconds > 3600:
            return error("execution", TOO_MANY, 422)(request)
        if query.startswith("count"):
            value: dict[str, object] = {"value": [until, str(int(seconds))]}
        else:
            spans.append((until - seconds, until))
            value = {"values": [[until, "1"]]}
        return web.json_response({"status": "success", "data": {"result": [{"metric": {}, **value}]}})

    async with serving(answer) as url, Prometheus(url, HttpConfig()) as client:
        reader = Reader(client, "", when)
        pieces = [chunk async for chunk in reader.raw(catalog.GPU_ENERGY)]
    assert len(pieces) == len(spans) == reader.samples
    assert spans[0][0] == when.begin_seconds - LOOKBACK_SECONDS
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    assert when.begin_seconds in [end for _, end in spans]
    assert spans[-1][1] == when.end_seconds


async def test_a_prometheus_without_joulemeter():
    async with serving(said(NOTHING)) as url:
        with pytest.raises(PrometheusError, match=r"does this Prometheus scrape joulemeter"):
            await reported(Question(url, since="1h"))
