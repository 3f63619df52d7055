"""Which GPUs each server uses: from the configuration, else from the kubelet, else from processes behind its port."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from joulemeter.discovery import process
from joulemeter.errors import DiscoveryError, NobodyListensError
from joulemeter.meters import EnergyMeter
from joulemeter.runtime.pod_owners import PodOwners
from joulemeter.server_config import DEFAULT_PORTS, ServerConfig

log = logging.getLogger(__name__)

GpusOf = Callable[[int, str, Mapping[str, frozenset[int]]], Mapping[str, frozenset[int]]]


class OwnerFinder:
    """Finds the GPUs of every server; blocking (reads /proc and NVML's process lists).

    Args:
        servers: the servers watched now.
        meter: knows the GPUs and the processes on them.
        gpus_of: (port, host, compute processes by UUID) -> the server's own; raises DiscoveryError. By default one
            look at this host's processes for all servers.
        pods: knows the GPUs of servers in pods.

    Attributes:
        problems: what is wrong with servers of which not all GPUs are known, by name.
        processes: pids by UUID by name of the servers whose processes were found; replaced as a whole.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[ServerConfig]],
        meter: EnergyMeter,
        *,
        gpus_of: GpusOf | None = None,
        pods: PodOwners | None = None,
    ) -> None:
        self._servers = servers
        self._meter = meter
        self._gpus_of = gpus_of
        self._pods = pods
        self.problems: dict[str, str] = {}
        self.processes: Mapping[str, Mapping[str, frozenset[int]]] = {}
        self._found: dict[str, frozenset[str]] = {}
        self._said: dict[str, str] = {}

    def find(self) -> dict[str, frozenset[str] | None]:
        """UUIDs by server name; none if it does not run here, None where it cannot be told (`problems` says why)."""
        if not self._meter.gpus:
            return {}
        servers = self._servers()
        self._forget_all_but(frozenset(server.name for server in servers))
        by_pod = self._pods.find(servers) if self._pods else {}
        pod_problems = self._pods.problems if self._pods else {}
        found: dict[str, frozenset[str] | None] = {}
        for name, uuids in by_pod.items():
            found[name] = uuids
            self._note(name, pod_problems.get(name))
            self._say(name, uuids)
        servers = [server for server in servers if server.name not in found]
        processes: Mapping[str, frozenset[int]] = {}
        if any(server.gpus is None for server in servers):
            processes = self._meter.compute_processes()
        gpus_of = self._gpus_of or partial(process.gpus_of, look=process.Look())
        own: dict[str, Mapping[str, frozenset[int]]] = {}
        for server in servers:
            try:
                if server.gpus is None:
                    own[server.name] = _behind_port(server, processes, gpus_of)
                found[server.name] = self._of(server, own.get(server.name, {}), processes)
                self._note(server.name, None)
            except DiscoveryError as error:
                found[server.name] = frozenset() if isinstance(error, NobodyListensError) else None
                self._note(server.name, pod_problems.get(server.name, str(error)))
                if self._pods and self._pods.up is False and server.name in self._said:
                    continue  # what was known stands
            self._say(server.name, found[server.name])
        self.processes = own
        return found

    def _note(self, name: str, problem: str | None) -> None:
        if problem is None:
            self.problems.pop(name, None)
        else:
            self.problems[name] = problem

    def _forget_all_but(self, names: frozenset[str]) -> None:
        for kept in (self.problems, self._found, self._said):
            for name in kept.keys() - names:
                del kept[name]

    def _of(
        self, server: ServerConfig, own: Mapping[str, frozenset[int]], listed: Mapping[str, frozenset[int]]
    ) -> frozenset[str]:
        if server.gpus is None:
            lost = self._meter.gpus.keys() - listed.keys()  # a lost GPU lists no process
            uuids = frozenset(own) | (self._found.get(server.name, frozenset()) & lost)
            if not uuids:
                raise DiscoveryError(
                    f"server {server.name}: the process on port {_port(server)} and its children use no GPU that NVML"
                    " lists: run joulemeter in the host's PID namespace (and, where GPUs are cut into MIG instances,"
                    " as root with NVIDIA_MIG_MONITOR_DEVICES=all), or name the GPUs (gpus: [0];"
                    " not in a configuration that several nodes share)"
                )
            self._found[server.name] = uuids
            return uuids
        by_index = {gpu.index: uuid for uuid, gpu in self._meter.gpus.items()}
        wanted = {by_index.get(gpu, str(gpu)) if isinstance(gpu, int) else gpu for gpu in server.gpus}
        missing = wanted - self._meter.gpus.keys()
        if missing:
            known = ", ".join(f"{index} ({uuid})" for index, uuid in sorted(by_index.items())) or "none"
            raise DiscoveryError(
                f"server {server.name}: gpus: {', '.join(sorted(missing))} not found; this node has {known}"
            )
        return frozenset(wanted)

    def _say(self, name: str, uuids: frozenset[str] | None) -> None:
        """One line per change."""
        gpus = self._meter.gpus
        if not uuids:
            line = f"its GPUs are not known: {self.problems[name]}"
        else:
            line = "uses GPU " + ", ".join(
                str(gpus[uuid].index) for uuid in sorted(uuids, key=lambda u: gpus[u].index)
            )
        if self._said.get(name) != line:
            self._said[name] = line
            log.log(logging.INFO if uuids else logging.WARNING, "server %s: %s", name, line)


def _behind_port(
    server: ServerConfig, processes: Mapping[str, frozenset[int]], gpus_of: GpusOf
) -> Mapping[str, frozenset[int]]:
    """Find the server's own among the processes that compute. Raises DiscoveryError."""
    return gpus_of(_port(server), urlsplit(server.url).hostname or "", processes)


def _port(server: ServerConfig) -> int:
    url = urlsplit(server.url)
    return url.port or DEFAULT_PORTS[url.scheme]
