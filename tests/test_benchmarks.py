"""The benchmark measures something and prints every row; what the figures are is its report's business."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import collect
from benchmarks.report import Row, figure, percentile, table
from benchmarks.rig import PEER_ENVIRONMENT, RigError
from benchmarks.servers import RECORDED, RUNNING, lines, restricted
from joulemeter.dialects import by_name, read_page
from joulemeter.model import GAUGES, Role

ROOT = Path(__file__).parent.parent
FIGURE = r"\s{2,}-?\d[\d.]*\s+-?\d[\d.]* \.\. -?\d[\d.]*"
ROWS = (
    "joulemeter: start to first useful /metrics",
    "CPU, joulemeter: 8 servers that filter their pages",
    "CPU, joulemeter: 8 servers with whole pages",
    "CPU, joulemeter: its energy thread by itself",
    "CPU, joulemeter: without servers, nobody scrapes",
    "joulemeter: resident memory",
    "joulemeter: its share of it (PSS)",
    "joulemeter: /metrics, median",
    "joulemeter: /metrics, 99th percentile",
    "joulemeter: series",
    "joulemeter: page, as text",
    "joulemeter: page, as sent",
    "age since its last tick, 99th percentile",
    "age of measured energy, by the truth, 99th percentile",
    "age of attributed energy and tokens, 99th percentile",
    "books, 1 h read at 2 Hz: growth of it",
    "books, 2 h read at 1 Hz: growth of allocated blocks",
)
PEER_ROWS = (
    "nvitop-exporter: the same",
    "CPU, nvitop-exporter",
    "nvitop-exporter: resident memory",
    "nvitop-exporter: /metrics, 99th percentile",
    "nvitop-exporter: series",
)


@pytest.mark.timeout(240)
def test_quick_run_prints_every_row(nvml_library: Path):
    with_peer = PEER_ENVIRONMENT.exists()  # `make bench` has made it
    command = [sys.executable, "-m", "benchmarks", "--quick", *([] if with_peer else ["--without-peer"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ROWS + (PEER_ROWS if with_peer else ()):
        assert re.search(f"^{re.escape(row)}{FIGURE}", done.stdout, re.MULTILINE), (row, done.stdout)
    assert "vLLM page, 51 kB: our roles" in done.stdout


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured(capsys: pytest.CaptureFixture[str]):
    row = Row("one", "s", (1.0,))

    def fails() -> list[Row]:
        raise RigError("no peer here")

    rows, problems = collect([("this", fails), ("that", lambda: [row])])
    assert (rows, problems) == ([row], ["not measured: this: no peer here"])
    assert capsys.readouterr().out == "measuring this\nmeasuring that\n"


def test_a_row_is_judged_by_its_median():
    rows = [
        Row("fast", "ms", (1.0, 9.0, 2.0), 3.0),
        Row("slow", "ms", (4.0, 1.0, 4.0), 3.0),
        Row("peer", "MiB", (0.5,)),
    ]
    assert table(rows).splitlines() == [
        "what  median          spread  unit  target",
        "fast    2.00    1.00 .. 9.00  ms    < 3.00  ok",
        "slow    4.00    1.00 .. 4.00  ms    < 3.00  MISS",
        "peer   0.500  0.500 .. 0.500  MiB",
    ]


def test_figures_have_three_digits():
    assert [figure(value) for value in (0, 0.01234, 1.5, 99.96, 532, 123456)] == [
        "0",
        "0.0123",
        "1.50",
        "100.0",
        "532",
        "123456",
    ]


def test_percentiles_are_values_that_were_measured():
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (50.0, 99.0, 7.0)


def test_the_benchmark_s_page_is_the_recorded_one_and_moves():
    vllm = by_name("vllm")
    recorded = RECORDED.read_text()
    page = lines(recorded, "tiny")
    still = "".join(f"{line.at(0.0)}\n" for line in page)
    assert len(still.splitlines()) == len(recorded.splitlines())
    before, after = (
        {(r.role, r.series): r for r in read_page(body, vllm).readings}
        for body in (still, "".join(f"{line.at(0.5)}\n" for line in page))
    )
    for key, reading in before.items():
        expected = reading.value if reading.role in GAUGES else reading.value * 1.5
        assert after[key].value == expected
    assert next(r.value for r in after.values() if r.role is Role.RUNNING) == RUNNING


def test_the_filtered_page_has_the_same_roles_in_few_lines():
    vllm = by_name("vllm")
    page = lines(RECORDED.read_text(), "model-3")
    whole, part = (
        "".join(f"{line.at(0.1)}\n" for line in each) for each in (page, restricted(page, vllm.filter_names))
    )
    assert read_page(part, vllm) == read_page(whole, vllm)
    assert len(part) < len(whole) / 6
