"""The generated dashboards: current, complete, readable by Grafana, and their queries mean what they say."""

import json
import math
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import promql
import promql_parser
import pytest
import yaml
from PIL import Image

from dashboards import generate, queries, words
from dashboards.page import GRID_WIDTH
from joulemeter import catalog
from joulemeter.accounts import WINDOW_SECONDS

OUTPUTS = generate.outputs()
DASHBOARDS = {
    path.stem: json.loads(text)
    for path, text in OUTPUTS.items()
    if path.suffix == ".json" and path.is_relative_to(generate.GENERATED)
}
PANELS = [
    pytest.param(panel, id=f"{name}/{panel['title']}")
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
VARIABLES = {"$__rate_interval": "4m", "$__range": "1h", "$currency": "EUR"} | {
    f"${name}": ".*" for name in ("cluster", "job", "instance", "namespace", "model")
}


def filled(expr: str) -> str:
    """The query as Grafana sends it."""
    expr = promql.filled(expr, VARIABLES)
    assert "$" not in expr, f"an unknown variable is left in {expr}"
    return expr


# ------------------------------------------------------------------------------------------- generated files


@pytest.mark.parametrize("path", OUTPUTS, ids=str)
def test_generated_file_is_current(path: Path):
    assert (generate.ROOT / path).read_text(encoding="utf-8") == OUTPUTS[path], (
        "run: python -m dashboards.generate"
    )


def test_nothing_else_lies_among_the_generated_files():
    assert generate.stale(generate.ROOT, OUTPUTS) == []


def test_stale_names_what_is_missing_what_differs_and_what_nothing_generates(tmp_path: Path):
    wanted = {generate.GENERATED / name: f"{name}\n" for name in ("a.json", "b.json", "c.json")}
    assert generate.write(tmp_path, wanted) == sorted(wanted)
    assert generate.stale(tmp_path, wanted) == []
    folder = tmp_path / generate.GENERATED
    (folder / "a.json").write_text("edited\n")
    (folder / "b.json").unlink()
    (folder / "old.json").write_text("old\n")
    wrong = [generate.GENERATED / name for name in ("a.json", "b.json", "old.json")]
    assert generate.stale(tmp_path, wanted) == wrong
    assert generate.write(tmp_path, wanted) == wrong
    assert generate.stale(tmp_path, wanted) == []


def test_check_says_nothing_when_all_is_current(capsys: pytest.CaptureFixture[str]):
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------------------------------------------- panels


@pytest.mark.parametrize("panel", PANELS)
def test_panel_says_what_it_shows_in_which_unit_and_what_no_data_means(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 40
    assert defaults["unit"]
    assert defaults["noValue"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [target["refId"] for target in panel["targets"]] == list(ascii_uppercase[: len(panel["targets"])])


@pytest.mark.parametrize("panel", PANELS)
def test_no_data_has_no_colour(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    area = defaults.get("custom", {}).get("thresholdsStyle") == {"mode": "area"}
    lowest = {"color": "transparent" if area else "text", "value": None}
    assert defaults["thresholds"]["steps"][0] == lowest


SERIES_PANELS = [case for case in PANELS if case.values[0]["type"] == "timeseries"]
SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@pytest.mark.parametrize("scrape_seconds", [5, 10, 15, 20, 30, 60])
@pytest.mark.parametrize("panel", PANELS)
def test_a_rate_spans_two_minutes_of_windows_of_the_exporter(panel: dict[str, Any], scrape_seconds: int):
    """The energy of models advances once per window: over a part of one, a rate is too low or too high."""
    interval = panel["interval"]
    step_seconds = SECONDS[interval[-1]] * int(interval[:-1])
    rate_interval_seconds = max(step_seconds + scrape_seconds, 4 * scrape_seconds)  # as Grafana has it
    between_samples_seconds = rate_interval_seconds - scrape_seconds
    assert between_samples_seconds % math.ceil(WINDOW_SECONDS) == 0
    assert between_samples_seconds >= 120


@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_what_is_stacked_stands_on_zero(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    assert defaults.get("min") == (0 if stacked else None)


@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_per_token_ratios_have_a_logarithmic_axis(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    per_token = "/ (sum" in panel["targets"][0]["expr"] and "kind=" in panel["targets"][0]["expr"]
    if per_token:
        assert defaults["custom"]["scaleDistribution"] == {"type": "log", "log": 10}
        assert "> 0.5)" in panel["targets"][0]["expr"]


def is_ratio(expr: str) -> bool:
    """Whether it divides one amount by another, and not by a number, or reads a record that does."""
    return any(":ratio_" in selector.name for selector in promql.selectors(expr)) or any(
        isinstance(node, promql_parser.BinaryExpr)
        and str(node.op) == "/"
        and not any(isinstance(side, promql_parser.NumberLiteral) for side in (node.lhs, node.rhs))
        for node, _ in promql.walk(promql.parsed(expr))
    )


def test_a_ratio_is_told_from_an_amount_in_another_unit():
    assert is_ratio("1e6 * sum by (a) (rate(x[5m])) / on () group_left () (sum(rate(y[5m])) > 1)")
    assert not is_ratio("3600 * sum(sum_over_time(x[1d:1h])) / 3600000")


@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_no_legend_shows_the_mean_of_ratios(panel: dict[str, Any]):
    """It is not the ratio of the whole range, which tables and stats show, and would be taken for it."""
    figures = panel["options"]["legend"]["calcs"]
    logarithmic = panel["fieldConfig"]["defaults"]["custom"]["scaleDistribution"]["type"] == "log"
    if logarithmic or any(is_ratio(target["expr"]) for target in panel["targets"]):
        assert "mean" not in figures
        assert {"max", "lastNotNull"} <= set(figures)
    elif figures:
        assert figures[0] == "mean"


@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_phases_have_their_colours_and_what_is_compared_with_is_grey(panel: dict[str, Any]):
    regexps, dashed = set(), []
    for override in panel["fieldConfig"]["overrides"]:
        properties = {item["id"]: item["value"] for item in override["properties"]}
        if override["matcher"]["id"] == "byRegexp":
            regexps.add(override["matcher"]["options"])
        elif "custom.lineStyle" in properties and "custom.axisPlacement" not in properties:
            dashed.append(properties["color"]["fixedColor"])
    assert set(dashed) <= {words.GREY}
    legends = " ".join(target["legendFormat"] for target in panel["targets"])
    if re.search("phase|prefill|decode", legends):
        assert {f"/{legend}/" for legend in words.PHASE_COLOURS} <= regexps


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_click_keeps_all_that_is_chosen_and_that_both_dashboards_have(board: dict[str, Any]):
    here = {item["name"] for item in board["templating"]["list"]}
    for panel in board["panels"]:
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for item in override["properties"]:
                for link in item["value"] if item["id"] == "links" else ():
                    target, _, query = link["url"].removeprefix("/d/").partition("?")
                    clicked = re.findall(r"var-(\w+)=\$\{__value\.raw:percentencode\}", query)
                    kept = re.findall(r"\$\{(\w+):queryparam\}", query)
                    there = {one["name"] for one in DASHBOARDS[target]["templating"]["list"]}
                    assert len(clicked) == 1
                    assert "${__url_time_range}" in query
                    assert {*clicked, *kept} <= here & there | set(clicked)
                    typed = {one["name"] for one in board["templating"]["list"] if one["type"] == "textbox"}
                    assert {*clicked, *kept} >= (here & there) - typed


def test_clicks_lead_on_from_the_fleet():
    text = json.dumps(DASHBOARDS["joulemeter-fleet"])
    assert "/d/joulemeter-model?var-model=" in text
    assert "/d/joulemeter-gpu?var-instance=" in text


PICTURES = [generate.ROOT / "docs/images" / f"{name}.png" for name in DASHBOARDS]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_has_colours_enough_and_is_small(path: Path):
    """With few colours, lines look unlike their legends."""
    colours = Image.open(path).convert("RGB").getcolors(1 << 24)
    assert len(colours) >= 120, "of 128 at least, some of which are alike"
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("panel", [case for case in PANELS if case.values[0]["type"] == "table"])
def test_tables_are_narrow(panel: dict[str, Any]):
    """What the columns of numbers take leaves room for a name on a page of 1440 pixels."""
    widths = [
        item["value"]
        for override in panel["fieldConfig"]["overrides"]
        for item in override["properties"]
        if item["id"] == "custom.width"
    ]
    assert sum(widths) <= 1440 * panel["gridPos"]["w"] / GRID_WIDTH - 150
    names = panel["transformations"][1]["options"]["renameByName"]
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_lie_beside_each_other(board: dict[str, Any]):
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < GRID_WIDTH
        taken |= cells
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in board["panels"]}) == len(titles)


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_grafanas_own_types_read_the_dashboard_and_lose_nothing(board: dict[str, Any]):
    back = read_by_grafana(board)
    assert list(lost(board, back)) == []


def read_by_grafana(board: dict[str, Any]) -> Any:
    """The dashboard as the types generated from Grafana's own schema understand it."""
    with warnings.catch_warnings():  # says to prefer version 2 of the schema, which Grafana 12 only previews
        warnings.simplefilter("ignore", DeprecationWarning)
        from grafana_foundation_sdk.cog import encoder, plugins  # noqa: PLC0415
        from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415

        plugins.register_default_plugins()
        return json.loads(json.dumps(Dashboard.from_json(board), cls=encoder.JSONEncoder))


def lost(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Places of what the schema of Grafana does not know, or takes for something else."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                yield f"{place}.{key}"
            else:
                yield from lost(value, theirs[key], f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(left, right, f"{place}[{index}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} became {theirs!r}"


def test_what_grafana_does_not_know_would_be_found():
    board = json.loads(json.dumps(DASHBOARDS["joulemeter-gpu"]))
    board["panels"][1]["options"]["colourMode"] = "value"
    board["panels"][1]["maxDataPionts"] = 100
    back = read_by_grafana(board)
    assert sorted(lost(board, back)) == [".panels[1].maxDataPionts", ".panels[1].options.colourMode"]


# ---------------------------------------------------------------------------------- what the queries answer

GPU = 'joulemeter_gpu_energy_joules_total{instance="n1", gpu="0"}'
OTHER_GPU = 'joulemeter_gpu_energy_joules_total{instance="n2", gpu="0"}'
DECODE = 'joulemeter_model_energy_joules_total{instance="n1", model="m", phase="decode"}'
IDLE = 'joulemeter_model_energy_joules_total{instance="n1", model="m", phase="idle"}'
NOBODY = 'joulemeter_unattributed_energy_joules_total{instance="n1", gpu="0", reason="no_server"}'
NOBODY_THERE = 'joulemeter_unattributed_energy_joules_total{instance="n2", gpu="0", reason="no_server"}'
GAP = 'joulemeter_unattributed_energy_joules_total{instance="n1", gpu="0", reason="meter_gap"}'
PENDING = 'joulemeter_pending_energy_joules{instance="n1", gpu="0"}'
RETIRED = 'joulemeter_retired_energy_joules{instance="n1"}'
PROMPT = 'joulemeter_model_tokens_total{instance="n1", model="m", kind="prompt"}'
CACHED = 'joulemeter_model_tokens_total{instance="n1", model="m", kind="cached_prompt"}'
GENERATED = 'joulemeter_model_tokens_total{instance="n1", model="m", kind="generation"}'

CONSERVATION = queries.conservation()
SHARE = queries.share_attributed()
PER_GENERATED = queries.whole(queries.ENERGY, queries.GENERATED)
PER_TOKEN = queries.whole(queries.ENERGY, queries.COMPUTED)
RECENT = queries.recent(queries.ENERGY, queries.GENERATED)
EUROS = 'joulemeter_model_cost_total{instance="n1", model="m", component="electricity", currency="EUR"}'
EURO_HOURS = 'joulemeter_model_cost_total{instance="n1", model="m", component="compute", currency="EUR"}'
DOLLARS = 'joulemeter_model_cost_total{instance="n2", model="m", component="electricity", currency="USD"}'
GRAMS = 'joulemeter_gpu_co2e_grams_total{instance="n1", gpu="0"}'
MODEL_GRAMS = 'joulemeter_model_co2e_grams_total{instance="n1", model="m", phase="decode"}'

ABOUT_1E_9 = 2**-30  # a power of two, or rounding would add an error of its own
ANSWERS = {
    "every joule is somewhere": (
        CONSERVATION,
        {GPU: 6000, DECODE: 5000, IDLE: 500, NOBODY: 300, PENDING: 150, RETIRED: 50},
        0,
    ),
    "no model yet": (CONSERVATION, {GPU: 6000, PENDING: 6000}, 0),
    "a quarter vanished": (CONSERVATION, {GPU: 6000, DECODE: 4500}, 0.25),
    "a quarter was counted twice": (CONSERVATION, {GPU: 6000, DECODE: 7500}, 0.25),
    "errors of two nodes do not cancel": (
        CONSERVATION,
        {GPU: 6000, DECODE: 7500, OTHER_GPU: 6000, NOBODY_THERE: 4500},
        0.25,
    ),
    "without a GPU nothing is proven": (CONSERVATION, {DECODE: 1}, None),
    "share attributed": (SHARE, {GPU: 6000, DECODE: 4500}, 0.75),
    "share without a model": (SHARE, {GPU: 6000}, 0),
    "share of nothing": (SHARE, {DECODE: 6000}, None),
    "unattributed power": (queries.UNATTRIBUTED.rate(), {NOBODY: 300, NOBODY_THERE: 600, GAP: 0}, 15),
    "by reason, the same": (f"sum({queries.unattributed_by_reason()})", {NOBODY: 300, GAP: 600}, 15),
    "a reason that never occurred is left out": (
        f"count({queries.unattributed_by_reason()})",
        {NOBODY: 300, NOBODY_THERE: 600, GAP: 0},
        1,
    ),
    "grams vanished": (queries.conservation(catalog.GPU_CO2E), {GRAMS: 64, MODEL_GRAMS: 48}, 0.25),
    "no sum crosses currencies": (
        queries.COST.increase(),
        {EUROS: 2, EURO_HOURS: 1, DOLLARS: 1000},
        180,
    ),
    "a kilowatt-hour": (queries.kwh(), {DECODE: 50000, IDLE: 10000}, 1),
    "per generated token, idle included": (
        PER_GENERATED,
        {DECODE: 5000, IDLE: 1000, GENERATED: 600, PROMPT: 900},
        10,
    ),
    "per token, without cache hits": (
        PER_TOKEN,
        {DECODE: 6000, GENERATED: 600, PROMPT: 900, CACHED: 9000},
        4,
    ),
    "in the class of its throughput": (
        queries.at_load(5, 20),
        {DECODE: 5000, IDLE: 1000, GENERATED: 600},
        10,
    ),
    "not in another": (queries.at_load(20, 50), {DECODE: 6000, GENERATED: 600}, None),
    "at high load": (queries.at_high_load(0.9), {DECODE: 6000, GENERATED: 600}, 10),
    "no token is not infinite": (PER_GENERATED, {DECODE: 6000, GENERATED: 0}, None),
    "above the floor": (RECENT, {DECODE: 6200, GENERATED: 31}, 200),
    "below the floor": (RECENT, {DECODE: 6200, GENERATED: 29}, None),
}
"""Query, what each series gains per minute for an hour, and the answer after it."""


@pytest.mark.parametrize(("expr", "gains", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_query_answers(
    expr: str, gains: dict[str, float], expected: float | None, promtool: str, tmp_path: Path
):
    answer = [] if expected is None else [{"labels": "{}", "value": expected}]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"0+{gain}x60"} for name, gain in gains.items()],
        "promql_expr_test": [
            {"expr": f"round({filled(expr)}, {ABOUT_1E_9})", "eval_time": "60m", "exp_samples": answer}
        ],
    }
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
