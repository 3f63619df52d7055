"""Grid sources: how dirty the power is. A source says what to ask and what the answer means; the shell asks.

To add one: a module here, named as in the configuration, with a `PLUGIN`; answers of its provider in
tests/fixtures/grids/<name>/*.json. It is found by its name; its first line is its line in docs/reference.md.
"""

from base64 import b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Final, Protocol, cast, runtime_checkable
from zoneinfo import ZoneInfo

from joulemeter.model import GridAnswer, GridInterval, Signal
from joulemeter.settings import Secret, Section

QUARTER_SECONDS: Final = 900.0
HALF_HOUR_SECONDS: Final = 1800.0
HOUR_SECONDS: Final = 3600.0
POLL_SECONDS: Final = QUARTER_SECONDS
"""How often a provider is asked: values last for 15 minutes or more, and free accounts are small."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the power is drawn.

    Args:
        zone: the label of every series: ISO 3166 code of a country, or a zone of it (`US-CAL-CISO`), EU or WORLD.
        cloud_region: provider and region (`gcp`, `europe-west1`), for sources that know them.
        latitude, longitude: in degrees, for sources that find the zone themselves.
        time_zone: the site's, for tables by time of day.
    """

    zone: str
    cloud_region: tuple[str, str] | None = None
    latitude: float | None = None
    longitude: float | None = None
    time_zone: ZoneInfo | None = None

    @property
    def country(self) -> str:
        """The zone's country, or EU or WORLD."""
        return self.zone.partition("-")[0]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A GET. Headers may hold secrets, and appear in no message."""

    url: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    client_files: tuple[Path, Path] | None = None
    """Our certificate and its key, for who asks for one."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Dialogue = Generator[HttpRequest, HttpAnswer, GridAnswer]
"""Questions out, answers in, and at its end what they mean. It raises GridError where an answer is of no use."""


@runtime_checkable
class LiveSource(Protocol):
    """A source that is asked over HTTP, with its settings."""

    @property
    def name(self) -> str:
        """Label `source`; the name of its module."""

    @property
    def signal(self) -> Signal:
        """What its intensities are of."""

    @property
    def secret(self) -> Secret | None:
        """Where its token or password is, or None if it needs none."""

    @property
    def poll_seconds(self) -> float:
        """How often to ask while it answers."""

    def ask(self, secret: str, now_timestamp_seconds: float) -> Dialogue:
        """Begin a dialogue; `secret` is "" for a source without one, the time is Unix time."""


@runtime_checkable
class ConstantSource(Protocol):
    """A source that always answers, from what it was given."""

    @property
    def name(self) -> str:
        """Label `source`; the name of its module."""

    def at(self, at_timestamp_seconds: float) -> GridInterval:
        """Return the interval of this instant; nothing changes within it."""


Source = LiveSource | ConstantSource


class Plugin(Protocol):
    """What `PLUGIN` of a module here is: its settings in, the source out."""

    def configured(self, section: Section, place: Place) -> Source:
        """Read the settings under the source's name; problems go to the section."""


def names() -> tuple[str, ...]:
    """Return the names of all sources that there are."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def by_name(name: str) -> Plugin:
    """Return a source by its name."""
    return cast("Plugin", import_module(f"{__name__}.{name}").PLUGIN)


def basic(username: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic authentication."""
    return {"Authorization": f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"}


def needed_secret(section: Section, key: str, source: str, what: str) -> Secret | None:
    """Return where the secret is that a source cannot do without; if it is nowhere, that is a problem."""
    secret = section.secret(key)
    if section.get(f"{key}_file") is None and section.get(f"{key}_env") is None:
        section.problem(
            f"{key}_file",
            f"missing; source {source!r} needs {what}: name the file that holds it, "
            f"or in {key}_env an environment variable",
        )
    return secret
