"""Raw samples of all exporters, chunk by chunk: what each series gained. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from joulemeter import catalog
from joulemeter.catalog import Metric
from joulemeter.report.increases import Increase
from joulemeter.report.sources import Key, Series, Sources, Target, by_source, joined


@dataclass(frozen=True, slots=True)
class Books:
    """The series of one quantity in each place that it can be in."""

    measured: Metric
    model: Metric
    unattributed: Metric
    pending: Metric


ENERGY: Final = Books(
    catalog.GPU_ENERGY, catalog.MODEL_ENERGY, catalog.UNATTRIBUTED_ENERGY, catalog.PENDING_ENERGY
)
CO2E: Final = Books(catalog.GPU_CO2E, catalog.MODEL_CO2E, catalog.UNATTRIBUTED_CO2E, catalog.PENDING_CO2E)
COST: Final = Books(catalog.GPU_COST, catalog.MODEL_COST, catalog.UNATTRIBUTED_COST, catalog.PENDING_COST)
GAUGES: Final = frozenset(books.pending for books in (ENERGY, CO2E, COST))
METRICS: Final = (
    *(
        metric
        for books in (ENERGY, CO2E, COST)
        for metric in (books.measured, books.model, books.unattributed, books.pending)
    ),
    *(catalog.MODEL_TOKENS, catalog.UNATTRIBUTED_TOKENS, catalog.MODEL_REQUESTS, catalog.ENERGY_CREDIT),
)
"""Every series that a report's figures are made of."""


class Tally:
    """Keeps one increase per series.

    Args:
        found: which samples count, and the exporters' lives.
        begin_seconds: where the range begins (Unix time).
    """

    def __init__(self, found: Sources, begin_seconds: float) -> None:
        self._found = found
        self._begin_seconds = begin_seconds
        self._series: dict[Metric, dict[tuple[Target, Key], Increase]] = {}

    def take(self, metric: Metric, chunk: Iterable[Series]) -> None:
        """Take in the next samples of a metric, of all its series at once."""
        counted: dict[tuple[Target, Key], list[Series]] = {}
        for (target, key), one in by_source(metric, chunk).items():
            use = self._found.uses.get(target)
            if use is not None:  # else a replica that does not count, or a node without GPUs
                counted.setdefault((use.of, key), []).append(use.samples(one))
        increases = self._series.setdefault(metric, {})
        for (target, key), parts in counted.items():
            if (target, key) not in increases:
                life = self._found.lives[target]
                increases[target, key] = Increase(life, self._begin_seconds, gauge=metric in GAUGES)
            one = joined(parts)
            increases[target, key].advance(one.at_seconds, one.values)

    def gained(self) -> dict[Metric, dict[tuple[Target, Key], float]]:
        """Return what each series gained.

        What an exporter's first page shows is ours if nothing on it is settled yet: the daemon had just started, for
        it holds first energy pending (`zero_hold_seconds`). Otherwise it is of the time before.
        """
        settled: dict[Target, float] = {}
        for metric in (ENERGY.model, ENERGY.unattributed):
            for (target, _), increase in self._series.get(metric, {}).items():
                settled[target] = settled.get(target, 0.0) + increase.on_first_page
        return {
            metric: {
                where: one.total + (0.0 if settled.get(where[0]) else one.on_first_page)
                for where, one in increases.items()
            }
            for metric, increases in self._series.items()
        }


Gained = Mapping[Metric, Mapping[tuple[Target, Key], float]]
