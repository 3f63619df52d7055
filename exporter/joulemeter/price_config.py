"""The section `price` of the configuration: what electricity and GPUs cost."""

import re
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from joulemeter.accounting import Tariff
from joulemeter.schedule import Schedule, Span, read_spans
from joulemeter.settings import Section, shown

CURRENCY: Final = re.compile("[A-Z]{3}")
HIGHEST_PRICE: Final = 1e6
"""Per kWh or hour; a bound for slips of the finger in any currency."""


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """What energy and GPUs cost; without it there are no series of cost."""

    per_kwh: float | None = None
    """Price of a kWh of electricity. Where `time_of_use` has rows, that of all other times."""
    time_of_use: tuple[Span, ...] = ()
    """Rows `{from: "22:00", to: "06:00", days: mon-fri, months: nov-mar, per_kwh: 0.1}`; the first that is on counts.
    Times are the site's (`time_zone`); a price may be negative: what it gives back is counted apart."""
    currency: str | None = None
    """ISO 4217 code of all prices, such as EUR: a label; nothing is converted."""
    gpu_hour: float | None = None
    """Price of an hour of one GPU, used or not."""

    def tariff(self, site: ZoneInfo | None) -> Tariff | None:
        """Return the tariff; None if nothing has a price."""
        if self.currency is None:
            return None
        per_kwh = None if self.per_kwh is None else Schedule(self.per_kwh, self.time_of_use, site)
        return Tariff(self.currency, per_kwh, self.gpu_hour)


def read_price(section: Section, site: ZoneInfo | None) -> PriceSettings:
    """Read the section `price`; `site` is the site's time zone."""
    price = PriceSettings(
        per_kwh=section.number("per_kwh", None, low=-HIGHEST_PRICE, high=HIGHEST_PRICE),
        time_of_use=read_spans(
            section, "time_of_use", site, value_key="per_kwh", low=-HIGHEST_PRICE, high=HIGHEST_PRICE
        ),
        currency=section.converted("currency", None, _currency),
        gpu_hour=section.number("gpu_hour", None, low=0, high=HIGHEST_PRICE),
    )
    if price.time_of_use and price.per_kwh is None:
        section.problem(
            "per_kwh", "missing; give the price of the times that no row of time_of_use holds for"
        )
    if section.get("currency") is None and (price.per_kwh, price.gpu_hour) != (None, None):
        section.problem("currency", "missing; give the currency of the prices, such as EUR")
    section.finish()
    return price


def _currency(value: object) -> str:
    if isinstance(value, str) and CURRENCY.fullmatch(value):
        return value
    raise ValueError(f"expected an ISO 4217 code such as EUR or USD, got {shown(value)}")
