"""Requests that finished between two pages -> a likely set of them, one by one. Pure.

Where one finished, the sums of the histograms are its own lengths. Where several did, each length is known by
bucket and in sum, and which prompt went with which answer is not. What is drawn then has the buckets and the sums
that were seen, and prompts go with answers as they mostly did before: pages on which one request finished say so,
and of the others the more plausible matches count.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from joulemeter.lengths import Finished, Lengths
from joulemeter.model import Length

REMEMBERED_REQUESTS: Final = 4000.0
"""Of which the joint lengths are remembered; older ones count half."""
UNSEEN: Final = 0.1
"""Weight of a combination of buckets that never came, in requests."""
PROPOSALS: Final = 20
"""Swaps that are tried for each request; more of them change no quantile by more than the next seed does."""
MOST_PROPOSALS: Final = 2000
"""Swaps that are tried on one page, of all its engines: four milliseconds of work at most."""
MORE_COMPUTED_THAN_PROMPT: Final = 1e-6
"""Factor for a match that cannot be, so that it is left as soon as there is another."""
FORGOTTEN: Final = 0.1
"""Requests; less than that of a combination is as good as unseen."""

Cell = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class RequestTokens:
    """One request. `computed_tokens` is None where the server does not tell how much of prompts was cached."""

    prompt_tokens: float
    computed_tokens: float | None
    generated_tokens: float


@dataclass(slots=True)
class Chance:
    """Numbers as if by chance, the same in every run (the generator of Knuth's MMIX)."""

    state: int = 1

    def ratio(self) -> float:
        """Return the next number in [0, 1)."""
        self.state = (6364136223846793005 * self.state + 1442695040888963407) % 2**64
        return (self.state >> 11) / 2**53


@dataclass(slots=True)
class Pairing:
    """Draws requests from buckets, and remembers which lengths go together."""

    _chance: Chance = field(default_factory=Chance)
    _seen: defaultdict[Cell, float] = field(default_factory=lambda: defaultdict(float))
    _remembered: float = 0.0

    def requests(self, finished: Finished) -> list[RequestTokens]:
        """Return as many requests as answers were counted; their sums are those of the histograms.

        A length that was counted another number of times, or not at all, is taken at its mean.
        """
        generation = finished.lengths[Length.GENERATION]
        count = generation.count
        generated, g = self._drawn(generation)
        prompts, p = self._of(finished, Length.PROMPT, count)
        computed, c = self._of(finished, Length.COMPUTED_PROMPT, count)
        if count > 1:
            self._shuffle(generated, g)
            self._match(g, p, prompts, c, computed, most=round(MOST_PROPOSALS * finished.share))
        self._remember(zip(p, c, g, strict=True))
        told = Length.COMPUTED_PROMPT in finished.lengths
        return [
            RequestTokens(prompt, new if told else None, answer)
            for prompt, new, answer in zip(prompts, computed, generated, strict=True)
        ]

    def _of(self, finished: Finished, length: Length, count: int) -> tuple[list[float], list[int]]:
        lengths = finished.lengths.get(length)
        if lengths is None:
            return [0.0] * count, [0] * count
        if lengths.count != count:
            return [lengths.sum_tokens / lengths.count] * count, [0] * count
        return self._drawn(lengths)

    def _drawn(self, lengths: Lengths) -> tuple[list[float], list[int]]:
        """Draw each request's tokens within its bucket, rising, so that they add up; and name the buckets."""
        least = sum(bucket.count * bucket.above_tokens for bucket in lengths.buckets)
        # The most that one request can have above its bucket's lower bound:
        beyond = max(0, lengths.sum_tokens - least)
        low, high, names = [], [], []
        for bucket in lengths.buckets:
            most = bucket.above_tokens + beyond
            if bucket.at_most_tokens is not None:
                most = min(most, bucket.at_most_tokens)
            low += [float(bucket.above_tokens)] * bucket.count
            high += [float(most)] * bucket.count
            names += [bucket.above_tokens] * bucket.count
        drawn = [
            one * (other / one) ** self._chance.ratio() if one > 0 else other * self._chance.ratio()
            for one, other in zip(low, high, strict=True)
        ]
        missing = lengths.sum_tokens - math.fsum(drawn)
        limits = high if missing > 0 else low
        room = math.fsum(abs(limit - value) for limit, value in zip(limits, drawn, strict=True))
        if room > 0:
            ratio = min(1.0, abs(missing) / room)
            drawn = [value + ratio * (limit - value) for limit, value in zip(limits, drawn, strict=True)]
        return drawn, names

    def _shuffle(self, values: list[float], names: list[int]) -> None:
        order = sorted(range(len(values)), key=lambda _: self._chance.ratio())
        values[:] = [values[i] for i in order]
        names[:] = [names[i] for i in order]

    def _match(
        self,
        g: list[int],
        p: list[int],
        prompts: list[float],
        c: list[int],
        computed: list[float],
        *,
        most: int,
    ) -> None:
        """Swap prompts, and computed parts, among the answers: Metropolis steps towards what came before."""
        count = len(g)
        for turn in range(min(PROPOSALS * count, most)):
            i, j = int(self._chance.ratio() * count), int(self._chance.ratio() * count)
            both = turn % 2 == 0
            pi, pj = (p[j], p[i]) if both else (p[i], p[j])
            if (pi, c[j], pj, c[i]) == (p[i], c[i], p[j], c[j]) and g[i] == g[j]:
                continue
            ratio = (self._weight(pi, c[j], g[i]) * self._weight(pj, c[i], g[j])) / (
                self._weight(p[i], c[i], g[i]) * self._weight(p[j], c[j], g[j])
            )
            if ratio >= 1.0 or self._chance.ratio() < ratio:
                computed[i], computed[j] = computed[j], computed[i]
                c[i], c[j] = c[j], c[i]
                if both:
                    prompts[i], prompts[j] = prompts[j], prompts[i]
                    p[i], p[j] = p[j], p[i]

    def _weight(self, p: int, c: int, g: int) -> float:
        weight = self._seen.get((p, c, g), 0.0) + UNSEEN
        return weight if c <= p else weight * MORE_COMPUTED_THAN_PROMPT

    def _remember(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            self._seen[cell] += 1.0
            self._remembered += 1.0
        if self._remembered > REMEMBERED_REQUESTS:
            self._remembered /= 2
            self._seen = defaultdict(float, {cell: n / 2 for cell, n in self._seen.items() if n > FORGOTTEN})
