"""The rules file: recording rules and alerts, as Prometheus reads them."""

from typing import Any, Final

import yaml

from dashboards.alerts import ALERTS, Alert
from dashboards.records import RECORDS

RUNBOOKS: Final = "docs/runbook"
"""Where the runbook pages are; relative, until the project has an address of its own."""


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
