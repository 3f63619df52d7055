"""Fill a new Prometheus with the days before of the demo's node: `python -m benchmarks.history FOLDER`.

It takes the folder of Prometheus's data, which must not be in use, and leaves one that has data as it is.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import prometheus
from benchmarks.history import days, demo

HOURS: Final = 50
"""The dashboards show a day and compare it with the one before; rates over an hour need some more."""
SCRATCH: Final = ".history"
"""Within the folder, so that finished blocks are moved, not copied; Prometheus takes no notice of it."""


def main() -> None:
    """Fill the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=int, default=HOURS, help=f"how long the history is; default: {HOURS}")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if has_data(folder):
        say(f"{folder} has data already: nothing is added")
        return
    for name in ("prometheus", "promtool"):
        prometheus.tool(name)  # better missed now than after the simulation
    begun = time.monotonic()
    say(f"simulating {arguments.hours} hours of the demo's node, up to now ...")
    blocks = fill(folder, arguments.hours, float(int(time.time())))
    say(f"{blocks} blocks in {folder} after {time.monotonic() - begun:.0f} s")


def has_data(folder: Path) -> bool:
    """Whether a Prometheus has written there, or this has been here before."""
    return (folder / "wal").exists() or any(folder.glob("*/meta.json"))


def fill(folder: Path, hours: int, until_timestamp_seconds: float) -> int:
    """Put the blocks of so many hours into a folder, all when they are finished, and return how many."""
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of one that was interrupted
    scratch.mkdir(parents=True)
    data = scratch / "data"
    node = demo.node(hours, until_timestamp_seconds)
    days.fill(data, node, demo.GRAIN, demo.TARGET, until_timestamp_seconds)
    blocks = [meta.parent for meta in data.glob("*/meta.json")]
    for block in blocks:
        block.rename(folder / block.name)
    shutil.rmtree(scratch)
    return len(blocks)


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
