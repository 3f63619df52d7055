"""`joulemeter report` on a real Prometheus, over a back-filled month of which everything is known."""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import run
from report_history import Exporter, openmetrics
from report_month import BEGIN, END, SECOND_SINCE, STEP, copied, first_node, on, second_node

from benchmarks.prometheus import fill, running
from joulemeter import catalog
from joulemeter.errors import ConfigError, PrometheusError
from joulemeter.report.offer import Rates
from joulemeter.runtime.report_command import Question, reported

ROOT = Path(__file__).parent.parent
KWH = 3.6e6
NOW = on(1, 3, month=11)
CHAT, CODER = "Llama-3.1-8B-Instruct", "Qwen3-Coder"
ADDED = ("energy_kwh", "co2e_grams", "cost_EUR", "cost_SEK", "prompt_tokens", "requests")
RATES = Rates(0.05, 0.01, 0.08, 0.2)


def filled(folder: Path, text: str) -> Path:
    page, data = folder / "samples.om", folder / "data"
    page.write_text(text)
    fill(page, data)
    return data


@pytest.fixture(scope="module")
def nodes() -> tuple[Exporter, Exporter]:
    return first_node(), second_node()


@pytest.fixture(scope="module")
def server(
    promtool: str, prometheus: str, nodes: tuple[Exporter, Exporter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """It answers no more than 15,000 samples at a time, so that the month has to be asked for in pieces."""
    stores = [*(node.store() for node in nodes), copied(nodes[0], on(4))]
    data = filled(tmp_path_factory.mktemp("prometheus"), openmetrics(stores))
    with running(data, None, "--query.max-samples=15000") as url:
        yield url


def month(server: str, **changed: object) -> Question:
    options = {"time_zone": "Europe/Berlin", "month": "2026-10", "form": "json"} | changed
    return Question(server, **options)  # type: ignore[arg-type]


async def told(question: Question) -> dict:
    text, aside = await reported(question, now_seconds=NOW)
    assert aside == []
    return json.loads(text)


def row(answer: dict, **wanted: str) -> dict:
    (found,) = (one for one in answer["rows"] if wanted.items() <= one.items())
    return found


def truth(node: Exporter, metric: catalog.Metric, *values: str) -> float:
    gained = node.truth(BEGIN, END)[metric]
    return math.fsum(amount for own, amount in gained.items() if set(values) <= set(own))


# ---------------------------------------------------------------------------------------------- figures


async def test_month_is_what_happened(server: str, nodes: tuple[Exporter, Exporter]):
    answer = await told(month(server))
    first, second = nodes
    assert [one["section"] for one in answer["rows"]] == [
        *("model", "model", "unattributed", "not covered", "total")
    ]
    chat, coder, total = row(answer, model=CHAT), row(answer, model=CODER), row(answer, section="total")
    for shown in (chat, coder):
        for name, metric, more, size in (
            ("energy_kwh", catalog.MODEL_ENERGY, (), KWH),
            ("prompt_tokens", catalog.MODEL_TOKENS, ("prompt",), 1),
            ("cached_prompt_tokens", catalog.MODEL_TOKENS, ("cached_prompt",), 1),
            ("generated_tokens", catalog.MODEL_TOKENS, ("generation",), 1),
            ("requests", catalog.MODEL_REQUESTS, (), 1),
            ("co2e_grams", catalog.MODEL_CO2E, (), 1),
        ):
            want = sum(truth(node, metric, shown["model"], *more) for node in nodes) / size
            assert want > 0
            assert shown[name] == pytest.approx(want, rel=1e-9), name
    for currency, node in (("EUR", first), ("SEK", second)):
        assert total[f"cost_{currency}"] == pytest.approx(truth(node, catalog.GPU_COST), rel=1e-9)
        assert chat[f"cost_{currency}"] == pytest.approx(truth(node, catalog.MODEL_COST, CHAT), rel=1e-9)
    assert total["energy_credit_EUR"] == pytest.approx(truth(first, catalog.ENERGY_CREDIT), rel=1e-9)
    assert total["energy_credit_EUR"] > 0.1
    whole = sum(truth(node, catalog.GPU_ENERGY) for node in nodes) / KWH
    assert total["energy_kwh"] == pytest.approx(whole, rel=1e-9)
    assert chat["joules_per_token"] == pytest.approx(
        chat["energy_kwh"] * KWH / (chat["prompt_tokens"] + chat["generated_tokens"])
    )
    assert answer["warnings"] == []


@pytest.mark.parametrize("form", ["csv", "json"])
async def test_rows_add_up(server: str, form: str):
    text, _ = await reported(month(server, form=form), now_seconds=NOW)
    if form == "csv":
        read = csv.DictReader(io.StringIO(text))
        rows = [one | {name: float(one[name] or 0) for name in ADDED} for one in read]
    else:
        rows = json.loads(text)["rows"]
    *parts, total = rows
    for name in ADDED:
        added = math.fsum(one[name] or 0.0 for one in parts)
        assert added == pytest.approx(total[name], rel=1e-9), name
    assert total["section"] == "total"


async def test_what_is_not_covered_is_small_and_said(server: str):
    answer = await told(month(server))
    covered = answer["coverage"]
    assert covered["exporters"] == 2  # the second job's copy is the same node
    assert covered["gpus"] == 3
    assert covered["restarts"] == 2
    assert covered["unknown_hours_at_restarts"] == pytest.approx(3 + STEP / 3600, abs=0.01)
    assert covered["bridged_hours"] == pytest.approx(6, abs=0.01)
    assert covered["unknown_hours_at_edges"] == pytest.approx((SECOND_SINCE - BEGIN) / 3600, abs=0.01)
    assert covered["exporter_hours"] == pytest.approx(2 * 745)
    assert row(answer, section="not covered")["energy_kwh"] == pytest.approx(covered["in_transit_kwh"])
    assert 0 < covered["unknown_estimate_kwh_at_restarts"] < 3.2


async def test_two_parts_of_a_month_add_up_to_it(server: str):
    whole = await told(month(server))
    early = await told(month(server, month=None, begin="2026-10-01", end="2026-10-15T09:00"))
    late = await told(month(server, month=None, begin="2026-10-15T09:00", end="2026-11-01"))
    for name in ("energy_kwh", "co2e_grams", "generated_tokens", "cost_EUR", "energy_credit_EUR"):
        parts = [row(one, section="total").get(name) or 0.0 for one in (early, late)]
        assert sum(parts) == pytest.approx(row(whole, section="total")[name], rel=1e-9), name


async def test_the_footer_says_what_it_rests_on(server: str):
    basis = (await told(month(server)))["basis"]
    assert basis["splits"] == [{"split": "measured", "time_ratio": 1}]
    assert basis["pue_ratio"] == {"lowest": 1.2, "highest": 1.2}
    assert {one["zone"]: one["source"] for one in basis["grid"]} == {
        "DE": "electricitymaps",
        "SE": "electricitymaps",
    }
    assert basis["simulated_ratio"] == 0
    assert basis["versions"] == ["0.1.0"]


async def test_selector_chooses_exporters(server: str, nodes: tuple[Exporter, Exporter]):
    answer = await told(month(server, selectors=['instance="gpu-2"']))
    want = truth(nodes[1], catalog.GPU_ENERGY) / KWH
    assert row(answer, section="total")["energy_kwh"] == pytest.approx(want, rel=1e-9)
    assert "cost_EUR" not in answer["rows"][0]


async def test_by_token_and_by_energy(server: str):
    answer = await told(month(server, rates=RATES))
    chat, total = row(answer, model=CHAT), row(answer, section="total")
    tokens = [chat[f"{kind}_tokens"] for kind in ("prompt", "cached_prompt", "generated")]
    by_token = sum(count * rate / 1e6 for count, rate in zip(tokens, (0.05, 0.01, 0.08), strict=True))
    assert chat["charge_by_token"] == pytest.approx(by_token)
    assert chat["charge_by_energy"] == pytest.approx(chat["energy_kwh"] * 0.2)
    assert chat["charge_by_token_per_mtok"] == pytest.approx(by_token / sum(tokens) * 1e6)
    assert chat["savings_ratio"] == pytest.approx(1 - chat["charge_by_energy"] / by_token)
    assert total["charge_by_token"] == pytest.approx(by_token + row(answer, model=CODER)["charge_by_token"])
    assert row(answer, section="unattributed")["charge_by_energy"] is None


# ---------------------------------------------------------------------------------------------- forms


async def test_documentation_shows_this_very_month(server: str):
    text, aside = await reported(month(server, form="table", rates=RATES), now_seconds=NOW)
    assert aside == []
    assert text in (ROOT / "docs/report.md").read_text(), text


async def test_csv_has_its_notes_aside(server: str):
    text, aside = await reported(month(server, form="csv"), now_seconds=NOW)
    assert "Range" not in text
    assert aside[0].startswith(
        "Range: 2026-10-01 00:00:00+02:00 to 2026-11-01 00:00:00+01:00, time zone Europe"
    )
    assert aside[1].startswith("Boundary: GPU boards only")


def test_as_a_process(server: str):
    options = ("--prometheus", server, "--month", "2026-10", "--timezone", "Europe/Berlin")
    done = run("report", *options, "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("section,namespace,model,reason,energy_kwh,prompt_tokens,")
    assert "Boundary: GPU boards only" in done.stderr
    shown = run("report", *options)
    assert shown.returncode == 0, shown.stderr
    assert "not covered" in shown.stdout
    assert shown.stderr == ""


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"month": "2025-01"}, "no joulemeter_gpu_energy_joules_total from 2025-01-01 00:00:00+01:00 to"),
        ({"selectors": ['instance="gpu-9"']}, "does --selector fit? Try --since 1h"),
        ({"selectors": ['instance=~"("']}, "check --selector"),
    ],
)
async def test_nothing_to_report(server: str, changed: dict, words: str):
    with pytest.raises(PrometheusError) as caught:
        await reported(month(server, **changed), now_seconds=NOW)
    assert words in str(caught.value)


@pytest.mark.usefixtures("promtool", "prometheus")
async def test_a_server_that_gives_less_than_a_minute_at_a_time_is_named(tmp_path: Path):
    node = Exporter({"instance": "n1"})
    for second in range(600):
        node.use("GPU-a", 100.0)
        node.scrape(BEGIN + second)
    data = filled(tmp_path, openmetrics([node.store()]))
    with running(data) as url:
        answer = await told(month(url, month=None, begin="2026-10-01", end="2026-10-01T01:00"))
        assert answer["rows"][-1]["energy_kwh"] == pytest.approx(599 * 100 / KWH)
    with (
        running(data, None, "--query.max-samples=100") as url,
        pytest.raises(PrometheusError) as caught,
    ):
        await reported(month(url, month=None, begin="2026-10-01", end="2026-10-01T01:00"), now_seconds=NOW)
    assert "even 98 s of joulemeter_gpu_energy_joules_total are too much for one answer" in str(caught.value)
    assert "narrow --selector, or raise the server's limits (--query.max-samples" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--month", "2026-13"), 2, "--month: expected a month such as 2026-10, got '2026-13'"),
        (("--timezone", "Europe/Berlln"), 2, "did you mean 'Europe/Berlin'?"),
        (("--selector", 'model="a"'), 2, "select whole exporters"),
        (("--rate-prompt", "1"), 2, "--rate-prompt and --rate-generation: one is missing; give both"),
        (("--since", "1h"), 1, "does Prometheus run, and listen there?"),
    ],
)
def test_status_and_words_of_a_process(options: tuple[str, ...], status: int, words: str):
    done = run("report", "--prometheus", "http://127.0.0.1:1", *options)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_table_without_rich_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "joulemeter.runtime.report_table", None)
    with pytest.raises(
        ConfigError, match=r"pip install 'joulemeter\[report\]', or give --format csv or json"
    ):
        await reported(month("http://127.0.0.1:1", form="table"), now_seconds=NOW)
