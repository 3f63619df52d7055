"""Recording rules and alerts: promtool accepts and tests them, and every alert has its page."""

import subprocess
from pathlib import Path

import pytest

from dashboards import alerts, records, rules
from dashboards.generate import GENERATED, ROOT
from joulemeter import catalog

RULES = ROOT / GENERATED / "prometheus/rules.yaml"
CASES = sorted((ROOT / "tests/rules").glob("*.yaml"))


def test_promtool_accepts_the_rules(promtool: str):
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_rules_do_what_they_promise(case: Path, promtool: str):
    done = subprocess.run([promtool, "test", "rules", case], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_alert_is_tested_and_has_a_runbook_page(alert: alerts.Alert):
    assert any(f"alertname: {alert.name}\n" in case.read_text() for case in CASES)
    page = (ROOT / rules.RUNBOOKS / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    assert f"Severity: {alert.severity}." in page
    assert alert.severity in {"info", "warning"}


def test_every_runbook_page_belongs_to_an_alert():
    pages = {page.stem for page in (ROOT / rules.RUNBOOKS).glob("*.md")}
    assert pages == {alert.name for alert in alerts.ALERTS}


@pytest.mark.parametrize("rule", records.RECORDS, ids=lambda rule: rule.record)
def test_record_is_named_level_metric_operations(rule: records.Record):
    level, metric, operations = rule.record.split(":")
    assert level in {"namespace_model", "namespace_model_currency"}
    assert operations in {"rate1h", "ratio_rate1h"}
    assert metric.startswith("joulemeter_")
    assert rule.record not in {metric.name for metric in catalog.ALL}
