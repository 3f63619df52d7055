"""Pods followed through a real HTTP API server, which misbehaves."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from kubernetes_api import NODE, ApiPlayer, container, pod_json

from joulemeter.discovery import api_server
from joulemeter.discovery.api_server import ApiServer
from joulemeter.errors import DiscoveryError, PageError, ServerUnreachableError
from joulemeter.runtime.http import Answer
from joulemeter.runtime.pod_watcher import MOST_REFUSALS, PodWatcher
from joulemeter.server_config import ServerConfig

SERVES = {"joulemeter.io/scrape": "true", "joulemeter.io/port": "8000"}
VLLM_PAGE = 'vllm:generation_tokens_total{model_name="m"} 1.0\nvllm:prompt_tokens_total{model_name="m"} 1.0\n'


class FakePages:
    """Answers to what looks like a server."""

    def __init__(self) -> None:
        self.bodies: dict[str, str] = {}
        self.asked: list[str] = []

    async def get(self, url: str, server: ServerConfig, *, query: object = ()) -> Answer:
        self.asked.append(url)
        if url not in self.bodies:
            raise ServerUnreachableError(f"{url}: nobody there")
        return Answer(self.bodies[url], 0.0, 0.0)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def following(
    player: ApiPlayer, pages: FakePages | None = None, **more: frozenset[str]
) -> AsyncIterator[PodWatcher]:
    """A watcher at work, stopped at the end."""
    async with ApiServer(player.url, NODE, Path("/nowhere"), timeout_seconds=2) as api:
        watcher = PodWatcher(api, pages or FakePages(), first_retry_seconds=0.05, **more)
        stop = asyncio.Event()
        running = asyncio.create_task(watcher.run(stop))
        try:
            yield watcher
        finally:
            stop.set()
            await running


async def test_pods_of_this_node_come_change_and_go():
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES, ip="10.0.0.1"))
        player.put(pod_json("far", annotations=SERVES, node="node-b"))
        async with following(player) as watcher:
            await until(lambda: watcher.servers().keys() == {"default/a:8000"})
            assert watcher.up
            player.put(pod_json("b", annotations=SERVES, ip="10.0.0.2", namespace="x"))
            player.put(pod_json("far", annotations=SERVES | {"a": "b"}, node="node-b"))
            await until(lambda: watcher.servers().keys() == {"default/a:8000", "x/b:8000"})
            player.put(pod_json("a", annotations=SERVES, ip="10.0.0.9"))
            await until(lambda: watcher.servers()["default/a:8000"].url == "http://10.0.0.9:8000/metrics")
            player.delete("b", "x")
            await until(lambda: watcher.servers().keys() == {"default/a:8000"})
        first, second = player.lists[0], player.watches[0]
        assert first.query == {"fieldSelector": "spec.nodeName=node-a", "resourceVersion": "0"}
        assert second.query["fieldSelector"] == "spec.nodeName=node-a"
        assert second.query["allowWatchBookmarks"] == "true"
        assert 240 <= int(second.query["timeoutSeconds"]) <= 300
        assert (len(player.lists), len(player.watches)) == (1, 1)


async def test_dropped_watch_goes_on_from_the_last_event(caplog):
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES))
        async with following(player) as watcher:
            await until(lambda: watcher.servers() and player.watches)
            player.bookmark()
            player.bookmark()
            await until(lambda: watcher._version == "1003")
            player.drop()
            player.put(pod_json("b", annotations=SERVES))  # while nobody watches
            await until(lambda: len(watcher.servers()) == 2)
            assert len(player.lists) == 1
            assert [one.query["resourceVersion"] for one in player.watches] == ["1001", "1003"]
            assert watcher.up
    assert [
        record for record in caplog.records if record.levelno >= logging.WARNING
    ] == []  # nothing is wrong


async def test_a_bookmark_is_no_pod_also_while_something_only_looks_like_a_server(caplog):
    with ApiPlayer() as player:
        player.put(pod_json("a", container(image="vllm/vllm-openai:v0.11.1")))
        async with following(player) as watcher:
            await until(lambda: watcher.table.guesses and player.watches)
            player.bookmark()
            await until(lambda: watcher._version == "1002")
            player.put(pod_json("b", annotations=SERVES))
            await until(watcher.servers)
            assert watcher.up
        assert (len(player.lists), len(player.watches)) == (1, 1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_version_that_no_watch_can_begin_at_is_given_up():
    """A cluster that was restored from a backup counts from an older version."""
    with ApiPlayer() as player:
        async with following(player) as watcher:
            await until(lambda: player.watches)
            player.status = 504
            player.drop()
            await until(lambda: len(player.watches) == 1 + MOST_REFUSALS and watcher._version is None)
            player.status = 200
            await until(lambda: watcher.up)
        assert len(player.lists) >= 2


async def test_expired_version_lists_anew_from_the_source():
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES))
        player.put(pod_json("b", annotations=SERVES))
        async with following(player) as watcher:
            await until(lambda: len(watcher.servers()) == 2 and player.watches)
            player.expire()
            player.drop()
            player.delete("a")  # before the new list: no event tells of it
            await until(lambda: watcher.servers().keys() == {"default/b:8000"})
        assert [one.query["resourceVersion"] for one in player.lists] == ["0", ""]


async def test_expired_version_may_be_told_in_the_watch_as_well():
    with ApiPlayer() as player:
        async with following(player) as watcher:
            await until(lambda: player.watches)
            player.say("ERROR", {"code": 410, "message": "too old"})
            await until(lambda: len(player.lists) == 2)
            await until(lambda: watcher.up)


async def test_watch_that_is_refused_as_gone_lists_anew():
    with ApiPlayer() as player:
        async with following(player):
            await until(lambda: player.watches)
            player.status = 410
            player.drop()
            await until(lambda: len(player.watches) > 1)
            player.status = 200
            await until(lambda: len(player.lists) > 1)


async def test_long_outage_leaves_what_was_known_and_waits_ever_longer():
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES))
        async with following(player) as watcher:
            await until(lambda: watcher.servers() and player.watches)
            player.status = 503
            player.drop()
            await until(lambda: not watcher.up)
            before = len(player.asked)
            await asyncio.sleep(1.0)
            assert len(player.asked) - before < 12  # 0.05, 0.1, 0.2, ... and half of that at random
            assert watcher.servers().keys() == {"default/a:8000"}
            assert watcher.problem is not None
            assert watcher.problem.startswith(f"API server ({player.url}): pods: HTTP 503: ")
            player.status = 200
            player.put(pod_json("b", annotations=SERVES))
            await until(lambda: len(watcher.servers()) == 2 and watcher.up)


async def test_watch_that_ends_at_once_is_not_begun_over_and_over():
    with ApiPlayer() as player:
        async with following(player):
            await until(lambda: player.watches)
            for _ in range(50):
                player.drop()
                await asyncio.sleep(0.02)
            assert len(player.watches) < 12


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "the token is not accepted: let Kubernetes mount the ServiceAccount's token"),
        (
            403,
            "the ServiceAccount may not: it needs a ClusterRole with the verbs list and watch on pods",
        ),
        (404, "this is not the API server's address; correct discovery.api_server"),
        (429, "the API server is overloaded"),
        (302, "look into the API server's log"),
    ],
)
async def test_refusal_is_told_with_its_remedy(status: int, remedy: str):
    with ApiPlayer(status=status) as player:
        async with ApiServer(player.url, NODE, Path("/nowhere")) as api:
            with pytest.raises(DiscoveryError) as caught:
                await api.list()
    assert str(caught.value).startswith(f"API server ({player.url}): pods: HTTP {status}: {remedy}")


async def test_slow_api_server_is_given_up():
    with ApiPlayer(delay_seconds=3.0) as player:
        async with ApiServer(player.url, NODE, Path("/nowhere"), timeout_seconds=0.2) as api:
            for question in (api.list(), anext(api.watch("1"))):
                with pytest.raises(DiscoveryError, match="no whole answer in time"):
                    await question


async def test_nobody_there_is_told():
    with ApiPlayer() as player:
        url = player.url
    async with ApiServer(url, NODE, Path("/nowhere")) as api:
        with pytest.raises(DiscoveryError, match=r"cannot connect: .*; does a NetworkPolicy forbid it"):
            await api.list()


async def test_endless_answers_are_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api_server, "MAX_BODY_BYTES", 1000)
    monkeypatch.setattr(api_server, "MAX_LINE_BYTES", 1000)
    with ApiPlayer(body=b" " * 300_000) as player:
        async with ApiServer(player.url, NODE, Path("/nowhere")) as api:
            with pytest.raises(DiscoveryError, match="a list of pods of more than 1000 bytes"):
                await api.list()
            player.say("ADDED", pod_json("a", container("x" * 300_000)))
            with pytest.raises(DiscoveryError, match="an event of more than 1000 bytes"):
                async for _ in api.watch("1000"):
                    pass


async def test_rubbish_in_a_watch_is_an_outage_like_any_other():
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES))
        async with following(player) as watcher:
            await until(lambda: watcher.servers() and player.watches)
            player.say("ADDED", {"metadata": {"resourceVersion": "7"}, "spec": {"nodeName": NODE}})
            await until(lambda: watcher.problem)
            assert "not a pod" in str(watcher.problem)
            assert watcher.servers().keys() == {"default/a:8000"}
            player.put(pod_json("b", annotations=SERVES))
            await until(lambda: len(watcher.servers()) == 2)  # not told again: listed anew, beyond it
            assert len(player.lists) > 1


# ---------------------------------------------------------------------------------------------- TLS, token


def account(folder: Path, authority: trustme.CA, token: str = "token-1") -> Path:
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "token").write_text(f"{token}\n")
    return folder


def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_token_is_read_anew_for_every_question(tmp_path: Path):
    authority = trustme.CA()
    with ApiPlayer(tls=tls(authority)) as player:
        async with ApiServer(player.url, NODE, account(tmp_path, authority)) as api:
            await api.list()
            (tmp_path / "token").write_text("token-2\n")
            await api.list()
            await anext(api.watch("1000"))
    sent = [one.headers["Authorization"] for one in player.asked]
    assert sent == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]


async def test_no_token_goes_over_a_plain_connection(tmp_path: Path):
    with ApiPlayer() as player:
        async with ApiServer(player.url, NODE, account(tmp_path, trustme.CA())) as api:
            await api.list()
    assert "Authorization" not in player.asked[0].headers


async def test_renewed_certificates_are_read_again(tmp_path: Path):
    old, new = trustme.CA(), trustme.CA()
    with ApiPlayer(tls=tls(new)) as player:
        async with ApiServer(player.url, NODE, account(tmp_path, old)) as api:
            with pytest.raises(DiscoveryError, match=r"TLS failed: .*ca.crt belong to this cluster"):
                await api.list()
            account(tmp_path, new)
            await api.list()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "token").unlink(),
            "token .*/token: No such file.*automountServiceAccountToken",
        ),
        (lambda folder: (folder / "token").write_text(""), "token .*/token: holds no token"),
        (lambda folder: (folder / "token").write_bytes(b"\xff"), "token .*/token: holds no token"),
        (lambda folder: (folder / "token").write_text("a\r\nb"), "token .*/token: holds no token"),
        (lambda folder: (folder / "ca.crt").unlink(), "certificates .*/ca.crt: No such file"),
        (lambda folder: (folder / "ca.crt").write_text("x"), "certificates .*/ca.crt: "),
    ],
)
async def test_account_that_cannot_be_used_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
):
    authority = trustme.CA()
    with ApiPlayer(tls=tls(authority)) as player:
        folder = account(tmp_path, authority)
        spoil(folder)
        async with ApiServer(player.url, NODE, folder) as api:
            with pytest.raises(DiscoveryError, match=message):
                await api.list()
    assert player.asked == []


# ---------------------------------------------------------------------------------------------- guesses


async def test_guess_is_a_server_once_it_answers_as_one():
    pages = FakePages()
    with ApiPlayer() as player:
        player.put(pod_json("llm", container(image="vllm/vllm-openai"), ip="10.0.0.1"))
        player.put(pod_json("router", container(image="vllm/vllm-router"), ip="10.0.0.2"))
        pages.bodies["http://10.0.0.2:8000/metrics"] = "router_requests_total 1\n"
        async with following(player, pages) as watcher:
            await until(lambda: len(pages.asked) == 2)
            assert watcher.servers() == {}
            pages.bodies["http://10.0.0.1:8000/metrics"] = VLLM_PAGE
            ready = pod_json("llm", container(image="vllm/vllm-openai"), ip="10.0.0.1")
            player.put(ready)  # says that it is: no need to wait until it is asked anyway
            await until(lambda: watcher.servers().keys() == {"default/llm:8000"}, 3)
            asked = len(pages.asked)
            await asyncio.sleep(1.2)
            assert len(pages.asked) - asked <= 1  # asked no more once it is one, and the other rarely
            player.delete("llm")
            await until(lambda: watcher.servers() == {})


async def test_page_that_is_refused_makes_no_server():
    class Refusing(FakePages):
        async def get(self, url: str, server: ServerConfig, *, query: object = ()) -> Answer:
            await super().get(url, server)
            raise PageError("too_large", "too large")

    pages = Refusing()
    pages.bodies["http://10.0.0.1:8000/metrics"] = ""
    with ApiPlayer() as player:
        player.put(pod_json("llm", container(image="vllm/vllm-openai"), ip="10.0.0.1"))
        async with following(player, pages) as watcher:
            await until(lambda: pages.asked)
            assert watcher.servers() == {}


async def test_what_the_configuration_says_of_a_server_counts():
    with ApiPlayer() as player:
        player.put(pod_json("a", annotations=SERVES, ip="10.0.0.1"))
        player.put(pod_json("b", annotations=SERVES, ip="10.0.0.2"))
        known = frozenset({"http://10.0.0.1:8000/metrics"})
        async with following(player, configured=known) as watcher:
            await until(lambda: watcher.servers().keys() == {"default/b:8000"})


async def test_annotation_that_cannot_be_used_is_told_once(caplog):
    with ApiPlayer() as player:
        bad = pod_json("a", annotations=SERVES | {"joulemeter.io/dialect": "vlm"})
        player.put(bad)
        async with following(player) as watcher:
            await until(watcher.servers)
            player.put(bad)
            player.put(pod_json("b", annotations=SERVES))
            await until(lambda: len(watcher.servers()) == 2)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "kubernetes: pod default/a: annotation joulemeter.io/dialect: unknown value 'vlm'; did you mean 'vllm'?"
    ]


async def test_bug_of_ours_ends_the_daemon():
    class Broken(FakePages):
        async def get(self, url: str, server: ServerConfig, *, query: object = ()) -> Answer:
            raise ZeroDivisionError

    with ApiPlayer() as player:
        player.put(pod_json("llm", container(image="vllm/vllm-openai")))
        async with ApiServer(player.url, NODE, Path("/nowhere")) as api:
            with pytest.raises(ExceptionGroup) as caught:
                await asyncio.wait_for(PodWatcher(api, Broken()).run(asyncio.Event()), 20)
    assert caught.group_contains(ZeroDivisionError)
