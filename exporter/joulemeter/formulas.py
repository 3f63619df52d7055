"""What energy, tokens and money are to each other: with worked examples in tests/test_formulas.py. Pure."""

from typing import Final

from joulemeter.accounting import JOULES_PER_KWH

JOULES_PER_WH: Final = 3600
TOKENS_PER_MTOK: Final = 1_000_000


def ratio(dividend: float | None, divisor: float | None) -> float | None:
    """Return `dividend / divisor`; None where one is unknown or there is nothing to divide by: unknown is not zero."""
    if dividend is None or not divisor:
        return None
    return dividend / divisor


def joules_per_token(power_watts: float, tokens_per_second: float) -> float | None:
    """Return the energy of a token at a power and a throughput; None without throughput."""
    return ratio(power_watts, tokens_per_second)


def tokens_per_joule(power_watts: float, tokens_per_second: float) -> float | None:
    """Return what a joule makes at a power and a throughput; None without power."""
    return ratio(tokens_per_second, power_watts)


def kwh(energy_joules: float) -> float:
    """Return kilowatt-hours."""
    return energy_joules / JOULES_PER_KWH


def watt_hours(energy_joules: float | None) -> float | None:
    """Return watt-hours."""
    return None if energy_joules is None else energy_joules / JOULES_PER_WH


def per_kwh(energy_joules: float | None) -> float | None:
    """Return how many of something (tokens, queries) a kWh makes, if one takes `energy_joules`."""
    return ratio(JOULES_PER_KWH, energy_joules)


def charge_by_token(tokens: float, rate_per_mtok: float) -> float:
    """Return what tokens cost at a rate per million, in the rate's currency."""
    return tokens / TOKENS_PER_MTOK * rate_per_mtok


def charge_by_energy(energy_joules: float, rate_per_kwh: float) -> float:
    """Return what energy costs at a rate per kWh, in the rate's currency."""
    return kwh(energy_joules) * rate_per_kwh


def per_mtok(amount: float, tokens: float) -> float | None:
    """Return an amount (money, grams) per million tokens; None without tokens."""
    return ratio(amount * TOKENS_PER_MTOK, tokens)


def savings_ratio(price: float | None, against: float | None) -> float | None:
    """Return the part saved by paying `price` where `against` would be paid; negative if it costs more."""
    paid = ratio(price, against)
    return None if paid is None else 1 - paid
