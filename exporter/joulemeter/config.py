"""The configuration: a mapping in, a Config or every problem at once out (ConfigError). Reads no files."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast
from zoneinfo import ZoneInfo

import yaml

from joulemeter import grids, zones
from joulemeter.accounting import Tariff
from joulemeter.errors import ConfigError
from joulemeter.grids import ConstantSource, LiveSource, Place, Source
from joulemeter.grids.static import WORLD, Static
from joulemeter.model import Signal
from joulemeter.schedule import Schedule, Span, read_spans, time_zone
from joulemeter.server_config import (
    MAX_PORT,
    ServerConfig,
    base_url,
    is_host,
    page_url,
    read_servers,
    refuse_twins,
)
from joulemeter.settings import Section, shown, suggestion

__all__ = [
    "BaselineSettings",
    "Config",
    "DiscoverySettings",
    "GridSettings",
    "ObservationSettings",
    "Sampling",
    "ServerConfig",
    "load",
    "parse",
    "read_yaml",
    "with_overrides",
]

Idle = Literal["owner", "unattributed"]

IDLE: Final = ("owner", "unattributed")
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - an exporter is there to be scraped
ADDRESS: Final = re.compile(r"(?P<host>[^:\[\]]*|\[[^\[\]]+\]):(?P<port>[0-9]{1,5})")
HOUR_SECONDS: Final = 3600.0
MONTH_SECONDS: Final = 31 * 24 * HOUR_SECONDS
CURRENCY: Final = re.compile("[A-Z]{3}")
HIGHEST_PRICE: Final = 1e6
"""Per kWh or hour; a bound for slips of the finger in any currency."""


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


@dataclass(frozen=True, slots=True)
class GridSettings:
    """Where the carbon intensity comes from; the first source with a fresh answer wins."""

    zone: str | None = None
    """Where the power comes from: a country's ISO 3166 code, EU, or a zone such as US-CAL-CISO.
    None: the country of `cloud_region`, else the world."""
    cloud_region: tuple[str, str] | None = None
    """Cloud region such as aws/eu-west-3, for its country and for sources that know regions."""
    latitude: float | None = None
    """Coordinates for sources that find the zone themselves, in degrees; `zone` is still needed for the others."""
    longitude: float | None = None
    """See `latitude`."""
    sources: tuple[Source, ...] = (Static(WORLD),)
    """Best first; each has its settings under its name. After those listed, the shipped annual average."""

    def place(self, site: ZoneInfo | None) -> Place:
        """Return where that is; `site` is the site's time zone."""
        country = zones.country_of(self.cloud_region) if self.cloud_region else WORLD
        return Place(self.zone or country, self.cloud_region, self.latitude, self.longitude, site)


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """What energy and GPUs cost; without it there are no series of cost."""

    per_kwh: float | None = None
    """Price of a kWh of electricity. Where `time_of_use` has rows, that of all other times."""
    time_of_use: tuple[Span, ...] = ()
    """Rows `{from: "22:00", to: "06:00", days: mon-fri, months: nov-mar, per_kwh: 0.1}`; the first that is on counts.
    Times are the site's (`time_zone`); a price may be negative: what it gives back is counted apart."""
    currency: str | None = None
    """ISO 4217 code of all prices, such as EUR: a label; nothing is converted."""
    gpu_hour: float | None = None
    """Price of an hour of one GPU, used or not."""

    def tariff(self, site: ZoneInfo | None) -> Tariff | None:
        """Return the tariff; None if nothing has a price."""
        if self.currency is None:
            return None
        per_kwh = None if self.per_kwh is None else Schedule(self.per_kwh, self.time_of_use, site)
        return Tariff(self.currency, per_kwh, self.gpu_hour)


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
    """New series stay at 0 for so long, so that two scrapes see their birth; their energy is pending."""
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


def read_yaml(text: str, *, source: str) -> Any:
    """Return what a YAML text holds, None if it is empty; `source` names it in errors.

    Raises:
        ConfigError: the text is not YAML, with its line.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - StrictLoader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError([f"{line}: {error.problem or error.context}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{source}: not YAML text: {error}"]) from error
    except ValueError as error:  # a date with a 13th month, an integer of 5,000 digits
        raise ConfigError([f"{source}: {error}; put text that looks like a date in quotes"]) from error


class StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, refusing a key given twice: the first value would silently be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are all different."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"key {key.value!r} is given twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


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
        grid=_grid(top.section("grid"), site),
        pue=top.number("pue", default.pue, low=1, high=10),
        price=_price(top.section("price"), site),
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
    settings = DiscoverySettings(
        kubernetes=section.flag("kubernetes", default=default.kubernetes),
        node_name=section.text("node_name", None),
        api_server=section.converted("api_server", None, base_url),
        service_account_dir=section.path("service_account_dir") or default.service_account_dir,
        pod_resources_socket=section.path("pod_resources_socket") or default.pod_resources_socket,
    )
    section.finish()
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


def _grid(section: Section, site: ZoneInfo | None) -> GridSettings:
    coordinates = section.section("coordinates")
    settings = GridSettings(
        zone=section.converted("zone", None, zones.zone),
        cloud_region=section.converted("cloud_region", None, zones.cloud_region),
        latitude=coordinates.number("latitude", None, low=-90, high=90),
        longitude=coordinates.number("longitude", None, low=-180, high=180),
    )
    if (settings.latitude is None) != (settings.longitude is None):
        section.problem("coordinates", "expected both latitude and longitude")
    coordinates.finish()
    place = settings.place(site)
    names = _source_names(section)
    sources = {name: grids.by_name(name).configured(section.section(name), place) for name in names}
    constant = next((name for name, source in sources.items() if isinstance(source, ConstantSource)), None)
    for index, (name, source) in enumerate(sources.items()):
        asked = isinstance(source, LiveSource) and source.signal is Signal.AVERAGE
        if asked and constant is not None and index > names.index(constant):
            problem = f"{name!r} is never asked, for {constant!r} before it always answers; put it before"
            section.problem(f"sources[{index}]", problem)
    for name in set(grids.names()) - set(names):
        section.section(name)  # settings of a source that is not used now may stay
    section.finish()
    return replace(settings, sources=tuple(sources.values()))


def _source_names(section: Section) -> list[str]:
    known = grids.names()
    names: list[str] = []
    for index, name in enumerate(section.items("sources", ("static",))):
        place = f"sources[{index}]"
        if not isinstance(name, str) or name not in known:
            section.problem(place, f"unknown value {shown(name)}; {suggestion(name, known)}")
        elif name in names:
            section.problem(place, f"{name!r} is already in the list; name each source once")
        else:
            names.append(name)
    return names


def _price(section: Section, site: ZoneInfo | None) -> PriceSettings:
    price = PriceSettings(
        per_kwh=section.number("per_kwh", None, low=-HIGHEST_PRICE, high=HIGHEST_PRICE),
        time_of_use=read_spans(
            section, "time_of_use", site, value_key="per_kwh", low=-HIGHEST_PRICE, high=HIGHEST_PRICE
        ),
        currency=section.converted("currency", None, _currency),
        gpu_hour=section.number("gpu_hour", None, low=0, high=HIGHEST_PRICE),
    )
    if price.time_of_use and price.per_kwh is None:
        section.problem(
            "per_kwh", "missing; give the price of the times that no row of time_of_use holds for"
        )
    if section.get("currency") is None and (price.per_kwh, price.gpu_hour) != (None, None):
        section.problem("currency", "missing; give the currency of the prices, such as EUR")
    section.finish()
    return price


def _currency(value: object) -> str:
    if isinstance(value, str) and CURRENCY.fullmatch(value):
        return value
    raise ValueError(f"expected an ISO 4217 code such as EUR or USD, got {shown(value)}")
