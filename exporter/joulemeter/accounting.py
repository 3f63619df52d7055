"""Joules to grams of CO2e and to money, at the intensity and the price that held when they were used. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from joulemeter.model import Amount
from joulemeter.schedule import Schedule

JOULES_PER_KWH: Final = 3_600_000
HOUR_SECONDS: Final = 3600.0

Step = tuple[float, float]
"""A value, and until when at least it holds (the time that was asked in)."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What energy and GPUs cost, in one currency.

    Args:
        currency: ISO 4217, for people: nothing is converted.
        per_kwh: price of a kWh at the meter of the building; may be negative. None: electricity has no price.
        gpu_hour: price of an hour of one GPU, used or not. None: it has none.
    """

    currency: str
    per_kwh: Schedule | None = None
    gpu_hour: float | None = None


class Pricer:
    """Prices energy when it is measured.

    Args:
        intensity_grams_per_kwh: a step of the grid's carbon intensity at a monotonic instant.
        pue: power usage effectiveness, >= 1: what the building draws per unit of IT energy. It scales grams
            and the cost of electricity, never joules.
        tariff: None if nothing has a price.
        unix_offset_seconds: Unix time less monotonic time, now; tariffs follow the wall clock.

    Source: Green Software Foundation, SCI specification 1.1, O = E * I.
    """

    def __init__(
        self,
        intensity_grams_per_kwh: Callable[[float], Step],
        *,
        pue: float,
        tariff: Tariff | None = None,
        unix_offset_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        if not (math.isfinite(pue) and pue >= 1):
            raise ValueError(f"pue={pue} is not a finite number >= 1")
        self._intensity = intensity_grams_per_kwh
        self._pue = pue
        self._tariff = tariff
        self._offset = unix_offset_seconds

    def __call__(self, energy_joules: float, begin_seconds: float, end_seconds: float) -> Amount:
        """Return energy that was used evenly from `begin_seconds` to `end_seconds`, with what it caused and cost.

        Where an intensity or a price ends in between, each part has its own.

        Conserves:
            It is additive: what the parts of an interval cause and cost is what the whole does. The joules
            are returned as they came.

        Raises:
            ValueError: the energy is negative or not finite, or the interval ends before it begins.
        """
        if not (math.isfinite(energy_joules) and energy_joules >= 0):
            raise ValueError(f"energy_joules={energy_joules} is not a finite number >= 0")
        if not begin_seconds <= end_seconds:
            raise ValueError(f"an interval from {begin_seconds} to {end_seconds} ends before it begins")
        seconds = end_seconds - begin_seconds
        grams = cost = credit = 0.0
        at_seconds = begin_seconds
        while True:
            intensity, intensity_until = self._intensity(at_seconds)
            price, price_until = self._price(at_seconds)
            until_seconds = min(
                end_seconds, max(min(intensity_until, price_until), math.nextafter(at_seconds, math.inf))
            )
            share = (until_seconds - at_seconds) / seconds if seconds else 1.0
            kwh = energy_joules / JOULES_PER_KWH * self._pue * share
            grams += kwh * intensity
            cost += kwh * max(price, 0.0)
            credit += kwh * max(-price, 0.0)
            if until_seconds >= end_seconds:
                break
            at_seconds = until_seconds
        gpu_hour = self._tariff.gpu_hour if self._tariff else None
        return Amount(energy_joules, grams, cost, (gpu_hour or 0.0) * seconds / HOUR_SECONDS, credit)

    def price_per_kwh(self, timestamp_seconds: float) -> float | None:
        """Return the price of a kWh at an instant (Unix time); None where electricity has none."""
        if self._tariff is None or self._tariff.per_kwh is None:
            return None
        return self._tariff.per_kwh.at(timestamp_seconds)[0]

    def _price(self, at_seconds: float) -> Step:
        if self._tariff is None or self._tariff.per_kwh is None:
            return 0.0, math.inf
        offset = self._offset()
        price, until = self._tariff.per_kwh.at(at_seconds + offset)
        return price, until - offset


def unpriced(energy_joules: float, begin_seconds: float, end_seconds: float) -> Amount:  # noqa: ARG001 - a Pricer's
    """Return the energy alone, for books that keep joules only."""
    return Amount(energy_joules)
