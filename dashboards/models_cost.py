"""Rows of the dashboard Model efficiency: money and emissions, and meaningful responses."""

from typing import Final

from dashboards.page import Row
from dashboards.panels import Query, stat, timeseries
from dashboards.queries import (
    CO2E,
    COMPUTED,
    COST,
    ELECTRICITY_COST,
    ENERGY,
    GENERATED,
    MILLION,
    REQUESTS,
    TOKENS_PER_SECOND_FLOOR,
    Counter,
    recent,
    whole,
)
from dashboards.tables import Column, table
from dashboards.words import (
    LOGARITHMIC,
    NO_GRID,
    NO_PRICE,
    NO_TRAFFIC,
    OPERATIONAL,
    PHASE_COLOURS,
    PRICED,
)

CHANGE: Final = "($change / 100)"
ATTEMPTS: Final = "$attempts"
SIDE_TOKENS: Final = "$side_tokens"
SIDE_PRICE: Final = "$side_price"


def per_money(what: Counter) -> str:
    """Return how much of it one unit of the currency bought."""
    return whole(what, COST)


def _by(top: Counter, label: str) -> str:
    """Return amounts per million generated tokens of all chosen models, by a label of the amounts."""
    tokens = f"({GENERATED.rate()} > {TOKENS_PER_SECOND_FLOOR:g})"
    return f"{MILLION} * {top.rate(label)} / on () group_left () {tokens}"


def per_million() -> Row:
    """Money and grams per million tokens."""
    return Row(
        "Cost and emissions per million generated tokens",
        [
            stat(
                "$currency / M generated tokens",
                means=f"Of the selected models over the range. {PRICED}",
                unit="short",
                query=f"{MILLION} * {whole(COST, GENERATED)}",
                no_data=NO_PRICE,
                decimals=3,
                width=6,
            ),
            stat(
                "CO₂e / M generated tokens",
                means=f"Of the selected models over the range. {OPERATIONAL}",
                unit="massg",
                query=f"{MILLION} * {whole(CO2E, GENERATED)}",
                no_data=NO_GRID,
                width=6,
            ),
            stat(
                "$currency / kWh, all in",
                means="Cost of the selected models over their energy: the electricity's price × PUE, and"
                " GPU time spread over it. What idle GPUs cost shows here.",
                unit="short",
                query=f"3600000 * {whole(COST, ENERGY)}",
                no_data=NO_PRICE,
                decimals=3,
                width=6,
            ),
            stat(
                "Electricity's share of cost",
                means="Electricity's share of the selected models' cost over the range; the rest is GPU"
                " time.",
                unit="percentunit",
                query=whole(ELECTRICITY_COST, COST),
                no_data=NO_PRICE,
                width=6,
            ),
            timeseries(
                "$currency / M generated tokens by component",
                means="Electricity and GPU time per million generated tokens of all selected models; grey and"
                f" dashed: both. GPU time costs at night as much as by day. {LOGARITHMIC}",
                unit="short",
                queries=[
                    Query(_by(COST, "component"), "{{component}}"),
                    Query(f"{MILLION} * {recent(COST, GENERATED)}", "both", dashed=True),
                ],
                no_data=NO_PRICE,
                logarithmic=True,
                decimals=3,
                width=8,
            ),
            timeseries(
                "$currency / M generated tokens by phase",
                means="Cost of prefill, decode and idle per million generated tokens of all selected"
                f" models. The split between phases is an estimate. {LOGARITHMIC}",
                unit="short",
                queries=[Query(_by(COST, "phase"), "{{phase}}")],
                no_data=NO_PRICE,
                logarithmic=True,
                decimals=3,
                colours=PHASE_COLOURS,
                width=8,
            ),
            timeseries(
                "CO₂e / M generated tokens by phase",
                means="Emissions of prefill, decode and idle per million generated tokens of all selected"
                f" models. The split between phases is an estimate. {LOGARITHMIC}",
                unit="massg",
                queries=[Query(_by(CO2E, "phase"), "{{phase}}")],
                no_data=NO_GRID,
                logarithmic=True,
                colours=PHASE_COLOURS,
                width=8,
            ),
        ],
    )


def responses() -> Row:
    """What a useful answer costs, and what would change that."""
    attempts = (
        "The variable Attempts says how many requests it takes on average until a response is of use; pre-"
        " and post-processing tokens (guards, rerankers, judges) are per response"
    )
    own = f"{SIDE_TOKENS} * {whole(ENERGY, COMPUTED)}"
    priced = f"{SIDE_TOKENS} * {SIDE_PRICE} / {MILLION}"
    base_cost = f"{MILLION} * {whole(COST, GENERATED)}"
    base_co2e = f"{MILLION} * {whole(CO2E, GENERATED)}"
    share = f"({whole(ELECTRICITY_COST, COST)} or 0 * ({base_cost}))"
    slower = f"(1 / (1 + {CHANGE}) - 1)"
    levers = {
        "throughput at the same power": (slower, slower),
        "price of electricity": (f"{share} * {CHANGE}", "0"),
        "price of GPU time": (f"(1 - {share}) * {CHANGE}", "0"),
        "PUE": (f"{share} * {CHANGE}", CHANGE),
        "carbon intensity": ("0", CHANGE),
    }

    def rows(base: str, column: int, *, relative: bool) -> str:
        """One series per lever; the base keeps a lever out where nothing is known."""
        parts = [
            f"0 * ({base}) + {factors[column]}" if relative else f"({base}) * (1 + {factors[column]})"
            for factors in levers.values()
        ]
        return " or ".join(
            f'label_replace({part}, "lever", "{lever}", "", "")'
            for lever, part in zip(levers, parts, strict=True)
        )

    return Row(
        "Meaningful responses, and what would change the figures",
        [
            stat(
                "Wh / meaningful response",
                means=f"Energy per response that was of use. {attempts}, at the selected models' own energy"
                " per token.",
                unit="watth",
                query=f"({ATTEMPTS} * {whole(ENERGY, REQUESTS)} + {own}) / 3600",
                no_data=NO_TRAFFIC,
                width=6,
                height=8,
            ),
            stat(
                "$currency / 1000 meaningful responses",
                means=f"Cost of a thousand responses that were of use. {attempts}, at their own price per"
                " million.",
                unit="short",
                query=f"1000 * ({ATTEMPTS} * {whole(COST, REQUESTS)} + {priced})",
                no_data=NO_PRICE,
                decimals=3,
                width=6,
                height=8,
            ),
            table(
                "If it rose by $change %",
                means="What cost and emissions per million generated tokens would be, and how much that"
                " differs, if one thing rose by the variable Change (negative: fell). More throughput at"
                " the same power is the best that batching can do; each row alone.",
                labels={"lever": "If this rises"},
                columns=[
                    Column(
                        "Cost/Mtok",
                        rows(base_cost, 0, relative=False),
                        decimals=3,
                        width=105,
                        shown="$currency/Mtok",
                    ),
                    Column(
                        "Cost changes",
                        rows(base_cost, 0, relative=True),
                        "percentunit",
                        decimals=1,
                        width=125,
                    ),
                    Column("CO₂e/Mtok", rows(base_co2e, 1, relative=False), "massg", width=105),
                    Column(
                        "CO₂e changes",
                        rows(base_co2e, 1, relative=True),
                        "percentunit",
                        decimals=1,
                        width=125,
                    ),
                ],
                no_data=NO_TRAFFIC,
                width=12,
                height=8,
            ),
        ],
    )
