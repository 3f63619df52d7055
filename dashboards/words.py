"""Words, units and colours that the dashboards share.

Money has no unit of Grafana's, for units take no variable: the currency stands in titles and headings.
"""

from typing import Final

from dashboards.queries import TOKENS_PER_SECOND_FLOOR

NO_ENERGY: Final = "no GPU energy"
NO_MODEL: Final = "no model yet"
NO_TRAFFIC: Final = "no traffic"
NO_PRICE: Final = "no price configured"
NO_GRID: Final = "no grid intensity"
NO_RECORDS: Final = "recording rules not loaded"
NO_EXPORTER: Final = "no exporter"

GREY: Final = "#8e8e8e"
PHASE_COLOURS: Final = {"^prefill": "orange", "^decode": "blue", "^(idle|unsplit)": GREY}

PER_TOKEN: Final = "si:J/tok"  # noqa: S105 - a unit
TOKENS_PER_SECOND: Final = "suffix:tok/s"
INTENSITY: Final = "suffix:g/kWh"

BOUNDARY: Final = "GPU boards only: CPU, memory, network and cooling are not in it."
OPERATIONAL: Final = (
    "Operational emissions, location-based: energy × PUE × the grid's intensity when it was used."
)
PRICED: Final = "Electricity (× PUE, at the price when it was used) and, if it has a price, the GPUs' time."
QUIET: Final = f"Times with less than {TOKENS_PER_SECOND_FLOOR:g} tokens per second are left out."
LOGARITHMIC: Final = f"{QUIET} Logarithmic axis."
SLOW_BUT_EXACT: Final = (
    "From the raw counters: for ranges of weeks look at the row of recorded hours instead."
)
