"""Which GPUs servers in pods use, in the order configuration, kubelet, process."""

import logging
import time
from collections.abc import Mapping

from fake_meter import FakeMeter
from nodes import gpu

from joulemeter.discovery.device_ids import Device
from joulemeter.errors import DiscoveryError, NobodyListensError
from joulemeter.model import Pod
from joulemeter.runtime.owners import OwnerFinder
from joulemeter.runtime.pod_owners import PodOwners
from joulemeter.server_config import ServerConfig

UUIDS = [f"GPU-{index}{index}000000-0000-4000-8000-000000000000" for index in range(3)]
MIG = "MIG-33333333-3333-4333-8333-333333333333"
PLUGGED = "nvidia.com/gpu"


def server(name: str, container: str | None = "engine", **more: object) -> ServerConfig:
    url = f"http://10.0.0.1:80{len(name)}/metrics"
    return ServerConfig(url, name, pod=Pod("ns", name, f"uid-{name}"), container=container, **more)


class Node:
    """Three GPUs, what the kubelet gave, and what a look behind each port finds."""

    def __init__(self, *servers: ServerConfig) -> None:
        self.servers = list(servers)
        known = {uuid: gpu(index) for index, uuid in enumerate(UUIDS)}
        self.meter = FakeMeter(time.monotonic, known=known)
        self.meter.processes = {uuid: frozenset({index}) for index, uuid in enumerate(UUIDS)}
        self.given: dict[tuple[str, str], dict[str, tuple[Device, ...]]] | DiscoveryError = {}
        self.behind: frozenset[str] | DiscoveryError = DiscoveryError(
            "10.0.0.1 is not an address of this host"
        )
        self.asked = 0
        self.looked = 0
        self.pods = PodOwners(self.meter, self._pods)
        self.finder = OwnerFinder(lambda: self.servers, self.meter, gpus_of=self._gpus_of, pods=self.pods)

    def give(self, name: str, *ids: str, container: str = "engine", kind: str = PLUGGED) -> None:
        assert isinstance(self.given, dict)
        of_pod = self.given.setdefault(("ns", name), {})
        of_pod[container] = tuple(Device(kind, one) for one in ids)

    def _pods(self) -> Mapping[tuple[str, str], Mapping[str, tuple[Device, ...]]]:
        self.asked += 1
        if isinstance(self.given, DiscoveryError):
            raise self.given
        return self.given

    def _gpus_of(
        self, _port: int, _host: str, processes: Mapping[str, frozenset[int]]
    ) -> Mapping[str, frozenset[int]]:
        self.looked += 1
        if isinstance(self.behind, DiscoveryError):
            raise self.behind
        return {uuid: processes[uuid] for uuid in self.behind}


def test_configuration_goes_before_the_kubelet_and_that_before_processes():
    node = Node(server("named", gpus=(2,)), server("pod"), ServerConfig("http://127.0.0.1:1/metrics", "bare"))
    node.give("named", UUIDS[0])
    node.give("pod", UUIDS[0], UUIDS[1])
    node.behind = frozenset({UUIDS[2]})
    assert node.finder.find() == {"named": {UUIDS[2]}, "pod": set(UUIDS[:2]), "bare": {UUIDS[2]}}
    assert (node.asked, node.looked) == (1, 1)
    assert node.finder.problems == {}


def test_kubelet_is_not_asked_for_servers_outside_pods():
    node = Node(ServerConfig("http://127.0.0.1:1/metrics", "bare", gpus=(0,)), server("named", gpus=(1,)))
    node.finder.find()
    assert (node.asked, node.pods.up) == (0, None)


def test_instances_and_replicas_are_their_gpu_and_its_names_are_asked_once():
    node = Node(server("a"), server("b"))
    node.give("a", MIG, kind="nvidia.com/mig-1g.10gb")
    node.give("b", f"{UUIDS[1]}::4", kind="nvidia.com/gpu.shared")
    node.meter.names = {MIG: UUIDS[1]}
    assert node.finder.find() == {"a": {UUIDS[1]}, "b": {UUIDS[1]}}
    node.meter.names = {}  # a lost GPU tells none
    assert node.finder.find() == {"a": {UUIDS[1]}, "b": {UUIDS[1]}}


def test_container_that_serves_has_its_own_devices():
    node = Node(server("pod", "b"))
    node.give("pod", UUIDS[0], container="a")
    node.give("pod", UUIDS[1], container="b")
    assert node.finder.find() == {"pod": {UUIDS[1]}}


def test_all_of_the_pods_devices_where_the_container_is_unknown_or_has_none():
    for container in (None, "proxy", "unheard-of"):
        node = Node(server("pod", container))
        node.give("pod", UUIDS[0], container="a")
        node.give("pod", UUIDS[1], "mlx5_0", container="b")
        node.give("pod", "mlx5_1", container="proxy", kind="rdma/hca")
        assert node.finder.find() == {"pod": set(UUIDS[:2])}


def test_kubelet_that_does_not_answer_leaves_what_was_known(caplog):
    caplog.set_level(logging.INFO)
    node = Node(server("pod"))
    node.given = DiscoveryError("kubelet (/k.sock): not there; mount it")
    assert node.finder.find() == {"pod": None}
    assert node.finder.find() == {"pod": None}
    assert node.finder.problems == {"pod": "kubelet (/k.sock): not there; mount it"}
    assert node.pods.up is False
    node.given = {}
    node.give("pod", UUIDS[0])
    assert node.finder.find() == {"pod": {UUIDS[0]}}
    assert (node.pods.up, node.finder.problems) == (True, {})
    node.given = DiscoveryError("kubelet (/k.sock): gone again")
    assert node.finder.find() == {"pod": None}
    assert [record.getMessage() for record in caplog.records] == [
        "kubernetes: kubelet (/k.sock): not there; mount it; what is known of owners stands, trying again",
        "server pod: its GPUs are not known: kubelet (/k.sock): not there; mount it",
        "kubernetes: the kubelet answers",
        "server pod: uses GPU 0",
        "kubernetes: kubelet (/k.sock): gone again; what is known of owners stands, trying again",
    ]


def test_processes_tell_where_the_kubelet_does_not():
    node = Node(server("pod"))
    node.behind = frozenset({UUIDS[1]})
    assert node.finder.find() == {"pod": {UUIDS[1]}}
    assert node.finder.problems == {}


def test_pod_without_gpus_says_what_it_lacks():
    node = Node(server("pod"))
    assert node.finder.find() == {"pod": None}
    assert node.finder.problems["pod"].startswith(
        "server pod: the kubelet gave its pod no GPU: set a limit of nvidia.com/gpu, or a claim"
    )
    assert "for a joulemeter of that node alone (nodeSelector)" in node.finder.problems["pod"]
    node.behind = NobodyListensError("nobody listens")
    assert node.finder.find() == {"pod": frozenset()}  # believed once it is given up


def test_gpu_that_nvml_does_not_list_is_named_and_the_others_are_owned():
    node = Node(server("pod"))
    node.give("pod", UUIDS[0], MIG)
    assert node.finder.find() == {"pod": {UUIDS[0]}}
    assert node.finder.problems["pod"].startswith(
        f"server pod: the kubelet gave it {MIG}, which NVML does not list here: give joulemeter all GPUs"
    )
    node.meter.names = {MIG: UUIDS[2]}
    assert node.finder.find() == {"pod": {UUIDS[0], UUIDS[2]}}
    assert node.finder.problems == {}


def test_server_that_is_gone_leaves_no_problem_behind():
    node = Node(server("pod"))
    node.finder.find()
    assert node.finder.problems.keys() == {"pod"}
    node.servers = [server("other")]
    node.give("other", UUIDS[0])
    node.finder.find()
    assert node.finder.problems == {}
