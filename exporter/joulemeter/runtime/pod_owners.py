"""Which GPUs servers in pods use: those that the kubelet gave to their containers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from joulemeter.discovery.device_ids import Device, gpus_of, is_gpu
from joulemeter.discovery.pod_resources import Containers, PodName
from joulemeter.errors import DiscoveryError
from joulemeter.meters import EnergyMeter
from joulemeter.server_config import ServerConfig

log = logging.getLogger(__name__)

NOT_LISTED: Final = (
    "which NVML does not list here: give joulemeter all GPUs (NVIDIA_VISIBLE_DEVICES=all; if MIG instances are still"
    " missing, NVIDIA_MIG_MONITOR_DEVICES=all, which NVIDIA's toolkit allows with the capability SYS_ADMIN only)"
)
NOTHING_GIVEN: Final = (
    "the kubelet gave its pod no GPU: set a limit of nvidia.com/gpu, or a claim, in the pod; naming the GPUs in the"
    " configuration (servers: [{url: ..., gpus: [0]}]) is for a joulemeter of that node alone (nodeSelector), for every"
    " node's has the same configuration"
)


class PodOwners:
    """Asks the kubelet; blocking.

    Args:
        meter: knows the GPUs, and what else they are called.
        pods: devices by container by pod, from the kubelet; raises DiscoveryError.

    Attributes:
        up: whether the kubelet answered when it was last asked; None before.
        problems: why not all GPUs of a server were found, by name, when last asked.
    """

    def __init__(self, meter: EnergyMeter, pods: Callable[[], Mapping[PodName, Containers]]) -> None:
        self._meter = meter
        self._pods = pods
        self._names: dict[str, str] = {}
        self.up: bool | None = None
        self.problem: str | None = None
        self.problems: dict[str, str] = {}

    def find(self, servers: Sequence[ServerConfig]) -> dict[str, frozenset[str]]:
        """UUIDs by name of the servers for which the configuration names none, and the kubelet does."""
        in_pods = [server for server in servers if server.pod is not None and server.gpus is None]
        self.problems = {}
        if not in_pods:
            return {}
        try:
            pods = self._pods()
        except DiscoveryError as error:
            self._failed(error)
            self.problems = {server.name: str(error) for server in in_pods}
            return {}
        if not self.up:
            log.info("kubernetes: the kubelet answers")
        self.up, self.problem = True, None
        found = {server.name: self._given(server, pods) for server in in_pods}
        return {name: uuids for name, uuids in found.items() if uuids}

    def _failed(self, error: DiscoveryError) -> None:
        if self.problem is None:
            log.warning("kubernetes: %s; what is known of owners stands, trying again", error)
        self.up, self.problem = False, str(error)

    def _given(self, server: ServerConfig, pods: Mapping[PodName, Containers]) -> frozenset[str]:
        """Return a server's GPUs; what else GPUs are called is asked only if need be, and remembered."""
        devices = devices_of(server, pods)
        uuids, unknown = gpus_of(devices, self._meter.gpus, self._names)
        if unknown:
            self._names |= self._meter.other_names()
            uuids, unknown = gpus_of(devices, self._meter.gpus, self._names)
        if unknown:
            given = f"the kubelet gave it {', '.join(sorted(unknown))}, {NOT_LISTED}"
            self.problems[server.name] = f"server {server.name}: {given}"
        elif not uuids:
            self.problems[server.name] = f"server {server.name}: {NOTHING_GIVEN}"
        return uuids


def devices_of(server: ServerConfig, pods: Mapping[PodName, Containers]) -> tuple[Device, ...]:
    """Return what a server's container was given; if that is no GPU, or which it is is not known, all of its pod's.

    A proxy may stand before the server, in a container of its own.
    """
    pod = server.pod
    containers = {} if pod is None else pods.get((pod.namespace, pod.name), {})
    own = containers.get(server.container or "", ())
    if any(is_gpu(device) for device in own):
        return own
    return tuple(device for devices in containers.values() for device in devices)
