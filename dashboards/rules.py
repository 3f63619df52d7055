"""The rules file: recording rules and alerts, as Prometheus reads them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

from dashboards import alert_records, records
from dashboards.alerts import ALERTS, Alert
from dashboards.records import Record

RUNBOOKS: Final = "docs/runbook"
"""Where the runbook pages are; relative, until the project has an address of its own."""


def build(targets: Mapping[str, float] = alert_records.TARGETS) -> str:
    """Return the rules file: a group is evaluated in order, so what others are made of comes first."""
    groups = [
        {"name": "joulemeter.rules", "rules": _recorded(records.RECORDS)},
        {"name": "joulemeter.expected", "rules": _recorded(alert_records.RECORDS)},
        {"name": "joulemeter.targets", "rules": [_target(*one) for one in targets.items()]},
        {"name": "joulemeter.alerts", "rules": [_alert(rule) for rule in ALERTS]},
    ]
    groups = [group for group in groups if group["rules"]]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000)


def _recorded(rules: Iterable[Record]) -> list[dict[str, Any]]:
    return [{"record": rule.record, "expr": rule.expr} for rule in rules]


def _target(model: str, joules: float) -> dict[str, Any]:
    return {"record": alert_records.TARGET, "expr": f"vector({joules})", "labels": {"model": model}}


def _alert(rule: Alert) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": rule.expr,
        "for": rule.hold,
        **({"keep_firing_for": rule.keep} if rule.keep else {}),
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{RUNBOOKS}/{rule.name}.md",
        },
    }
