"""Recording rules and alerts as data; `build()` writes them as Prometheus reads them."""

from dataclasses import dataclass
from typing import Any, Final

import yaml

from joulemeter import catalog

RUNBOOKS: Final = "docs/runbook"
"""Where the runbook pages are; relative, until the project has an address of its own."""
LEVEL: Final = "cluster, namespace, model"
TOKENS_PER_SECOND_FLOOR: Final = 1
REGRESSION_RATIO: Final = 1.25


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule, named `level:metric:operations`; the level always includes `cluster`."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; its runbook page carries its name."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str


ENERGY: Final = Record(
    "namespace_model:joulemeter_model_energy_joules:rate1h",
    f"sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}[1h]))",
)
GENERATED: Final = Record(
    "namespace_model:joulemeter_model_generated_tokens:rate1h",
    f'sum by ({LEVEL}) (rate({catalog.MODEL_TOKENS.name}{{kind="generation"}}[1h]))',
)
PER_GENERATED_TOKEN: Final = Record(
    "namespace_model:joulemeter_model_energy_joules_per_generated_token:ratio_rate1h",
    f"{ENERGY.record} / ({GENERATED.record} > {TOKENS_PER_SECOND_FLOOR})",
)
RECORDS: Final = (ENERGY, GENERATED, PER_GENERATED_TOKEN)

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


def build() -> str:
    """Return the rules file: records first, for a group is evaluated in order."""
    groups = [
        {
            "name": "joulemeter.rules",
            "rules": [{"record": rule.record, "expr": rule.expr} for rule in RECORDS],
        },
        {"name": "joulemeter.alerts", "rules": [_alert(rule) for rule in ALERTS]},
    ]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000)


def _alert(rule: Alert) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": rule.expr,
        "for": rule.hold,
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{RUNBOOKS}/{rule.name}.md",
        },
    }
