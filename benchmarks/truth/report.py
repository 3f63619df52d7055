"""How wrong joulemeter can be: what it attributes against the simulator's truth, beside simpler methods.

PYTHONPATH=. python -m benchmarks.truth.report [--quick] [--seeds N] [--write]
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.truth import cases, over_time, per_request
from benchmarks.truth.measure import OURS, Case, begun_at, errors
from benchmarks.truth.methods import WRONG_PRIORS
from benchmarks.truth.more_scenarios import MORE_SCENARIOS
from benchmarks.truth.prose import (
    HEAD,
    KINDS_TEXT,
    PAIRS_TEXT,
    REQUESTS_TEXT,
    SCENARIOS_TEXT,
    SENSORS_TEXT,
    TAIL,
    WRONG_PRIOR_TEXT,
)
from benchmarks.truth.scenarios import SCENARIOS
from benchmarks.truth.tables import Found, Section, by_name, errors_table, missed, wanted_count

PAGE: Final = Path(__file__).parents[2] / "docs" / "accuracy.md"
NAIVE: Final = ("token share", "idle off, token share", "prior, not fitted")
QUICK_NAMES: Final = ("chat_day", "two_models", "long_bursts", "code_completion")
HOUR_SECONDS: Final = 3600.0
PUBLISHED_WANTED: Final = {"mean": 0.03, "p50": 0.15, "p95": 0.15}
Cases = Callable[[float, Sequence[int]], list[Case]]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is run, from which hour of the day; `only`: what names begin with."""

    hours: float = 24.0
    seeds: tuple[int, ...] = cases.SEEDS
    only: tuple[str, ...] = ()
    from_hour: float = 0.0
    request_share: float = 1.0
    """Of the hours in which single requests are followed."""
    processes: int = 2

    def run(self, build: Cases) -> tuple[list[Case], list[Found]]:
        """Run cases, several at a time; how far it is goes to stderr."""
        chosen = [
            replace(case, scenario=begun_at(case.scenario, self.from_hour))
            for case in build(self.hours * HOUR_SECONDS, self.seeds)
            if not self.only or case.name.startswith(self.only)
        ]
        begun = time.monotonic()
        found: list[Found] = []
        with ProcessPoolExecutor(self.processes) as pool:
            for number, one in enumerate(pool.map(errors, chosen), 1):
                found.append(one)
                spent = time.monotonic() - begun
                print(f"{build.__name__}: {number} of {len(chosen)} after {spent:.0f} s", file=sys.stderr)
        return chosen, found


FULL: Final = Extent()
QUICK: Final = Extent(hours=4.0, seeds=(0,), only=QUICK_NAMES, from_hour=4.0, request_share=0.25)


def splits(extent: Extent) -> list[Section]:
    """Every scenario, beside the naive methods; and some of them from priors that are wrong."""
    worst_of = by_name(*extent.run(cases.splits))
    of_wrong = {
        name: (replace(case, wanted=cases.WRONG_PRIOR), found)
        for name, (case, found) in worst_of.items()
        if case.wrong_priors
    }
    wrong = [f"prior {name}" for name, _, _ in WRONG_PRIORS]
    return [
        Section(
            "Scenarios",
            f"{_scenarios(worst_of)}\n{SCENARIOS_TEXT}{errors_table(worst_of, (OURS, *NAIVE))}",
            missed(worst_of),
            wanted_count(worst_of),
        ),
        Section(
            "A prior that is wrong by three",
            WRONG_PRIOR_TEXT + errors_table(of_wrong, (OURS, *wrong)),
            tuple(f"{method}: {line}" for method in wrong for line in missed(of_wrong, method)),
            wanted_count(of_wrong) * len(wrong),
        ),
    ]


def _scenarios(names: Iterable[str]) -> str:
    """Return what each scenario is."""
    builders = {**SCENARIOS, **MORE_SCENARIOS}
    return "".join(f"* `{name}`: {builders[name].__doc__}\n" for name in names)


def on_pairs(extent: Extent) -> list[Section]:
    """The same scenarios on other models and GPUs."""
    worst_of = by_name(*extent.run(cases.on_pairs))
    text = PAIRS_TEXT + errors_table(worst_of, (OURS, "token share", "prior, not fitted"))
    return [Section("Other models and GPUs", text, missed(worst_of), wanted_count(worst_of))]


def servers(extent: Extent) -> list[Section]:
    """Servers that tell less, and meters and clocks that are worse."""
    kinds, conditions = by_name(*extent.run(cases.server_kinds)), by_name(*extent.run(cases.sensors))
    return [
        Section(
            "What servers tell",
            KINDS_TEXT + errors_table(kinds, (OURS,)),
            missed(kinds),
            wanted_count(kinds),
        ),
        Section(
            "Noise, and clocks that disagree",
            SENSORS_TEXT + errors_table(conditions, (OURS,)),
            missed(conditions),
            wanted_count(conditions),
        ),
    ]


def requests(extent: Extent) -> list[Section]:
    """Single requests: the methods of the field, and the histogram that is published."""
    todo = [
        (seed, {rate: extent.request_share * hours})
        for rate, hours in per_request.HOURS.items()
        for seed in extent.seeds
    ]
    with ProcessPoolExecutor(extent.processes) as pool:
        found = [row for rows in pool.map(_request_rows, todo) for row in rows]
    published = [row for row in found if row.method == per_request.PUBLISHED]
    limits = {(rate, name): limit for rate in per_request.HOURS for name, limit in PUBLISHED_WANTED.items()}
    worst = {
        (rate, name): max(abs(getattr(row, name)) for row in published if row.requests_per_second == rate)
        for rate, name in limits
    }
    missed_here = tuple(
        f"joules per request at {rate:g}/s: {name}: {worst[rate, name]:.1%}, wanted {limit:.0%}"
        for (rate, name), limit in limits.items()
        if not worst[rate, name] <= limit
    )
    return [Section("Single requests", REQUESTS_TEXT + per_request.table(found), missed_here, len(limits))]


def _request_rows(what: tuple[int, dict[float, float]]) -> list[per_request.Row]:
    seed, hours = what
    return per_request.rows((seed,), hours=hours)


def expected(extent: Extent) -> list[Section]:
    """Measured over expected energy, hour by hour, with and without a regression."""
    with ProcessPoolExecutor(extent.processes) as pool:
        found = list(pool.map(over_time.compared, over_time.courses(quick=extent.hours < FULL.hours)))
    return [over_time.section(found)]


SECTIONS: Final[tuple[Callable[[Extent], list[Section]], ...]] = (
    splits,
    on_pairs,
    servers,
    requests,
    expected,
)
"""Each runs what it needs, and returns parts of the page in order."""


def page(extent: Extent, sections: Sequence[Section]) -> str:
    """Return the whole report."""
    lines = [line for section in sections for line in section.misses]
    wanted = sum(section.wanted for section in sections)
    reached = f"{wanted - len(lines)} of {wanted} numbers are reached."
    verdict = f"{reached} These are not:\n\n" + "\n".join(f"- {line}" for line in lines) if lines else reached
    seeds = ", ".join(map(str, extent.seeds))
    hours = f"{extent.hours:g} simulated hours from {extent.from_hour:g}:00"
    parts = [
        HEAD.format(hours=hours, seeds=seeds),
        f"## Wanted and reached\n\n{verdict}\n",
        *(f"## {section.title}\n\n{section.text}{_line(section)}" for section in sections),
        TAIL,
    ]
    return "\n".join(parts)


def _line(section: Section) -> str:
    if not section.wanted:
        return ""
    return f"\nWanted: {section.wanted} numbers. Reached: {section.wanted - len(section.misses)}.\n"


def main() -> None:
    """Print the report, and write it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few scenarios, four hours, one seed")
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(1, 10),
        default=len(cases.SEEDS),
        metavar="N",
        help="how many of each scenario, up to nine (default: %(default)s)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"also write {PAGE.relative_to(PAGE.parents[1])}"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write: the page is kept from the full report; leave out --quick")
    extent = QUICK if arguments.quick else replace(FULL, seeds=tuple(range(arguments.seeds)))
    text = page(extent, [section for build in SECTIONS for section in build(extent)])
    if arguments.write:
        PAGE.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
