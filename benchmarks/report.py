"""Rows of the report: a figure per round, its median and spread, and whether it reaches its target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

HEADINGS = ("what", "median", "spread", "unit", "target", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, measured in several rounds; the median is what must stay below `target`.

    `target` is None where we have none, of peers for instance.
    """

    what: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Write it."""
        middle = median(self.values)
        spread = f"{figure(min(self.values))} .. {figure(max(self.values))}"
        if self.target is None:
            return self.what, figure(middle), spread, self.unit, "", ""
        verdict = "ok" if middle < self.target else "MISS"
        return self.what, figure(middle), spread, self.unit, f"< {figure(self.target)}", verdict


def figure(value: float) -> str:
    """Write a number with three digits, without exponents."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def table(rows: Sequence[Row]) -> str:
    """Write the rows below each other."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rights = (False, True, True, False, True, False)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, rights, strict=True)
        ).rstrip()
        for line in lines
    )
