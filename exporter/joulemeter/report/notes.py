"""What has to stand below a report's figures: range, coverage, method, sources. Pure."""

from collections.abc import Iterable, Iterator

from joulemeter.report.basis import Basis, Shares
from joulemeter.report.rows import Report
from joulemeter.report.text import BOUNDARY, HOUR_SECONDS, Document, coverage_figures


def notes(document: Document) -> list[str]:
    """Return the notes, a line each."""
    when, basis = document.when, document.basis
    cut = " (now: the range is not over)" if when.cut_at_now else ""
    of = f" of {document.selector}" if document.selector else ""
    return [
        f"Range: {when.local(when.begin_seconds)} to {when.local(when.end_seconds)}{cut}, time zone {when.time_zone},"
        f" {when.seconds / HOUR_SECONDS:,.6g} h",
        f"Boundary: {BOUNDARY}",
        *_covered(document.report),
        f"Measured: {_spoken(basis.energy_sources)} (share of GPU time); {_spoken(basis.products)}",
        f"Method: split {_spoken(basis.splits)}; GPUs {_spoken(basis.methods)} (share of server time)",
        *_grid(basis),
        _pue(basis),
        *_credit(document.report),
        _simulated(basis),
        f"Data: {document.samples:,} raw samples{of}; joulemeter {', '.join(basis.versions) or 'of unknown version'}",
        *(f"Warning: {warning}" for warning in document.warnings),
    ]


def _spoken(shares: Shares) -> str:
    """Write shares down; a server's method is empty until it is known."""
    return ", ".join(f"{_words(key)} {_percent(share)}" for key, share in shares.items()) or "unknown"


def _words(values: Iterable[str]) -> str:
    return " ".join(value for value in values if value).replace("_", " ") or "(not known yet)"


def _percent(ratio: float) -> str:
    """What is not the whole never reads as the whole, and what is not nothing never as nothing."""
    shown = f"{ratio * 100:.1f}"
    if shown == "100.0" and ratio != 1:
        return "over 99.9 %"
    return f"{shown.removesuffix('.0')} %" if shown != "0.0" or ratio == 0 else "under 0.1 %"


def _many(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def _covered(report: Report) -> Iterator[str]:
    figures = coverage_figures(report)
    known = figures["known_hours"] / figures["exporter_hours"]
    copies = f" (and {_many(report.copies, 'copy', 'copies')}, not counted twice)" if report.copies else ""
    gpus, exporters = _many(report.gpus, "GPU"), _many(len(report.coverage), "exporter")
    yield (
        f"Coverage: {gpus} of {exporters}{copies}; their energy is known for {_percent(known)} of"
        f" {figures['exporter_hours']:,.6g} exporter-hours"
    )
    if figures["restarts"]:
        yield (
            f"  {_many(int(figures['restarts']), 'restart')}: unknown is what was used between the last scrape"
            f" and the restart, in at most {figures['unknown_hours_at_restarts']:,.3g} h; about"
            f" {figures['unknown_estimate_kwh_at_restarts']:,.3g} kWh at mean power, which no row holds"
        )
    if figures["unknown_hours_at_edges"]:
        yield (
            f"  {figures['unknown_hours_at_edges']:,.3g} h before the first or after the last scrape of an exporter:"
            " nothing is known of them"
        )
    if figures["bridged_hours"]:
        yield (
            f"  {figures['bridged_hours']:,.3g} h without scrapes, in which counters went on: their energy is counted"
        )
    yield (
        f"Not covered: {figures['in_transit_kwh']:,.3g} kWh were pending (nobody's yet) at the end or at a restart,"
        " less those pending at the begin"
    )


def _grid(basis: Basis) -> Iterator[str]:
    if not basis.grid:
        yield "Grid: no source of carbon intensity is known"
    for (zone, source, *origin), share in basis.grid.items():
        qualities = {
            quality: part for (where, quality), part in basis.qualities.items() if where == zone and part
        }
        spoken = ", ".join(f"{quality} {_percent(part)}" for quality, part in qualities.items())
        details = ", ".join(one for one in origin if one)
        yield (
            f"Grid: {zone or 'no zone'}: {source} ({details}) {_percent(share)} of the time; quality"
            f" {spoken or 'unknown'}"
        )


def _pue(basis: Basis) -> str:
    if basis.pue is None:
        return "PUE: unknown"
    low, high = basis.pue
    value = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"PUE: {value}, in grams and in the cost of electricity, not in kWh"


def _credit(report: Report) -> Iterator[str]:
    for currency, amount in sorted(report.credit.items()):
        if amount:
            yield f"Credit: negative prices gave back {amount:,.2f} {currency}; it is subtracted from no cost"


def _simulated(basis: Basis) -> str:
    if basis.simulated_ratio == 0:
        return "Simulated: no"
    return f"Simulated: YES, {_percent(basis.simulated_ratio)}; these are no measurements"
