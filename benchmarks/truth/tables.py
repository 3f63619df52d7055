"""Markdown of the report of truth. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.truth.measure import OURS, Case, Errors, Key, misses, worst

Found = Mapping[Key, Mapping[str, Errors]]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; `misses` are numbers that were wanted and not reached."""

    title: str
    text: str
    misses: tuple[str, ...] = ()
    wanted: int = 0
    """How many numbers were wanted."""


def by_name(cases: Sequence[Case], found: Sequence[Found]) -> dict[str, tuple[Case, Found]]:
    """Return of each case's seeds the worst: for each part and method by itself."""
    grouped: dict[str, list[tuple[Case, Found]]] = {}
    for case, one in zip(cases, found, strict=True):
        grouped.setdefault(case.name, []).append((case, one))
    return {
        name: (
            group[0][0],
            {
                key: {method: worst([one[key][method] for _, one in group]) for method in by_method}
                for key, by_method in group[0][1].items()
            },
        )
        for name, group in grouped.items()
    }


def errors_table(worst_of: Mapping[str, tuple[Case, Found]], methods: Sequence[str]) -> str:
    """Return a row for each part of each case: what is wanted, then each method's bias and weighted error."""
    rows = [["scenario", "part", *methods, "wanted"]]
    for name, (case, found) in worst_of.items():
        for number, (key, by_method) in enumerate(found.items()):
            cells = [_cell(by_method[method]) if method in by_method else "" for method in methods]
            rows.append(["" if number else name, part_name(case, key), *cells, _wanted(case, key[1])])
    return table(rows)


def part_name(case: Case, key: Key) -> str:
    """Return what to call a part: with its model, where there are several."""
    server, part = key
    if server is None:
        return part
    return f"{case.scenario.servers[server].model.split('/')[-1]}: {part}"


def missed(worst_of: Mapping[str, tuple[Case, Found]], method: str = OURS) -> tuple[str, ...]:
    """Return every number that is not reached."""
    return tuple(line for case, found in worst_of.values() for line in misses(case, found, method))


def wanted_count(worst_of: Mapping[str, tuple[Case, Found]]) -> int:
    """Return how many numbers are wanted."""
    return sum(
        (part in case.wanted) + (part in case.wanted_weighted)
        for case, found in worst_of.values()
        for _, part in found
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, of which the first is the head, as a table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def percent(ratio: float, *, signed: bool = False) -> str:
    """Write a ratio with what digits it deserves."""
    if math.isnan(ratio):
        return "-"
    digits = 1 if abs(ratio) < 0.1 else 0  # noqa: PLR2004 - below ten percent
    text = f"{100 * ratio:+.{digits}f}" if signed else f"{100 * ratio:.{digits}f}"
    return text.replace("-0.0", "0.0").replace("+0.0", "0.0")


def _cell(one: Errors) -> str:
    return f"{percent(one.bias, signed=True)} ({percent(one.weighted)})"


def _wanted(case: Case, part: str) -> str:
    limits = []
    if part in case.wanted:
        limits.append(percent(case.wanted[part]))
    if part in case.wanted_weighted:
        limits.append(f"({percent(case.wanted_weighted[part])})")
    return " ".join(limits)
