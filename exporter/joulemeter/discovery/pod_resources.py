"""Which devices the kubelet gave to which container: its pod-resources API, gRPC on a unix socket. Blocking."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from joulemeter.discovery.device_ids import Device, claimed
from joulemeter.errors import DiscoveryError

SERVICE: Final = "v1.PodResourcesLister"
TIMEOUT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""What the kubelet's own client takes; a node of 250 pods sends some 100 kB."""
CHANNEL_OPTIONS: Final = (
    ("grpc.default_authority", "localhost"),  # else the path, escaped, which is no host (grpc/grpc#38142)
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel may wait out the failures of the last one
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
)
REMEDIES: Final = {
    "UNIMPLEMENTED": "this kubelet does not have version v1 of the API; it is there from Kubernetes 1.20 on",
    "RESOURCE_EXHAUSTED": "others ask it too often; it will answer again",
    "UNAVAILABLE": "the kubelet is not running, or is starting; it will answer when it is",
    "DEADLINE_EXCEEDED": "the kubelet is overloaded or hangs",
}

PodName = tuple[str, str]
Containers = Mapping[str, tuple[Device, ...]]


class PodResources:
    """Asks the kubelet. Each call connects anew: the kubelet makes a new socket at each of its starts.

    Args:
        socket: path of the kubelet's socket; mount its directory, for a mounted socket would be the old one.
        timeout_seconds: for one answer.
    """

    def __init__(self, socket: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._socket = socket
        self._timeout_seconds = timeout_seconds
        self._place = f"kubelet ({socket})"

    def pods(self) -> dict[PodName, Containers]:
        """Devices by container by namespace and name of the pod; pods without devices may be missing.

        Raises:
            DiscoveryError: the kubelet cannot be asked; with the remedy.
        """
        api = _api()
        answer = self._ask("List", api.ListPodResourcesRequest(), api.ListPodResourcesResponse)
        return {
            (pod.namespace, pod.name): {
                container.name: (*_plugged(container.devices), *_claimed(container.dynamic_resources))
                for container in pod.containers
            }
            for pod in answer.pod_resources
        }

    def allocatable(self) -> tuple[Device, ...]:
        """All devices that plugins offer on this node, given to a container or not.

        Raises:
            DiscoveryError: the kubelet cannot be asked; with the remedy.
        """
        api = _api()
        request = api.AllocatableResourcesRequest()
        return tuple(
            _plugged(self._ask("GetAllocatableResources", request, api.AllocatableResourcesResponse).devices)
        )

    def _ask(self, method: str, request: Any, answer: Any) -> Any:
        self._look_at_socket()
        grpc = _grpc()
        with grpc.insecure_channel(f"unix://{self._socket.absolute()}", options=CHANNEL_OPTIONS) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            try:
                return call(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                code = error.code().name
                remedy = REMEDIES.get(code, "look into the kubelet's log")
                raise DiscoveryError(f"{self._place}: {method}: {code}: {remedy}") from error

    def _look_at_socket(self) -> None:
        """Say what gRPC would not: that there is no socket, or that we may not use it."""
        try:
            is_socket = stat.S_ISSOCK(self._socket.stat().st_mode)
        except FileNotFoundError as error:
            raise DiscoveryError(
                f"{self._place}: not there; mount the host's directory {self._socket.parent} (hostPath), or set"
                " discovery.pod_resources_socket where the kubelet's root is elsewhere (k0s: /var/lib/k0s/kubelet)"
            ) from error
        except OSError as error:
            raise DiscoveryError(
                f"{self._place}: {error.strerror}; it belongs to root: run joulemeter as user 0"
                " (without any capability)"
            ) from error
        if not is_socket:
            raise DiscoveryError(
                f"{self._place}: not a socket; mount the directory that the kubelet has it in"
            )


def _plugged(devices: Sequence[Any]) -> list[Device]:
    return [Device(one.resource_name, name) for one in devices for name in one.device_ids]


def _claimed(resources: Sequence[Any]) -> list[Device]:
    return [
        device
        for resource in resources
        for one in resource.claim_resources
        for device in claimed(one.driver_name, one.device_name, [cdi.name for cdi in one.cdi_devices])
    ]


def _grpc() -> Any:
    """Import gRPC only where it is used: it is an extra, and takes 11 MiB."""
    try:
        import grpc  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    return grpc


def _api() -> Any:
    try:
        from joulemeter.discovery import pod_resources_pb2  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from error
    return pod_resources_pb2


def _missing(error: ImportError) -> DiscoveryError:
    return DiscoveryError(f"{error.name} is not installed: pip install 'joulemeter[kubernetes]'")
