"""What an alert does with the values of its expression: `for`, then firing, then `keep_firing_for`. Pure.

The rules of Prometheus 2.42 (rules/alerting.go, `Eval`), for one label set; tests hold it against promtool.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[float, float]
"""First and last evaluation at which it fired."""


@dataclass(slots=True)
class _Alert:
    active_since: float | None = None
    firing: bool = False
    kept_since: float | None = None


def firing(
    present: Iterable[float], evaluations: Iterable[float], *, hold: float = 0.0, keep: float = 0.0
) -> list[Span]:
    """Return when an alert fires.

    Args:
        present: the times at which its expression returned this label set.
        evaluations: all times at which it was evaluated, rising.
        hold: its `for`, in seconds.
        keep: its `keep_firing_for`, in seconds.
    """
    there = set(present)
    alert, found, before = _Alert(), list[Span](), 0.0
    for at in evaluations:
        if at in there:
            _active(alert, at, hold)
        else:
            _absent(alert, at, keep)
        if alert.firing and found and found[-1][1] == before:
            found[-1] = (found[-1][0], at)
        elif alert.firing:
            found.append((at, at))
        before = at
    return found


def _active(alert: _Alert, at: float, hold: float) -> None:
    alert.kept_since = None
    if alert.active_since is None:
        alert.active_since = at
    if at - alert.active_since >= hold:
        alert.firing = True


def _absent(alert: _Alert, at: float, keep: float) -> None:
    if alert.firing and keep > 0:
        if alert.kept_since is None:
            alert.kept_since = at
        if at - alert.kept_since < keep:
            return
    alert.active_since, alert.firing, alert.kept_since = None, False, None
