"""Dialects: how each inference server names what we need. Text in, roles out; no I/O, no state."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from joulemeter.dialects.pages import Sample, names, pick
from joulemeter.dialects.remedies import why_not
from joulemeter.errors import PageError
from joulemeter.model import PageReading, Role, RoleReading

NAMES: Final = ("vllm", "sglang", "llamacpp", "tgi")
"""The dialects that need no configuration, each the name of its module; `generic` is made from names."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server says of itself beside its metrics; None where it does not say."""

    model: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class IdentityQuestion:
    """A path on the server whose JSON answer names the model or the version."""

    path: str
    model_at: tuple[str | int, ...] | None = None
    version_at: tuple[str | int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SidePage:
    """A page beside the metrics page, which a server may refuse: what only it tells is then not known."""

    path: str
    roles: tuple[Role, ...]
    read: Callable[[str], tuple[RoleReading, ...]]
    """Raises PageError if the answer is no such page."""


class Dialect(Protocol):
    """What one server family's page means."""

    @property
    def name(self) -> str:
        """Label `dialect` of `joulemeter_server_info`."""

    @property
    def families(self) -> frozenset[str]:
        """Sample names to pick from the page, folded (`:` is `_`), suffixes included."""

    @property
    def filter_path(self) -> str | None:
        """Path on which the server renders only the families named by `?name[]=`, or None if it cannot."""

    @property
    def filter_names(self) -> tuple[str, ...]:
        """What to ask `filter_path` for: sample names in the server's own spelling, which it compares."""

    @property
    def questions(self) -> tuple[IdentityQuestion, ...]:
        """Where the server says who it is."""

    @property
    def side_page(self) -> SidePage | None:
        """What to ask for each time beside the metrics page, if anything."""

    @property
    def has_phases(self) -> bool:
        """Whether prefill and decode can be told apart; if not, busy energy is `phase="unsplit"`."""

    def recognises(self, names: frozenset[str]) -> bool:
        """Say whether a page with these folded sample names is this server's."""

    def read(self, samples: tuple[Sample, ...]) -> PageReading:
        """Turn picked samples into roles. Raises PageError (`not_metrics`, `bad_value`)."""


def by_name(name: str) -> Dialect:
    """Return the dialect of that name, one of `NAMES`. Raises ValueError for any other."""
    if name not in NAMES:
        raise ValueError(f"{name!r} is no dialect; known: {', '.join(NAMES)}")
    return cast("Dialect", import_module(f"joulemeter.dialects.{name}").PLUGIN)


def recognise(body: str) -> Dialect:
    """Return the dialect of a page by the names on it. Raises PageError (`not_metrics`) with a remedy."""
    found = names(body)
    dialect = _of(found)
    if dialect is None:
        raise PageError("not_metrics", why_not(body, found))
    return dialect


def read_page(body: str, dialect: Dialect) -> PageReading:
    """Read a page in a dialect that is known already.

    Raises:
        PageError: `not_metrics` with a remedy if nothing on the page is this dialect's; `bad_value`,
            `too_many_series` as `pages.pick` says.
    """
    samples = pick(body, dialect.families)
    if not dialect.recognises(frozenset(sample.series.name for sample in samples)):
        found = names(body)
        other = _of(found)
        instead = f"it is one of {other.name}; set `dialect: auto`" if other else why_not(body, found)
        raise PageError(
            "not_metrics",
            f"no {dialect.filter_names[0]} or other series of {dialect.name} on the page: {instead}",
        )
    return dialect.read(samples)


def _of(found: frozenset[str]) -> Dialect | None:
    """Return the dialect of a page with these folded names, None if it is nobody's."""
    return next((dialect for dialect in map(by_name, NAMES) if dialect.recognises(found)), None)
