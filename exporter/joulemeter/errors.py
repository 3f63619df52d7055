"""What the world can do to us, on one screen. Our own bugs crash loudly instead (CONTRIBUTING.md, style 7)."""

from collections.abc import Sequence


class JoulemeterError(Exception):
    """The world failed: a message names the place, the value and the remedy."""


class ConfigError(JoulemeterError):
    """The configuration has problems; `problems` holds every one, each with place, value and remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class MeterError(JoulemeterError):
    """An energy meter cannot be read at all (a single GPU that fails is a missing reading instead)."""


class PageError(JoulemeterError):
    """A server's answer is refused; `reason` is the label of `joulemeter_refused_pages_total`.

    Args:
        reason: one of `catalog.REFUSAL_REASONS`.
        message: what came, and what to do about it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ServerUnreachableError(JoulemeterError):
    """A server gave no answer in time, or closed the connection before the answer was complete."""


class DiscoveryError(JoulemeterError):
    """The processes or GPUs behind a server cannot be found out."""


class NobodyListensError(DiscoveryError):
    """No process listens where a server was expected: it is not running here."""


class ExpiredError(DiscoveryError):
    """What a watch of the API server was to go on from is too old: list anew."""


class ListenError(JoulemeterError):
    """The configured address cannot be listened on."""


class BaselineError(JoulemeterError):
    """A file of baselines cannot be used, or no baseline is what was asked for."""


class StateError(JoulemeterError):
    """The state directory cannot be used."""


class StateInUseError(StateError):
    """Another process writes in the state directory."""


class GridError(JoulemeterError):
    """A grid source gave no usable answer.

    Args:
        outcome: one of `catalog.GRID_OUTCOMES` but "ok".
        message: what came, and what to do about it; never a secret.
        retry_after_seconds: how long the source asked to be left alone.
        permanent: asking again is of no use before the configuration changes.
    """

    def __init__(
        self,
        outcome: str,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retry_after_seconds = retry_after_seconds
        self.permanent = permanent


class PrometheusError(JoulemeterError):
    """A Prometheus gave no usable answer, or has nothing to report on."""


class TooMuchError(PrometheusError):
    """A question is too large for it at once; a smaller one may be answered."""


class ServiceEndedError(JoulemeterError):
    """A part of the daemon returned although nobody asked it to stop."""
