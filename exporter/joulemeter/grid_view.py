"""What a page shows of the grid at one instant. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from joulemeter import catalog
from joulemeter.grid_book import GridBook
from joulemeter.grid_polls import Polls
from joulemeter.model import GridInterval, GridQuality

Row = tuple[catalog.Metric, tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class GridView:
    """The intensity in use and what is known beside it; what a source does not say is absent.

    `polls` are the live sources', by name; `constant` names the source that always answers.
    """

    zone: str
    interval: GridInterval
    quality: GridQuality
    constant: str
    polls: Mapping[str, Polls]
    marginal: GridInterval | None = None
    forecasts_grams_per_kwh: Mapping[str, float] = field(default_factory=dict)
    renewable_ratio: float | None = None
    carbon_free_ratio: float | None = None

    def rows(self) -> Iterator[Row]:
        """Yield the samples of a page."""
        yield from self._values()
        for quality in catalog.GRID_QUALITIES:
            yield catalog.GRID_QUALITY, (self.zone, quality), quality == self.quality
        origin = self.interval.origin
        labels = (origin.source, origin.factor, origin.boundary, origin.granularity, origin.dataset)
        yield catalog.GRID_INFO, (self.zone, *labels), 1
        yield catalog.SOURCE_UP, ("grid", self.constant), 1
        for source, polls in self.polls.items():
            yield from self._asked(source, polls)

    def _values(self) -> Iterator[Row]:
        for signal, interval in zip(catalog.GRID_SIGNALS, (self.interval, self.marginal), strict=True):
            if interval is not None:
                yield catalog.GRID_INTENSITY, (self.zone, signal), interval.intensity_grams_per_kwh
                yield catalog.GRID_VALID_FROM, (self.zone, signal), interval.begin_timestamp_seconds
        for horizon, grams in self.forecasts_grams_per_kwh.items():
            yield catalog.GRID_FORECAST, (self.zone, horizon), grams
        if self.renewable_ratio is not None:
            yield catalog.GRID_RENEWABLE, (self.zone,), self.renewable_ratio
        if self.carbon_free_ratio is not None:
            yield catalog.GRID_CARBON_FREE, (self.zone,), self.carbon_free_ratio

    def _asked(self, source: str, polls: Polls) -> Iterator[Row]:
        if polls.outcome is not None:
            yield catalog.SOURCE_UP, ("grid", source), polls.up
        if polls.last_success_timestamp_seconds is not None:
            yield catalog.GRID_LAST_SUCCESS, (self.zone, source), polls.last_success_timestamp_seconds
        for outcome in catalog.GRID_OUTCOMES:
            yield catalog.GRID_FETCHES, (source, outcome), polls.outcomes[outcome]


def view(
    book: GridBook, polls: Mapping[str, Polls], at_seconds: float, unix_offset_seconds: float
) -> GridView:
    """Look at a book at a monotonic instant."""
    in_use = book.at(at_seconds, unix_offset_seconds)
    answer = book.answer_of(in_use.source, at_seconds) if in_use.source else None
    marginal = [book.known[source.name].best(at_seconds) for source in book.shown]
    return GridView(
        zone=book.place.zone,
        interval=in_use.interval,
        quality=in_use.quality,
        constant=book.constant.name,
        polls=polls,
        marginal=next(
            (best[0].interval for best in marginal if best and best[1] is not GridQuality.STALE), None
        ),
        forecasts_grams_per_kwh=book.forecasts(in_use, at_seconds),
        renewable_ratio=answer.renewable_ratio if answer else None,
        carbon_free_ratio=answer.carbon_free_ratio if answer else None,
    )
