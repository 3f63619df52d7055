"""What is known of the grid, and which of it is in use at an instant. Pure, and told the time.

Instants are monotonic: an interval is laid on that axis when its answer arrives, so that a wall clock that jumps
makes nothing old or new (docs/adr/0012).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from joulemeter.grids import ConstantSource, LiveSource, Place, Source
from joulemeter.grids.static import Static
from joulemeter.model import GridAnswer, GridInterval, GridQuality, Signal

FRESH_GRANULARITIES: Final = 2.0
"""A value is fresh for so many of its own durations, counted from its begin."""
MAX_AGE_SECONDS: Final = 6 * 3600.0
"""How long the last value of a source that went silent says more than an annual average."""
KEEP_SECONDS: Final = 48 * 3600.0
"""How long intervals are kept, for energy that was measured late: a GPU that was lost and came back."""
SAME_SECONDS: Final = 1.0
"""Two begins so near are the same, laid with clocks that differ a little."""
HORIZONS_SECONDS: Final = {"1h": 3600.0, "3h": 10_800.0, "6h": 21_600.0, "12h": 43_200.0, "24h": 86_400.0}


@dataclass(frozen=True, slots=True)
class Laid:
    """An interval on the monotonic axis."""

    begin_seconds: float
    interval: GridInterval

    @property
    def end_seconds(self) -> float:
        """Where it ends."""
        return self.begin_seconds + self.interval.duration_seconds

    @property
    def fresh_until_seconds(self) -> float:
        """Up to here it may be used as it is: a forecast only for the time that it is for."""
        forecast = self.interval.quality is GridQuality.FORECAST
        granularities = 1.0 if forecast else FRESH_GRANULARITIES
        return self.begin_seconds + granularities * self.interval.duration_seconds


@dataclass(frozen=True, slots=True)
class InUse:
    """What energy is priced with at an instant, and until when at least.

    `quality` may be stale where that of the interval is not. `source` is the live source's name, or None.
    """

    interval: GridInterval
    quality: GridQuality
    until_seconds: float
    source: str | None


@dataclass(slots=True)
class Known:
    """What one live source has answered, oldest first, and the shares it gave last."""

    laid: list[Laid] = field(default_factory=list)
    answer: GridAnswer | None = None
    answered_at_seconds: float = 0.0

    def take(self, answer: GridAnswer, at_seconds: float, offset_seconds: float) -> None:
        """Add an answer: what it says of a time replaces what was said of that time before."""
        new = [Laid(one.begin_timestamp_seconds - offset_seconds, one) for one in answer.intervals]
        self.answer, self.answered_at_seconds = answer, at_seconds
        if not new:
            return
        begin, end = new[0].begin_seconds, new[-1].end_seconds
        kept = [
            one
            for one in self.laid
            if one.begin_seconds > at_seconds - KEEP_SECONDS
            and (one.begin_seconds < begin - SAME_SECONDS or one.begin_seconds > end - SAME_SECONDS)
        ]
        self.laid = sorted(kept + new, key=lambda one: one.begin_seconds)

    def best(self, at_seconds: float) -> tuple[Laid, GridQuality] | None:
        """Return what this source says of an instant: a fresh value, else a forecast for it, else its last value."""
        candidates = self._candidates(at_seconds)
        for one in candidates:
            if at_seconds < one.fresh_until_seconds:
                return one, one.interval.quality
        last = max(candidates, key=lambda one: one.begin_seconds, default=None)
        return None if last is None else (last, GridQuality.STALE)

    def covering(self, at_seconds: float) -> GridInterval | None:
        """Return the interval that an instant lies in."""
        begun = self._begun(at_seconds)
        return (
            self.laid[begun - 1].interval if begun and at_seconds < self.laid[begun - 1].end_seconds else None
        )

    def changes(self, at_seconds: float, max_age_seconds: float) -> Iterator[float]:
        """Yield instants, the next one among them, at which `best`, or whether it is too old, changes."""
        begun = self._begun(at_seconds)
        if begun < len(self.laid):
            yield self.laid[begun].begin_seconds
        for one in self._candidates(at_seconds):
            yield one.fresh_until_seconds
            yield one.begin_seconds + max_age_seconds

    def _candidates(self, at_seconds: float) -> list[Laid]:
        """What was told of the time, and the last of all, forecasts included."""
        begun = self.laid[: self._begun(at_seconds)]
        told = next(
            (one for one in reversed(begun) if one.interval.quality is not GridQuality.FORECAST), None
        )
        return [one for one in (told, begun[-1] if begun else None) if one is not None]

    def _begun(self, at_seconds: float) -> int:
        return bisect_right(self.laid, at_seconds, key=lambda one: one.begin_seconds)


class GridBook:
    """Chooses among sources, in the order of the configuration.

    The first whose value is fresh; else the first whose last value is not older than `max_age_seconds`; else the one
    that always answers, which is the shipped annual factor where the configuration names none. What is listed after
    one that always answers is never asked, unless it is only shown.
    """

    def __init__(
        self, place: Place, sources: Sequence[Source], *, max_age_seconds: float = MAX_AGE_SECONDS
    ) -> None:
        self.place = place
        self._max_age_seconds = max_age_seconds
        constant = next((one for one in sources if isinstance(one, ConstantSource)), None)
        before = sources if constant is None else sources[: sources.index(constant)]
        live = [one for one in sources if isinstance(one, LiveSource)]
        self.live: tuple[LiveSource, ...] = tuple(
            one for one in live if one in before and one.signal is Signal.AVERAGE
        )
        self.shown: tuple[LiveSource, ...] = tuple(one for one in live if one.signal is not Signal.AVERAGE)
        self.constant: ConstantSource = constant or Static(place.zone)
        self.known: dict[str, Known] = {source.name: Known() for source in (*self.live, *self.shown)}

    def take(self, source: str, answer: GridAnswer, at_seconds: float, offset_seconds: float) -> None:
        """Take in an answer that came at `at_seconds`; Unix time less `offset_seconds` is the monotonic axis."""
        self.known[source].take(answer, at_seconds, offset_seconds)

    def at(self, at_seconds: float, offset_seconds: float) -> InUse:
        """Return what is in use at an instant, not long ago; `offset_seconds` is Unix time less monotonic."""
        until_seconds = min(
            (
                change
                for source in self.live
                for change in self.known[source.name].changes(at_seconds, self._max_age_seconds)
                if change > at_seconds
            ),
            default=float("inf"),
        )
        stale: InUse | None = None
        for source in self.live:
            best = self.known[source.name].best(at_seconds)
            if best is None or at_seconds >= best[0].begin_seconds + self._max_age_seconds:
                continue
            found = InUse(best[0].interval, best[1], until_seconds, source.name)
            if found.quality is not GridQuality.STALE:
                return found
            stale = stale or found
        if stale is not None:
            return stale
        interval = self.constant.at(at_seconds + offset_seconds)
        end_seconds = interval.begin_timestamp_seconds + interval.duration_seconds - offset_seconds
        return InUse(interval, interval.quality, min(until_seconds, end_seconds), None)

    def is_fresh(self, source: LiveSource, at_seconds: float) -> bool:
        """Say whether a source's value is fresh: those after it need not be asked."""
        best = self.known[source.name].best(at_seconds)
        return best is not None and best[1] is not GridQuality.STALE

    def answer_of(self, source: str, at_seconds: float) -> GridAnswer | None:
        """Return all that is known from a live source, with the shares of its last answer unless that is too old."""
        known = self.known[source]
        if known.answer is None:
            return None
        recent = at_seconds - known.answered_at_seconds <= self._max_age_seconds
        return GridAnswer(
            tuple(one.interval for one in known.laid),
            known.answer.renewable_ratio if recent else None,
            known.answer.carbon_free_ratio if recent else None,
        )

    def forecasts(self, in_use: InUse, at_seconds: float) -> dict[str, float]:
        """Return what the live source in use expects, in gCO2e/kWh by horizon; absent where it does not say."""
        known = self.known.get(in_use.source or "", Known())
        found = {name: known.covering(at_seconds + ahead) for name, ahead in HORIZONS_SECONDS.items()}
        return {name: one.intensity_grams_per_kwh for name, one in found.items() if one is not None}
