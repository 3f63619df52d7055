"""What the same traffic costs when it is sold by the token, and when it is sold by the energy. Pure."""

import math
from dataclasses import dataclass

from joulemeter import formulas
from joulemeter.errors import ConfigError
from joulemeter.report.rows import Row, Section


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in one currency, whichever: per million tokens, and per kWh of GPU energy."""

    prompt_per_mtok: float | None = None
    cached_prompt_per_mtok: float | None = None
    """Prompt tokens that were not computed; None: as those that were."""
    generation_per_mtok: float | None = None
    sell_per_kwh: float | None = None

    @property
    def by_token(self) -> bool:
        """Whether tokens have a price."""
        return self.prompt_per_mtok is not None

    @property
    def any(self) -> bool:
        """Whether anything has a price."""
        return self.by_token or self.sell_per_kwh is not None


@dataclass(frozen=True, slots=True)
class Charge:
    """A model's traffic at these rates; per million of all its tokens, cached ones too. None: not priced."""

    by_token_cost: float | None
    by_energy_cost: float | None
    by_token_per_mtok: float | None
    by_energy_per_mtok: float | None
    savings_ratio: float | None


def checked(rates: Rates) -> Rates:
    """Return the rates.

    Raises:
        ConfigError: one of them is no price, or half of a pair.
    """
    given = {
        "--rate-prompt": rates.prompt_per_mtok,
        "--rate-cached-prompt": rates.cached_prompt_per_mtok,
        "--rate-generation": rates.generation_per_mtok,
        "--sell-per-kwh": rates.sell_per_kwh,
    }
    problems = [
        f"{option}: expected a price >= 0, got {value:g}"
        for option, value in given.items()
        if value is not None and not (math.isfinite(value) and value >= 0)
    ]
    if (rates.prompt_per_mtok is None) != (rates.generation_per_mtok is None):
        problems.append("--rate-prompt and --rate-generation: one is missing; give both")
    elif rates.cached_prompt_per_mtok is not None and rates.prompt_per_mtok is None:
        problems.append("--rate-cached-prompt: give --rate-prompt and --rate-generation too")
    if problems:
        raise ConfigError(problems)
    return rates


def charge(row: Row, rates: Rates) -> Charge | None:
    """Return what a row's traffic costs; None for one without traffic of its own."""
    if row.section is not Section.MODEL or not row.tokens:
        return None
    tokens = sum(row.tokens.values())
    by_token = _by_token(row, rates)
    by_energy = (
        None
        if rates.sell_per_kwh is None
        else formulas.charge_by_energy(row.energy_joules, rates.sell_per_kwh)
    )
    return _charge(by_token, by_energy, tokens)


def total_charge(rows: tuple[Row, ...], rates: Rates) -> Charge:
    """Return what the traffic of all models costs: the sum of theirs. Energy of no model is not sold."""
    charged = [(row, one) for row in rows if (one := charge(row, rates)) is not None]
    tokens = math.fsum(count for row, _ in charged for count in row.tokens.values())
    by_token = math.fsum(one.by_token_cost or 0.0 for _, one in charged) if rates.by_token else None
    by_energy = None
    if rates.sell_per_kwh is not None:
        by_energy = math.fsum(one.by_energy_cost or 0.0 for _, one in charged)
    return _charge(by_token, by_energy, tokens)


def _by_token(row: Row, rates: Rates) -> float | None:
    if rates.prompt_per_mtok is None or rates.generation_per_mtok is None:
        return None
    cached = rates.cached_prompt_per_mtok
    prices = {
        "prompt": rates.prompt_per_mtok,
        "cached_prompt": rates.prompt_per_mtok if cached is None else cached,
        "generation": rates.generation_per_mtok,
    }
    return math.fsum(formulas.charge_by_token(count, prices[kind]) for kind, count in row.tokens.items())


def _charge(by_token: float | None, by_energy: float | None, tokens: float) -> Charge:
    return Charge(
        by_token,
        by_energy,
        None if by_token is None else formulas.per_mtok(by_token, tokens),
        None if by_energy is None else formulas.per_mtok(by_energy, tokens),
        formulas.savings_ratio(by_energy, by_token),
    )
