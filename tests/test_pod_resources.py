"""The kubelet's pod-resources API, asked of a real gRPC server on a unix socket."""

import re
import socket
import sys
import time
from pathlib import Path

import grpc
import pytest
from kubelet import Claim, Kubelet, wire

from joulemeter.discovery import pod_resources_pb2
from joulemeter.discovery.device_ids import Device
from joulemeter.discovery.pod_resources import PodResources
from joulemeter.errors import DiscoveryError

ONE = "GPU-11111111-1111-4111-8111-111111111111"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kubelet.sock"


def problem(resources: PodResources) -> str:
    with pytest.raises(DiscoveryError) as caught:
        resources.pods()
    return str(caught.value)


def test_devices_and_claims_by_container_by_pod(path: Path):
    with Kubelet(path) as kubelet:
        kubelet.give("chat-0", [ONE, "GPU-2"], namespace="team-a", container="engine")
        kubelet.give("chat-0", ["mlx5_0"], namespace="team-a", container="engine", resource="rdma/hca")
        kubelet.give("chat-0", namespace="team-a", container="proxy")
        kubelet.give("code-0", claims=[Claim("gpu-1"), Claim(cdi="k8s.gpu.nvidia.com/claim=u-gpu-2")])
        kubelet.offer([ONE, "GPU-2"])
        resources = PodResources(path)
        assert resources.pods() == {
            ("team-a", "chat-0"): {
                "engine": (
                    Device("nvidia.com/gpu", ONE),
                    Device("nvidia.com/gpu", "GPU-2"),
                    Device("rdma/hca", "mlx5_0"),
                ),
                "proxy": (),
            },
            ("default", "code-0"): {
                "server": (Device("gpu.nvidia.com", "gpu-1"), Device("k8s.gpu.nvidia.com/claim", "u-gpu-2"))
            },
        }
        assert resources.allocatable() == (Device("nvidia.com/gpu", ONE), Device("nvidia.com/gpu", "GPU-2"))
    assert kubelet.calls == ["List", "GetAllocatableResources"]


def test_answer_is_read_by_the_numbers_of_kubernetes_own_definition(path: Path):
    """Fields as in Kubernetes 1.37's api.proto, encoded by hand; those that we skip are in it too."""
    topology = wire(3, wire(1, wire(1, 1)))
    devices = wire(1, "nvidia.com/gpu") + wire(2, "GPU-a") + wire(2, "GPU-b") + topology
    memory = wire(1, "hugepages-1Gi") + wire(2, 2)
    claim = wire(1, wire(1, "vendor.com/gpu=x")) + wire(2, "gpu.nvidia.com") + wire(3, "n") + wire(4, "gpu-5")
    dynamic = wire(2, "claim") + wire(3, "ns") + wire(4, claim + wire(5, "share"))
    plugged = wire(1, "engine") + wire(2, devices) + wire(3, b"\x01\x02") + wire(4, memory)
    pods = [
        wire(1, "p") + wire(2, "ns") + wire(3, plugged),
        wire(1, "q") + wire(2, "ns") + wire(3, wire(5, dynamic)),
    ]
    with Kubelet(path, answer=b"".join(wire(1, pod) for pod in pods)):
        assert PodResources(path).pods() == {
            ("ns", "p"): {"engine": (Device("nvidia.com/gpu", "GPU-a"), Device("nvidia.com/gpu", "GPU-b"))},
            ("ns", "q"): {"": (Device("gpu.nvidia.com", "gpu-5"),)},
        }


def test_generated_code_is_that_of_the_definition():
    """Who changes the .proto generates anew; its head says how."""
    definition = Path(pod_resources_pb2.__file__).with_name("pod_resources.proto").read_text()
    wanted = {
        name: {field: int(number) for field, number in re.findall(r"(\w+) = (\d+);", body)}
        for name, body in re.findall(r"^message (\w+) \{(.*?)\}", definition, re.MULTILINE | re.DOTALL)
    }
    generated = {
        name: {field.name: field.number for field in message.fields}
        for name, message in pod_resources_pb2.DESCRIPTOR.message_types_by_name.items()
    }
    assert generated == wanted
    assert len(wanted) == 10


def test_empty_answer_is_no_pods(path: Path):
    with Kubelet(path):
        assert PodResources(path).pods() == {}
        assert PodResources(path).allocatable() == ()


def test_kubelet_that_was_started_anew_is_asked_on_its_new_socket(path: Path):
    resources = PodResources(path)
    with Kubelet(path) as kubelet:
        kubelet.give("a", [ONE])
        before = resources.pods()
        kubelet.stop()
        assert "UNAVAILABLE: the kubelet is not running, or is starting" in problem(resources)
        kubelet.start()
        assert resources.pods() == before != {}


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "this kubelet does not have version v1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "others ask it too often"),
        (grpc.StatusCode.INTERNAL, "look into the kubelet's log"),
    ],
)
def test_error_of_the_kubelet_is_told_with_its_remedy(path: Path, code: grpc.StatusCode, remedy: str):
    with Kubelet(path, failure=code):
        assert problem(PodResources(path)).startswith(f"kubelet ({path}): List: {code.name}: {remedy}")


def test_answer_that_is_garbage_is_an_error(path: Path):
    with Kubelet(path, answer=b"\xff\xff\xff"):
        assert f"kubelet ({path}): List: INTERNAL" in problem(PodResources(path))


def test_kubelet_that_hangs_is_given_up(path: Path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        begun = time.monotonic()
        assert "the kubelet" in problem(PodResources(path, timeout_seconds=0.5))
        assert time.monotonic() - begun < 5


def test_socket_that_is_not_there_says_what_to_mount(path: Path):
    assert problem(PodResources(path)) == (
        f"kubelet ({path}): not there; mount the host's directory {path.parent} (hostPath), or set"
        " discovery.pod_resources_socket where the kubelet's root is elsewhere (k0s: /var/lib/k0s/kubelet)"
    )


def test_file_in_place_of_a_socket_is_named(path: Path):
    path.touch()
    assert problem(PodResources(path)).startswith(f"kubelet ({path}): not a socket; mount the directory")


def test_directory_that_may_not_be_entered_says_who_may(path: Path):
    class Guarded(type(path)):  # type: ignore[misc]
        def stat(self, *, follow_symlinks: bool = True) -> None:  # as root nothing is forbidden
            raise PermissionError(13, "Permission denied")

    assert "Permission denied; it belongs to root: run joulemeter as user 0" in problem(
        PodResources(Guarded(path))
    )


def test_missing_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch):
    with Kubelet(path):
        monkeypatch.setitem(sys.modules, "grpc", None)
        assert problem(PodResources(path)) == ("grpc is not installed: pip install 'joulemeter[kubernetes]'")
