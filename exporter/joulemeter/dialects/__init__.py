"""Dialects: how each inference server names what we need. Text in, roles out; no I/O, no state."""

from dataclasses import dataclass
from typing import Protocol

from joulemeter.dialects.pages import Sample
from joulemeter.model import PageReading


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


class Dialect(Protocol):
    """What one server family's page means."""

    name: str
    families: frozenset[str]
    """Sample names to pick from the page, folded (`:` is `_`), suffixes included."""
    filter_path: str | None
    """Path on which the server renders only the families named by `?name[]=`, or None if it cannot."""
    questions: tuple[IdentityQuestion, ...]
    has_phases: bool
    """Whether prefill and decode can be told apart; if not, busy energy is `phase="unsplit"`."""

    def recognises(self, names: frozenset[str]) -> bool:
        """Say whether a page with these folded sample names is this server's."""

    def read(self, samples: tuple[Sample, ...]) -> PageReading:
        """Turn picked samples into roles. Raises PageError (`not_metrics`, `bad_value`)."""
