"""Joulemeter / Carbon and grid: when the energy was used, how clean the grid was then, and what it cost."""

from collections.abc import Mapping
from typing import Final

from dashboards.page import Row, currency, dashboard, model_variables, number
from dashboards.panels import Query, bargauge, stat, timeseries
from dashboards.queries import (
    CO2E,
    CURRENCY,
    EXPORTER,
    GENERATED,
    GPU_CO2E,
    GPU_COST,
    GPU_ENERGY,
    MILLION,
    SUBQUERY,
    TOKENS_PER_SECOND_FLOOR,
    Counter,
    kwh,
    node,
    over,
    recent,
    whole,
)
from dashboards.tables import Column, state_timeline, table
from dashboards.words import INTENSITY, LOGARITHMIC, NO_ENERGY, NO_GRID, NO_PRICE, NO_TRAFFIC, OPERATIONAL
from joulemeter import catalog
from joulemeter.accounting import JOULES_PER_KWH

UID: Final = "joulemeter-carbon"
AVERAGE: Final = node(catalog.GRID_INTENSITY, signal="average")
HERE: Final = f"max by ({EXPORTER}) ({AVERAGE})"
POWER: Final = f"sum by ({EXPORTER}) (rate({GPU_ENERGY.series}[5m]))"
CLEAN: Final = "$clean"
BANDS: Final[Mapping[float, str]] = {
    0: "dark-green",
    100: "green",
    200: "yellow",
    400: "orange",
    600: "red",
}
ON_THE_RIGHT: Final = "gCO₂e / kWh"
OVERLAY_HEIGHT: Final = 11
"""A legend of two models and two zones is seen whole."""
CREDIT: Final = Counter(node(catalog.ENERGY_CREDIT, currency=CURRENCY))
ELECTRICITY: Final = Counter(node(catalog.GPU_COST, currency=CURRENCY, component="electricity"))


def effective() -> str:
    """Grams over kWh: the intensity, weighted with when the energy was used, times PUE."""
    return f"{JOULES_PER_KWH} * {over(GPU_CO2E.increase(), GPU_ENERGY.increase())}"


def clean_share() -> str:
    """The part of the energy that was used while the node's grid was cleaner than the variable says."""
    clean = f"sum({POWER} and on ({EXPORTER}) ({HERE} < {CLEAN}))"
    return f"(sum_over_time(({clean}){SUBQUERY}) or vector(0)) / sum_over_time(sum({POWER}){SUBQUERY})"


def shift_potential() -> str:
    """What would have been saved by using all energy at the cleanest quarter of each node's hours."""
    cleanest = f"quantile_over_time(0.25, {HERE}{SUBQUERY})"
    pue = f"max by ({EXPORTER}) ({node(catalog.PUE)})"
    best = f"sum({kwh(GPU_ENERGY, EXPORTER)} * on ({EXPORTER}) {cleanest} * on ({EXPORTER}) {pue})"
    return f"1 - {best} / ({GPU_CO2E.increase()} > 0)"


def summary() -> Row:
    """The numbers of the selected range."""
    return Row(
        "Selected range",
        [
            stat(
                "Grid intensity now",
                means="Carbon intensity of electricity that joules are priced with now; the highest of the"
                " nodes' zones.",
                unit=INTENSITY,
                query=f"max({AVERAGE})",
                no_data=NO_GRID,
                steps=BANDS,
                decimals=0,
            ),
            stat(
                "CO₂e",
                means=f"Of all selected GPUs over the range. {OPERATIONAL}",
                unit="massg",
                query=GPU_CO2E.increase(),
                no_data=NO_GRID,
            ),
            stat(
                "Effective intensity",
                means="Emissions over energy: the intensity weighted by when the energy was used, PUE"
                " included. Below the plain mean times PUE: the load sits in cleaner hours.",
                unit=INTENSITY,
                query=effective(),
                no_data=NO_ENERGY,
                decimals=0,
            ),
            stat(
                "CO₂e / M gen. tokens",
                means=f"Of the selected models over the range. {OPERATIONAL}",
                unit="massg",
                query=f"{MILLION} * {whole(CO2E, GENERATED)}",
                no_data=NO_TRAFFIC,
            ),
            stat(
                "Energy in clean hours",
                means="Share of the energy that was used while the intensity was below the variable Clean"
                " below.",
                unit="percentunit",
                query=clean_share(),
                no_data=NO_ENERGY,
                decimals=0,
            ),
            stat(
                "Shift potential",
                means="Emissions saved if all energy of the range had been used at the intensity of the"
                " cleanest quarter of its time: an upper bound for moving load that can wait. Negative: it"
                " already sits there.",
                unit="percentunit",
                query=shift_potential(),
                no_data=NO_ENERGY,
                decimals=0,
            ),
        ],
    )


def overlay() -> Row:
    """Energy and the grid over the same time."""
    by_zone = f"max by (zone) ({AVERAGE})"
    forecast = f"avg by (zone, horizon) ({node(catalog.GRID_FORECAST)})"
    return Row(
        "Use over the grid's intensity",
        [
            timeseries(
                "GPU power and grid intensity",
                means="Power of the selected GPUs (left, filled) with the carbon intensity of the grid"
                " (right, dashed): peaks that coincide are the dear ones.",
                unit="watt",
                queries=[
                    Query(GPU_ENERGY.rate(), "GPU power"),
                    Query(by_zone, "intensity {{zone}}", right=ON_THE_RIGHT),
                ],
                no_data=NO_ENERGY,
                stacked=True,
                height=OVERLAY_HEIGHT,
            ),
            timeseries(
                "CO₂e / M generated tokens and grid intensity",
                means="Emissions per million generated tokens by model (left) with the intensity (right,"
                f" dashed): tells a dirtier grid from a less efficient server. {LOGARITHMIC}",
                unit="massg",
                queries=[
                    Query(
                        f"{MILLION} * {recent(CO2E, GENERATED, 'model', floor=TOKENS_PER_SECOND_FLOOR)}",
                        "{{model}}",
                    ),
                    Query(by_zone, "intensity {{zone}}", right=ON_THE_RIGHT),
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
                height=OVERLAY_HEIGHT,
            ),
            timeseries(
                "Emission rate by model",
                means="Grams of CO₂e per hour by model, stacked. Unattributed energy is not in it."
                f" {OPERATIONAL}",
                unit="suffix:g/h",
                queries=[Query(f"3600 * {CO2E.rate('model')}", "{{model}}")],
                no_data=NO_GRID,
                stacked=True,
            ),
            bargauge(
                "Intensity now and as expected",
                means="Carbon intensity of each zone now, and what the source in use expects some hours"
                " ahead, where it says.",
                unit=INTENSITY,
                queries=[Query(by_zone, "{{zone}} now"), Query(forecast, "{{zone}} in {{horizon}}")],
                no_data=NO_GRID,
                height=10,
            ),
            state_timeline(
                "Clean and dirty hours",
                means="Intensity by zone, coloured by band: below 100, 200, 400, 600 gCO₂e/kWh and above."
                " To place work that can wait.",
                unit=INTENSITY,
                queries=[Query(by_zone, "{{zone}}")],
                no_data=NO_GRID,
                steps=BANDS,
                width=24,
                height=5,
            ),
        ],
    )


def money() -> Row:
    """What it cost, and when."""
    price = node(catalog.PRICE, currency=CURRENCY)
    return Row(
        "Price of electricity",
        [
            stat(
                "Cost of GPUs ($currency)",
                means="Electricity × PUE at the price when it was used, and GPU time if it has a price, of"
                " all selected GPUs over the range.",
                unit="short",
                query=GPU_COST.increase(),
                no_data=NO_PRICE,
                decimals=2,
                width=8,
            ),
            stat(
                "Paid / kWh ($currency)",
                means="Cost of electricity over the energy of the GPUs: the price weighted with when energy"
                " was used, PUE included. Below the plain mean × PUE: the load sits in cheaper hours.",
                unit="short",
                query=f"{ELECTRICITY.increase()} / (({kwh(GPU_ENERGY)}) > 0)",
                no_data=NO_PRICE,
                decimals=3,
                width=8,
            ),
            stat(
                "Given back ($currency)",
                means="What negative prices gave back over the range. It is no part of any cost: cost"
                " counters never fall.",
                unit="short",
                query=CREDIT.increase(),
                no_data=NO_PRICE,
                decimals=2,
                width=8,
            ),
            timeseries(
                "GPU power and price of electricity",
                means="Power of the selected GPUs (left, filled) with the price of a kWh in the chosen"
                " currency (right, dashed), by node: nodes may pay different ones.",
                unit="watt",
                queries=[
                    Query(GPU_ENERGY.rate(), "GPU power"),
                    Query(
                        f"max by (instance) ({price})",
                        "{{instance}}, $currency / kWh",
                        right="price of a kWh",
                        right_decimals=2,
                    ),
                ],
                no_data=NO_ENERGY,
                stacked=True,
                width=24,
                height=10,
            ),
        ],
    )


def grids() -> Row:
    """Where the numbers come from."""
    zone = "zone"
    in_zone = f"max by ({EXPORTER}, zone) ({node(catalog.GRID_INFO)})"
    joules = f"sum by ({EXPORTER}) (increase({GPU_ENERGY.series}[$__range]))"
    begun = node(catalog.GRID_VALID_FROM, signal="average")
    source = "zone, source, factor, boundary, granularity, dataset"
    return Row(
        "Zones and sources",
        [
            table(
                "Zones, in the selected range",
                means="Intensity of the grids of the selected nodes, and the energy used there. Age is the"
                " time since the begin of the interval whose value is used: high means that the source"
                " stopped answering, or that the factor is an annual one.",
                labels={"zone": "Zone"},
                columns=[
                    Column("Now", f"max by ({zone}) ({AVERAGE})", INTENSITY, steps=BANDS, decimals=0),
                    Column(
                        "Least",
                        f"min by ({zone}) (min_over_time({AVERAGE}[$__range]))",
                        INTENSITY,
                        decimals=0,
                    ),
                    Column(
                        "Mean",
                        f"avg by ({zone}) (avg_over_time({AVERAGE}[$__range]))",
                        INTENSITY,
                        decimals=0,
                    ),
                    Column(
                        "Most",
                        f"max by ({zone}) (max_over_time({AVERAGE}[$__range]))",
                        INTENSITY,
                        decimals=0,
                    ),
                    Column("Renewable", f"avg by ({zone}) ({node(catalog.GRID_RENEWABLE)})", "percentunit"),
                    Column(
                        "Energy",
                        f"sum by ({zone}) ({joules} * on ({EXPORTER}) group_left (zone) {in_zone})"
                        f" / {JOULES_PER_KWH}",
                        "kwatth",
                    ),
                    Column("Age", f"max by ({zone}) (time() - {begun})", "s"),
                ],
                no_data=NO_GRID,
                width=16,
                height=6,
            ),
            bargauge(
                "Time by quality of the intensity",
                means="Share of the range in which the intensity in use was of each quality, mean over the"
                " selected nodes: measured or estimated by the source, forecast, stale (its last value is"
                " held), or static (an annual factor).",
                unit="percentunit",
                queries=[
                    Query(
                        f"sort_desc(avg by (quality)"
                        f" (avg_over_time({node(catalog.GRID_QUALITY)}[$__range])) > 0)",
                        "{{quality}}",
                    )
                ],
                no_data=NO_GRID,
                width=8,
                height=6,
            ),
            table(
                "Sources in use now",
                means="Where each zone's intensity comes from: source, kind of emission factor, what it"
                " counts, the length of its intervals and the data set, as a report has to name them.",
                labels={
                    "zone": "Zone",
                    "source": "Source",
                    "factor": "Factor",
                    "boundary": "Boundary",
                    "granularity": "Granularity",
                    "dataset": "Data set",
                },
                columns=[Column("Nodes", f"count by ({source}) ({node(catalog.GRID_INFO)})", "none")],
                no_data=NO_GRID,
                width=24,
                height=5,
            ),
        ],
    )


def build() -> str:
    """Return the dashboard's JSON."""
    return dashboard(
        UID,
        "Joulemeter / Carbon and grid",
        means="When the energy was used, how clean the grid was then, and what electricity cost. Emissions"
        " are operational and location-based.",
        variables=[*model_variables(), currency(), number("clean", "Clean below (g/kWh)", "200")],
        rows=[summary(), overlay(), money(), grids()],
    )
