"""A kubelet for one test: a real gRPC server on a unix socket that answers as its pod-resources API does."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from joulemeter.discovery import pod_resources_pb2 as api

GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Claim:
    """A device of a DRA driver; a kubelet before 1.34 tells the CDI name alone."""

    device: str = ""
    driver: str = "gpu.nvidia.com"
    cdi: str = ""


@dataclass
class Kubelet:
    """Serves until the block ends; can be stopped and started within. `failure`: every call ends with it."""

    socket: Path
    failure: grpc.StatusCode | None = None
    answer: bytes | None = None
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pods: dict[tuple[str, str], api.PodResources] = {}
        self._allocatable: list[api.ContainerDevices] = []
        self._server: grpc.Server | None = None

    def give(
        self,
        pod: str,
        ids: Sequence[str] = (),
        *,
        namespace: str = "default",
        container: str = "server",
        resource: str = GPU,
        claims: Sequence[Claim] = (),
    ) -> None:
        """Give devices to a container of a pod."""
        resources = self._pods.setdefault((namespace, pod), api.PodResources(name=pod, namespace=namespace))
        found = [one for one in resources.containers if one.name == container]
        into = found[0] if found else resources.containers.add(name=container)
        if ids:
            into.devices.add(resource_name=resource, device_ids=ids)
        for claim in claims:
            known = {"driver_name": claim.driver, "pool_name": "node-a", "device_name": claim.device}
            told = api.ClaimResource(**(known if claim.device else {}))
            told.cdi_devices.add(name=claim.cdi or f"k8s.{claim.driver}/claim=uid-{claim.device}")
            into.dynamic_resources.add(claim_name="gpu", claim_namespace=namespace, claim_resources=[told])

    def take(self, pod: str, namespace: str = "default") -> None:
        del self._pods[namespace, pod]

    def offer(self, ids: Sequence[str], resource: str = GPU) -> None:
        self._allocatable.append(api.ContainerDevices(resource_name=resource, device_ids=ids))

    def start(self) -> None:
        """Listen on a new socket in the same place, as a kubelet that was started anew."""
        self.socket.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(2))
        methods = {"List": self._list, "GetAllocatableResources": self._offered}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._noted(name, method), request_deserializer=bytes, response_serializer=bytes
            )
            for name, method in methods.items()
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers)]
        )
        server.add_insecure_port(f"unix:{self.socket}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """End, leaving the socket's file behind, as a kubelet that was killed does."""
        if self._server is not None:
            self._server.stop(None).wait(5)
            self._server = None
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(self.socket))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _noted(self, name: str, method: Any) -> Any:
        def call(_: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append(name)
            if self.failure is not None:
                context.abort(self.failure, "told to")
            return self.answer if self.answer is not None else method()

        return call

    def _list(self) -> bytes:
        return api.ListPodResourcesResponse(pod_resources=list(self._pods.values())).SerializeToString()

    def _offered(self) -> bytes:
        return api.AllocatableResourcesResponse(devices=self._allocatable).SerializeToString()


def wire(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message, by the rules of its encoding alone."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data
