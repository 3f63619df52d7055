"""The rules on test: the real alerts, and the naive ones that people write instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.alerts.firing import Span, firing
from benchmarks.alerts.prometheus import Prometheus
from benchmarks.alerts.weeks import MONDAY_TIMESTAMP_SECONDS, SCRAPE_SECONDS, Weeks
from benchmarks.truth.kernel import Floats
from benchmarks.truth.ratios import DAY_SECONDS
from dashboards import alerts
from dashboards.alert_records import LEAST
from dashboards.records import LEVEL
from joulemeter import catalog

UNITS_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_SECONDS}
FITTED_DAYS: Final = 7
NAIVE_RATIO: Final = 1.2


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert as Prometheus takes it; durations in seconds."""

    name: str
    expr: str
    hold: float
    keep: float = 0.0

    def fired(self, prometheus: Prometheus, until_seconds: float) -> dict[str, list[Span]]:
        """Return when it fired, in seconds since the beginning, by all labels of the alert in one text."""
        begin, end = MONDAY_TIMESTAMP_SECONDS, MONDAY_TIMESTAMP_SECONDS + until_seconds
        evaluations = np.arange(begin, end + 1.0, SCRAPE_SECONDS).tolist()
        return {
            str(labels): [
                (first - begin, last - begin)
                for first, last in firing(
                    (at for at, _ in values), evaluations, hold=self.hold, keep=self.keep
                )
            ]
            for labels, values in prometheus.range(self.expr, begin, end).items()
        }


def seconds(duration: str) -> float:
    """Return what Prometheus understands of a duration of one unit; 0 if there is none."""
    return float(duration[:-1]) * UNITS_SECONDS[duration[-1]] if duration else 0.0


def ours() -> tuple[Rule, ...]:
    """Return the alerts on expected energy, as they are in the rules file; the paging one first."""
    real = tuple(
        Rule(alert.name, alert.expr, seconds(alert.hold), seconds(alert.keep))
        for alert in (alerts.REGRESSION, alerts.REGRESSION_SLOW, alerts.LOAD_HIGH)
    )
    forgetful = Rule("the first, without its memory", f"{LEAST.record} > {alerts.REGRESSION_RATIO}", 0.0)
    return (*real, forgetful)


def naive(found: Weeks) -> tuple[Rule, ...]:
    """Return rules on joules per generated token, and on a straight line through the first week."""
    energy = f"sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}[1h]))"
    prompt, generated = (
        f'sum by ({LEVEL}) (rate({catalog.MODEL_TOKENS.name}{{kind="{kind}"}}[1h]))'
        for kind in ("prompt", "generation")
    )

    def against(offset: str, ratio: float = NAIVE_RATIO, window: str = "1h") -> str:
        now, then = (
            f"({energy.replace('[1h]', f'[{window}]{back}')} / {generated.replace('[1h]', f'[{window}]{back}')})"
            for back in ("", f" offset {offset}")
        )
        return f"{now} / {then} > {ratio}"

    alike = f"{generated} / {generated.replace('[1h]', '[1h] offset 7d')}"
    as_busy = f"({alike} > 0.85 and {alike} < 1.15)"

    idle, per_prompt, per_generated = straight_line(found)
    nodes = f"count by ({LEVEL}) (count by ({LEVEL}, instance) ({catalog.MODEL_ENERGY.name}))"
    line = f"({idle!r} * {nodes} + {per_prompt!r} * {prompt} + {per_generated!r} * {generated})"
    return (
        Rule("J/token, 1 h > 1.2 x 1 h ago", against("1h"), 900.0),
        Rule("J/token, 1 h > 1.2 x 1 day ago", against("1d"), 900.0),
        Rule("J/token, 1 h > 1.2 x the same hour last week", against("7d"), 900.0),
        Rule(
            "J/token, 1 h > 1.1 x the same hour last week, at 0.85 to 1.15 of its tokens/s",
            f"{against('7d', 1.1)} and {as_busy}",
            900.0,
        ),
        Rule("J/token, 24 h > 1.1 x the same day last week", against("7d", 1.1, "24h"), 900.0),
        Rule("measured / (idle + a prefill + b decode), 1 h > 1.08", f"{energy} / {line} > 1.08", 900.0),
    )


def straight_line(found: Weeks) -> tuple[float, float, float]:
    """Fit watts = idle + a * prompt tokens/s + b * generated tokens/s to the minutes of the first week."""
    rates = [
        _rates(found, catalog.MODEL_ENERGY.name, ()),
        _rates(found, catalog.MODEL_TOKENS.name, (("kind", "prompt"),)),
        _rates(found, catalog.MODEL_TOKENS.name, (("kind", "generation"),)),
    ]
    rows = np.stack([np.ones(len(rates[0])), rates[1], rates[2]], axis=1)
    coefficients, *_ = np.linalg.lstsq(rows, rates[0])
    idle, per_prompt, per_generated = coefficients.tolist()
    return idle, per_prompt, per_generated


def _rates(found: Weeks, name: str, labels: Sequence[tuple[str, str]]) -> Floats:
    minutes = round(FITTED_DAYS * DAY_SECONDS / SCRAPE_SECONDS)
    total = np.zeros(minutes - 1)
    for (series_name, series_labels), samples in found.series.items():
        if (
            series_name == name
            and set(labels) <= set(series_labels)
            and ("instance", "node-0") in series_labels
        ):
            at, values = np.array(samples).T
            minute = MONDAY_TIMESTAMP_SECONDS + SCRAPE_SECONDS * np.arange(minutes)
            total += np.diff(np.interp(minute, at, values)) / SCRAPE_SECONDS
    return total
