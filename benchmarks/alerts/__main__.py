"""How often alerts cry wolf, and how long they take.

PYTHONPATH=. python -m benchmarks.alerts [--quick] [--seeds N] [--processes N] [--write]
"""

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

from benchmarks.alerts.cases import plan, quick
from benchmarks.alerts.evaluate import Outcome, Say, evaluate
from benchmarks.alerts.report import misses, page
from benchmarks.prometheus import ROOT, PrometheusError

PAGE: Final = ROOT / "docs/measurements/alerts-2026-11.md"
SEEDS: Final = 5
PROCESSES: Final = 2
"""Runs at a time; each takes up to a gigabyte."""


def main() -> int:
    """Print the page, and keep it if asked to; the status is 1 if the paging rule is not as wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a week, learned in a day, with one regression")
    parser.add_argument("--seeds", type=int, choices=range(1, 10), default=SEEDS, metavar="N")
    parser.add_argument("--processes", type=int, choices=range(1, 65), default=PROCESSES, metavar="N")
    parser.add_argument(
        "--write", action="store_true", help=f"also write {PAGE.relative_to(ROOT)}, after every run"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write: the page is kept from the full bench; leave out --quick")
    cases = [quick()] if arguments.quick else plan(arguments.seeds)
    run = partial(evaluate, say=Say(time.time()), with_naive=not arguments.quick)
    outcomes, text = list[Outcome](), ""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(arguments.processes, len(cases)), mp_context=spawn) as pool:
        try:
            for outcome in pool.map(run, cases):
                outcomes.append(outcome)
                text = page(outcomes, len(cases) - len(outcomes))
                if arguments.write:
                    PAGE.write_text(text, encoding="utf-8")
        except PrometheusError as error:
            pool.shutdown(cancel_futures=True)
            print(error, file=sys.stderr)
            return 2
    print(text, end="")
    return int(bool(misses(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
