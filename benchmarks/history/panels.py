"""The queries of a dashboard as Grafana sends them: what it puts in for variables, and the distance of points."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SCRAPES_OF_A_RATE: Final = 4
PAGE_PIXELS: Final = 1440
COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one panel, ready to be sent."""

    panel: Mapping[str, Any]
    target: Mapping[str, Any]
    expr: str
    instant: bool
    span_seconds: float
    step_seconds: int


def texts(dashboard: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return what stands for each variable: what is chosen, or All of it, or what is typed in from the start."""
    values = {}
    for item in dashboard["templating"]["list"]:
        name = item["name"]
        typed = item["query"] if item["type"] == "textbox" else None
        values[name] = chosen.get(name) or item.get("allValue") or typed
    return {f"${name}": value for name, value in values.items() if value is not None}


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Put values in for variables, the longest names first, for some begin with others.

    Raises:
        ValueError: a variable is left.
    """
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    if "$" in expr:
        raise ValueError(f"an unknown variable is left in {expr}")
    return expr


def seconds(duration: str) -> int:
    """Read a duration such as 14d."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def asked_by(
    dashboard: Mapping[str, Any], span_seconds: float, scrape_seconds: float, chosen: Mapping[str, str]
) -> Iterator[Asked]:
    """Yield all queries of a dashboard over a range of time."""
    for panel in dashboard["panels"]:
        span = seconds(panel["timeFrom"]) if "timeFrom" in panel else span_seconds
        step = step_seconds(panel, span, scrape_seconds)
        rate = max(step + scrape_seconds, SCRAPES_OF_A_RATE * scrape_seconds)
        values = {
            "$__rate_interval": f"{rate:.0f}s",
            "$__range_s": f"{span:.0f}",
            "$__range": f"{span:.0f}s",
            **texts(dashboard, chosen),
        }
        for target in panel.get("targets", ()):
            yield Asked(panel, target, filled(target["expr"], values), target["instant"], span, step)


def step_seconds(panel: Mapping[str, Any], span_seconds: float, scrape_seconds: float) -> int:
    """Return the distance of points as Grafana chooses it: at most one per pixel, no closer than the panel allows."""
    shortest = seconds(panel.get("interval", f"{scrape_seconds:.0f}s"))
    pixels: int = PAGE_PIXELS * panel["gridPos"]["w"] // COLUMNS
    return max(shortest, round(span_seconds / pixels))
