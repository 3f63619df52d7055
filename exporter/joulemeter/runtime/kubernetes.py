"""What the daemon has in a cluster: a watcher of this node's pods, and the kubelet to ask who was given which GPU."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from joulemeter.config import Config, DiscoverySettings
from joulemeter.discovery.api_server import ApiServer
from joulemeter.discovery.pod_resources import PodResources
from joulemeter.errors import DiscoveryError
from joulemeter.meters import EnergyMeter
from joulemeter.runtime.http import Answer
from joulemeter.runtime.pod_owners import PodOwners
from joulemeter.runtime.pod_watcher import PodWatcher
from joulemeter.runtime.watch import Pages
from joulemeter.server_config import ServerConfig

NODE_VARIABLE: Final = "NODE_NAME"
"""Name of the Kubernetes node that the daemon runs on, where pods are to be found."""
HOST_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
PORT_VARIABLE: Final = "KUBERNETES_SERVICE_PORT"


class Kubernetes:
    """Wires the parts; an async context manager.

    Args:
        config: its `discovery`, and the servers that need not be discovered.
        pages: asks servers.
        meter: knows the GPUs.
        environment: where Kubernetes tells a container where it is.

    Raises:
        DiscoveryError: it does not say where we are; with the remedy.
    """

    def __init__(
        self, config: Config, pages: Pages, meter: EnergyMeter, environment: Mapping[str, str]
    ) -> None:
        settings = config.discovery
        self.node_name = settings.node_name or node_name(environment)
        address = settings.api_server or api_server(environment)
        self._api = ApiServer(address, self.node_name, settings.service_account_dir)
        self.kubelet = PodResources(settings.pod_resources_socket)
        self.owners = PodOwners(meter, self.kubelet.pods)
        configured = frozenset(server.url for server in config.servers)
        self._tls = _Tls(settings, pages)
        self.watcher = PodWatcher(self._api, self._tls, configured=configured)

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.__aexit__(kind, error, trace)

    def servers(self) -> dict[str, ServerConfig]:
        """By name, the servers that are there now, and which of their certificates to believe."""
        return {name: self._tls.applied(server) for name, server in self.watcher.servers().items()}

    def up(self) -> dict[str, bool]:
        """Whether the API server and the kubelet answered when they were last asked, by what we call them."""
        kubelet = {} if self.owners.up is None else {"kubelet": self.owners.up}
        return {"api_server": self.watcher.up, **kubelet}


class _Tls:
    """`discovery.tls_config` for servers that are discovered; asks them with it."""

    def __init__(self, settings: DiscoverySettings, pages: Pages) -> None:
        self._settings = settings
        self._pages = pages

    def applied(self, server: ServerConfig) -> ServerConfig:
        settings = self._settings
        return replace(server, ca_file=settings.ca_file, insecure_skip_verify=settings.insecure_skip_verify)

    async def get(self, url: str, server: ServerConfig, *, query: Sequence[tuple[str, str]] = ()) -> Answer:
        return await self._pages.get(url, self.applied(server), query=query)


def node_name(environment: Mapping[str, str]) -> str:
    """Return the name of this node. Raises DiscoveryError if nobody says it."""
    name = environment.get(NODE_VARIABLE, "")
    if not name:
        raise DiscoveryError(
            f"discovery.kubernetes: the environment variable {NODE_VARIABLE} is not set: give the container the node's"
            " name (env: valueFrom: fieldRef: fieldPath: spec.nodeName), or set discovery.node_name"
        )
    return name


def api_server(environment: Mapping[str, str]) -> str:
    """Return the address of the API server. Raises DiscoveryError outside a cluster."""
    host, port = environment.get(HOST_VARIABLE, ""), environment.get(PORT_VARIABLE, "443")
    if not host:
        raise DiscoveryError(
            f"discovery.kubernetes: the environment variable {HOST_VARIABLE} is not set, so this is no pod: set"
            " discovery.api_server, or switch discovery.kubernetes off"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
