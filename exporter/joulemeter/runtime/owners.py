"""Which GPUs each server uses: from the configuration, else from the processes behind its port."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from joulemeter.discovery import process
from joulemeter.errors import DiscoveryError, NobodyListensError
from joulemeter.meters import EnergyMeter
from joulemeter.server_config import DEFAULT_PORTS, ServerConfig

log = logging.getLogger(__name__)

GpusOf = Callable[[int, str, Mapping[str, frozenset[int]]], frozenset[str]]


class OwnerFinder:
    """Finds the GPUs of every server; blocking (reads /proc and NVML's process lists).

    Args:
        servers: the servers watched now.
        meter: knows the GPUs and the processes on them.
        gpus_of: (port, host, compute processes by UUID) -> UUIDs; raises DiscoveryError. By default one look at
            this host's processes for all servers.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[ServerConfig]],
        meter: EnergyMeter,
        *,
        gpus_of: GpusOf | None = None,
    ) -> None:
        self._servers = servers
        self._meter = meter
        self._gpus_of = gpus_of
        self.problems: dict[str, str] = {}
        self._found: dict[str, frozenset[str]] = {}
        self._said: dict[str, str] = {}

    def find(self) -> dict[str, frozenset[str] | None]:
        """UUIDs by server name; none if it does not run here, None where it cannot be told (`problems` says why)."""
        if not self._meter.gpus:
            return {}
        servers = self._servers()
        processes: Mapping[str, frozenset[int]] = {}
        if any(server.gpus is None for server in servers):
            processes = self._meter.compute_processes()
        gpus_of = self._gpus_of or partial(process.gpus_of, look=process.Look())
        found: dict[str, frozenset[str] | None] = {}
        for server in servers:
            try:
                found[server.name] = self._of(server, processes, gpus_of)
                self.problems.pop(server.name, None)
            except DiscoveryError as error:
                found[server.name] = frozenset() if isinstance(error, NobodyListensError) else None
                self.problems[server.name] = str(error)
            self._say(server.name, found[server.name])
        return found

    def _of(
        self, server: ServerConfig, processes: Mapping[str, frozenset[int]], gpus_of: GpusOf
    ) -> frozenset[str]:
        if server.gpus is None:
            url = urlsplit(server.url)
            port = url.port or DEFAULT_PORTS[url.scheme]
            uuids = gpus_of(port, url.hostname or "", processes)
            lost = self._meter.gpus.keys() - processes.keys()
            uuids |= self._found.get(server.name, frozenset()) & lost  # a lost GPU lists no process
            if not uuids:
                raise DiscoveryError(
                    f"server {server.name}: the process on port {port} and its children use no GPU that NVML lists:"
                    " run joulemeter in the host's PID namespace, or name the GPUs (gpus: [0])"
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
