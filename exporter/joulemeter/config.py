"""The configuration: a mapping in, a Config or every problem at once out (ConfigError). Reads no files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast
from zoneinfo import ZoneInfo

from joulemeter.errors import ConfigError
from joulemeter.grid_config import GridSettings, read_grid
from joulemeter.grids import Place
from joulemeter.price_config import PriceSettings, read_price
from joulemeter.schedule import time_zone
from joulemeter.server_config import (
    MAX_PORT,
    ServerConfig,
    base_url,
    is_host,
    page_url,
    read_servers,
    refuse_twins,
)
from joulemeter.settings import Section, shown
from joulemeter.yaml_text import read_yaml

__all__ = [
    "BaselineSettings",
    "Config",
    "DiscoverySettings",
    "GridSettings",
    "ObservationSettings",
    "PriceSettings",
    "Sampling",
    "ServerConfig",
    "load",
    "parse",
    "with_overrides",
]

Idle = Literal["owner", "unattributed"]

IDLE: Final = ("owner", "unattributed")
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - an exporter is there to be scraped
ADDRESS: Final = re.compile(r"(?P<host>[^:\[\]]*|\[[^\[\]]+\]):(?P<port>[0-9]{1,5})")
HOUR_SECONDS: Final = 3600.0
MONTH_SECONDS: Final = 31 * 24 * HOUR_SECONDS


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often energy is read."""

    interval_seconds: float = 0.05
    """Time between two rounds of energy readings. Boards renew their counter about every 0.1 s."""


@dataclass(frozen=True, slots=True)
class ObservationSettings:
    """How often servers are asked, how long one may take, and when its energy is given up."""

    interval_seconds: float = 1.0
    """Time between two questions to a server; longer, up to 5 s, for a server that answers slowly."""
    timeout_seconds: float = 2.0
    """How long one whole answer may take."""
    give_up_seconds: float = 60.0
    """Energy of a server silent for longer is unattributed. More than `timeout_seconds`."""


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """What a model's energy is compared with: learned here, or brought along."""

    learn_days: float = 7.0
    """How long a baseline learns before it is frozen; it is used, and marked as learning, after an hour."""
    file: Path | None = None
    """Frozen baselines, as `joulemeter baseline export` writes them, for what has none here when the daemon starts."""


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """How servers are found that nobody configured."""

    kubernetes: bool = False
    """Find the serving pods of this node and the GPUs they were given; needs `pip install 'joulemeter[kubernetes]'`."""
    node_name: str | None = None
    """This node's name in Kubernetes. None: what the environment variable NODE_NAME says."""
    api_server: str | None = None
    """Address of the API server. None: the one that Kubernetes names in every pod's environment."""
    service_account_dir: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Directory with the ServiceAccount's `token` and `ca.crt`; read anew when they are renewed."""
    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    """The kubelet's socket that tells which pod was given which GPU."""
    ca_file: Path | None = None
    """File with the certificates that those of discovered servers are checked against, in PEM."""
    insecure_skip_verify: bool = False
    """Believe any certificate of a discovered server."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set; what is left out has these values."""

    listen_host: str = ANY_ADDRESS
    """HOST:PORT of the page; IPv6 in brackets, port 0 for a free one."""
    listen_port: int = 9847
    web_config_file: Path | None = None
    """TLS and passwords for all paths, in the format of the web configuration of Prometheus's exporters; read anew when
    it or a certificate changes. None: plain HTTP for everyone who reaches the port."""
    state_dir: Path | None = None
    """Directory that outlives the daemon, for baselines; one daemon writes in it. None: learned anew at each start."""
    series_ttl_seconds: float = HOUR_SECONDS
    """Series of a model not seen for so long are dropped; their totals move to the retired ones."""
    zero_hold_seconds: float = 30.0
    """New series stay at 0 for so long, so that two scrapes see their birth; their energy is pending. Where ever new
    models appear on a GPU, its energy waits `observation.give_up_seconds` longer at most."""
    baseline: BaselineSettings = BaselineSettings()
    sampling: Sampling = Sampling()
    observation: ObservationSettings = ObservationSettings()
    servers: tuple[ServerConfig, ...] = ()
    """The inference servers of this node. None, and no `discovery`: looked for on the usual ports of the loopback
    interface."""
    discovery: DiscoverySettings = DiscoverySettings()
    idle: Idle = "owner"
    """Whose the energy is while no engine step runs: the loaded models', or unattributed."""
    time_zone: ZoneInfo | None = None
    """The site's time zone, such as Europe/Paris, for tables by time of day."""
    grid: GridSettings = GridSettings()
    pue: float = 1.0
    """Power usage effectiveness; multiplies grams and the cost of electricity, not joules."""
    price: PriceSettings = PriceSettings()

    @property
    def place(self) -> Place:
        """Where the power is drawn."""
        return self.grid.place(self.time_zone)


def load(text: str, *, source: str) -> Config:
    """Read a configuration file's YAML text; `source` names it in errors. An empty file is all defaults.

    Raises:
        ConfigError: the text is not YAML (with its line), or `parse` found problems.
    """
    raw = read_yaml(text, source=source)
    return parse({} if raw is None else raw)


def parse(raw: Mapping[str, object]) -> Config:
    """Check a whole configuration.

    Raises:
        ConfigError: with every problem, each with its place, the value and what is expected instead.
    """
    problems: list[str] = []
    config = read(Section(raw, "", problems), problems)
    if problems:
        raise ConfigError(problems)
    return config


def read(top: Section, problems: list[str]) -> Config:
    """Read a whole configuration; `problems` grows by what is wrong with it."""
    default = Config()
    listen = top.converted("listen", (default.listen_host, default.listen_port), address)
    site = top.converted("time_zone", None, time_zone)
    config = Config(
        listen_host=listen[0],
        listen_port=listen[1],
        web_config_file=top.path("web_config_file"),
        state_dir=top.path("state_dir"),
        series_ttl_seconds=top.number(
            "series_ttl_seconds", default.series_ttl_seconds, low=60, high=MONTH_SECONDS
        ),
        zero_hold_seconds=top.number("zero_hold_seconds", default.zero_hold_seconds, low=0, high=600),
        baseline=_baseline(top.section("baseline")),
        sampling=_sampling(top.section("sampling")),
        observation=_observation(top.section("observation")),
        servers=read_servers(top.items("servers"), "servers", problems),
        discovery=_discovery(top.section("discovery")),
        idle=cast("Idle", top.choice("idle", default.idle, IDLE)),
        time_zone=site,
        grid=read_grid(top.section("grid"), site),
        pue=top.number("pue", default.pue, low=1, high=10),
        price=read_price(top.section("price"), site),
    )
    top.finish()
    return config


def with_overrides(config: Config, servers: Sequence[str], listen: str | None) -> Config:
    """Let command-line flags replace all of the file's servers (if any are given) and its listen address.

    Raises:
        ConfigError: with every unusable value; the place is the flag.
    """
    problems: list[str] = []
    found = []
    for url in servers:
        try:
            found.append(ServerConfig(*page_url(url)))
        except ValueError as error:
            problems.append(f"--server: {error}")
    refuse_twins([(f"--server {server.url}", server) for server in found], problems)
    host, port = config.listen_host, config.listen_port
    try:
        host, port = address(listen) if listen is not None else (host, port)
    except ValueError as error:
        problems.append(f"--listen: {error}")
    if problems:
        raise ConfigError(problems)
    return replace(config, servers=tuple(found) or config.servers, listen_host=host, listen_port=port)


def address(value: object) -> tuple[str, int]:
    """Split HOST:PORT; IPv6 stands in brackets, no host means every IPv4 address, port 0 means a free one.

    Raises:
        ValueError: it is none.
    """
    match = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        host, port = match["host"].strip("[]") or ANY_ADDRESS, int(match["port"])
        if is_host(host) and port <= MAX_PORT:
            return host, port
    raise ValueError(f"expected HOST:PORT such as 0.0.0.0:9847 or [::]:9847, got {shown(value)}")


def _discovery(section: Section) -> DiscoverySettings:
    default = DiscoverySettings()
    tls = section.section("tls_config")
    settings = DiscoverySettings(
        kubernetes=section.flag("kubernetes", default=default.kubernetes),
        node_name=section.text("node_name", None),
        api_server=section.converted("api_server", None, base_url),
        service_account_dir=section.path("service_account_dir") or default.service_account_dir,
        pod_resources_socket=section.path("pod_resources_socket") or default.pod_resources_socket,
        ca_file=tls.path("ca_file"),
        insecure_skip_verify=tls.flag("insecure_skip_verify", default=default.insecure_skip_verify),
    )
    for part in (tls, section):
        part.finish()
    return settings


def _baseline(section: Section) -> BaselineSettings:
    days = section.number("learn_days", BaselineSettings().learn_days, low=0.05, high=60)
    file = section.path("file")
    section.finish()
    return BaselineSettings(learn_days=days, file=file)


def _sampling(section: Section) -> Sampling:
    seconds = section.number("interval_seconds", Sampling().interval_seconds, low=0.02, high=1)
    section.finish()
    return Sampling(interval_seconds=seconds)


def _observation(section: Section) -> ObservationSettings:
    default = ObservationSettings()
    read = ObservationSettings(
        interval_seconds=section.number("interval_seconds", default.interval_seconds, low=0.1, high=5),
        timeout_seconds=section.number("timeout_seconds", default.timeout_seconds, low=0.1, high=60),
        give_up_seconds=section.number("give_up_seconds", default.give_up_seconds, low=1, high=HOUR_SECONDS),
    )
    if read.give_up_seconds <= read.timeout_seconds:
        wanted = f"more than timeout_seconds ({read.timeout_seconds:g})"
        section.problem("give_up_seconds", f"expected {wanted}, got {read.give_up_seconds:g}")
    section.finish()
    return read
