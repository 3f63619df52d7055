"""`python -m benchmarks`: everything in one run, about seven minutes; `--quick` for a look, about one."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from importlib.metadata import version
from typing import Final

from benchmarks import pages
from benchmarks.live import Effort, measure, measure_starts
from benchmarks.report import Row, table
from benchmarks.rig import Rig, RigError, node_exporter
from joulemeter.errors import JoulemeterError

Part = tuple[str, Callable[[], list[Row]]]
FULL: Final = Effort(
    warm_up_seconds=35,
    cpu_rounds=8,
    cpu_round_seconds=15,
    latency_rounds=5,
    scrapes_per_round=100,
    scrape_every_seconds=0.15,
    starts=5,
)
QUICK: Final = Effort(
    warm_up_seconds=14,
    cpu_rounds=2,
    cpu_round_seconds=4,
    latency_rounds=2,
    scrapes_per_round=10,
    scrape_every_seconds=0.15,
    starts=1,
)
PEER_NOTE: Final = (
    "nvitop-exporter finds fewer NVML functions in the virtual library than in a driver's,"
    " which makes its page smaller and itself faster"
)
FLAT_MIB: Final = 1.0
"""Growth of the books that is no growth: the allocator's steps."""


def say(line: str) -> None:
    """Write a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def machine() -> str:
    """Say what this ran on."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, joulemeter {version('joulemeter')}; load {load}"
    )


def books_rows(hours: int, readings_per_second: int) -> list[Row]:
    """Keep the books for so many simulated hours, and compare their memory at the end with early on.

    Raises:
        RigError: they could not be kept.
    """
    command = [sys.executable, "-m", "benchmarks.books", "--seconds", str(3600 * hours)]
    command += ["--reading-seconds", str(1 / readings_per_second)]
    what = f"books, {hours} h read at {readings_per_second} Hz"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    measured = json.loads(done.stdout)
    # Series of a model that is gone are kept for an hour: until then they become more.
    settled = [one for one in measured if one[0] >= min(3.0, measured[-1][0] / 6)]
    (_, blocks, resident), (_, last_blocks, last_resident) = settled[0], settled[-1]
    return [
        Row(f"{what}: resident memory", "MiB", tuple(one[2] for one in settled)),
        Row(f"{what}: growth of it", "MiB", (last_resident - resident,), FLAT_MIB),
        Row(f"{what}: growth of allocated blocks", "%", (100 * (last_blocks / blocks - 1),), 1.0),
    ]


def collect(parts: Sequence[Part]) -> tuple[list[Row], list[str]]:
    """Measure part by part; what cannot be measured is a problem, and the rest is measured all the same."""
    rows: list[Row] = []
    problems: list[str] = []
    for what, part in parts:
        say(f"measuring {what}")
        try:
            rows += part()
        except (JoulemeterError, OSError, HTTPException) as error:
            problems.append(f"not measured: {what}: {error}")
    return rows, problems


def main() -> int:
    """Measure, print, and return 1 if something could not be measured."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--without-peer", action="store_true", help="leave nvitop-exporter out")
    options = parser.parse_args()
    effort, with_peer = (QUICK if options.quick else FULL), not options.without_peer
    say(f"{time.strftime('%Y-%m-%d')}: {machine()}")
    say(
        "8 virtual GPUs read at 20 Hz, 8 vLLM pages of 50 kB a second, scraped as by Prometheus (OpenMetrics, gzip)"
    )
    parts: list[Part] = [
        ("starts", lambda: _on_a_node(lambda rig: measure_starts(rig, effort, with_peer=with_peer))),
        ("the daemon", lambda: _on_a_node(lambda rig: measure(rig, effort, with_peer=with_peer, say=say))),
        ("the books", lambda: books_rows(1, 2 if options.quick else 20)),
        ("the books for long", lambda: books_rows(2 if options.quick else 24, 1)),
    ]
    rows, problems = collect(parts)
    say("")
    say(table(rows))
    say("\npages of servers, read:")
    pages.main()
    say(f"\n{PEER_NOTE}")
    if node_exporter() is None:
        say("node_exporter is not installed and was left out")
    say(f"afterwards: load {', '.join(f'{one:.1f}' for one in os.getloadavg())}")
    for problem in problems:
        say(problem)
    return 1 if problems else 0


def _on_a_node(work: Callable[[Rig], list[Row]]) -> list[Row]:
    with Rig() as rig:
        return work(rig)


if __name__ == "__main__":
    sys.exit(main())
