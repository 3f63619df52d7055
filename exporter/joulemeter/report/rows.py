"""The rows of a report: who used which joule, what it caused and what it cost; they add up to the GPUs. Pure."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from joulemeter import catalog, formulas
from joulemeter.catalog import Metric
from joulemeter.report.increases import Coverage, coverage
from joulemeter.report.sources import Key, Sources, Target, shown
from joulemeter.report.tally import CO2E, COST, ENERGY, Books, Gained

Price = tuple[str, str]
"""Component (electricity, compute) and currency."""
UNEXPLAINED_RATIO: Final = 1e-6
RESTLESS_RATIO: Final = 0.1
FEW_RESTARTS: Final = 5


class Section(StrEnum):
    """What a row is about."""

    MODEL = "model"
    UNATTRIBUTED = "unattributed"
    NOT_COVERED = "not covered"
    TOTAL = "total"


@dataclass(slots=True)
class Row:
    """One line, changed only while it is added up.

    Energy, CO2e and cost of the rows before the total add up to it. Tokens and requests are None where there
    cannot be any.
    """

    section: Section
    namespace: str = ""
    model: str = ""
    reason: str = ""
    energy_joules: float = 0.0
    co2e_grams: float = 0.0
    cost: dict[Price, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    """By kind (`catalog.TOKEN_KINDS`)."""
    requests: float | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.model or (f"{self.section}: {self.reason}" if self.reason else str(self.section))

    @property
    def computed_tokens(self) -> float | None:
        """Prompt tokens that were computed, and generated ones."""
        return self.tokens["prompt"] + self.tokens["generation"] if self.tokens else None

    @property
    def joules_per_token(self) -> float | None:
        """Energy over computed prompt tokens and generated ones."""
        return formulas.ratio(self.energy_joules, self.computed_tokens)

    @property
    def joules_per_generated_token(self) -> float | None:
        """Energy over generated tokens."""
        return formulas.ratio(self.energy_joules, self.tokens.get("generation"))

    @property
    def wh_per_request(self) -> float | None:
        """Energy over finished requests."""
        return formulas.watt_hours(formulas.ratio(self.energy_joules, self.requests))

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened here."""
        numbers = [self.energy_joules, self.co2e_grams, *self.cost.values(), *self.tokens.values()]
        return not any(numbers) and not self.requests

    def add_work(self, other: "Row") -> None:
        """Add another row's tokens and requests."""
        for kind, count in other.tokens.items():
            self.tokens[kind] = self.tokens.get(kind, 0.0) + count
        if other.requests is not None:
            self.requests = (self.requests or 0.0) + other.requests


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted: rows in order, the total last, and for how long each exporter's energy is known.

    Of the energy that is not covered, `in_transit_joules` was pending: at the end of the range (less what was
    pending at its begin), or when a daemon ended. `lost_estimate_joules` is no part of any row: what may have been
    used between the last page of a process and its end, at the exporter's mean power.
    """

    rows: tuple[Row, ...]
    total: Row
    credit: Mapping[str, float]
    coverage: Mapping[Target, Coverage]
    gpus: int
    copies: int
    in_transit_joules: float
    lost_estimate_joules: float
    warnings: tuple[str, ...]


def report(gained: Gained, found: Sources, begin_seconds: float, end_seconds: float) -> Report:
    """Add up what each series gained over a range (Unix time).

    Conserves:
        energy, CO2e and each cost of the rows before the total add up to what the GPUs measured, the total, to one
        part in 1e9 (tests/test_report_increases.py). That the row that is not covered is what was pending, and no
        more, is checked here: what else it holds is a warning.
    """
    models, unattributed, total = _models(gained), _unattributed(gained), _total(gained)
    parts = [*models, *unattributed]
    for part in parts:
        total.add_work(part)
    rest = Row(Section.NOT_COVERED)
    rest.energy_joules = _rest(total.energy_joules, [one.energy_joules for one in parts])
    rest.co2e_grams = _rest(total.co2e_grams, [one.co2e_grams for one in parts])
    prices = sorted({price for one in (total, *parts) for price in one.cost})
    for price in prices:
        rest.cost[price] = _rest(total.cost.get(price, 0.0), [one.cost.get(price, 0.0) for one in parts])
    in_transit_joules = math.fsum(gained.get(ENERGY.pending, {}).values())
    warnings = [*found.warnings, *_restless(found)]
    unexplained = rest.energy_joules - in_transit_joules
    if abs(unexplained) > UNEXPLAINED_RATIO * total.energy_joules:
        warnings.append(
            f"{formulas.kwh(unexplained):.6g} kWh that GPUs measured are in no series of models or unattributed"
            " energy: does a relabelling rule drop some? (A model that came back between two scrapes does it too.)"
        )
    covered = {
        target: coverage(life, begin_seconds, end_seconds)
        for target, life in found.lives.items()
        if life.pages(begin_seconds, end_seconds)
    }
    measured = gained.get(ENERGY.measured, {})
    return Report(
        rows=(*models, *unattributed, rest, total),
        total=total,
        credit=_credit(gained),
        coverage=covered,
        gpus=len({key[1] for _, key in measured}),
        copies=len(found.uses) - len(found.lives),
        in_transit_joules=in_transit_joules,
        lost_estimate_joules=_lost(measured, covered),
        warnings=tuple(warnings),
    )


def _restless(found: Sources) -> Iterator[str]:
    """Two daemons under the same labels look like one that restarts with every scrape."""
    for target, life in found.lives.items():
        restarts = len(life.restart_seconds)
        if restarts > max(FEW_RESTARTS, RESTLESS_RATIO * len(life.page_seconds)):
            yield (
                f"{shown(target)} restarts {restarts} times on {len(life.page_seconds)} pages: its figures are too high"
                " if two exporters share its labels; give each an instance of its own"
            )


def _rest(total: float, parts: list[float]) -> float:
    return math.fsum([total, *(-part for part in parts)])


def _models(gained: Gained) -> list[Row]:
    """One row for each namespace and model that did or used something."""
    rows: dict[tuple[str, str], Row] = {}

    def row(labels: Mapping[str, str]) -> Row:
        where = labels["namespace"], labels["model"]
        return rows.setdefault(where, Row(Section.MODEL, *where))

    for books in (ENERGY, CO2E, COST):
        _book(gained, books.model, row)
    for labels, count in _each(gained, catalog.MODEL_TOKENS):
        _count(row(labels), labels["kind"], count)
    for labels, count in _each(gained, catalog.MODEL_REQUESTS):
        found = row(labels)
        found.requests = (found.requests or 0.0) + count
    return [one for _, one in sorted(rows.items()) if not one.is_empty]


def _unattributed(gained: Gained) -> list[Row]:
    """One row for each reason; tokens of windows that were given up are here too."""
    rows: dict[str, Row] = {}

    def row(labels: Mapping[str, str]) -> Row:
        reason = labels["reason"]
        return rows.setdefault(reason, Row(Section.UNATTRIBUTED, reason=reason))

    for books in (ENERGY, CO2E, COST):
        _book(gained, books.unattributed, row)
    for labels, count in _each(gained, catalog.UNATTRIBUTED_TOKENS):
        if count:
            _count(row(labels), labels["kind"], count)
    return [one for _, one in sorted(rows.items()) if not one.is_empty]


def _total(gained: Gained) -> Row:
    total = Row(Section.TOTAL)
    for books in (ENERGY, CO2E, COST):
        _book(gained, books.measured, lambda _: total)
    return total


def _book(gained: Gained, metric: Metric, row_of: Callable[[Mapping[str, str]], Row]) -> None:
    """Add what a metric's series gained to the rows that they belong to."""
    for labels, amount in _each(gained, metric):
        row = row_of(labels)
        if metric in _of(ENERGY):
            row.energy_joules += amount
        elif metric in _of(CO2E):
            row.co2e_grams += amount
        else:
            price = labels["component"], labels["currency"]
            row.cost[price] = row.cost.get(price, 0.0) + amount


def _of(books: Books) -> tuple[Metric, ...]:
    return books.measured, books.model, books.unattributed


def _count(row: Row, kind: str, count: float) -> None:
    if not row.tokens:
        row.tokens = dict.fromkeys(catalog.TOKEN_KINDS, 0.0)
    row.tokens[kind] = row.tokens.get(kind, 0.0) + count


def _each(gained: Gained, metric: Metric) -> Iterator[tuple[dict[str, str], float]]:
    """Yield what each series gained, with its own labels, in an order that does not depend on the answer's."""
    for (_, key), amount in sorted(
        gained.get(metric, {}).items(), key=lambda item: (item[0][1], sorted(item[0][0]))
    ):
        yield dict(zip(metric.labels, key, strict=True)), amount


def _lost(measured: Mapping[tuple[Target, Key], float], covered: Mapping[Target, Coverage]) -> float:
    """What may have been used between the last pages of processes and their ends, at mean power."""
    joules: dict[Target, float] = defaultdict(float)
    for (target, _), amount in measured.items():
        joules[target] += amount
    return math.fsum(
        joules[target] / one.known_seconds * one.restart_seconds
        for target, one in covered.items()
        if one.known_seconds > 0
    )


def _credit(gained: Gained) -> dict[str, float]:
    credit: dict[str, float] = defaultdict(float)
    for (_, (currency,)), amount in gained.get(catalog.ENERGY_CREDIT, {}).items():
        credit[currency] += amount
    return dict(credit)
