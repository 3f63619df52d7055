"""How much context a decoded token reads: from a gauge that is seen seldom, and from the lengths of requests. Pure.

The gauge of context over that of running requests is right on average, but a page sees a request only if it runs
just then: the fewer of them it sees, the more of what it says is chance. A regression on an amount that errs by chance
finds too little for it, and puts the rest elsewhere (docs/adr/0017-amounts-that-no-page-says.md). Of the requests
that began, all lengths are counted, but not who generated how much. So the gauge teaches what lengths stand for, and
a window's own gauge is believed as far as pages saw its requests.
"""

from dataclasses import dataclass
from typing import Final

from joulemeter.engine_work import started_requests
from joulemeter.work import Work

HALF_LIFE_SECONDS: Final = 4 * 3600.0
"""Of time in which a model had work; requests change with the time of day."""
PRIOR_REQUESTS: Final = 20.0
"""For so many the gauge is held to be in proportion to lengths, whatever the few windows say."""
PRIOR_SPREAD_RATIO: Final = 0.3
"""Standard deviation of a window's lengths over their mean, in that prior."""


@dataclass(slots=True)
class _Sums:
    """Of windows; a window counts by its running seconds, for so many requests its gauges saw."""

    requests: float = 0.0
    seconds: float = 0.0
    weight: float = 0.0
    length: float = 0.0
    gauge: float = 0.0
    length_square: float = 0.0
    product: float = 0.0

    def fade(self, kept: float) -> None:
        self.requests *= kept
        self.seconds *= kept
        self.weight *= kept
        self.length *= kept
        self.gauge *= kept
        self.length_square *= kept
        self.product *= kept

    def take(self, length: float, gauge: float, weight: float) -> None:
        self.weight += weight
        self.length += weight * length
        self.gauge += weight * gauge
        self.length_square += weight * length * length
        self.product += weight * length * gauge


class ContextLength:
    """Mean context of one model's decoded tokens, window by window."""

    def __init__(self) -> None:
        self._sums = _Sums()
        self._length: float | None = None

    def advance(self, work: Work, duration_seconds: float, page_seconds: float) -> float:
        """Take in a window, and return how many tokens of context each token that was decoded in it read.

        Args:
            work: what the server counted, an increase. Without a gauge of context lengths are taken at their word.
            duration_seconds: of the window, > 0.
            page_seconds: mean time between the pages that told it; 0 if they missed nothing.
        """
        started = started_requests(work)
        decoded = max(0.0, work.generation_tokens - started)
        running_seconds = max(0.0, work.running_seconds)
        if started >= 1.0:
            prompt_tokens = max(0.0, work.prompt_tokens + work.cached_prompt_tokens)
            self._length = (prompt_tokens + decoded / 2) / started
        if work.any:
            self._sums.fade(0.5 ** (duration_seconds / HALF_LIFE_SECONDS))
        self._sums.requests += started
        self._sums.seconds += running_seconds
        if decoded <= 0:
            return 0.0
        gauge = max(0.0, work.context_token_seconds or 0.0) / running_seconds if running_seconds > 0 else 0.0
        if self._length is None:
            return gauge
        if gauge > 0:
            self._sums.take(self._length, gauge, running_seconds)
        by_length = self._by_length(self._length)
        if gauge <= 0:
            return by_length
        seen_ratio = self._seen_ratio(page_seconds)
        return seen_ratio * gauge + (1.0 - seen_ratio) * by_length

    def _by_length(self, length: float) -> float:
        """Return what the gauge would say on average of a window with such lengths: a straight line through windows."""
        sums = self._sums
        if sums.weight <= 0 or sums.length <= 0:
            return length
        mean_length, mean_gauge = sums.length / sums.weight, sums.gauge / sums.weight
        variance = sums.length_square / sums.weight / mean_length**2 - 1.0
        covariance = sums.product / sums.weight / mean_length / mean_gauge - 1.0
        each_seconds = sums.seconds / sums.requests if sums.requests > 0 else 0.0
        prior = PRIOR_REQUESTS * each_seconds / sums.weight * PRIOR_SPREAD_RATIO**2
        slope = (covariance + prior) / (variance + prior) if variance + prior > 0 else 1.0
        return mean_gauge * (1.0 + min(max(slope, 0.0), 1.0) * (length / mean_length - 1.0))

    def _seen_ratio(self, page_seconds: float) -> float:
        """Return how much of what differs between requests the gauge sees, and is not chance.

        A request that takes less than from page to page is seen with a probability of its time over that. A longer one
        is seen on some pages, evenly apart, and errs by the parts of an interval at its ends: their mean square is
        a sixth of the interval's, for one that begins and ends by chance.
        """
        if page_seconds <= 0 or self._sums.requests <= 0:
            return 1.0
        pages = self._sums.seconds / self._sums.requests / page_seconds
        return min(pages, pages**2 / (pages**2 + 1.0 / 6.0))
