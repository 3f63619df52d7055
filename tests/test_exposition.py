"""The listener, asked over a real socket: formats, compression, health, and that scraping only reads."""

import asyncio
import gzip
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
import snapshots
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from joulemeter import catalog
from joulemeter.collector import render
from joulemeter.errors import JoulemeterError, ListenError
from joulemeter.runtime.exposition import PATHS, Exposition, PageCache, Render
from joulemeter.snapshot import Snapshot

PROMETHEUS = {
    "2.55": "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "3.0": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "3.0, native histograms": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
}
"""Accept headers as Prometheus builds them (scrape/scrape.go, acceptHeader)."""
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class CountedRender:
    """Formats as the daemon does, counts how often, and can be held up."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        self.count += 1
        self.begun.set()
        assert self.may_go_on.wait(10)
        return render(snapshot, accept)


@dataclass
class Daemon:
    """What the listener sees of the daemon, and how a test asks it."""

    session: aiohttp.ClientSession
    latest: Snapshot | None
    problem: str | None = None
    url: str = ""

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        async with self.session.get(self.url + path, headers=headers, allow_redirects=False) as answer:
            return answer.status, dict(answer.headers), await answer.read()


async def bound(listener: Exposition, task: asyncio.Task[None]) -> str:
    """The address of a listener once it listens."""
    async with asyncio.timeout(5):
        while listener.bound is None and not task.done():  # noqa: ASYNC110 - it tells nobody when it listens
            await asyncio.sleep(0.01)
    assert listener.bound is not None, task
    return "http://{}:{}".format(*listener.bound)


GRID_TEXT = '{"zone": "FR"}'


@asynccontextmanager
async def running(snapshot: Snapshot | None, format_page: Render = render) -> AsyncIterator[Daemon]:
    """A listener on a free port of the loopback interface; leaves nothing behind."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session:
        daemon = Daemon(session, snapshot)
        listener = Exposition(
            "127.0.0.1",
            0,
            latest=lambda: daemon.latest,
            problem=lambda: daemon.problem,
            grid=lambda: GRID_TEXT,
            render=format_page,
        )
        task = asyncio.create_task(listener.run(stop))
        try:
            daemon.url = await bound(listener, task)
            yield daemon
        finally:
            stop.set()
            await task


FULL = snapshots.full()

# ---------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("accept", PROMETHEUS.values(), ids=PROMETHEUS)
async def test_prometheus_gets_openmetrics(accept: str):
    async with running(FULL) as daemon:
        status, headers, body = await daemon.get("/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert body.endswith(b"# EOF\n")
    assert sum(1 for _ in parse_openmetrics(body.decode())) == len(catalog.ALL)


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "nonsense; ;q=q", BROWSER])
async def test_everybody_else_gets_text(accept: str):
    async with running(FULL) as daemon:
        status, headers, body = await daemon.get("/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert "charset=utf-8" in headers["Content-Type"]
    assert sum(1 for _ in parse_text(body.decode())) == len(catalog.ALL)


async def test_gzip_is_sent_to_who_asks_and_holds_the_same_page():
    async with running(FULL) as daemon:
        _, plain_headers, plain = await daemon.get("/metrics")
        _, headers, packed = await daemon.get("/metrics", **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain_headers
    assert headers["Content-Encoding"] == "gzip"
    assert int(headers["Content-Length"]) == len(packed) < len(plain) / 4
    assert gzip.decompress(packed) == plain
    assert {name.strip() for name in headers["Vary"].split(",")} == {"Accept", "Accept-Encoding"}


@pytest.mark.parametrize("encodings", ["gzip;q=0, identity", "br, deflate", "identity", "*;q=0"])
async def test_who_does_not_want_gzip_gets_none(encodings: str):
    async with running(FULL) as daemon:
        _, headers, body = await daemon.get("/metrics", **{"Accept-Encoding": encodings})
    assert "Content-Encoding" not in headers
    assert body.startswith(b"# HELP")


# --------------------------------------------------------------------------------- law 4: scraping only reads


async def test_a_snapshot_is_formatted_once_however_many_scrape():
    formatting = CountedRender()
    async with running(FULL, formatting) as daemon:
        pages = await asyncio.gather(*(daemon.get("/metrics") for _ in range(20)))
        assert {body for _, _, body in pages} == {render(FULL, "")[0]}
        assert formatting.count == 1
        await asyncio.gather(*(daemon.get("/metrics", Accept=PROMETHEUS["3.0"]) for _ in range(5)))
        assert formatting.count == 2, "once for each format"


async def test_pages_of_one_snapshot_are_identical_and_the_next_snapshot_shows_at_once():
    async with running(FULL) as daemon:
        first, second = await daemon.get("/metrics"), await daemon.get("/metrics")
        assert first[2] == second[2]
        daemon.latest = snapshots.empty()
        _, _, third = await daemon.get("/metrics")
        assert third == render(snapshots.empty(), "")[0] != first[2]


async def test_a_slow_format_blocks_nobody_else():
    formatting = CountedRender()
    formatting.may_go_on.clear()
    async with running(FULL, formatting) as daemon:
        try:
            scrape = asyncio.create_task(daemon.get("/metrics"))
            assert await asyncio.to_thread(formatting.begun.wait, 5)
            async with asyncio.timeout(2):
                assert (await daemon.get("/healthz"))[0] == 200
                assert (await daemon.get("/readyz"))[0] == 200
            assert not scrape.done()
        finally:
            formatting.may_go_on.set()
        assert (await scrape)[0] == 200


async def test_a_scraper_that_gives_up_takes_the_page_from_nobody():
    formatting = CountedRender()
    formatting.may_go_on.clear()
    cache = PageCache(lambda: FULL, formatting)
    impatient = asyncio.create_task(cache.body("", compressed=False))
    patient = asyncio.create_task(cache.body("", compressed=False))
    assert await asyncio.to_thread(formatting.begun.wait, 5)
    impatient.cancel()
    formatting.may_go_on.set()
    body = await patient
    assert body is not None
    assert body.content == render(FULL, "")[0]
    assert (impatient.cancelled(), formatting.count) == (True, 1)


# ---------------------------------------------------------------------------------------------- other paths


async def test_before_the_first_snapshot_it_is_healthy_but_not_ready():
    async with running(None) as daemon:
        assert (await daemon.get("/metrics"))[::2] == (503, b"no snapshot yet\n")
        assert (await daemon.get("/readyz"))[::2] == (503, b"no snapshot yet\n")
        assert (await daemon.get("/healthz"))[::2] == (200, b"ok\n")
        daemon.latest = snapshots.empty()
        assert (await daemon.get("/readyz"))[::2] == (200, b"ready\n")
        assert (await daemon.get("/metrics"))[0] == 200


async def test_a_daemon_that_does_not_tick_says_why():
    async with running(FULL) as daemon:
        daemon.problem = "sampler: no beat for 12 s"
        assert (await daemon.get("/healthz"))[::2] == (503, b"sampler: no beat for 12 s\n")
        assert (await daemon.get("/metrics"))[0] == 200, "the last page is still worth reading"
        daemon.problem = None
        assert (await daemon.get("/healthz"))[0] == 200


async def test_the_first_page_links_to_every_other():
    async with running(FULL) as daemon:
        status, headers, body = await daemon.get("/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        links = re.findall(r'href="([^"]+)"', body.decode())
        assert links == list(PATHS)
        assert [(await daemon.get(link))[0] for link in links] == [200] * len(links)


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/api/v1/query", "/..%2f..%2fetc/passwd"])
async def test_unknown_path_is_not_found(path: str):
    async with running(FULL) as daemon:
        assert (await daemon.get(path))[0] == 404


@pytest.mark.parametrize("path", ["/", *PATHS])
async def test_head_and_post(path: str):
    async with running(FULL) as daemon:
        status, headers, body = await daemon.get(path)
        async with daemon.session.head(daemon.url + path) as answer:
            assert (answer.status, await answer.read()) == (status, b"")
            assert answer.headers["Content-Type"] == headers["Content-Type"]
            assert int(answer.headers["Content-Length"]) == len(body)
        async with daemon.session.post(daemon.url + path) as answer:
            assert answer.status == 405


# ---------------------------------------------------------------------------------------------- the address


def exposition(host: str, port: int) -> Exposition:
    return Exposition(host, port, latest=lambda: None, problem=lambda: None, grid=str)


async def refusal(listener: Exposition) -> JoulemeterError:
    with pytest.raises(ListenError) as caught:
        await asyncio.wait_for(listener.run(asyncio.Event()), 5)
    assert listener.bound is None
    return caught.value


async def test_an_address_in_use_is_named_with_the_remedy():
    async with running(FULL) as daemon:
        port = int(daemon.url.rpartition(":")[2])
        message = str(await refusal(exposition("127.0.0.1", port)))
    assert message.startswith(f"listen: 127.0.0.1:{port}: ")
    assert "in use" in message
    assert message.endswith("stop what listens there, or choose another with --listen HOST:PORT")


async def test_an_address_that_is_not_ours_is_refused():
    message = str(await refusal(exposition("192.0.2.1", 0)))  # TEST-NET-1, RFC 5737
    assert message.startswith("listen: 192.0.2.1:0: ")


async def test_the_port_is_free_again_after_stop():
    async with running(FULL) as daemon:
        address = daemon.url
    stop = asyncio.Event()
    again = exposition("127.0.0.1", int(address.rpartition(":")[2]))
    task = asyncio.create_task(again.run(stop))
    assert await bound(again, task) == address
    stop.set()
    await task
