"""The generated dashboards: current, complete, readable by Grafana, and their queries mean what they say."""

import json
import math
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate, queries, records
from dashboards.panels import GRID_WIDTH
from joulemeter import catalog
from joulemeter.accounts import WINDOW_SECONDS

OUTPUTS = generate.outputs()
DASHBOARDS = {path.stem: json.loads(text) for path, text in OUTPUTS.items() if path.suffix == ".json"}
WITH_QUERIES = [path for path in OUTPUTS if path != generate.REFERENCE]
PANELS = [
    pytest.param(panel, id=f"{name}/{panel['title']}")
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
TARGET_LABELS = {"cluster", "job", "instance"}
VARIABLES = {"$__rate_interval": "4m", "$__range": "1h"} | {
    f"${name}": ".*" for name in ("cluster", "job", "instance", "model")
}


def series() -> dict[str, set[str]]:
    """Every name that a query may use, with its labels."""
    known = {rule.record: {"namespace", "model"} for rule in records.RECORDS}
    for metric in catalog.ALL:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        for suffix in suffixes:
            known[metric.name + suffix] = {*metric.labels, *(["le"] if suffix == "_bucket" else [])}
    return known


def expressions(tree: Any) -> Iterator[str]:
    """Every query in a dashboard or a rules file, those of variables included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in {"expr", "query"} and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from expressions(item)


def filled(expr: str) -> str:
    """The query as Grafana sends it."""
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
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
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])


@pytest.mark.parametrize("panel", PANELS)
def test_no_data_has_no_colour(panel: dict[str, Any]):
    lowest = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]
    assert lowest == {"color": "text", "value": None}


SERIES_PANELS = [case for case in PANELS if case.values[0]["type"] == "timeseries"]


@pytest.mark.parametrize("scrape_seconds", [5, 10, 15, 20, 30, 60])
@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_a_rate_spans_whole_windows_of_the_exporter(panel: dict[str, Any], scrape_seconds: int):
    """The energy of models advances once per window: over a part of one, a rate is too low or too high."""
    step_seconds = 60 * int(panel["interval"].removesuffix("m"))
    rate_interval_seconds = max(step_seconds + scrape_seconds, 4 * scrape_seconds)  # as Grafana has it
    between_samples_seconds = rate_interval_seconds - scrape_seconds
    assert between_samples_seconds % math.ceil(WINDOW_SECONDS) == 0
    assert between_samples_seconds >= 6 * WINDOW_SECONDS


@pytest.mark.parametrize("panel", SERIES_PANELS)
def test_what_is_stacked_stands_on_zero(panel: dict[str, Any]):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    assert defaults.get("min") == (0 if stacked else None)


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
    board = json.loads(json.dumps(DASHBOARDS["joulemeter-models"]))
    board["panels"][1]["options"]["colourMode"] = "value"
    board["panels"][1]["maxDataPionts"] = 100
    back = read_by_grafana(board)
    assert sorted(lost(board, back)) == [".panels[1].maxDataPionts", ".panels[1].options.colourMode"]


# --------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("path", WITH_QUERIES, ids=str)
def test_queries_only_name_series_and_labels_that_exist(path: Path):
    known = series()
    found = list(expressions(yaml.safe_load(OUTPUTS[path])))
    assert found
    for expr in found:
        for name, matchers in re.findall(r"([a-z_:]*joulemeter_\w+(?::\w+)?)(?:\{([^}]*)\})?", expr):
            assert name in known, f"no such series: {name} in {expr}"
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert used <= known[name] | TARGET_LABELS, f"{name} has no such label, in {expr}"
        grouped = {label for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(", ")}
        assert grouped <= set().union(*known.values()) | TARGET_LABELS


@pytest.mark.parametrize("panel", [p for p in PANELS if "Conservation" not in str(p.id)])
def test_counters_are_only_used_as_increases(panel: dict[str, Any]):
    """All but the conservation error, which compares the raw totals of one page."""
    for target in panel["targets"]:
        uses = re.findall(r"(\w*)\(?joulemeter_\w+_total", target["expr"])
        assert set(uses) <= {"rate", "increase"}, target["expr"]


def test_promtool_parses_every_query(promtool: str, tmp_path: Path):
    exprs = [
        filled(target["expr"])
        for board in DASHBOARDS.values()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(exprs) >= len(PANELS)
    group = {"name": "panels", "rules": [{"record": f"q{i}", "expr": expr} for i, expr in enumerate(exprs)]}
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
PER_GENERATED = queries.per_token(queries.GENERATED, "increase", "$__range", floor=0)
PER_TOKEN = queries.per_token(queries.COMPUTED, "increase", "$__range", floor=0)
RECENT = queries.per_token(
    queries.GENERATED, "rate", "$__rate_interval", floor=queries.TOKENS_PER_SECOND_FLOOR
)

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
    "unattributed power": (queries.unattributed(), {NOBODY: 300, NOBODY_THERE: 600, GAP: 0}, 15),
    "by reason, the same": (f"sum({queries.unattributed_by_reason()})", {NOBODY: 300, GAP: 600}, 15),
    "a reason that never occurred is left out": (
        f"count({queries.unattributed_by_reason()})",
        {NOBODY: 300, NOBODY_THERE: 600, GAP: 0},
        1,
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
