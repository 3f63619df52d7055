"""A whole node of a cluster, played: kubelet, API server, virtual GPUs and servers, the daemon as a process.

The kubelet is a gRPC server on a unix socket, the API server an HTTP server that lists and watches; the daemon is told
of no server. One serves on two GPUs; one is replaced by another pod while the kubelet is started anew; two have MIG
instances of one GPU; one GPU is lost and returns. Every page is kept; the tests then read the recording.
"""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from daemons import Daemon, Page, falls, run, until
from kubelet import Kubelet
from kubernetes_api import NODE, ApiPlayer, container, pod_json
from test_daemon import Client, Scraper, tokens

from joulemeter.simulation.library import LIBRARY_VARIABLE, virtual_library
from joulemeter.simulation.node import RunningServer, Scenario, ScenarioServer, VirtualNode
from joulemeter.simulation.state import VirtualGpu

pytestmark = pytest.mark.timeout(240)

BIG, LLAMA, QWEN = "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B"
SCENARIO = Scenario(
    (VirtualGpu(idle_watts=0.0),) * 4,
    (
        ScenarioServer(BIG, (0, 1)),
        ScenarioServer(LLAMA, (2,)),
        ScenarioServer(LLAMA, (2,)),
        ScenarioServer(QWEN, (3,)),
        ScenarioServer(QWEN, (3,)),
    ),
)
PODS = {
    "big": ("research", "big-0"),
    "old": ("chat", "llama-5f7d-aaaaa"),
    "new": ("chat", "llama-5f7d-bbbbb"),
    "left": ("batch", "qwen-left"),
    "right": ("batch", "qwen-right"),
}
"""By what we call them here: namespace and name. Those two of the Llama are one Deployment's, one after the other."""
IDLE_WATTS = 110.0
GIVE_UP_SECONDS = 8


@dataclass
class Cluster:
    """What plays, and what happens to it."""

    node: VirtualNode
    api: ApiPlayer
    kubelet: Kubelet

    def __post_init__(self) -> None:
        self.servers: dict[str, RunningServer] = dict(zip(PODS, self.node.servers, strict=True))
        self.node.state.set_mig_instances(3, 2)
        whole = [self.node.state.uuid(gpu) for gpu in range(4)]
        self.devices = {
            "big": whole[:2],
            "old": [f"{whole[2]}::0"],  # time-slicing
            "new": [f"{whole[2]}::1"],
            "left": [f"MIG-1{whole[3][5:]}"],
            "right": [f"MIG-2{whole[3][5:]}"],
        }
        self.kubelet.offer(whole[:3])

    def begin(self, which: str) -> None:
        """The scheduler puts a pod here, the kubelet gives it devices and starts it."""
        namespace, name = PODS[which]
        port = int(self.servers[which].url.rpartition(":")[2])
        annotations = {"joulemeter.io/scrape": "true", "joulemeter.io/port": str(port)}
        engine = container(ports=[port], limits={"nvidia.com/gpu": "1"})
        told = {"namespace": namespace, "annotations": annotations}
        self.api.put(pod_json(name, engine, **told, phase="Pending", ip=""))
        mig = {"resource": "nvidia.com/mig-3g.40gb"} if which in {"left", "right"} else {}
        self.kubelet.give(name, self.devices[which], namespace=namespace, **mig)
        self.api.put(pod_json(name, engine, **told))

    def end(self, which: str) -> None:
        """Its process ends, and a moment later the pod is gone."""
        os.kill(self.servers[which].pid, signal.SIGTERM)
        time.sleep(0.5)
        namespace, name = PODS[which]
        self.kubelet.take(name, namespace)
        self.api.delete(name, namespace)


@dataclass(frozen=True)
class Recording:
    """What was seen of the daemon, from its start to its end."""

    pages: list[Page]
    usage: dict[str, dict[str, int]]
    used_joules: list[float]
    old_joules: float
    """What GPU 2 had used when the pod on it ended."""
    lost_pages: list[Page]
    log: str
    probe: str

    @property
    def last(self) -> Page:
        return self.pages[-1]


def of_pod(page: Page, which: str, name: str = "model_energy_joules_total") -> float:
    namespace, pod = PODS[which]
    return page.total(name, namespace=namespace, pod=pod)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    with VirtualNode(SCENARIO) as node, ApiPlayer() as api, Kubelet(folder / "kubelet.sock") as kubelet:
        yield Cluster(node, api, kubelet)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("kubernetes")
    with cluster(folder) as played:
        environment = {LIBRARY_VARIABLE: str(virtual_library()), **played.node.environment, "NODE_NAME": NODE}
        config = {
            "listen": "127.0.0.1:0",
            "zero_hold_seconds": 2,
            "observation": {"give_up_seconds": GIVE_UP_SECONDS},
            "discovery": {
                "kubernetes": True,
                "api_server": played.api.url,
                "pod_resources_socket": str(played.kubelet.socket),
            },
            "price": {"per_kwh": 0.25, "currency": "EUR", "gpu_hour": 2},
        }
        path = folder / "joulemeter.yaml"
        path.write_text(yaml.safe_dump(config))
        with Daemon(folder, "serve", "--config", str(path), environment=environment) as daemon:
            return record(played, daemon, path, environment)


def record(played: Cluster, daemon: Daemon, config: Path, environment: dict[str, str]) -> Recording:
    """Tell the story."""
    state = played.node.state
    daemon.becomes_ready()
    scraper = Scraper(daemon)
    scraper.start()
    clients = {which: Client(server, seed) for seed, (which, server) in enumerate(played.servers.items())}

    def work(*which: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(len(which)) as pool:
            for one in [pool.submit(clients[name].work, end) for name in which]:
                one.result()

    def are_known(*which: str) -> bool:
        return {PODS[one] for one in which} == daemon.page().labels("server_gpu_info", "namespace", "pod")

    for which in ("big", "old", "left", "right"):
        played.begin(which)
    until(lambda: are_known("big", "old", "left", "right"))
    for gpu in range(4):
        state.set_idle_watts(gpu, IDLE_WATTS)
    probe = run("probe", "--config", str(config), environment=environment).stdout
    work("big", "old", "left", "right", seconds=12)
    # the pod is replaced, while the kubelet is started anew and the watch is cut off
    time.sleep(1.5)  # what was answered is on the server's page, and the page was read
    old_joules = state.energy_joules(2)
    played.end("old")
    played.kubelet.stop()
    played.api.drop()
    played.begin("new")
    time.sleep(1)
    played.kubelet.start()
    until(lambda: are_known("big", "new", "left", "right"))
    work("big", "new", "left", "right", seconds=12)
    # a GPU of two is lost, for longer than energy is held for it, and returns
    state.lose(1)
    first_lost = len(scraper.texts)
    work("big", "new", seconds=GIVE_UP_SECONDS + 6)  # it is tried again 15.5 s after it was lost
    while_lost = scraper.texts[first_lost + 8 :]
    state.restore(1)
    usage = {which: client.usage for which, client in clients.items()}
    until(
        lambda: all(counted(daemon.page(), which)["requests"] == usage[which]["requests"] for which in usage)
    )
    for gpu in range(4):
        state.set_idle_watts(gpu, 0.0)
    used_joules = [state.energy_joules(gpu) for gpu in range(4)]
    until(lambda: abs(daemon.page().total("gpu_energy_joules_total") - sum(used_joules)) < 0.1)
    time.sleep(1.5)
    pages, lost_pages = scraper.stop(), [Page(text) for text in while_lost]
    assert daemon.terminate()[0] == 0
    return Recording(pages, usage, used_joules, old_joules, lost_pages, daemon.log, probe)


def counted(page: Page, which: str) -> dict[str, float]:
    _, name = PODS[which]
    (server,) = {
        server for server, pod in page.labels("model_energy_joules_total", "server", "pod") if pod == name
    }
    return tokens(page, server)


# ---------------------------------------------------------------------------------------------- it adds up


def test_every_page_adds_up(recording):
    """Law 1 through all of it, for joules, grams and money."""
    assert len(recording.pages) > 100
    assert max(page.imbalance() for page in recording.pages) <= 1e-9
    assert recording.last.total("gpu_cost_total") > 0


def test_no_counter_ever_falls_or_goes_but_those_of_a_server_that_is_gone(recording):
    old = "/".join(PODS["old"])
    gone = {key for _, key, _, after in falls(recording.pages) if after is None}
    assert {dict(labels).get("source", "").rpartition(":")[0] for _, labels in gone} == {old}
    assert [found for found in falls(recording.pages) if found[3] is not None] == []


def test_energy_is_what_each_gpu_used_counted_once(recording):
    """MIG instances and replicas are no GPUs: the two instances on GPU 3 have its joules, not twice as many."""
    page = recording.last
    measured = [page.value("gpu_energy_joules_total", gpu=str(gpu)) for gpu in range(4)]
    assert measured == pytest.approx(recording.used_joules, abs=0.002)
    assert len(page.values("gpu_energy_joules_total")) == 4


@pytest.mark.parametrize(
    ("pods", "gpus"), [(("big",), "01"), (("old", "new"), "2"), (("left", "right"), "3")], ids=str
)
def test_attributed_energy_by_pod_adds_up_on_every_page(recording, pods: tuple[str, ...], gpus: str):
    for page in recording.pages:
        attributed = sum(of_pod(page, which) for which in pods)
        rest = [
            page.total(name, gpu=gpu)
            for name in ("unattributed_energy_joules_total", "pending_energy_joules")
            for gpu in gpus
        ]
        measured = sum(page.total("gpu_energy_joules_total", gpu=gpu) for gpu in gpus)
        assert attributed + sum(rest) == pytest.approx(measured, rel=1e-9, abs=1e-6)


def test_attributed_energy_by_namespace_is_that_of_its_pods(recording):
    for page in recording.pages:
        by_pod = {
            namespace: sum(of_pod(page, which) for which, (of, _) in PODS.items() if of == namespace)
            for namespace, _ in PODS.values()
        }
        for namespace, joules in by_pod.items():
            assert page.total("model_energy_joules_total", namespace=namespace) == pytest.approx(joules)
        assert sum(by_pod.values()) == pytest.approx(page.total("model_energy_joules_total"))
    assert all(joules > 0 for joules in by_pod.values())


def test_every_attributed_series_names_its_pod(recording):
    page = recording.last
    for name in (
        "model_energy_joules_total",
        "model_tokens_total",
        "model_requests_total",
        "model_co2e_grams_total",
        "model_cost_total",
        "model_request_energy_joules_count",
        "unattributed_tokens_total",
    ):
        assert page.labels(name, "namespace", "pod") == set(PODS.values()), name
    for name in ("server_info", "server_gpu_info", "model_requests_running", "model_phase_uncertainty_ratio"):
        assert page.labels(name, "namespace", "pod") == set(PODS.values()) - {PODS["old"]}, name


def test_tokens_are_those_that_the_clients_were_told(recording):
    for which, usage in recording.usage.items():
        assert usage["requests"] > 3
        kept = counted(recording.last, which)
        lost = recording.last.total("unattributed_tokens_total", pod=PODS[which][1])
        assert lost == 0
        assert kept == usage


# ---------------------------------------------------------------------------------------------- who, how


def test_gpus_are_those_that_the_kubelet_gave(recording):
    page = recording.last
    assert page.labels("server_gpu_info", "pod", "gpu") == {
        (PODS["big"][1], "0"),
        (PODS["big"][1], "1"),
        (PODS["new"][1], "2"),
        (PODS["left"][1], "3"),
        (PODS["right"][1], "3"),
    }
    assert page.labels("server_info", "pod", "model", "method") == {
        (PODS["big"][1], BIG, "exclusive"),
        (PODS["new"][1], LLAMA, "exclusive"),
        (PODS["left"][1], QWEN, "shared"),
        (PODS["right"][1], QWEN, "shared"),
    }


def test_server_label_is_the_pod_and_its_port(recording):
    for server, namespace, pod in recording.last.labels(
        "model_energy_joules_total", "server", "namespace", "pod"
    ):
        name, _, port = server.rpartition(":")
        assert name == f"{namespace}/{pod}"
        assert port.isdigit()


def test_instances_share_by_their_work(recording):
    shares = [of_pod(recording.last, which) for which in ("left", "right")]
    assert min(shares) > 0.2 * sum(shares)  # the same work by the same model, each half of the GPU's time


def test_last_window_of_a_pod_is_its_own(recording):
    """All that its GPU used until it ended is the old pod's, but what it used before it was first asked."""
    attributed = of_pod(recording.last, "old")
    assert attributed == pytest.approx(recording.old_joules, rel=0.05)
    while_alone = [page for page in recording.pages if not page.values("server_info", pod=PODS["old"][1])]
    assert of_pod(while_alone[-1], "old") == attributed


def test_pod_that_took_over_has_the_rest(recording):
    page = recording.last
    rest = recording.used_joules[2] - recording.old_joules
    assert 0.5 * rest < of_pod(page, "new") < rest


def test_lost_gpu_stands_still_and_the_others_go_on(recording):
    first, last = recording.lost_pages[0], recording.lost_pages[-1]
    assert {
        page.value("source_up", kind="gpu", source=gpu_uuid(page, "1")) for page in recording.lost_pages
    } == {0.0}
    assert first.value("gpu_energy_joules_total", gpu="1") == last.value("gpu_energy_joules_total", gpu="1")
    assert first.values("gpu_power_watts", gpu="1") == []
    assert of_pod(last, "big") > of_pod(first, "big")
    end = recording.last
    assert end.value("gpu_energy_joules_total", gpu="1") == pytest.approx(recording.used_joules[1], abs=0.002)
    assert end.value("unattributed_energy_joules_total", gpu="1", reason="meter_gap") > 0


def gpu_uuid(page: Page, gpu: str) -> str:
    (uuid,) = {uuid for index, uuid in page.labels("gpu_energy_joules_total", "gpu", "uuid") if index == gpu}
    return uuid


def test_sources_tell_of_the_kubelet_and_the_api_server(recording):
    page = recording.last
    assert page.value("source_up", kind="kubernetes", source="api_server") == 1
    assert page.value("source_up", kind="kubernetes", source="kubelet") == 1


def test_probe_tells_of_pods(recording):
    assert f"Kubernetes\n  node {NODE}: 4 pods\n  kubelet: offers 3 devices of NVIDIA's\n" in recording.probe
    assert f"serving {BIG}; GPUs 0, 1; answers in " in recording.probe
    assert "  batch/qwen-left:" in recording.probe
    assert recording.probe.endswith("To mend\n  nothing\n")


def test_log_tells_the_story_and_nothing_is_wrong(recording):
    for words in (
        "server chat/llama-5f7d-aaaaa:",
        "kubernetes: 0 pods on this node",
        "kubernetes: the kubelet answers",
    ):
        assert words in recording.log
    assert "ERROR" not in recording.log
    assert "Traceback" not in recording.log
