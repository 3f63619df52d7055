"""The Compose stack's own processes, run here with the files that it mounts: the demo, its history, Prometheus.

Grafana is not run; every query of its dashboards is put to Prometheus as Grafana would put it, at this moment.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_stack import SERVICES, Laid, entrypoint, mounts, targets
from daemons import Daemon, until

from benchmarks import prometheus as server
from benchmarks.history import __main__ as days
from benchmarks.history import demo, panels
from dashboards import alert_records, alerts, generate, records
from joulemeter.simulation.demo import SITE, server_name
from joulemeter.simulation.node import DEMO

pytestmark = pytest.mark.timeout(400)

HOURS = days.HOURS
"""Of history, as Compose fills it in: after fewer, the split between models that share a GPU is still moving."""
SPAN_SECONDS = 24 * 3600.0
CHOSEN = {"currency": SITE.price.currency or ""}
MODELS = {plan.model for plan in DEMO.servers}
NODE = ",".join(f'{label}="{value}"' for label, value in demo.TARGET.items())
ENERGY = f"joulemeter_gpu_energy_joules_total{{{NODE}}}"


@dataclass(frozen=True)
class Stack:
    """A running one."""

    url: str
    demo: Daemon
    history: list[str]
    environment: dict[str, str]
    folder: Path
    history_end_timestamp_seconds: float

    def now(self, expr: str) -> list[dict[str, Any]]:
        return list(server.asked(self.url, "query", query=expr)["result"])

    def value(self, expr: str) -> float:
        (found,) = self.now(expr)
        return float(found["value"][1])

    def over(self, expr: str, since: float, until: float, step: float) -> list[dict[str, Any]]:
        answer = server.asked(self.url, "query_range", query=expr, start=since, end=until, step=step)
        return list(answer["result"])


@pytest.fixture(scope="module")
def stack(prometheus: str, promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo starts, the history is filled in meanwhile, then Prometheus starts, as Compose has it."""
    folder = tmp_path_factory.mktemp("stack")
    laid = Laid("prometheus", folder).lay()
    history = Laid("history", folder).lay()
    assert SERVICES["joulemeter"]["command"][:2] == ["demo", "--listen"]
    with Daemon(folder, "demo", "--listen", "127.0.0.1:0") as daemon:
        (file,) = targets(laid)
        (group,) = yaml.safe_load(file.read_text())
        address = daemon.url.removeprefix("http://")
        file.write_text(yaml.safe_dump([{**group, "targets": [address]}]))
        _, *module = entrypoint("history")
        command = [sys.executable, *module, *history.command()]
        path = f"{Path(prometheus).parent}:{Path(promtool).parent}:{os.environ['PATH']}"
        begun = time.time()
        environment = {**os.environ, "PATH": path}
        subprocess.run(
            [*command, "--hours", str(HOURS)], env=environment, cwd=generate.ROOT, check=True, timeout=300
        )
        with server.serving(folder / "prometheus.log", *laid.command()) as url:
            running = Stack(url, daemon, command, environment, folder, begun)
            until(lambda: _is_scraped(running), 60)
            yield running


def _is_scraped(stack: Stack) -> bool:
    """Whether there are live samples enough for a rate, and all rules have been evaluated."""
    live = stack.now(f"count_over_time(up{{{NODE}}}[20s])")
    groups = server.asked(stack.url, "rules")["groups"]
    evaluated = all(rule["health"] != "unknown" for group in groups for rule in group["rules"])
    return bool(live) and float(live[0]["value"][1]) >= 3 and evaluated


# --------------------------------------------------------------------------------------------------- what is up


def test_the_demo_is_up_under_the_name_that_its_history_has(stack: Stack):
    (target,) = server.asked(stack.url, "targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["labels"].items() >= dict(demo.TARGET).items()
    assert stack.value(f"up{{{NODE}}}") == 1


def test_all_rules_are_loaded_and_evaluated_without_an_error(stack: Stack):
    groups = server.asked(stack.url, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wanted = yaml.safe_load((generate.ROOT / generate.GENERATED / "prometheus/rules.yaml").read_text())
    assert sorted(rule["name"] for rule in rules) == sorted(
        rule.get("record") or rule["alert"] for group in wanted["groups"] for rule in group["rules"]
    )
    assert [rule for rule in rules if rule["health"] != "ok"] == []


def test_it_adds_up_as_it_was_scraped(stack: Stack):
    page = stack.demo.page()
    assert page.imbalance() <= 1e-9
    for unit in ("energy_joules", "co2e_grams", "cost"):
        parts = [f"sum(joulemeter_{part}_{unit}_total{{{NODE}}})" for part in ("model", "unattributed")]
        parts += [f"sum(joulemeter_{part}_{unit}{{{NODE}}})" for part in ("pending", "retired")]
        whole = f"sum(joulemeter_gpu_{unit}_total{{{NODE}}})"
        assert stack.value(f"abs({' + '.join(parts)} - {whole}) / {whole}") <= 1e-9, unit


def test_live_and_past_series_have_the_same_labels(stack: Stack):
    """So that lines go on: whatever labels the past has, the present has."""
    for name in (
        *("gpu_energy_joules_total", "model_energy_joules_total", "model_tokens_total", "gpu_info"),
        *("model_co2e_grams_total", "model_cost_total", "server_info", "server_gpu_info", "grid_info"),
        *("model_request_energy_joules_bucket", "gpu_memory_used_bytes", "model_requests_total"),
    ):
        ignored = "" if name != "server_info" else "split"  # the present estimate is too young for it
        series = f"joulemeter_{name}{{{NODE}}}"
        past = f"{series} @ {stack.history_end_timestamp_seconds:.0f}"
        assert stack.now(series), name
        assert stack.now(f"{past} unless ignoring ({ignored}) {series}") == [], name
        assert stack.now(f"{series} unless ignoring ({ignored}) {past}") == [], name


def test_every_model_used_energy_lately(stack: Stack):
    found = stack.now("sum by (model, server) (increase(joulemeter_model_energy_joules_total[1m])) > 0")
    assert {(one["metric"]["model"], one["metric"]["server"]) for one in found} == {
        (model, server_name(model)) for model in MODELS
    }


# ------------------------------------------------------------------------------------- from history to present


def test_the_line_of_power_goes_over_from_history_to_present_without_a_spike(stack: Stack):
    end = time.time()
    since = end - 3600
    powers = {"gpu": f"sum(rate({ENERGY}[6m]))", "gpu by gpu": f"max(rate({ENERGY}[6m]))"}
    limits = {"gpu": 4 * 700.0, "gpu by gpu": 700.0}
    for name, expr in powers.items():
        (found,) = stack.over(expr, since, end, 15)
        at = [float(when) for when, _ in found["values"]]
        watts = [float(value) for _, value in found["values"]]
        assert max(b - a for a, b in pairwise(at)) == 15, "no gap in the line"
        assert at[0] < stack.history_end_timestamp_seconds - 3000
        assert at[-1] > end - 30
        assert max(watts) < limits[name]
        before = [w for w, when in zip(watts, at, strict=True) if when < stack.history_end_timestamp_seconds]
        later = watts[len(before) :]
        assert later
        usual = sum(before) / len(before)
        assert all(0.5 * usual < value < 1.6 * usual for value in later), (usual, later)


def test_the_present_costs_what_the_past_did(stack: Stack):
    """Joules per generated token, of all models: since the daemon started, and in the last hour of the history."""
    joules = f"joulemeter_model_energy_joules_total{{{NODE}}}"
    tokens = f'joulemeter_model_tokens_total{{{NODE},kind="generation"}}'
    last = f"[1h] @ {stack.history_end_timestamp_seconds:.0f}"
    past = stack.value(f"sum(increase({joules}{last})) / sum(increase({tokens}{last}))")
    present = stack.value(f"sum({joules}) / sum({tokens})")
    assert 0.5 < present / past < 2, (past, present)


def test_no_alert_fires(stack: Stack):
    assert stack.now('ALERTS{alertstate="firing"}') == []


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_no_alert_is_true_for_as_long_as_it_waits_around_the_seam(alert: alerts.Alert, stack: Stack):
    step, end = 15, time.time()
    for series in stack.over(alert.expr, stack.history_end_timestamp_seconds - 2 * 3600, end, step):
        at = [float(when) for when, _ in series["values"]]
        stretch = longest = 0.0
        for before, when in pairwise(at):
            stretch = stretch + step if when - before == step else 0.0
            longest = max(longest, stretch)
        assert longest < panels.seconds(alert.hold), series["metric"]


# -------------------------------------------------------------------------------------------------- dashboards


BOARDS = {
    path.stem: json.loads(text)
    for path, text in generate.outputs().items()
    if path.suffix == ".json" and path.is_relative_to(generate.GENERATED)
}
(SOURCE,) = yaml.safe_load(
    next(
        mount.path for mount in mounts("grafana") if mount.target.endswith("datasources/joulemeter.yaml")
    ).read_text()
)["datasources"]
QUERIES = {
    f"{name}/{asked.panel['title']}/{asked.target['refId']}": asked
    for name, board in BOARDS.items()
    for asked in panels.asked_by(
        board, SPAN_SECONDS, panels.seconds(SOURCE["jsonData"]["timeInterval"]), CHOSEN
    )
}
CLASSES = "joulemeter-model/J / generated token by throughput"
NO_LIVE_SOURCE = "the demo's intensity is a table, as it asks nobody; there is no live source"
YOUNG = "the ratio is recorded since a moment ago, and has to be for longer"
EMPTY = {
    "joulemeter-fleet/Firing alerts/A": "none fires",
    "joulemeter-carbon/Intensity now and as expected/B": f"no forecast: {NO_LIVE_SOURCE}",
    "joulemeter-carbon/Zones, in the selected range/E": f"no renewable share: {NO_LIVE_SOURCE}",
    "joulemeter-exporter/Answers of grid sources/A": NO_LIVE_SOURCE,
    "joulemeter-exporter/Since the last answer of a grid source/A": NO_LIVE_SOURCE,
    "joulemeter-exporter/Answers that could not be used/A": "every answer could be used",
    "joulemeter-exporter/Tokens without energy/A": "every server was always seen",
    **{f"{CLASSES}/{letter}": "no five minutes had such a throughput" for letter in "AGHI"},
    **{f"{CLASSES}, 30 days/{letter}": "no hour had such a throughput" for letter in "AGHI"},
    alert_records.LEAST_SLOW.record: YOUNG,
}
"""What has nothing to answer here, each with the reason."""
PERHAPS = {
    f"{curve}/{letter}": "few hours have such a throughput"
    for curve in (CLASSES, f"{CLASSES}, 30 days")
    for letter in "BCF"
}
"""What may have."""


def answers_as_expected(name: str, found: list[dict[str, Any]]) -> None:
    if name in EMPTY:
        assert found == [], f"no longer empty: {EMPTY[name]}"
    elif name not in PERHAPS:
        assert found


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_every_panel_has_an_answer_now(name: str, stack: Stack):
    asked = QUERIES[name]
    end = time.time()
    if asked.instant:
        found = stack.now(asked.expr)
    else:
        step = asked.step_seconds
        found = stack.over(asked.expr, (end - asked.span_seconds) // step * step, end, step)
    answers_as_expected(name, found)
    for series in found:
        for _, value in series.get("values") or [series["value"]]:
            assert math.isfinite(float(value)), series["metric"]


@pytest.mark.parametrize("rule", [*records.RECORDS, *alert_records.RECORDS], ids=lambda rule: rule.record)
def test_every_record_has_a_value_now(rule: records.Record, stack: Stack):
    answers_as_expected(rule.record, stack.now(rule.expr))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_variable_has_values(board: dict[str, Any], stack: Stack):
    values = panels.texts(board, CHOSEN)
    for item in board["templating"]["list"]:
        if item["type"] == "query":
            series, _, label = item["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            found = server.asked(
                stack.url, f"label/{label}/values", **{"match[]": panels.filled(series, values)}
            )
            assert found or label == "namespace", f"{item['name']}: there is none outside Kubernetes"


# ------------------------------------------------------------------------------------------------- a second up


def test_a_second_up_adds_nothing(stack: Stack):
    blocks = sorted(path.parent.name for path in stack.folder.glob("volumes/prometheus/*/meta.json"))
    done = subprocess.run(
        stack.history,
        env=stack.environment,
        cwd=generate.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "nothing is added" in done.stdout
    assert blocks == sorted(path.parent.name for path in stack.folder.glob("volumes/prometheus/*/meta.json"))
