"""Traffic: which requests come when. Pure and seeded; the same hour is the same, however it is cut out.

Arrivals are a Poisson process whose rate follows the day, the week and chance; lengths are log-normal. A
prefix is in the cache once a request has brought it, in whole blocks, until it has not been used for a while.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulemeter.simulation.workload import CACHE_BLOCK_TOKENS

HOUR_SECONDS = 3600
_MINUTES = 60
_DAY_SECONDS = 86400.0
Arrivals = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Times in seconds, rising, and rows of prompt, output and cached tokens."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request. Lengths are medians; a spread is the standard deviation of the logarithm, 0: constant.

    A request begins with one of `prefixes` shared prefixes (by popularity 1/rank); own tokens come after it.
    """

    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0
    prompt_spread: float = 0.6
    output_spread: float = 0.6
    max_tokens: int = 131_072
    prefixes: int = 0
    prefix_tokens: int = 0
    from_seconds: float = 0.0
    until_seconds: float = math.inf
    """There is one of this kind only in hours that begin in between; another kind must be there instead."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests per second over time: `peak` at `peak_hour` on a working day of an ordinary week.

    `day_spread` and `hour_spread` are chance (standard deviations of the logarithm), spikes multiply
    the rate for some minutes; `growth_per_week` compounds; `steps` are (seconds, factor from then on).
    """

    peak: float
    night_ratio: float = 1.0
    weekend_ratio: float = 1.0
    peak_hour: float = 14.0
    day_spread: float = 0.0
    hour_spread: float = 0.0
    spikes_per_day: float = 0.0
    spike_factor: float = 2.5
    spike_minutes: int = 15
    growth_per_week: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()

    def rates(self, hour: int, seed: int) -> NDArray[np.float64]:
        """Return the rate of each minute of an hour since the beginning, which is a Monday's midnight."""
        at = (hour * _MINUTES + np.arange(_MINUTES) + 0.5) * 60.0
        wave = 0.5 - 0.5 * np.cos(2 * math.pi * (at / HOUR_SECONDS - self.peak_hour + 12.0) / 24.0)
        rates = self.peak * (self.night_ratio + (1.0 - self.night_ratio) * wave)
        day = hour // 24
        if day % 7 >= 5:  # noqa: PLR2004 - Saturday and Sunday
            rates = rates * self.weekend_ratio
        by_day, by_hour = np.random.default_rng([seed, 1, day]), np.random.default_rng([seed, 2, hour])
        rates = rates * math.exp(self.day_spread * by_day.standard_normal())
        rates = rates * math.exp(self.hour_spread * by_hour.standard_normal())
        for _ in range(by_day.poisson(self.spikes_per_day)):
            since = at / 60.0 - day * 1440.0 - by_day.uniform(0.0, 1440.0)
            rates = np.where((since >= 0) & (since < self.spike_minutes), rates * self.spike_factor, rates)
        rates = rates * (1.0 + self.growth_per_week) ** (at / (7 * _DAY_SECONDS))
        for from_seconds, factor in self.steps:
            rates = np.where(at >= from_seconds, rates * factor, rates)
        return rates


@dataclass(frozen=True, slots=True)
class Bursts:
    """Now and then, so many requests of one kind within a few seconds."""

    kind: Kind
    per_hour: float
    requests: int
    within_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Once:
    """One request at a set time."""

    at_seconds: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """All that one server is sent; kinds are mixed by weight.

    `cache_seconds` is how long an unused prefix stays cached; nothing comes before `from_seconds` or after
    `until_seconds`.
    """

    load: Load = Load(0.0)
    kinds: tuple[Kind, ...] = (Kind(400, 200),)
    bursts: tuple[Bursts, ...] = ()
    once: tuple[Once, ...] = ()
    cache_seconds: float = math.inf
    from_seconds: float = 0.0
    until_seconds: float = math.inf


@dataclass(slots=True)
class Source:
    """Draws a traffic's hours, which must be asked for in order: the prefix cache remembers."""

    traffic: Traffic
    seed: int
    _used_at: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def hour(self, hour: int) -> Arrivals:
        """Return the arrivals of an hour since the beginning."""
        random = np.random.default_rng([self.seed, 3, hour])
        begins = float(hour * HOUR_SECONDS)
        traffic = self.traffic
        counts = random.poisson(traffic.load.rates(hour, self.seed) * 60.0)
        minutes = np.repeat(np.arange(_MINUTES), counts)
        at = begins + 60.0 * (minutes + random.random(len(minutes)))
        weights = np.array(
            [kind.weight * (kind.from_seconds <= begins < kind.until_seconds) for kind in traffic.kinds]
        )
        which = random.choice(len(weights), size=len(at), p=weights / weights.sum())
        drawn = [
            self._requests(number, kind, np.sort(at[which == number]), random)
            for number, kind in enumerate(traffic.kinds)
        ]
        for number, bursts in enumerate(traffic.bursts, len(traffic.kinds)):
            starts = random.uniform(
                0.0, HOUR_SECONDS - bursts.within_seconds, random.poisson(bursts.per_hour)
            )
            offsets = random.uniform(0.0, bursts.within_seconds, (len(starts), bursts.requests))
            drawn.append(
                self._requests(
                    number, bursts.kind, np.sort((begins + starts[:, None] + offsets).ravel()), random
                )
            )
        here = [once for once in traffic.once if begins <= once.at_seconds < begins + HOUR_SECONDS]
        drawn.append(
            (
                np.array([once.at_seconds for once in here], np.float64),
                np.array(
                    [(once.prompt_tokens, once.output_tokens, once.cached_tokens) for once in here], np.int64
                ).reshape(-1, 3),
            )
        )
        all_at = np.concatenate([part for part, _ in drawn])
        order = np.argsort(all_at, kind="stable")
        within = (traffic.from_seconds <= all_at) & (all_at < traffic.until_seconds)
        order = order[within[order]]
        return all_at[order], np.concatenate([sizes for _, sizes in drawn])[order]

    def _requests(
        self, number: int, kind: Kind, at: NDArray[np.float64], random: np.random.Generator
    ) -> Arrivals:
        own = _lengths(random, kind.prompt_tokens, kind.prompt_spread, len(at), kind.max_tokens)
        output = _lengths(random, kind.output_tokens, kind.output_spread, len(at), kind.max_tokens)
        cached = np.zeros(len(at), np.int64)
        if kind.prefixes:
            popularity = 1.0 / np.arange(1, kind.prefixes + 1)
            prefix = random.choice(kind.prefixes, size=len(at), p=popularity / popularity.sum())
            blocks = kind.prefix_tokens // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
            used = self._used_at.setdefault(number, np.full(kind.prefixes, -math.inf))
            cached = np.where(_ages(prefix, at, used) < self.traffic.cache_seconds, blocks, 0)
            own = own + kind.prefix_tokens
        return at, np.stack([own, output, cached], axis=1).astype(np.int64)


def _ages(
    prefix: NDArray[np.int64], at: NDArray[np.float64], used: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how long ago each request's prefix was last used (infinite: never), and note its use."""
    order = np.argsort(prefix, kind="stable")
    grouped, times = prefix[order], at[order]
    before = np.empty_like(times)
    before[1:] = times[:-1]
    first = np.ones(len(grouped), bool)
    first[1:] = grouped[1:] != grouped[:-1]
    before[first] = used[grouped[first]]
    ages = np.empty_like(times)
    ages[order] = np.where(np.isneginf(before), np.nan, times - before)
    used[grouped] = times  # the last of equal indices stands
    return np.where(np.isnan(ages), np.inf, ages) if len(ages) else ages


def _lengths(
    random: np.random.Generator, median: int, spread: float, count: int, most: int
) -> NDArray[np.int64]:
    if not spread:
        return np.full(count, median, np.int64)
    drawn = np.rint(median * np.exp(spread * random.standard_normal(count)))
    clipped: NDArray[np.int64] = np.clip(drawn, 1, most).astype(np.int64)
    return clipped
