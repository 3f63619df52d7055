"""Every query of every dashboard and every rule, put to a real Prometheus that holds simulated days.

The days are those of two nodes whose energy, tokens, grams and money are known, kept by the real books.
"""

import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import promql
import pytest
import yaml

from benchmarks import prometheus as server
from benchmarks.history import days as history
from benchmarks.history import nodes, openmetrics, panels, plan
from dashboards import (
    alert_records,
    alerts,
    carbon,
    exporter,
    fleet,
    generate,
    models,
    models_energy,
    records,
)
from dashboards import nodes as gpu_board
from joulemeter import catalog

pytestmark = pytest.mark.timeout(400)

HOURS = 36.0
SPAN_SECONDS = 12 * plan.HOUR_SECONDS
"""Half a day up to the end; the same hours of the day before are there too."""
WITHIN = 0.01
SMALL, LARGE = (site.model for site in nodes.sites(HOURS * plan.HOUR_SECONDS, plan.COARSE))
CHOSEN = {"currency": nodes.CURRENCY}
BOARDS = {
    path.stem: json.loads(text)
    for path, text in generate.outputs().items()
    if path.suffix == ".json" and path.is_relative_to(generate.GENERATED)
}
QUERIES = {
    f"{name}/{asked.panel['title']}/{asked.target['refId']}": asked
    for name, board in BOARDS.items()
    for asked in panels.asked_by(board, SPAN_SECONDS, plan.COARSE.scrape_seconds, CHOSEN)
}
CLASSES = "joulemeter-model/J / generated token by throughput"
EMPTY = {
    "joulemeter-exporter/Answers that could not be used/A": "every answer could be used",
    "joulemeter-exporter/Tokens without energy/A": "every server was always seen",
    "joulemeter-gpu/Kernel time by server, shared GPUs/A": "no GPU of these nodes is shared",
    "joulemeter-model/Median J of a request/A": "these servers do not show lengths of requests",
    **{f"{CLASSES}/{letter}": "no five minutes had such a throughput" for letter in "ABHI"},
    **{f"{CLASSES}, 30 days/{letter}": "no hour had such a throughput" for letter in "ABI"},
}
"""Queries that have nothing to answer here, each with the reason."""


FOREIGN = {"cluster": history.CLUSTER, "job": "other", "instance": "database-1:9187"}
GONE = {"cluster": history.CLUSTER, "job": history.JOB, "instance": "gpu-node-3"}


@pytest.fixture(scope="module")
def days(prometheus: str, promtool: str, tmp_path_factory: pytest.TempPathFactory) -> history.Days:
    found = history.simulate_days(tmp_path_factory.mktemp("days"), HOURS, plan.COARSE)
    add_other_targets(found)
    return found


def add_other_targets(days: history.Days) -> None:
    """A target that is down and no joulemeter, and an exporter that is down since two hours."""
    begin, end = (int(at) for at in (days.begin_timestamp_seconds, days.end_timestamp_seconds))
    every = int(plan.COARSE.scrape_seconds)
    scrapes = range(begin, end + 1, every)
    until_gone = range(begin, end - 7200, every)
    down = {
        "up": 0,
        "scrape_samples_scraped": 0,
        "scrape_duration_seconds": 10,
        catalog.PROCESS_MEMORY.name: 4e9,
    }
    page = days.data.with_name("others.om")
    with page.open("w") as out:

        def write(target: dict[str, str], name: str, points: list[tuple[float, str]]) -> None:
            openmetrics.write_series(out, {**target, "__name__": name}, points)

        for name, value in down.items():
            write(FOREIGN, name, [(at, str(value)) for at in scrapes])
        write(FOREIGN, catalog.PROCESS_CPU.name, [(at, str(at - begin)) for at in scrapes])
        write(GONE, "up", [(at, str(int(at in until_gone))) for at in scrapes])
        write(GONE, catalog.BUILD_INFO.name, [(at, "1") for at in until_gone])
        out.write("# EOF\n")
    server.fill(page, days.data)


@pytest.fixture(scope="module")
def url(days: history.Days) -> Iterator[str]:
    """Prometheus with the rules, each group evaluated every few seconds."""
    rules = yaml.safe_load((generate.ROOT / generate.GENERATED / "prometheus/rules.yaml").read_text())
    often = days.data.with_name("rules.yaml")
    often.write_text(yaml.safe_dump({"groups": [{**group, "interval": "5s"} for group in rules["groups"]]}))
    config = {"global": {"evaluation_interval": "5s"}, "rule_files": [str(often)]}
    with server.running(days.data, config) as address:
        yield address


def answer(url: str, days: history.Days, asked: panels.Asked) -> list[dict[str, Any]]:
    end = days.end_timestamp_seconds
    if asked.instant:
        return list(server.asked(url, "query", query=asked.expr, time=end)["result"])
    step = asked.step_seconds
    start = (end - asked.span_seconds) // step * step
    found = server.asked(url, "query_range", query=asked.expr, start=start, end=end, step=step)
    return list(found["result"])


def numbers(series: dict[str, Any]) -> list[float]:
    return [float(value) for _, value in series.get("values") or [series["value"]]]


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_a_panel_has_an_answer(name: str, url: str, days: history.Days):
    found = answer(url, days, QUERIES[name])
    if name in EMPTY:
        assert found == [], f"no longer empty: {EMPTY[name]}"
        return
    assert found
    for series in found:
        assert all(math.isfinite(value) for value in numbers(series)), series["metric"]


@pytest.mark.parametrize("name", [name for name, asked in QUERIES.items() if asked.panel["type"] == "stat"])
def test_a_stat_has_one_series(name: str, url: str, days: history.Days):
    assert len(answer(url, days, QUERIES[name])) == (name not in EMPTY)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_variables_have_values_and_annotations_have_queries(
    board: dict[str, Any], url: str, days: history.Days
):
    values = panels.texts(board, CHOSEN)
    end = days.end_timestamp_seconds
    for item in board["templating"]["list"]:
        if item["type"] == "query":
            series, _, label = item["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            match = {"match[]": promql.filled(series, values), "start": end - SPAN_SECONDS, "end": end}
            found = server.asked(url, f"label/{label}/values", **match)
            # what is empty, such as namespaces outside Kubernetes, Prometheus does not keep
            assert found or label == "namespace", item["name"]
    for item in board["annotations"]["list"]:
        expr = promql.filled(item["expr"], values)
        server.asked(url, "query_range", query=expr, start=end - SPAN_SECONDS, end=end, step=300)


# ------------------------------------------------------------------------------------------------------ rules


RECORDS = (*records.RECORDS, *alert_records.RECORDS)


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule.record)
def test_a_record_says_now_what_it_recorded(rule: records.Record, url: str, days: history.Days):
    at = days.begin_timestamp_seconds + 32 * plan.HOUR_SECONDS
    recorded, computed = (
        {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k != "__name__")): float(one["value"][1])
            for one in server.asked(url, "query", query=expr, time=at)["result"]
        }
        for expr in (rule.record, rule.expr)
    )
    assert recorded
    assert computed == pytest.approx(recorded, rel=1e-9)


def test_prometheus_evaluates_every_rule_without_an_error(url: str):
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        groups = server.asked(url, "rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in rules):
            break
        time.sleep(0.5)
    assert {rule["name"] for rule in rules} >= {rule.record for rule in RECORDS}
    assert [rule for rule in rules if rule["health"] != "ok"] == []


# -------------------------------------------------------------------------------- what the simulator knows


class Known:
    """The truth of the range, or of the same range some seconds earlier."""

    def __init__(self, days: history.Days, earlier_seconds: float = 0.0, span: float = SPAN_SECONDS) -> None:
        self._days = days
        self._until = days.end_timestamp_seconds - earlier_seconds
        self._since = self._until - span

    def __call__(self, name: str, model: str | None = None) -> float:
        return sum(
            self._days.true(name, self._since, self._until, truth.site.instance)
            for truth in self._days.truths
            if model in (None, truth.site.model)
        )

    def per(self, top: str, bottom: str, model: str | None = None) -> float:
        return self(top, model) / self(bottom, model)


KWH = 3.6e6
EXPECTED_STATS = {
    f"{fleet.UID}/GPU energy": lambda k: k("gpu_joules") / KWH,
    f"{fleet.UID}/Cost ($currency)": lambda k: k("gpu_cost"),
    f"{fleet.UID}/CO₂e": lambda k: k("gpu_grams"),
    f"{fleet.UID}/Share attributed": lambda k: k.per("model_joules", "gpu_joules"),
    f"{fleet.UID}/Readings": lambda k: 1,
    f"{models.UID}/J / generated token": lambda k: k.per("model_joules", "generated"),
    f"{models.UID}/J / token": lambda k: k("model_joules") / (k("generated") + k("prompt")),
    f"{models.UID}/Wh / request": lambda k: k.per("model_joules", "requests") / 3600,
    f"{models.UID}/Energy": lambda k: k("model_joules") / KWH,
    f"{models.UID}/Generated tokens / J": lambda k: k.per("generated", "model_joules"),
    f"{models.UID}/Generated tokens / kWh": lambda k: k.per("generated", "model_joules") * KWH,
    f"{models.UID}/Requests / kWh": lambda k: k.per("requests", "model_joules") * KWH,
    f"{models.UID}/Generated tokens / $currency": lambda k: k.per("generated", "model_cost"),
    f"{models.UID}/$currency / M generated tokens": lambda k: 1e6 * k.per("model_cost", "generated"),
    f"{models.UID}/$currency / kWh, all in": lambda k: KWH * k.per("model_cost", "model_joules"),
    f"{models.UID}/CO₂e / M generated tokens": lambda k: 1e6 * k.per("model_grams", "generated"),
    f"{models.UID}/Wh / meaningful response": lambda k: k.per("model_joules", "requests") / 3600,
    f"{models.UID}/$currency / 1000 meaningful responses": lambda k: 1000 * k.per("model_cost", "requests"),
    f"{gpu_board.UID}/GPUs": lambda k: 6,
    f"{carbon.UID}/CO₂e": lambda k: k("gpu_grams"),
    f"{carbon.UID}/Effective intensity": lambda k: KWH * k.per("gpu_grams", "gpu_joules"),
    f"{carbon.UID}/CO₂e / M gen. tokens": lambda k: 1e6 * k.per("model_grams", "generated"),
    f"{carbon.UID}/Cost of GPUs ($currency)": lambda k: k("gpu_cost"),
}


@pytest.mark.parametrize("name", EXPECTED_STATS)
def test_a_stat_says_what_the_simulator_knows(name: str, url: str, days: history.Days):
    (found,) = answer(url, days, QUERIES[f"{name}/A"])
    assert numbers(found) == pytest.approx([EXPECTED_STATS[name](Known(days))], rel=WITHIN)


COLUMNS = {
    "A": lambda k, m: k("model_joules", m) / KWH,
    "B": lambda k, m: k.per("model_joules", "generated", m),
    "C": lambda k, m: k.per("model_joules", "requests", m) / 3600,
    "D": lambda k, m: k("generated", m),
    "F": lambda k, m: k("model_cost", m),
    "G": lambda k, m: 1e6 * k.per("model_cost", "generated", m),
    "H": lambda k, m: k("model_grams", m),
    "I": lambda k, m: 1e6 * k.per("model_grams", "generated", m),
}
"""Of the fleet's table of models; E, the idle share, is of an estimated split."""


@pytest.mark.parametrize("column", COLUMNS)
def test_the_table_of_models_says_what_the_simulator_knows(column: str, url: str, days: history.Days):
    known = Known(days)
    found = answer(url, days, QUERIES[f"{fleet.UID}/Models/{column}"])
    said = {one["metric"]["model"]: numbers(one)[0] for one in found}
    assert said == pytest.approx({m: COLUMNS[column](known, m) for m in (SMALL, LARGE)}, rel=WITHIN)


def test_against_yesterday(url: str, days: history.Days):
    today = Known(days).per("model_joules", "generated")
    yesterday = Known(days, plan.DAY_SECONDS).per("model_joules", "generated")
    (found,) = answer(url, days, QUERIES[f"{models.UID}/Against yesterday/A"])
    assert numbers(found)[0] + 1 == pytest.approx(today / yesterday, rel=2 * WITHIN)


def test_recorded_hours_add_up_to_the_days_energy_and_to_the_average_of_all_days(
    url: str, days: history.Days
):
    end = days.end_timestamp_seconds
    day = server.asked(
        url,
        "query",
        query=promql.filled(
            records.over_hours(records.ENERGY, 24, by="model"), panels.texts(BOARDS[fleet.UID], {})
        ),
        time=end,
    )["result"]
    known = Known(days, span=plan.DAY_SECONDS)
    said = {one["metric"]["model"]: numbers(one)[0] for one in day}
    assert said == pytest.approx({m: known("model_joules", m) for m in (SMALL, LARGE)}, rel=WITHIN)
    found = answer(url, days, QUERIES[f"{models.UID}/J / generated token, average of 7 days/A"])
    whole = Known(days, span=HOURS * plan.HOUR_SECONDS)
    said = {one["metric"]["model"]: numbers(one)[-1] for one in found}
    wanted = {m: whole.per("model_joules", "generated", m) for m in (SMALL, LARGE)}
    assert said == pytest.approx(wanted, rel=WITHIN)


def test_every_page_adds_up(url: str, days: history.Days):
    for title in ("Energy adds up", "CO₂e adds up", "Cost adds up ($currency)"):
        expr = QUERIES[f"{exporter.UID}/{title}/A"].expr
        begin, end = days.begin_timestamp_seconds, days.end_timestamp_seconds
        found = server.asked(url, "query_range", query=expr, start=begin + 600, end=end, step=120)
        (series,) = found["result"]
        assert len(numbers(series)) > 800
        assert max(numbers(series)) < 1e-9, title


def test_the_regression_shows_in_the_model_that_has_it_and_in_no_other(url: str, days: history.Days):
    found = answer(url, days, QUERIES[f"{models.UID}/Measured / expected, over an hour/A"])
    last = {one["metric"]["model"]: numbers(one)[-1] for one in found}
    first = {one["metric"]["model"]: numbers(one)[0] for one in found}
    assert last[SMALL] == pytest.approx(1.0, abs=0.02)
    assert 1.08 < last[LARGE] < 1.16
    assert first == pytest.approx({SMALL: 1.0, LARGE: 1.0}, abs=0.02)


def test_the_paging_alert_fires_for_the_regression_and_others_for_what_is_so(url: str, days: history.Days):
    """The page, its slower sister and the basis for the eye say the same of the regressed model.

    The fourth says that the first node's second GPU, which no server uses, is a third of the energy at night, when
    the other draws little. None fires before.
    """
    end = days.end_timestamp_seconds
    begun = end - 6 * plan.HOUR_SECONDS
    fired: dict[str, list[tuple[dict[str, str], float]]] = {}
    answered = server.asked(
        url, "query_range", query="ALERTS", start=days.begin_timestamp_seconds, end=end, step=60
    )
    for series in answered["result"]:
        labels = series["metric"]
        assert labels["alertstate"] == "firing"
        fired.setdefault(labels["alertname"], []).append((labels, float(series["values"][0][0]) - begun))
    regression = {
        alerts.REGRESSION.name: 3600,
        alerts.REGRESSION_SLOW.name: 3 * 3600,
        alerts.LOAD_HIGH.name: 9000,
    }
    assert fired.keys() == {*regression, alerts.UNATTRIBUTED.name}
    for name, at_most_seconds in regression.items():
        ((labels, delay_seconds),) = fired[name]
        assert labels["model"] == LARGE
        assert 0 < delay_seconds <= at_most_seconds
    assert {labels["instance"] for labels, _ in fired[alerts.UNATTRIBUTED.name]} == {"gpu-node-1"}
    found = answer(url, days, QUERIES[f"{fleet.UID}/Firing alerts/A"])
    shown = {one["metric"]["alertname"]: numbers(one)[-1] for one in found}
    levels = {alert.name: float(fleet.SEVERITIES.index(alert.severity) + 1) for alert in alerts.ALERTS}
    assert shown == {name: levels[name] for name in shown}
    assert shown.keys() >= regression.keys()


# ---------------------------------------------------------------------------------- whose figures, and of when


@pytest.mark.parametrize("name", [name for name in QUERIES if not name.startswith(fleet.UID)])
def test_targets_that_are_no_joulemeter_show_nowhere(name: str, url: str, days: history.Days):
    for series in answer(url, days, QUERIES[name]):
        assert FOREIGN["instance"] not in series["metric"].values()
        assert FOREIGN["job"] not in series["metric"].values()


def test_exporters_that_are_down_are_counted_and_no_other_targets(url: str, days: history.Days):
    asked = QUERIES[f"{exporter.UID}/Exporters down/A"]
    (found,) = answer(url, days, asked)
    assert numbers(found) == [1]
    before = days.end_timestamp_seconds - 3 * plan.HOUR_SECONDS
    (found,) = server.asked(url, "query", query=asked.expr, time=before)["result"]
    assert numbers(found) == [0]


def test_the_age_of_a_page_is_that_at_its_scrape(url: str, days: history.Days):
    """Not the time since the scrape, which grows until the next."""
    asked = QUERIES[f"{exporter.UID}/Oldest page/A"]
    later = days.end_timestamp_seconds + 0.8 * plan.COARSE.scrape_seconds
    (found,) = server.asked(url, "query", query=asked.expr, time=later)["result"]
    assert numbers(found) == [0]


DAYS_BARS = {
    "Energy per day by model": ("joules", KWH),
    "CO₂e per day by model": ("grams", 1.0),
    "Cost per day by model ($currency)": ("cost", 1.0),
}


@pytest.mark.parametrize("title", DAYS_BARS)
def test_a_bar_of_a_day_is_that_day_and_all_bars_are_all_gpus(title: str, url: str, days: history.Days):
    what, per = DAYS_BARS[title]
    monday = days.begin_timestamp_seconds
    bars = {
        letter: {
            one["metric"].get("model", ""): {float(at): float(value) for at, value in one["values"]}
            for one in answer(url, days, QUERIES[f"{fleet.UID}/{title}/{letter}"])
        }
        for letter in "ABC"
    }
    for begun, span in ((monday, plan.DAY_SECONDS), (monday + plan.DAY_SECONDS, 12 * plan.HOUR_SECONDS)):
        known = Known(days, days.end_timestamp_seconds - begun - span, span)
        of_models = {model: points[begun] for model, points in bars["A"].items()}
        assert of_models == pytest.approx(
            {model: known(f"model_{what}", model) / per for model in (SMALL, LARGE)}, rel=2 * WITHIN
        )
        of_gpus = bars["C"][""][begun]
        assert of_gpus == pytest.approx(known(f"gpu_{what}") / per, rel=2 * WITHIN)
        assert sum(of_models.values()) + bars["B"][""][begun] == pytest.approx(of_gpus, rel=1e-3)


def test_the_load_curve_of_weeks_is_that_of_hours(url: str, days: history.Days):
    """All classes together are all energy over all tokens, save the first hour, which no record is whole of."""
    top = bottom = 0.0
    values = panels.texts(BOARDS[models.UID], {})
    tokens = promql.filled(f"sum({records.chosen(records.GENERATED)})", values)
    for (low, high), letter in zip(pairwise(models_energy.LOADS), "ABCDEFGHI", strict=True):
        for one in answer(url, days, QUERIES[f"{CLASSES}, 30 days/{letter}"]):
            weight = f"sum_over_time(({tokens} >= {low:g} < {high:g})[2591999s:1h])"
            (total,) = server.asked(url, "query", query=weight, time=days.end_timestamp_seconds)["result"]
            bottom += numbers(total)[0]
            top += numbers(one)[0] * numbers(total)[0]
    known = Known(days, span=HOURS * plan.HOUR_SECONDS)
    assert top / bottom == pytest.approx(known.per("model_joules", "generated"), rel=2 * WITHIN)


def test_what_is_typed_into_the_variables_counts(url: str, days: history.Days):
    typed = {**CHOSEN, "attempts": "2", "side_tokens": "1000", "side_price": "0.5", "change": "25"}
    board = BOARDS[models.UID]
    asked = {
        f"{one.panel['title']}/{one.target['refId']}": one
        for one in panels.asked_by(board, SPAN_SECONDS, plan.COARSE.scrape_seconds, typed)
    }
    known = Known(days)
    joules = 2 * known.per("model_joules", "requests") + 1000 * known("model_joules") / (
        known("generated") + known("prompt")
    )
    (found,) = answer(url, days, asked["Wh / meaningful response/A"])
    assert numbers(found) == pytest.approx([joules / 3600], rel=WITHIN)
    (found,) = answer(url, days, asked["$currency / 1000 meaningful responses/A"])
    cost = 1000 * (2 * known.per("model_cost", "requests") + 1000 * 0.5e-6)
    assert numbers(found) == pytest.approx([cost], rel=WITHIN)
    changes = {
        column: {
            one["metric"]["lever"]: numbers(one)[0]
            for one in answer(url, days, asked[f"If it rose by $change %/{column}"])
        }
        for column in "BD"
    }
    assert changes["B"]["throughput at the same power"] == pytest.approx(-0.2)
    assert changes["B"]["PUE"] + changes["B"]["price of GPU time"] == pytest.approx(0.25)
    assert changes["B"]["PUE"] == changes["B"]["price of electricity"]
    assert changes["D"] == pytest.approx(
        {
            "throughput at the same power": -0.2,
            "price of electricity": 0,
            "price of GPU time": 0,
            "PUE": 0.25,
            "carbon intensity": 0.25,
        }
    )


def test_a_chosen_model_is_the_only_one_in_the_answers(url: str, days: history.Days):
    board = BOARDS[models.UID]
    chosen = {**CHOSEN, "model": SMALL}
    asked = {
        one.panel["title"]: one
        for one in panels.asked_by(board, SPAN_SECONDS, plan.COARSE.scrape_seconds, chosen)
    }
    (found,) = answer(url, days, asked["Energy"])
    assert numbers(found) == pytest.approx([Known(days)("model_joules", SMALL) / KWH], rel=WITHIN)
