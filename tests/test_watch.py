"""A server watched over time: its dialect, the filter, its name, its restarts, and what asking it costs."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from joulemeter.dialects.generic import GenericNames
from joulemeter.errors import JoulemeterError, PageError, ServerUnreachableError
from joulemeter.model import PageReading, Role
from joulemeter.runtime.http import Answer, PageClient
from joulemeter.runtime.watch import ServerWatch
from joulemeter.server_config import ServerConfig

DOWN = ServerUnreachableError("chat: no answer")
REFUSED = PageError("http_status", "chat: HTTP 404")
LLAMACPP = "llamacpp:prompt_tokens_total 5\nllamacpp:tokens_predicted_total 7\n"

Render = Callable[[Sequence[str]], str]


@dataclass
class FakeClient:
    """A server: what each path answers, given the names that are filtered for."""

    paths: dict[str, str | JoulemeterError | Render]
    seconds: list[float] = field(default_factory=lambda: [0.001])
    asked: list[str] = field(default_factory=list)

    async def get(self, url: str, server: ServerConfig, *, query: Sequence[tuple[str, str]] = ()) -> Answer:
        path = urlsplit(url).path
        self.asked.append(path)
        found = self.paths.get(path, REFUSED)
        if isinstance(found, JoulemeterError):
            raise found
        body = (
            found if isinstance(found, str) else found([value for name, value in query if name == "name[]"])
        )
        seconds = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return Answer(body, 100.0, 100.0 + seconds)


def watch(client: FakeClient, url: str = "http://127.0.0.1:8000/metrics", **server: object) -> ServerWatch:
    return ServerWatch(ServerConfig(url, name="chat", **server), client)


# ---------------------------------------------------------------------------------------------- vLLM


class Vllm:
    """vLLM's registry, in one process, served as vLLM does: /metrics whole, /metrics/ by `name[]`."""

    def __init__(self, started: float = 1.7e9) -> None:
        self.registry = CollectorRegistry()
        labels = {"labelnames": ["model_name", "engine"], "registry": self.registry}
        self.tokens = Counter("vllm:generation_tokens", "Generated.", **labels)
        self.tokens.labels("llama", "0").inc(7)
        Gauge("vllm:num_requests_running", "Running.", **labels).labels("llama", "0").set(2)
        Histogram("vllm:iteration_tokens_total", "Per step.", **labels).labels("llama", "0").observe(3)
        Counter("http_requests", "Others.", ["path"], registry=self.registry).labels("/v1").inc()
        Gauge("process_start_time_seconds", "Started.", registry=self.registry).set(started)

    def whole(self, _names: Sequence[str]) -> str:
        return generate_latest(self.registry).decode()

    def by_name(self, names: Sequence[str]) -> str:
        assert names
        return generate_latest(self.registry.restricted_registry(names)).decode()

    def paths(self) -> dict[str, str | JoulemeterError | Render]:
        version = json.dumps({"version": "0.33.0"})
        return {"/metrics": self.whole, "/metrics/": self.by_name, "/version": version}


async def test_page_is_observed():
    client = FakeClient(Vllm().paths(), seconds=[0.5])
    watched = watch(client)
    assert (watched.up, watched.dialect, watched.version) == (None, None, None)
    got = await watched.observe()
    assert (got.server, got.at_seconds, got.page.start_time_seconds) == ("chat", 100.25, 1.7e9)
    readings = {reading.role: (reading.model, reading.value) for reading in got.page.readings}
    assert readings == {
        Role.GENERATION: ("llama", 7),
        Role.RUNNING: ("llama", 2),
        Role.STEPS: ("llama", 1),
    }
    assert watched.up is True
    assert watched.dialect is not None
    assert (watched.dialect.name, watched.version) == ("vllm", "0.33.0")


async def test_filtered_page_is_asked_for_once_it_has_proved_itself():
    """T3, T4: /metrics/ honours name[] and costs the server a twentieth; both pages say the same."""
    vllm = Vllm()
    client = FakeClient(vllm.paths())
    watched = watch(client)
    whole = await watched.observe()
    assert sorted(client.asked) == ["/metrics", "/metrics/", "/version"]
    client.asked.clear()
    vllm.tokens.labels("llama", "0").inc()
    vllm.tokens.labels("late", "0").inc(3)  # a series that was not there when the filter was tried
    filtered = await watched.observe()
    assert client.asked == ["/metrics/"]
    generated = [one.value for one in filtered.page.readings if one.role is Role.GENERATION]
    assert generated == [8, 3]
    assert {one.series for one in whole.page.readings} < {one.series for one in filtered.page.readings}


class WithoutDescribe:
    """As prometheus_client's MultiProcessCollector: series that nobody can look up by name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def collect(self) -> Iterable[Metric]:
        return self.registry.collect()


async def test_whole_page_stays_where_the_filter_answers_nothing():
    """T3, T10: vLLM with several API servers has a multiprocess registry, and name[] finds nothing there."""
    vllm = Vllm()
    plain = vllm.registry
    vllm.registry = CollectorRegistry()
    vllm.registry.register(WithoutDescribe(plain))
    client = FakeClient(vllm.paths())
    watched = watch(client)
    for _ in range(3):
        assert (await watched.observe()).page.readings
    assert client.asked.count("/metrics/") == 1
    assert client.asked.count("/metrics") == 3


@pytest.mark.parametrize(
    "answer",
    [
        DOWN,
        REFUSED,
        "<html>",
        'vllm:generation_tokens_total{engine="0",model_name="llama"} 7\n',  # fewer series
        Vllm(started=1.8e9).by_name,  # another process
        Vllm().whole,  # nothing saved
    ],
    ids=["down", "refused", "no page", "fewer series", "another process", "not filtered"],
)
async def test_whole_page_stays_where_the_filtered_one_differs(answer: str | JoulemeterError | Render):
    client = FakeClient(Vllm().paths() | {"/metrics/": answer})
    watched = watch(client)
    for _ in range(2):
        assert len((await watched.observe()).page.readings) == 3
    assert client.asked.count("/metrics/") == 1


async def test_restart_seen_by_its_start_time_is_learned_anew():
    client = FakeClient(Vllm().paths())
    watched = watch(client)
    for _ in range(2):
        await watched.observe()
    client.paths = Vllm(started=1.8e9).paths() | {"/version": json.dumps({"version": "0.34.0"})}
    client.asked.clear()
    assert (await watched.observe()).page.start_time_seconds == 1.8e9
    assert watched.version == "0.34.0"
    await watched.observe()
    assert client.asked == ["/metrics/", "/version", "/metrics", "/metrics/"]


@pytest.mark.parametrize("error", [DOWN, REFUSED])
async def test_after_a_failure_all_is_learned_anew(error: JoulemeterError):
    client = FakeClient(Vllm().paths())
    watched = watch(client)
    await watched.observe()
    client.paths |= {"/metrics/": error}
    with pytest.raises(type(error)) as caught:
        await watched.observe()
    assert caught.value is error
    assert watched.up is False
    client.paths = {"/metrics": LLAMACPP}  # another server at the same address
    client.asked.clear()
    await watched.observe()
    assert watched.up is True
    assert watched.dialect is not None
    assert watched.dialect.name == "llamacpp"
    assert sorted(client.asked) == ["/metrics", "/props", "/v1/models"]


async def test_refused_page_names_the_server_and_the_remedy():
    client = FakeClient({"/metrics": "<html>hello</html>"})
    with pytest.raises(PageError, match=r"^chat \(http://127.0.0.1:8000/metrics\): .+") as caught:
        await watch(client, url="http://127.0.0.1:8000/metrics?key=secret").observe()
    assert caught.value.reason == "not_metrics"
    assert "secret" not in str(caught.value)


async def test_bad_value_spoils_its_page_only():
    client = FakeClient({"/metrics": LLAMACPP.replace("7", "NaN")})
    watched = watch(client)
    with pytest.raises(PageError) as caught:
        await watched.observe()
    assert caught.value.reason == "bad_value"
    client.paths["/metrics"] = LLAMACPP
    assert (await watched.observe()).page.readings


async def test_over_real_http():
    vllm = Vllm()
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        render = vllm.by_name if "name[]" in request.query else vllm.whole
        return web.Response(text=render(request.query.getall("name[]", [])))

    app = web.Application()
    app.add_routes([web.get("/metrics", answer), web.get("/metrics/", answer)])
    async with TestServer(app, host="127.0.0.1") as listening, PageClient(5) as client:
        watched = ServerWatch(ServerConfig(str(listening.make_url("/metrics")), name="chat"), client)
        observations = [await watched.observe() for _ in range(2)]
    assert asked == ["/metrics", "/metrics/", "/metrics/"]
    whole, filtered = (frozenset(one.page.readings) for one in observations)  # name[] answers in any order
    assert whole == filtered
    assert observations[0].at_seconds < observations[1].at_seconds


# ---------------------------------------------------------------------------------------------- names


def llamacpp(**paths: str | JoulemeterError) -> FakeClient:
    return FakeClient(
        {"/metrics": LLAMACPP} | {"/" + path.replace("_", "/"): body for path, body in paths.items()}
    )


def models(name: object) -> str:
    return json.dumps({"data": [{"id": name}]})


async def model_of(watched: ServerWatch) -> str:
    (model,) = {reading.model for reading in (await watched.observe()).page.readings}
    return model


@pytest.mark.parametrize(
    "answer",
    [
        *(REFUSED, DOWN, "", "<html>", "[]", "null", '{"data": []}'),
        *(models(3), models(""), models("x" * 999), models("half a pair: \ud800"), models("two\nlines")),
    ],
    ids=repr,
)
async def test_server_that_names_no_model_lends_its_own(answer: str | JoulemeterError):
    assert await model_of(watch(llamacpp(v1_models=answer))) == "chat"


async def test_model_is_asked_for_where_the_page_names_none():
    client = llamacpp(v1_models=models("qwen"), props=json.dumps({"build_info": "b42"}))
    watched = watch(client)
    assert [await model_of(watched), await model_of(watched)] == ["qwen", "qwen"]
    assert watched.version == "b42"
    assert sorted(client.asked) == ["/metrics", "/metrics", "/props", "/slots", "/v1/models"]


async def test_configured_model_needs_no_question():
    client = llamacpp(v1_models=models("qwen"))
    assert await model_of(watch(client, model="mine")) == "mine"
    assert "/v1/models" not in client.asked


async def test_model_on_the_page_wins():
    watched = watch(FakeClient(Vllm().paths()), model="mine")
    assert await model_of(watched) == "llama"


async def test_router_is_asked_about_one_model():
    """T12: /v1/models of a llama.cpp router lists all models; the one in the URL is meant."""
    client = llamacpp(v1_models=models("first"))
    assert await model_of(watch(client, url="http://127.0.0.1:8000/metrics?model=second")) == "second"
    assert "/v1/models" not in client.asked


async def test_unanswered_question_is_asked_again_ever_more_rarely():
    client = llamacpp(v1_models=DOWN, props="{}")
    watched = watch(client)
    for _ in range(100):
        await watched.observe()
    assert client.asked.count("/v1/models") == 7  # at observations 1, 2, 4, ... 64
    assert client.asked.count("/props") == 1
    client.paths["/v1/models"] = models("qwen")
    for _ in range(28):
        await watched.observe()
    assert await model_of(watched) == "qwen"


async def test_name_stays_while_the_question_goes_unanswered():
    """A label that comes and goes would split the model's series."""
    client = llamacpp(v1_models=models("qwen"))
    watched = watch(client)
    await watched.observe()
    client.paths["/metrics"] = DOWN
    with pytest.raises(ServerUnreachableError):
        await watched.observe()
    client.paths |= {"/metrics": LLAMACPP, "/v1/models": DOWN}
    assert await model_of(watched) == "qwen"
    client.paths["/v1/models"] = models("gemma")
    assert await model_of(watched) == "gemma"


async def test_questions_follow_the_path_of_the_page():
    client = FakeClient({"/a/metrics": LLAMACPP, "/a/v1/models": models("qwen")})
    assert await model_of(watch(client, url="http://127.0.0.1:8000/a/metrics")) == "qwen"


async def test_page_at_an_unusual_path_says_nothing_of_other_paths():
    client = FakeClient({"/stats": Vllm().whole})
    await watch(client, url="http://127.0.0.1:8000/stats").observe()
    assert client.asked == ["/stats"]


# ---------------------------------------------------------------------------------------------- dialects


async def test_configured_dialect_is_not_guessed():
    with pytest.raises(PageError):
        await watch(llamacpp(), dialect="vllm").observe()


async def test_generic_names():
    names = GenericNames(generation="out_total")
    watched = watch(FakeClient({"/metrics": "out_total 3\n"}), dialect="generic", metrics=names)
    (reading,) = (await watched.observe()).page.readings
    assert (reading.role, reading.value, reading.model) == (Role.GENERATION, 3, "chat")


# ---------------------------------------------------------------------------------------------- cost


@pytest.mark.parametrize(
    ("seconds", "interval"), [(0.0005, 1.0), (0.01, 1.0), (0.015, 1.5), (0.05, 5.0), (1.0, 5.0)]
)
async def test_interval_keeps_the_cost_below_one_percent(seconds: float, interval: float):
    watched = watch(FakeClient({"/metrics": LLAMACPP}, seconds=[seconds]))
    assert watched.interval_seconds() == 1.0
    await watched.observe()
    assert watched.interval_seconds() == pytest.approx(interval)


async def test_waiting_behind_an_engine_step_is_no_cost():
    client = FakeClient({"/metrics": LLAMACPP}, seconds=[0.02, *[0.9] * 60])
    watched = watch(client)
    for _ in range(60):
        await watched.observe()
    assert watched.interval_seconds() == pytest.approx(2.0)
    await watched.observe()  # the one that did not wait is forgotten
    assert watched.interval_seconds() == 5.0


async def test_cost_of_the_whole_page_is_not_that_of_the_filtered():
    client = FakeClient(Vllm().paths(), seconds=[0.04, 0.002])
    watched = watch(client)
    await watched.observe()
    assert watched.interval_seconds() == pytest.approx(4.0)
    await watched.observe()
    assert list(watched.response_seconds) == [pytest.approx(0.002)]
    assert watched.interval_seconds() == 1.0


async def test_server_whose_page_is_refused_is_asked_rarely():
    """It renders its page for nothing, however long that takes; one that does not answer may be back at once."""
    client = FakeClient({"/metrics": REFUSED})
    watched = watch(client)
    intervals = []
    for answer in (REFUSED, DOWN, "<html>", LLAMACPP):
        client.paths["/metrics"] = answer
        with contextlib.suppress(JoulemeterError):
            await watched.observe()
        intervals.append(watched.interval_seconds())
    assert intervals == [5.0, 1.0, 5.0, 1.0]


# ---------------------------------------------------------------------------------------------- side page


def slots(*tokens: int) -> str:
    busy = [{"id": i, "is_processing": True, "n_prompt_tokens": n} for i, n in enumerate(tokens)]
    return json.dumps([*busy, {"id": 9, "is_processing": False, "n_prompt_tokens": 4000}])


def roles(page: PageReading) -> dict[Role, tuple[str, float]]:
    return {reading.role: (reading.model, reading.value) for reading in page.readings}


async def test_side_page_adds_what_only_it_tells_and_is_part_of_the_cost():
    client = FakeClient({"/metrics": LLAMACPP, "/slots": slots(1077, 23)}, seconds=[0.002])
    watched = watch(client, model="llama")
    assert Role.CONTEXT not in roles((await watched.observe()).page)  # before it was known who this is
    got = await watched.observe()
    assert roles(got.page)[Role.CONTEXT] == ("llama", 1100)
    assert got.at_seconds == 100.001  # the metrics page's
    assert list(watched.response_seconds) == [pytest.approx(0.004)]  # the first page alone was cheaper
    client.paths["/slots"] = slots()
    assert roles((await watched.observe()).page)[Role.CONTEXT] == ("llama", 0)


@pytest.mark.parametrize(
    "refusal",
    [PageError("http_status", "chat: HTTP 501"), "<html>", '{"error": {"code": 501}}', "[1]", "[" * 100_000],
)
async def test_refused_side_page_is_not_asked_for_again_and_changes_nothing(refusal: str | PageError):
    client = FakeClient({"/metrics": LLAMACPP, "/slots": refusal}, seconds=[0.002])
    watched = watch(client, model="llama")
    first = await watched.observe()
    assert [await watched.observe() for _ in range(3)] == [first] * 3
    assert client.asked.count("/slots") == 1
    assert watched.up is True
    assert list(watched.response_seconds) == pytest.approx([0.002] * 4)


async def test_side_page_that_stays_away_is_given_up_until_the_server_was_away_itself():
    client = FakeClient({"/metrics": LLAMACPP, "/slots": DOWN})
    watched = watch(client, model="llama")
    for _ in range(3):
        await watched.observe()
    client.paths["/slots"] = slots(7)
    assert roles((await watched.observe()).page)[Role.CONTEXT] == ("llama", 7)
    client.paths["/slots"] = DOWN
    for _ in range(9):
        assert Role.CONTEXT not in roles((await watched.observe()).page)
    assert client.asked.count("/slots") == 2 + 1 + 3
    client.paths |= {"/metrics": DOWN, "/slots": slots(8)}
    with pytest.raises(ServerUnreachableError):
        await watched.observe()
    client.paths["/metrics"] = LLAMACPP
    await watched.observe()
    assert roles((await watched.observe()).page)[Role.CONTEXT] == ("llama", 8)


async def test_side_page_of_a_router_is_asked_about_the_same_model():
    asked = []

    class Router(FakeClient):
        async def get(
            self, url: str, server: ServerConfig, *, query: Sequence[tuple[str, str]] = ()
        ) -> Answer:
            asked.append(url)
            return await super().get(url, server, query=query)

    router = Router({"/metrics": LLAMACPP, "/slots": slots(5)})
    watched = watch(router, "http://127.0.0.1:8000/metrics?model=a&autoload=false")
    await watched.observe()
    assert roles((await watched.observe()).page)[Role.CONTEXT] == ("a", 5)
    assert asked[-1] == "http://127.0.0.1:8000/slots?model=a&autoload=false"
