"""A report as a table for people. Only this module imports `rich`, which takes 40 ms and 7 MiB."""

import io
import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from joulemeter import catalog, formulas
from joulemeter.report.notes import notes
from joulemeter.report.rows import Report, Row, Section
from joulemeter.report.text import HOUR_SECONDS, Document, charges, currencies, unknown_seconds

MAX_WIDTH = 1000
MIN_NAME_WIDTH = 12
DIGITS = 4
Columns = dict[str, list[str]]
TEXTS = ("model", "namespace")
STEPS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
UNKNOWN = "-"


def number(value: float | None) -> str:
    """Write a ratio with four significant digits, never as a power of ten."""
    if value is None:
        return UNKNOWN
    return f"{value:,.{_decimals(value, DIGITS)}f}"


def amounts(values: Sequence[float | None], least_decimals: int) -> list[str]:
    """Write a column that adds up to its last value: all with the same decimals, so that what is shown adds up too."""
    decimals = max(least_decimals, _decimals(values[-1] or 0.0, DIGITS))
    return [UNKNOWN if value is None else f"{value:,.{decimals}f}" for value in values]


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def count(value: float | None) -> str:
    """Write tokens or requests: 12.34 M."""
    if value is None:
        return UNKNOWN
    for size, sign in STEPS:
        if abs(value) >= size:
            return f"{value / size:.4g}{sign}"
    return f"{value:.0f}"


def energy(document: Document) -> Columns:
    """Return what adds up to the GPUs: the head of each column, and a cell for each row."""
    report = document.report
    rows, total_joules = report.rows, report.total.energy_joules
    found = _names(rows, report)
    found["kWh"] = amounts([formulas.kwh(row.energy_joules) for row in rows], 2)
    found["share"] = [_percent(formulas.ratio(row.energy_joules, total_joules)) for row in rows]
    found["gCO2e"] = amounts([row.co2e_grams for row in rows], 0)
    for currency in currencies(report):
        for component in catalog.COST_COMPONENTS:
            costs = [row.cost.get((component, currency)) for row in rows]
            if any(cost is not None for cost in costs):
                found[f"{component}\n{currency}"] = amounts(costs, 2)
    return found


def work(document: Document) -> Columns:
    """Return what was done with it, for the rows that have any."""
    rows = [row for row in document.report.rows if row.tokens or row.requests]
    return {
        **_names(rows, document.report),
        "prompt\ntokens": [count(row.tokens.get("prompt")) for row in rows],
        "cached\ntokens": [count(row.tokens.get("cached_prompt")) for row in rows],
        "generated\ntokens": [count(row.tokens.get("generation")) for row in rows],
        "requests": [count(row.requests) for row in rows],
        "J/token": [number(row.joules_per_token) for row in rows],
        "J/gen.\ntoken": [number(row.joules_per_generated_token) for row in rows],
        "Wh/\nrequest": [number(row.wh_per_request) for row in rows],
    }


def offer(document: Document) -> Columns:
    """Return what the traffic costs by token and by energy."""
    charged = zip(document.report.rows, charges(document), strict=True)
    some = [(row, one) for row, one in charged if one is not None]
    ones = [one for _, one in some]
    return {
        **_names([row for row, _ in some], document.report),
        "by token": [number(one.by_token_cost) for one in ones],
        "by energy": [number(one.by_energy_cost) for one in ones],
        "by token\nper Mtok": [number(one.by_token_per_mtok) for one in ones],
        "by energy\nper Mtok": [number(one.by_energy_per_mtok) for one in ones],
        "savings": [_percent(one.savings_ratio) for one in ones],
    }


def _names(rows: Sequence[Row], report: Report) -> Columns:
    found = {"model": [_name(row, report) for row in rows]}
    if any(row.namespace for row in rows):
        found["namespace"] = [row.namespace for row in rows]
    return found


def _name(row: Row, report: Report) -> str:
    unknown = unknown_seconds(report)
    if row.section is not Section.NOT_COVERED or not unknown:
        return row.name
    return f"{row.name} ({unknown / HOUR_SECONDS:,.1f} h unknown)"


def _percent(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio * 100:.1f} %"


def _table(title: str, columns: Columns, name_width: int | None = None) -> Table:
    """Draw columns, the last row set apart; names are folded where there is no room, figures never."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in columns:
        if head in TEXTS:
            table.add_column(head, overflow="fold", max_width=name_width)
        else:
            table.add_column(head, justify="right", no_wrap=True)
    last = len(columns["model"]) - 1
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(*map(Text, cells), end_section=index == last - 1)
    return table


def as_table(document: Document, width: int | None = None) -> str:
    """Return tables and notes as text.

    Args:
        document: the report.
        width: of the terminal, in characters; None: as wide as it needs.
    """
    parts = {"Energy of GPU boards": energy(document), "Work": work(document)}
    if document.rates.any:
        parts["The same traffic by token and by energy, in the currency of the rates"] = offer(document)
    text = io.StringIO()
    console = Console(file=text, width=MAX_WIDTH, color_system=None, highlight=False, markup=False)
    for title, columns in parts.items():
        table = _table(title, columns)
        too_wide = console.measure(table).maximum - (width or MAX_WIDTH)
        if too_wide > 0:
            longest = max(map(len, columns["model"]))
            table = _table(title, columns, max(MIN_NAME_WIDTH, longest - too_wide))
        console.print(table)
    for note in notes(document):
        console.print(Text(note), width=width, soft_wrap=width is None)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n") + "\n"
