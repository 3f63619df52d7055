"""Queries of panels, variables, annotations and rules: PromQL that names what exists, and uses it as it is meant."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import promql
import pytest
import yaml

from dashboards import alert_records, generate, records, rules
from joulemeter import catalog

OUTPUTS = generate.outputs()
BOARDS = {
    path.stem: json.loads(text)
    for path, text in OUTPUTS.items()
    if path.suffix == ".json" and path.is_relative_to(generate.GENERATED)
}
TARGETS = {"cluster", "job", "instance"}
"""Labels that Prometheus adds to all series of a page."""
FROM_PROMETHEUS = {
    "up": TARGETS,
    "scrape_samples_scraped": TARGETS,
    "scrape_duration_seconds": TARGETS,
    "ALERTS": {"alertname", "alertstate", "severity"},
}
"""What is not on a page: Prometheus writes it itself."""
ALL_RECORDS = (*records.RECORDS, *alert_records.RECORDS)
RECORDED = {rule.record for rule in ALL_RECORDS}
COUNTERS = {metric.name for metric in catalog.ALL if metric.kind == "counter"} | {
    f"{metric.name}_{part}"
    for metric in catalog.ALL
    if metric.kind == "histogram"
    for part in ("bucket", "sum", "count")
}


def known() -> dict[str, set[str]]:
    """Every name that a query may use, with its labels."""
    names = {rule.record: promql.groupings(rule.expr) for rule in ALL_RECORDS}
    names[alert_records.TARGET] = {"model", *TARGETS}
    names |= FROM_PROMETHEUS
    for metric in catalog.ALL:
        for suffix in ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",):
            le = ["le"] if suffix == "_bucket" else []
            names[metric.name + suffix] = {*metric.labels, *le, *TARGETS}
    return names


KNOWN = known()
MADE = {"lever"}
"""Labels that a query makes itself."""


def label_values(query: str) -> str | None:
    """The series of a variable's query."""
    inside = query.removeprefix("label_values(").removesuffix(")")
    return inside.rpartition(", ")[0] if inside != query else None


def every() -> Iterator[tuple[str, str]]:
    """Every query with a name for it."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}/{panel['title']}/{target['refId']}", target["expr"]
        for item in board["templating"]["list"]:
            if item["type"] == "query":
                yield f"{name}/${item['name']}", str(label_values(item["query"]))
        for item in board["annotations"]["list"]:
            yield f"{name}/{item['name']}", item["expr"]
    for group in yaml.safe_load(rules.build())["groups"]:
        for rule in group["rules"]:
            yield f"rules/{rule.get('record') or rule.get('alert')}", rule["expr"]


EVERY = dict(every())
PANELS = {
    f"{name}/{panel['title']}/{target['refId']}": (panel, target)
    for name, board in BOARDS.items()
    for panel in board["panels"]
    for target in panel.get("targets", ())
}


@pytest.mark.parametrize("expr", EVERY.values(), ids=EVERY)
def test_a_query_only_names_series_and_labels_that_exist(expr: str):
    found = list(promql.selectors(expr))
    assert found
    labels: set[str] = set()
    for selector in found:
        assert selector.name in KNOWN, f"no such series: {selector.name}"
        assert selector.labels <= KNOWN[selector.name] | OVERWRITTEN, f"{selector.name} has no such label"
        labels |= KNOWN[selector.name]
    assert promql.groupings(expr) <= labels | MADE


@pytest.mark.parametrize("expr", EVERY.values(), ids=EVERY)
def test_values_of_labels_exist(expr: str):
    values = {
        "phase": catalog.PHASES,
        "kind": (*catalog.TOKEN_KINDS, *catalog.SOURCE_KINDS),
        "basis": catalog.BASES,
        "component": catalog.COST_COMPONENTS,
        "signal": catalog.GRID_SIGNALS,
        "state": catalog.BASELINE_STATES,
        "energy_source": ("counter", "power_integration"),
    }
    for selector in promql.selectors(expr):
        for label, _, value in selector.matchers:
            assert set(value.split("|")) <= set(values.get(label, value.split("|")))


TOTALS = ("adds up", "NotConserved", "GridDataStale")
"""The first two compare the raw totals of one page, which have to agree at every instant; the last asks whether
there is a live source at all."""
OVERWRITTEN = {"exported_pod", "exported_namespace"}
"""What a scrape without honor_labels makes of our labels, and an alert looks for."""


@pytest.mark.parametrize("name", EVERY)
def test_counters_are_only_used_as_increases(name: str):
    if any(word in name for word in TOTALS) or "/$" in name:
        return
    for selector in promql.selectors(EVERY[name]):
        if selector.name in COUNTERS:
            assert selector.function in {"rate", "increase"}, selector
        elif selector.name not in RECORDED:
            assert selector.function not in {"rate", "increase"}, f"{selector.name} is no counter"


@pytest.mark.parametrize("name", EVERY)
def test_no_sum_crosses_currencies(name: str):
    money = {metric.name for metric in catalog.ALL if "currency" in metric.labels}
    for selector in promql.selectors(EVERY[name]):
        if selector.name in money and not name.startswith("rules/"):
            one = ("currency", "MatchOp.Equal", "$currency") in selector.matchers
            assert one or "/$" in name, selector
        elif selector.name in money:
            assert "currency" in promql.groupings(EVERY[name])


@pytest.mark.parametrize("name", PANELS)
def test_gauges_of_dropped_series_and_of_pending_energy_are_never_rated(name: str):
    gauges = {catalog.RETIRED_ENERGY.name, catalog.PENDING_ENERGY.name}
    for selector in promql.selectors(EVERY[name]):
        assert selector.name not in gauges or selector.window_seconds is None


def test_promtool_accepts_every_query_too(promtool: str, tmp_path: Path):
    exprs = [promql.filled(expr, promql.VARIABLES) for expr in EVERY.values()]
    group = {"name": "panels", "rules": [{"record": f"q{i}", "expr": expr} for i, expr in enumerate(exprs)]}
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_series_and_an_unknown_label_would_be_found():
    with pytest.raises(AssertionError, match="no such series: joulemeter_gpu_energy_total"):
        test_a_query_only_names_series_and_labels_that_exist("sum(rate(joulemeter_gpu_energy_total[5m]))")
    with pytest.raises(AssertionError, match="no such label"):
        test_a_query_only_names_series_and_labels_that_exist(f'{catalog.GPU_ENERGY.name}{{modle="m"}}')
    with pytest.raises(AssertionError):
        test_a_query_only_names_series_and_labels_that_exist(f"sum by (modle) ({catalog.GPU_ENERGY.name})")


ANY_TARGET = {
    *("up", "scrape_samples_scraped", "scrape_duration_seconds"),
    *(catalog.PROCESS_CPU.name, catalog.PROCESS_MEMORY.name),
}
"""Series that targets have which are no joulemeter."""


@pytest.mark.parametrize("name", PANELS)
def test_series_that_any_target_has_are_only_taken_of_exporters(name: str):
    """All jobs are those of the whole Prometheus."""
    expr = EVERY[name]
    if {selector.name for selector in promql.selectors(expr)} & ANY_TARGET:
        of_exporters = f"and on (cluster, job, instance) last_over_time({catalog.BUILD_INFO.name}{{"
        series = [one for one in promql.selectors(expr) if one.name in ANY_TARGET]
        assert expr.count(of_exporters) == len(series)


# -------------------------------------------------------------------------------- the dashboard linter's rules
# Reimplemented: it needs Go. Names of rules are those of grafana/dashboard-linter, docs/rules.


def test_template_rules():
    """template-datasource-rule, template-job-rule, template-instance-rule, template-on-time-change-reload-rule."""
    for board in BOARDS.values():
        variables = {item["name"]: item for item in board["templating"]["list"]}
        source = variables["datasource"]
        assert (source["type"], source["query"], source["label"]) == (
            "datasource",
            "prometheus",
            "Data source",
        )
        for name, label in (("job", "Job"), ("instance", "Instance")):
            item = variables[name]
            assert (item["label"], item["multi"], item["allValue"]) == (label, True, ".+")
        for item in variables.values():
            if item["type"] == "query":
                assert item["datasource"]["uid"] == "${datasource}"
                assert item["refresh"] == 2
                assert label_values(item["query"])


def test_uneditable_dashboard_rule():
    assert [board["editable"] for board in BOARDS.values()] == [False] * len(BOARDS)


def test_panel_rules():
    """panel-datasource-rule, panel-title-description-rule, panel-no-targets-rule."""
    for panel, target in PANELS.values():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == target["datasource"]["uid"] == "${datasource}"
    with_targets = {panel["title"] for panel, _ in PANELS.values()}
    all_panels = {panel["title"] for b in BOARDS.values() for panel in b["panels"] if panel["type"] != "row"}
    assert with_targets == all_panels


OWN_UNITS = {
    "si:J/tok": "no unit of Grafana's is per token; SI prefixes for millijoules",
    "suffix:tok/s": "no unit of Grafana's counts tokens",
    "suffix:tok/J": "no unit of Grafana's counts tokens",
    "suffix:tok/min": "no unit of Grafana's counts tokens",
    "suffix:/min": "answers per minute; Grafana's are counts, requests, reads or writes",
    "suffix:g/kWh": "no unit of Grafana's is of carbon intensity",
    "suffix:g/h": "Grafana's flows are of litres and of watts",
}
"""Exceptions from panel-units-rule, each with the reason."""


def units() -> set[str]:
    from grafana_foundation_sdk.models import units as known_units  # noqa: PLC0415

    return {value for name, value in vars(known_units).items() if isinstance(value, str) and name[0] != "_"}


def test_panel_units_rule():
    used = {panel["fieldConfig"]["defaults"]["unit"] for panel, _ in PANELS.values()}
    for panel, _ in PANELS.values():
        for override in panel["fieldConfig"]["overrides"]:
            used |= {item["value"] for item in override["properties"] if item["id"] == "unit"}
    assert used - units() == set(OWN_UNITS)


OTHER_WINDOWS = {
    300.0: "steps of five minutes inside a subquery, which $__rate_interval knows nothing of",
    3600.0: "an hour, as the alerts look at measured over expected energy",
}
"""Exceptions from target-rate-interval-rule."""


def test_target_rate_interval_rule():
    others: set[float] = set()
    for name in PANELS:
        for selector in promql.selectors(EVERY[name]):
            if selector.function == "rate" and selector.window_seconds != promql.RATE_INTERVAL_SECONDS:
                others.add(float(selector.window_seconds or 0))
            if selector.function == "increase":
                assert selector.window_seconds in {promql.RATE_INTERVAL_SECONDS, promql.RANGE_SECONDS}
    assert others == set(OTHER_WINDOWS)


NO_INSTANCE = {
    "ALERTS": "alerts have the labels of their rules, most of which have no instance",
    **dict.fromkeys(RECORDED, "records are of models in a cluster, whichever node they run on"),
}
"""Exceptions from target-job-rule and target-instance-rule."""


def test_target_job_rule_and_target_instance_rule():
    without: set[str] = set()
    for name in PANELS:
        for selector in promql.selectors(EVERY[name]):
            wanted = {(label, "MatchOp.Re", f"${label}") for label in TARGETS}
            if not wanted <= selector.matchers:
                without.add(selector.name)
    assert without <= NO_INSTANCE.keys()
    assert without - RECORDED == NO_INSTANCE.keys() - RECORDED
