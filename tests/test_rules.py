"""Recording rules and alerts: promtool accepts and tests them, and every alert has its page."""

import argparse
import inspect
import re
import subprocess
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from dashboards import alert_records, alerts, records, rules
from dashboards.generate import GENERATED, ROOT
from joulemeter import catalog, cli, grids

RULES = ROOT / GENERATED / "prometheus/rules.yaml"
RECORDS = (*records.RECORDS, *alert_records.RECORDS)
CASES = sorted((ROOT / "tests/rules").glob("*.yaml"))


def test_promtool_accepts_the_rules(promtool: str):
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_rules_do_what_they_promise(case: Path, promtool: str):
    done = subprocess.run([promtool, "test", "rules", case], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_alert_is_tested_firing_and_silent(alert: alerts.Alert):
    told = [
        bool(one.get("exp_alerts"))
        for case in CASES
        for test in yaml.safe_load(case.read_text())["tests"]
        for one in test.get("alert_rule_test", ())
        if one["alertname"] == alert.name
    ]
    assert told.count(True) >= 1
    assert told.count(False) >= 2


def test_where_nothing_is_nothing_fires_but_that(promtool: str, tmp_path: Path):
    """Absent is not zero, nor is it high: an empty Prometheus has one alert, that there is no exporter."""
    silent = [alert for alert in alerts.ALERTS if alert is not alerts.ABSENT]
    asked = [{"eval_time": "26h", "alertname": alert.name} for alert in silent]
    fires = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "26h",
        "exp_samples": [{"labels": f'{{alertname="{alerts.ABSENT.name}"}}', "value": 1}],
    }
    case = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "5m",
        "tests": [{"interval": "5m", "alert_rule_test": asked, "promql_expr_test": [fires]}],
    }
    path = tmp_path / "nothing.yaml"
    path.write_text(yaml.safe_dump(case))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_alert_is_written_as_others_write_theirs(alert: alerts.Alert):
    """As the Kubernetes mixin does: a fixed sentence, then one with labels and value; three severities."""
    assert alert.severity in {"info", "warning", "critical"}
    assert alert.name.startswith("Joulemeter")
    assert alert.hold
    assert alert.summary.endswith(".")
    assert "{{" not in alert.summary
    assert alert.description.endswith(".")


@pytest.mark.parametrize("expr", [*(one.expr for one in alerts.ALERTS), *(one.expr for one in RECORDS)])
def test_no_range_is_shorter_than_attribution_needs(expr: str):
    """Models' counters move every ten seconds, and scrapes may be a minute apart."""
    assert all(minutes(window) >= 5 for window in re.findall(r"\[(\w+)\]", expr))


def minutes(window: str) -> float:
    return float(window[:-1]) * {"m": 1, "h": 60, "d": 1440}[window[-1]]


@pytest.mark.parametrize("expr", [one.expr for one in alerts.ALERTS])
def test_alerts_name_only_series_that_exist(expr: str):
    known = {metric.name for metric in catalog.ALL} | {one.record for one in RECORDS} | {alert_records.TARGET}
    suffixed = {name + "_bucket" for name in known}
    assert set(re.findall(r"[a-z_]*:?joulemeter_\w+(?::\w+)*", expr)) <= known | suffixed


def test_sources_that_are_only_shown_are_named():
    sources = {name: inspect.getsource(import_module(f"joulemeter.grids.{name}")) for name in grids.names()}
    assert [name for name, text in sources.items() if "Signal.MARGINAL" in text] == [alerts.MARGINAL_ONLY]


def test_a_target_is_a_series_of_its_model(promtool: str, tmp_path: Path):
    text = rules.build({"llama": 2.5})
    (group,) = (one for one in yaml.safe_load(text)["groups"] if one["name"] == "joulemeter.targets")
    assert group["rules"] == [
        {"record": alert_records.TARGET, "expr": "vector(2.5)", "labels": {"model": "llama"}}
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    assert (
        subprocess.run([promtool, "check", "rules", path], capture_output=True, check=False).returncode == 0
    )


# ------------------------------------------------------------------------------------------------- the runbook


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_runbook_page_says_what_it_means_what_to_look_at_and_what_to_do(alert: alerts.Alert):
    page = (ROOT / rules.RUNBOOKS / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n\n**")
    assert f"Severity: {alert.severity}." in page
    assert re.findall(r"^## .*", page, re.MULTILINE) == ["## Meaning", "## Checks", "## Remedy"]
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / rules.RUNBOOKS / link).exists(), link


def test_every_runbook_page_belongs_to_an_alert():
    pages = {page.stem for page in (ROOT / rules.RUNBOOKS).glob("*.md")}
    assert pages == {alert.name for alert in alerts.ALERTS}


@pytest.mark.parametrize("page", sorted((ROOT / rules.RUNBOOKS).glob("*.md")), ids=lambda page: page.stem)
def test_runbook_names_only_series_alerts_and_commands_that_exist(page: Path):
    text = page.read_text()
    known = {metric.name for metric in catalog.ALL} | {one.record for one in RECORDS} | {alert_records.TARGET}
    known |= {name + "_bucket" for name in known} | {"joulemeter_"}
    assert set(re.findall(r"[a-z_]*:?joulemeter_\w*(?::\w+)*", text)) <= known
    assert set(re.findall(r"Joulemeter[A-Z]\w+", text)) <= {alert.name for alert in alerts.ALERTS}
    commands = set(re.findall(r"`joulemeter (\S+?)(?: [^`]*)?`", text))
    (subparsers,) = (one for one in cli.parser()._actions if isinstance(one, argparse._SubParsersAction))
    assert commands <= set(subparsers.choices)


QUERIES = [
    pytest.param(query, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / rules.RUNBOOKS).glob("*.md"))
    for number, block in enumerate(re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL))
    for query in [textwrap.dedent(block)]
]


@pytest.mark.parametrize("block", QUERIES)
def test_queries_of_the_runbook_are_promql(block: str, promtool: str, tmp_path: Path):
    """A block has a query, or several that begin at its margin."""
    queries = re.split(r"\n(?=\S)", block.strip())
    path = tmp_path / "rules.yaml"
    one_each = [{"record": f"a:b:c{number}", "expr": query} for number, query in enumerate(queries)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": one_each}]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------- the records


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule.record)
def test_record_is_named_level_metric_operations(rule: records.Record):
    level, metric, operations = rule.record.split(":")
    assert re.fullmatch(r"(cluster|namespace_model(_baseline)?)(_currency)?", level)
    assert re.fullmatch(r"(ratio_)?rate\d+[mh](_min\d+m)?", operations)
    assert metric.startswith("joulemeter_")
    assert rule.record not in {metric.name for metric in catalog.ALL}
