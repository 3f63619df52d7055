"""What the API server says of a pod, and the servers that are in it."""

from typing import Any

import pytest
from kubernetes_api import container, pod_json

from joulemeter.discovery.containers import usual_port
from joulemeter.discovery.pods import served
from joulemeter.errors import DiscoveryError
from joulemeter.model import Pod
from joulemeter.server_config import ServerConfig

GPU = {"nvidia.com/gpu": "1"}
VLLM = "vllm/vllm-openai:v0.32.0"


def urls(servers: tuple[ServerConfig, ...]) -> list[str]:
    return [server.url for server in servers]


def test_annotations_of_ours_describe_a_server():
    pod = pod_json(
        "chat-0",
        container("proxy", ports=[9000]),
        container("engine", ports=[8001]),
        namespace="team-a",
        uid="u-1",
        ip="10.1.2.3",
        annotations={
            "joulemeter.io/scrape": "true",
            "joulemeter.io/port": "8001",
            "joulemeter.io/path": "/v1/metrics?model=x",
            "joulemeter.io/scheme": "https",
            "joulemeter.io/dialect": "vllm",
            "joulemeter.io/model": " chat ",
        },
    )
    assert served(pod).servers == (
        ServerConfig(
            url="https://10.1.2.3:8001/v1/metrics?model=x",
            name="team-a/chat-0:8001",
            dialect="vllm",
            model="chat",
            pod=Pod("team-a", "chat-0", "u-1"),
            container="engine",
        ),
    )
    assert served(pod).guesses == served(pod).problems == ()


@pytest.mark.parametrize(
    ("containers", "url"),
    [
        ([container(ports=[8123])], "http://10.0.0.1:8123/metrics"),
        ([container(args=["--port", "8124"])], "http://10.0.0.1:8124/metrics"),
        ([container(command=["sh", "-c", "serve --port=8125 --x"])], "http://10.0.0.1:8125/metrics"),
        ([container("web", ports=[80]), container(image=VLLM)], "http://10.0.0.1:8000/metrics"),
        ([container("web", ports=[80]), container("x")], "http://10.0.0.1:80/metrics"),
        ([container("web", ports=[80]), container(ports=[81], limits=GPU)], "http://10.0.0.1:81/metrics"),
    ],
)
def test_port_that_is_not_annotated_is_the_one_that_a_container_tells(containers: list[Any], url: str):
    pod = pod_json("p", *containers, ip="10.0.0.1", annotations={"joulemeter.io/scrape": "true"})
    assert urls(served(pod).servers) == [url]


def test_several_ports_are_several_servers_of_one_pod():
    pair = [container("a", VLLM, args=["--port", "8000"]), container("b", ports=[8001])]
    annotations = {"joulemeter.io/scrape": "true", "joulemeter.io/port": "8000, 8001,8000"}
    found = served(
        pod_json("p", *pair, annotations=annotations | {"joulemeter.io/path": "/m"}, ip="10.0.0.1")
    )
    assert [(one.name, one.url, one.container) for one in found.servers] == [
        ("default/p:8000", "http://10.0.0.1:8000/m", "a"),
        ("default/p:8001", "http://10.0.0.1:8001/m", "b"),
    ]
    assert found.problems == ()


def test_port_that_is_none_is_named_and_the_others_are_served():
    annotations = {
        "joulemeter.io/scrape": "true",
        "joulemeter.io/port": "8000,x,70000,",
        "joulemeter.io/dialect": "v",
    }
    found = served(pod_json("p", container(), annotations=annotations))
    assert [one.name for one in found.servers] == ["default/p:8000"]
    place = "pod default/p: annotation joulemeter.io/port: expected a port from 1 to 65535, got"
    ports = [f"{place} {shown}" for shown in ("'x'", "'70000'", "''")]
    assert found.problems[:3] == tuple(ports)


def test_what_is_wrong_for_all_servers_of_a_pod_is_said_once():
    annotations = {
        "joulemeter.io/scrape": "true",
        "joulemeter.io/port": "1,2",
        "joulemeter.io/dialect": "vlm",
    }
    found = served(pod_json("p", container(), annotations=annotations))
    assert (len(found.servers), len(found.problems)) == (2, 1)


def test_prometheus_knows_one_port_only():
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8000,8001"}
    found = served(pod_json("p", container(limits=GPU), annotations=annotations))
    assert found.guesses == ()
    assert "prometheus.io/port: expected a port from 1 to 65535, got '8000,8001'" in found.problems[0]


@pytest.mark.parametrize(
    ("image", "port"),
    [
        (VLLM, 8000),
        ("registry.example/vllm/vllm-openai@sha256:abcd", 8000),
        ("registry.local:5000/mirror/lmsysorg/sglang:v0.5", 30000),
        ("registry.example/ggml-org/llama.cpp:server-cuda", 8080),
        ("registry.example/huggingface/text-generation-inference:3.3", 80),
        ("registry.example/llm-d/llm-d-cuda:v0.3", 8000),
        ("vllm.example.org/acme/app:vllm", None),
        ("localhost/vllm", 8000),
        ("registry.example/proxy/vllm-openai", 8000),
        ("registry.example/llm-d/llm-d-routing-sidecar:v0.3.0", None),
        ("registry.example/llm-d/llm-d-router-disagg-sidecar:v0.10.0", None),
        ("registry.example/acme/vllm-router", None),
        ("nginx", None),
        ("", None),
    ],
)
def test_usual_port_is_told_by_the_images_path_alone(image: str, port: int | None):
    assert usual_port(image) == port


@pytest.mark.parametrize(
    ("engine", "url"),
    [
        (container("e", VLLM), "http://10.0.0.1:8000/metrics"),
        (container("e", VLLM, ports=[8000, 9000]), "http://10.0.0.1:8000/metrics"),
        (container("e", VLLM, ports=[8080]), "http://10.0.0.1:8080/metrics"),
        (container("e", VLLM, ports=[8000], args=["--port", "8200"]), "http://10.0.0.1:8200/metrics"),
        (container("e", "lmsysorg/sglang:v0.5"), "http://10.0.0.1:30000/metrics"),
    ],
)
def test_image_of_a_known_server_makes_a_guess(engine: dict[str, Any], url: str):
    found = served(pod_json("p", container("sidecar", ports=[8000]), engine, ip="10.0.0.1"))
    assert (urls(found.guesses), found.servers) == ([url], ())
    assert found.guesses[0].container == "e"


def test_prometheus_annotations_make_a_guess_where_there_is_a_gpu_or_a_known_image():
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9400",
        "prometheus.io/path": "stats",
        "prometheus.io/scheme": "https",
    }
    where = {"annotations": annotations, "ip": "10.0.0.1"}
    with_gpu = served(pod_json("p", container(limits=GPU), **where))
    assert urls(with_gpu.guesses) == ["https://10.0.0.1:9400/stats"]
    claimed = served(pod_json("p", container(claims=[{"name": "gpu"}]), **where))
    assert urls(claimed.guesses) == ["https://10.0.0.1:9400/stats"]
    assert served(pod_json("p", container(), **where)).guesses == ()
    # the only container's port, whether it is declared or not
    known = served(pod_json("p", container(image=VLLM), **where))
    assert urls(known.guesses) == ["https://10.0.0.1:9400/stats"]


MERGED = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": "15020",
    "prometheus.io/path": "/stats/prometheus",
}
PROXY = container("istio-proxy", "istio/proxyv2:1.24.0", ports=[15090])


@pytest.mark.parametrize("proxy", [PROXY, PROXY | {"ports": [{"containerPort": 15020}]}])
@pytest.mark.parametrize("is_native", [False, True])
def test_sidecar_that_merges_metrics_does_not_make_one_engine_two_servers(
    proxy: dict[str, Any], is_native: bool
):
    engine = container("engine", VLLM, ports=[8000], limits=GPU)
    where = {"annotations": MERGED, "ip": "10.0.0.1"}
    pod = pod_json("p", engine, **where) if is_native else pod_json("p", proxy, engine, **where)
    pod["spec"]["initContainers"] = [proxy | {"restartPolicy": "Always"}] if is_native else []
    (guess,) = served(pod).guesses
    assert (guess.url, guess.container) == ("http://10.0.0.1:8000/metrics", "engine")


def test_merged_page_is_the_only_one_to_guess_where_no_image_is_known():
    found = served(pod_json("p", PROXY, container(limits=GPU), annotations=MERGED, ip="10.0.0.1"))
    assert urls(found.guesses) == ["http://10.0.0.1:15020/stats/prometheus"]


def test_annotated_port_of_a_known_image_is_the_guess_for_that_container():
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9400"}
    pair = [container("a", VLLM, ports=[8000, 9400]), container("b", VLLM, args=["--port", "8001"])]
    found = served(pod_json("p", *pair, annotations=annotations))
    assert [(one.name, one.container) for one in found.guesses] == [
        ("default/p:9400", "a"),
        ("default/p:8001", "b"),
    ]


def test_server_behind_a_sidecar_that_passes_requests_on_is_one_server():
    sidecar = container("routing", "llm-d/llm-d-routing-sidecar:v0.3.0", args=["--port=8000"], ports=[8000])
    engine = container("vllm", "llm-d/llm-d-cuda:v0.3.0", args=["--port", "8200"], limits=GPU)
    pod = pod_json("p", engine)
    pod["spec"]["initContainers"] = [sidecar | {"restartPolicy": "Always"}]
    assert [(one.name, one.container) for one in served(pod).guesses] == [("default/p:8200", "vllm")]


def test_native_sidecar_is_a_container_and_one_that_ends_is_none():
    pod = pod_json("p", container("web", ports=[80]))
    pod["spec"]["initContainers"] = [
        container("load", "vllm/vllm-openai:v0.1"),
        container("engine", VLLM, args=["--port", "8100"]) | {"restartPolicy": "Always"},
    ]
    assert [(one.name, one.container) for one in served(pod).guesses] == [("default/p:8100", "engine")]


def test_one_port_is_one_guess():
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8000", "prometheus.io/path": "/m"}
    found = served(pod_json("p", container(image=VLLM), annotations=annotations, ip="10.0.0.1"))
    assert urls(found.guesses) == ["http://10.0.0.1:8000/m"]


def test_each_serving_container_of_a_pod_is_a_guess():
    pair = [container("a", VLLM, args=["--port", "8000"]), container("b", VLLM, args=["--port", "8001"])]
    found = served(pod_json("p", *pair))
    assert [(one.name, one.container) for one in found.guesses] == [
        ("default/p:8000", "a"),
        ("default/p:8001", "b"),
    ]


def test_scrape_false_keeps_us_away():
    annotations = {"joulemeter.io/scrape": "false", "prometheus.io/scrape": "true"}
    found = served(pod_json("p", container(image=VLLM, limits=GPU), annotations=annotations))
    assert (found.servers, found.guesses, found.problems) == ((), (), ())


@pytest.mark.parametrize(
    "state", [{"phase": "Pending"}, {"ip": ""}, {"phase": "Succeeded"}, {"phase": "Failed"}]
)
def test_pod_without_an_address_or_at_its_end_serves_nothing(state: dict[str, str]):
    pod = pod_json("p", container(image=VLLM), annotations={"joulemeter.io/scrape": "true"}, **state)
    assert (served(pod).servers, served(pod).guesses) == ((), ())


def test_pod_that_terminates_serves_until_it_is_gone():
    pod = pod_json("p", container(ports=[8000]), annotations={"joulemeter.io/scrape": "true"})
    pod["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    assert len(served(pod).servers) == 1


def test_ipv6_stands_in_brackets():
    pod = pod_json("p", container(ports=[8000]), ip="fd00::7", annotations={"joulemeter.io/scrape": "true"})
    assert urls(served(pod).servers) == ["http://[fd00::7]:8000/metrics"]


PORT = {"joulemeter.io/port": "8000"}
BAD = {
    "joulemeter.io/scrape: expected 'true' or 'false', got 'yes'": {"joulemeter.io/scrape": "yes"},
    "joulemeter.io/port: expected a port from 1 to 65535, got 'http'": {"joulemeter.io/port": "http"},
    "joulemeter.io/port: expected a port from 1 to 65535, got '70000'": {"joulemeter.io/port": "70000"},
    "joulemeter.io/port: no container of a known server tells its port; give it": {},
    "joulemeter.io/dialect: unknown value 'vlm'; did you mean 'vllm'?": PORT
    | {"joulemeter.io/dialect": "vlm"},
    "joulemeter.io/dialect: unknown value 'generic'; known: auto, llamacpp, sglang, tgi, vllm": PORT
    | {"joulemeter.io/dialect": "generic"},
    "joulemeter.io/scheme: expected 'http' or 'https', got 'ftp'": PORT | {"joulemeter.io/scheme": "ftp"},
    "joulemeter.io/model: expected printable text, got 'a\\nb'": PORT | {"joulemeter.io/model": "a\nb"},
    "joulemeter.io/modle: unknown; did you mean 'model'?": PORT | {"joulemeter.io/modle": "x"},
}


@pytest.mark.parametrize(("message", "annotations"), BAD.items(), ids=BAD)
def test_annotation_that_cannot_be_used_is_named_with_the_pod(message: str, annotations: dict[str, str]):
    pod = pod_json("p", container(), annotations={"joulemeter.io/scrape": "true"} | annotations)
    assert served(pod).problems == (f"pod default/p: annotation {message}",)


def test_path_that_is_no_path_is_named():
    pod = pod_json(
        "p", container(), annotations=PORT | {"joulemeter.io/scrape": "true", "joulemeter.io/path": "/a b"}
    )
    (problem,) = served(pod).problems
    assert problem.startswith("pod default/p: annotation joulemeter.io/path: expected an http(s) URL")
    assert served(pod).servers == ()


@pytest.mark.parametrize("raw", [{}, {"metadata": {"name": "p"}}, {"metadata": []}, {"kind": "Status"}])
def test_what_is_no_pod_is_refused(raw: dict[str, Any]):
    with pytest.raises(DiscoveryError, match="not a pod"):
        served(raw)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"spec": None},
        {"spec": {"containers": [None, 7, {"ports": [None, {"containerPort": "x"}]}]}},
        {"spec": {"containers": [{"args": [1], "resources": {"limits": [], "claims": None}}]}},
        {"status": {"phase": "Running", "podIP": 7}},
        {"metadata": {"namespace": "n", "name": "p", "uid": "u", "annotations": ["x"]}},
    ],
)
def test_pod_in_an_unknown_shape_stops_nothing(spoilt: dict[str, Any]):
    pod = pod_json("p", annotations={"prometheus.io/scrape": "true"}) | spoilt
    assert served(pod).servers == ()
