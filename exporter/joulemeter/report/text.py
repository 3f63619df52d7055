"""A report as CSV or JSON: every figure by name, in full precision. Pure."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from joulemeter import catalog, formulas
from joulemeter.report.basis import GRID_LABELS, Basis, Shares
from joulemeter.report.offer import Charge, Rates, charge, total_charge
from joulemeter.report.range import Range
from joulemeter.report.rows import Report, Row, Section

BOUNDARY: Final = "GPU boards only: no CPU, memory, network or rest of the host"
HOUR_SECONDS: Final = 3600.0
Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Document:
    """All that a report says, whatever its form."""

    report: Report
    basis: Basis
    when: Range
    rates: Rates
    selector: str
    samples: int
    warnings: tuple[str, ...]


def currencies(report: Report) -> list[str]:
    """Return the currencies of the costs; nothing is converted or added across them."""
    return sorted({currency for row in report.rows for _, currency in row.cost} | report.credit.keys())


def charges(document: Document) -> list[Charge | None]:
    """Return what each row's traffic costs, by token and by energy."""
    rows, rates = document.report.rows, document.rates
    if not rates.any:
        return [None for _ in rows]
    return [*(charge(row, rates) for row in rows[:-1]), total_charge(rows, rates)]


def records(document: Document) -> Iterator[dict[str, Cell]]:
    """Yield each row as figures by name, in full precision; None is unknown, or none there can be."""
    report = document.report
    unknown_hours = unknown_seconds(report) / HOUR_SECONDS
    for row, charged in zip(report.rows, charges(document), strict=True):
        yield {
            "section": str(row.section),
            "namespace": row.namespace,
            "model": row.model,
            "reason": row.reason,
            "energy_kwh": formulas.kwh(row.energy_joules),
            "prompt_tokens": row.tokens.get("prompt"),
            "cached_prompt_tokens": row.tokens.get("cached_prompt"),
            "generated_tokens": row.tokens.get("generation"),
            "requests": row.requests,
            "joules_per_token": row.joules_per_token,
            "joules_per_generated_token": row.joules_per_generated_token,
            "wh_per_request": row.wh_per_request,
            "co2e_grams": row.co2e_grams,
            "unknown_exporter_hours": unknown_hours if row.section is Section.NOT_COVERED else None,
            **_money(row, report),
            **(_charged(charged) if document.rates.any else {}),
        }


def _money(row: Row, report: Report) -> dict[str, Cell]:
    """Costs by component and currency; the credit of negative prices is of all GPUs, and in no cost."""
    found: dict[str, Cell] = {}
    for currency in currencies(report):
        parts = {part: row.cost.get((part, currency)) for part in catalog.COST_COMPONENTS}
        known = [amount for amount in parts.values() if amount is not None]
        found |= {f"{part}_cost_{currency}": amount for part, amount in parts.items()}
        found[f"cost_{currency}"] = sum(known) if known else None
        if report.credit:
            whole = row.section is Section.TOTAL
            found[f"energy_credit_{currency}"] = report.credit.get(currency) if whole else None
    return found


def _charged(one: Charge | None) -> dict[str, Cell]:
    charged = one or Charge(None, None, None, None, None)
    return {
        "charge_by_token": charged.by_token_cost,
        "charge_by_energy": charged.by_energy_cost,
        "charge_by_token_per_mtok": charged.by_token_per_mtok,
        "charge_by_energy_per_mtok": charged.by_energy_per_mtok,
        "savings_ratio": charged.savings_ratio,
    }


def as_csv(document: Document) -> str:
    """Return a line for each row; empty is unknown."""
    rows = list(records(document))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(document: Document) -> str:
    """Return rows, range, basis and coverage."""
    when, basis, report = document.when, document.basis, document.report
    return json.dumps(
        {
            "range": {
                "from": when.local(when.begin_seconds),
                "to": when.local(when.end_seconds),
                "time_zone": str(when.time_zone),
                "hours": when.seconds / HOUR_SECONDS,
                "cut_at_now": when.cut_at_now,
            },
            "boundary": BOUNDARY,
            "rows": list(records(document)),
            "coverage": coverage_figures(report),
            "basis": {
                "methods": _named(basis.methods, ("method",)),
                "splits": _named(basis.splits, ("split",)),
                "energy_sources": _named(basis.energy_sources, ("energy_source",)),
                "products": _named(basis.products, ("product",)),
                "grid": _named(basis.grid, GRID_LABELS),
                "grid_quality": _named(basis.qualities, ("zone", "quality")),
                "pue_ratio": basis.pue and {"lowest": basis.pue[0], "highest": basis.pue[1]},
                "simulated_ratio": basis.simulated_ratio,
                "versions": basis.versions,
            },
            "rates": asdict(document.rates) if document.rates.any else None,
            "selector": document.selector,
            "samples": document.samples,
            "warnings": document.warnings,
        },
        indent=2,
        ensure_ascii=False,
    )


def _named(shares: Shares, labels: Iterable[str]) -> list[dict[str, Cell]]:
    return [
        {**dict(zip(labels, values, strict=True)), "time_ratio": share} for values, share in shares.items()
    ]


def unknown_seconds(report: Report) -> float:
    """Return for how long of the range, over all exporters, energy was not seen: it is in no row."""
    return sum(one.restart_seconds + one.edge_seconds for one in report.coverage.values())


def coverage_figures(report: Report) -> dict[str, float]:
    """Return for how long the energy of all exporters together is known, and what is known of the rest."""
    covered = report.coverage.values()
    hours = {
        "known_hours": sum(one.known_seconds for one in covered) / HOUR_SECONDS,
        "unknown_hours_at_restarts": sum(one.restart_seconds for one in covered) / HOUR_SECONDS,
        "unknown_hours_at_edges": sum(one.edge_seconds for one in covered) / HOUR_SECONDS,
    }
    return {
        "exporters": len(covered),
        "copies": report.copies,
        "gpus": report.gpus,
        "exporter_hours": sum(hours.values()),
        **hours,
        "bridged_hours": sum(one.bridged_seconds for one in covered) / HOUR_SECONDS,
        "restarts": sum(one.restarts for one in covered),
        "in_transit_kwh": formulas.kwh(report.in_transit_joules),
        "unknown_estimate_kwh_at_restarts": formulas.kwh(report.lost_estimate_joules),
    }
