"""The configuration: a mapping in, a Config or every problem at once out (ConfigError). Reads no files."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import yaml

from joulemeter.errors import ConfigError
from joulemeter.grids.fixed import MAX_PLAUSIBLE_GRAMS_PER_KWH
from joulemeter.server_config import ServerConfig, is_host, page_url, read_servers, refuse_twins
from joulemeter.settings import Section, shown, suggestion

__all__ = [
    "BaselineSettings",
    "Config",
    "GridSettings",
    "ObservationSettings",
    "Sampling",
    "ServerConfig",
    "load",
    "parse",
    "with_overrides",
]

Idle = Literal["owner", "unattributed"]

GRID_SOURCES: Final = ("fixed", "static")
IDLE: Final = ("owner", "unattributed")
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - an exporter is there to be scraped
ADDRESS: Final = re.compile(r"(?P<host>[^:\[\]]*|\[[^\[\]]+\]):(?P<port>[0-9]{1,5})")
MAX_PORT: Final = 65_535
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
class GridSettings:
    """Where the carbon intensity comes from; the first source that answers wins."""

    zone: str | None = None
    """Where the power comes from: a country's ISO 3166 code, EU, or a zone such as US-CAL-CISO. None: the world."""
    sources: tuple[str, ...] = ("static",)
    """Best first. `static`: annual averages that come with joulemeter; `fixed`: your own number."""
    fixed_intensity_grams_per_kwh: float | None = None
    """Your own intensity, in gCO2e per kWh, for the source `fixed`."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set; what is left out has these values."""

    listen_host: str = ANY_ADDRESS
    """HOST:PORT of the page; IPv6 in brackets, port 0 for a free one."""
    listen_port: int = 9847
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
    """The inference servers of this node. None: looked for on the usual ports of the loopback interface."""
    idle: Idle = "owner"
    """Whose the energy is while no engine step runs: the loaded models', or unattributed."""
    grid: GridSettings = GridSettings()
    pue: float = 1.0
    """Power usage effectiveness; multiplies grams, not joules."""


def load(text: str, *, source: str) -> Config:
    """Read a configuration file's YAML text; `source` names it in errors. An empty file is all defaults.

    Raises:
        ConfigError: the text is not YAML (with its line), or `parse` found problems.
    """
    try:
        raw = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - StrictLoader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError([f"{line}: {error.problem or error.context}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{source}: not YAML text: {error}"]) from error
    except ValueError as error:  # a date with a 13th month, an integer of 5,000 digits
        raise ConfigError([f"{source}: {error}; put text that looks like a date in quotes"]) from error
    return parse({} if raw is None else raw)


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
    config = Config(
        listen_host=listen[0],
        listen_port=listen[1],
        state_dir=_path(top, "state_dir"),
        series_ttl_seconds=top.number(
            "series_ttl_seconds", default.series_ttl_seconds, low=60, high=MONTH_SECONDS
        ),
        zero_hold_seconds=top.number("zero_hold_seconds", default.zero_hold_seconds, low=0, high=600),
        baseline=_baseline(top.section("baseline")),
        sampling=_sampling(top.section("sampling")),
        observation=_observation(top.section("observation")),
        servers=read_servers(top.items("servers"), "servers", problems),
        idle=cast("Idle", top.choice("idle", default.idle, IDLE)),
        grid=_grid(top.section("grid")),
        pue=top.number("pue", default.pue, low=1, high=10),
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


def _path(section: Section, key: str) -> Path | None:
    text = section.text(key, None)
    return None if text is None else Path(text)


def _baseline(section: Section) -> BaselineSettings:
    days = section.number("learn_days", BaselineSettings().learn_days, low=0.05, high=60)
    file = _path(section, "file")
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


def _grid(section: Section) -> GridSettings:
    sources: list[str] = []
    for index, source in enumerate(section.items("sources", GridSettings().sources)):
        place = f"sources[{index}]"
        if not isinstance(source, str) or source not in GRID_SOURCES:
            section.problem(place, f"unknown value {shown(source)}; {suggestion(source, GRID_SOURCES)}")
        elif source in sources:
            section.problem(place, f"{source!r} is already in the list; name each source once")
        else:
            sources.append(source)
    zone = section.text("zone", None)
    fixed = section.section("fixed")
    grams = fixed.number("intensity_grams_per_kwh", None, low=0, high=MAX_PLAUSIBLE_GRAMS_PER_KWH)
    if "fixed" in sources and fixed.get("intensity_grams_per_kwh") is None:
        fixed.problem("intensity_grams_per_kwh", "missing; source 'fixed' needs it (gCO2e per kWh)")
    fixed.finish()
    section.finish()
    return GridSettings(zone=zone, sources=tuple(sources), fixed_intensity_grams_per_kwh=grams)
