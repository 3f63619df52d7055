"""Alerts as data. Each has a page under docs/runbook, by its name, and promtool unit tests under tests/rules."""

from dataclasses import dataclass
from typing import Final

from dashboards.records import PER_GENERATED_TOKEN

REGRESSION_RATIO: Final = 1.25


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; its runbook page carries its name."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str


REGRESSION: Final = Alert(
    name="JoulemeterEnergyPerTokenRegression",
    expr=f"{PER_GENERATED_TOKEN.record} / {PER_GENERATED_TOKEN.record} offset 1d > {REGRESSION_RATIO}",
    hold="30m",
    severity="info",
    summary="A model needs more energy per generated token than a day ago.",
    description=(
        "{{ $labels.model }} (cluster {{ $labels.cluster }}, namespace {{ $labels.namespace }}) needs"
        " {{ $value | humanizePercentage }} of the energy per generated token that it needed at this hour"
        " yesterday. This is the plain rule: less traffic, smaller batches or longer prompts raise the figure"
        " too, without anything being wrong."
    ),
)
ALERTS: Final = (REGRESSION,)
