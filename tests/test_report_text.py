"""What a report says around its figures, and how it writes them."""

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from joulemeter.report.basis import Basis, basis, queries
from joulemeter.report.increases import Coverage
from joulemeter.report.notes import notes
from joulemeter.report.offer import Rates
from joulemeter.report.range import Range, chosen
from joulemeter.report.rows import Report, Row, Section
from joulemeter.report.sources import Series
from joulemeter.report.text import Document, as_csv, as_json
from joulemeter.runtime.report_table import amounts, as_table, count, number

KWH = 3.6e6
WHEN: Range = chosen(1.8e9, month="2026-10")
GRID = ("DE", "electricitymaps", "lifecycle", "consumption", "1h", "")
BASIS = Basis(
    methods={("exclusive",): 1.0},
    splits={("measured",): 0.9996, ("prior",): 0.0004},
    energy_sources={("counter",): 0.75, ("power_integration",): 0.25},
    products={("NVIDIA L40S",): 1.0},
    grid={GRID: 0.98, ("DE", "static", "lifecycle", "production", "year", "ember-2025"): 0.02},
    qualities={("DE", "measured"): 0.9, ("DE", "stale"): 0.1, ("DE", "static"): 0.0},
    pue=(1.2, 1.2),
    simulated_ratio=0.0,
    versions=("0.1.0",),
)
TOKENS = {"prompt": 1e6, "cached_prompt": 0.0, "generation": 2e6}
ROWS = (
    Row(Section.MODEL, "chat", "m", "", 0.5 * KWH, 60.0, {("electricity", "EUR"): 0.1}, TOKENS, 100.0),
    Row(Section.UNATTRIBUTED, "", "", "no_server", 0.3 * KWH, 36.0, {("electricity", "EUR"): 0.06}),
    Row(Section.NOT_COVERED, "", "", "", -0.1 * KWH, -12.0, {("electricity", "EUR"): -0.02}),
    Row(Section.TOTAL, "", "", "", 0.7 * KWH, 84.0, {("electricity", "EUR"): 0.14}, TOKENS, 100.0),
)
WHOLE = Coverage(744 * 3600.0, 0.0, 0.0, 0.0, 0)
REPORT = Report(ROWS, ROWS[-1], {}, {frozenset({("instance", "n1")}): WHOLE}, 1, 0, -0.1 * KWH, 0.0, ())
DOCUMENT = Document(REPORT, BASIS, WHEN, Rates(), "", 1234567, ())


def said(document: Document, begin: str) -> list[str]:
    return [line for line in notes(document) if line.startswith(begin)]


def based(**changed: object) -> Document:
    return replace(DOCUMENT, basis=replace(BASIS, **changed))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- notes


def test_whole_month_of_real_hardware():
    assert notes(DOCUMENT) == [
        "Range: 2026-10-01 00:00:00+00:00 to 2026-11-01 00:00:00+00:00, time zone UTC, 744 h",
        "Boundary: GPU boards only: no CPU, memory, network or rest of the host",
        "Coverage: 1 GPU of 1 exporter; their energy is known for 100 % of 744 exporter-hours",
        "Not covered: -0.1 kWh were pending (nobody's yet) at the end or at a restart, less those pending at the begin",
        "Measured: counter 75 %, power integration 25 % (share of GPU time); NVIDIA L40S 100 %",
        "Method: split measured over 99.9 %, prior under 0.1 %; GPUs exclusive 100 % (share of server time)",
        "Grid: DE: electricitymaps (lifecycle, consumption, 1h) 98 % of the time; quality measured 90 %, stale 10 %",
        "Grid: DE: static (lifecycle, production, year, ember-2025) 2 % of the time; quality measured 90 %, stale 10 %",
        "PUE: 1.2, in grams and in the cost of electricity, not in kWh",
        "Simulated: no",
        "Data: 1,234,567 raw samples; joulemeter 0.1.0",
    ]


def test_simulation_is_shouted():
    assert said(based(simulated_ratio=0.5), "Simulated") == [
        "Simulated: YES, 50 %; these are no measurements"
    ]


def test_pue_that_changed_and_what_is_unknown():
    assert said(based(pue=(1.1, 1.3)), "PUE") == [
        "PUE: 1.1 to 1.3, in grams and in the cost of electricity, not in kWh"
    ]
    assert said(based(pue=None), "PUE") == ["PUE: unknown"]
    assert said(based(grid={}), "Grid") == ["Grid: no source of carbon intensity is known"]
    assert said(based(splits={}, methods={("",): 1.0}), "Method") == [
        "Method: split unknown; GPUs (not known yet) 100 % (share of server time)"
    ]


def test_hours_that_nobody_saw():
    seen = Coverage(700 * 3600.0, 4 * 3600.0, 40 * 3600.0, 7200.0, 3)
    report = replace(REPORT, coverage={frozenset(): seen}, lost_estimate_joules=2 * KWH, copies=1)
    document = replace(DOCUMENT, report=report, when=replace(WHEN, cut_at_now=True), selector='{cluster="a"}')
    assert notes(document)[0].endswith("00:00 (now: the range is not over), time zone UTC, 744 h")
    assert notes(document)[2:6] == [
        "Coverage: 1 GPU of 1 exporter (and 1 copy, not counted twice); their energy is known for 94.1 % of 744"
        " exporter-hours",
        "  3 restarts: unknown is what was used between the last scrape and the restart, in at most 4 h; about 2 kWh at"
        " mean power, which no row holds",
        "  40 h before the first or after the last scrape of an exporter: nothing is known of them",
        "  2 h without scrapes, in which counters went on: their energy is counted",
    ]
    assert said(document, "Data") == ['Data: 1,234,567 raw samples of {cluster="a"}; joulemeter 0.1.0']
    assert "not covered (44.0 h unknown)" in as_table(document)
    (row,) = (one for one in json.loads(as_json(document))["rows"] if one["section"] == "not covered")
    assert row["unknown_exporter_hours"] == 44


def test_credit_and_warnings():
    document = replace(
        DOCUMENT, report=replace(REPORT, credit={"EUR": 1.234, "SEK": 0.0}), warnings=("partial response",)
    )
    assert said(document, "Credit") == [
        "Credit: negative prices gave back 1.23 EUR; it is subtracted from no cost"
    ]
    assert notes(document)[-1] == "Warning: partial response"


# ---------------------------------------------------------------------------------------------- basis


def test_shares_are_within_a_zone():
    def one(value: float, **labels: str) -> Series:
        return Series(labels, [1.0], [value])

    assert queries('{a="b"}', 60.0)["qualities"] == (
        'sum by (zone, quality) (sum_over_time(joulemeter_grid_quality{a="b"}[60000ms]))'
    )
    answers = {name: [] for name in queries("", 60.0)} | {
        "qualities": [
            one(30, zone="DE", quality="measured"),
            one(10, zone="DE", quality="stale"),
            one(0, zone="DE", quality="static"),
            one(5, zone="SE", quality="measured"),
        ],
        "servers": [one(3, method="shared", split="prior"), one(1, method="exclusive", split="prior")],
        "pue_low": [one(1.1)],
        "pue_high": [one(1.4)],
    }  # fmt: skip
    got = basis(answers)
    assert got.qualities == {("SE", "measured"): 1, ("DE", "measured"): 0.75, ("DE", "stale"): 0.25}
    assert got.methods == {("shared",): 0.75, ("exclusive",): 0.25}
    assert got.splits == {("prior",): 1}
    assert got.pue == (1.1, 1.4)
    assert basis({name: [] for name in answers}).pue is None


# ---------------------------------------------------------------------------------------------- forms


def test_csv_leaves_out_what_is_unknown_and_keeps_all_digits():
    rows = (ROWS[0], replace(ROWS[1], energy_joules=math.pi * KWH), *ROWS[2:])
    read = list(csv.DictReader(io.StringIO(as_csv(replace(DOCUMENT, report=replace(REPORT, rows=rows))))))
    assert [one["section"] for one in read] == ["model", "unattributed", "not covered", "total"]
    assert float(read[1]["energy_kwh"]) == math.pi
    assert read[1]["joules_per_token"] == ""
    assert read[0]["joules_per_token"] == "0.6"
    assert read[0]["joules_per_generated_token"] == "0.9"
    assert read[0]["wh_per_request"] == "5.0"
    assert "charge_by_token" not in read[0]
    assert "energy_credit_EUR" not in read[0]


def test_table_has_a_namespace_where_there_is_one():
    assert "namespace" in as_table(DOCUMENT)
    bare = replace(REPORT, rows=(replace(ROWS[0], namespace=""), *ROWS[1:]))
    assert "namespace" not in as_table(replace(DOCUMENT, report=bare))


def test_narrow_terminal_loses_nothing():
    named = replace(REPORT, rows=(replace(ROWS[0], model="organisation/Some-Very-Long-Name-70B"), *ROWS[1:]))
    text = as_table(replace(DOCUMENT, report=named), width=90)
    assert max(map(len, text.splitlines())) <= 90
    for word in ("unattributed", "0.500", "gCO2e", "electricity", "generated", "100.0 %", "Simulated: no"):
        assert word in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.06942, "0.06942"),
        (2.24, "2.240"),
        (123456.7, "123,457"),
        (-0.5, "-0.5000"),
    ],
)
def test_ratio_has_four_digits(value: float | None, shown: str):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (999.0, "999"), (12_345_678.0, "12.35 M"), (5e9, "5 G"), (3.2e3, "3.2 k")],
)
def test_counts_are_short(value: float | None, shown: str):
    assert count(value) == shown


def test_column_adds_up_as_shown():
    assert amounts([378.539, 86.8306, None, 465.3696], 2) == ["378.54", "86.83", "-", "465.37"]
    assert amounts([0.0011, 0.0001, 0.0012], 2) == ["0.001100", "0.000100", "0.001200"]
    assert amounts([119_840.6, 1.25, 119_841.85], 0) == ["119,841", "1", "119,842"]
    assert amounts([0.0, 0.0], 2) == ["0.00", "0.00"]


def test_nothing_but_the_table_needs_rich():
    code = (
        "import sys, joulemeter.runtime.report_command as c, joulemeter.cli; sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
