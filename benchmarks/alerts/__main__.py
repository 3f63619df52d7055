"""How often alerts cry wolf, and how long they take.

PYTHONPATH=. python -m benchmarks.alerts [--quick] [--seeds N] [--write]
"""

import argparse
import sys
import time
from typing import Final

from benchmarks.alerts.cases import plan, quick
from benchmarks.alerts.evaluate import evaluate
from benchmarks.alerts.report import misses, page
from benchmarks.prometheus import ROOT, PrometheusError

PAGE: Final = ROOT / "docs/measurements/alerts-2026-11.md"
SEEDS: Final = 5


def main() -> int:
    """Print the page, and keep it if asked to; the status is 1 if the paging rule is not as wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a week, learned in a day, with one regression")
    parser.add_argument("--seeds", type=int, choices=range(1, 10), default=SEEDS, metavar="N")
    parser.add_argument(
        "--write", action="store_true", help=f"also write {PAGE.relative_to(ROOT)}, after every run"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write: the page is kept from the full bench; leave out --quick")
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", file=sys.stderr, flush=True)

    cases = [quick()] if arguments.quick else plan(arguments.seeds)
    outcomes, text = [], ""
    for number, case in enumerate(cases, 1):
        try:
            outcomes.append(evaluate(case, say, with_naive=not arguments.quick))
        except PrometheusError as error:
            print(error, file=sys.stderr)
            return 2
        say(f"{number} of {len(cases)} runs")
        text = page(outcomes, len(cases) - number)
        if arguments.write:
            PAGE.write_text(text, encoding="utf-8")
    print(text, end="")
    return int(bool(misses(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
