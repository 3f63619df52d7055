"""Joulemeter / Fleet: what all GPUs draw, what they deliver for it, who uses it, what it costs and emits."""

from typing import Final

from dashboards import records
from dashboards.page import ALERTS, Row, currency, dashboard, model_variables
from dashboards.panels import Panel, Query, bargauge, stat, timeseries
from dashboards.queries import (
    CO2E,
    COST,
    CURRENCY,
    ENERGY,
    GENERATED,
    GPU_CO2E,
    GPU_COST,
    GPU_ENERGY,
    IDLE_ENERGY,
    MILLION,
    REQUESTS,
    UNATTRIBUTED,
    kwh,
    node,
    over,
    recent,
    share_attributed,
    whole,
)
from dashboards.tables import Column, state_timeline, table
from dashboards.words import (
    BOUNDARY,
    GREY,
    LOGARITHMIC,
    NO_ENERGY,
    NO_EXPORTER,
    NO_GRID,
    NO_MODEL,
    NO_PRICE,
    NO_RECORDS,
    NO_TRAFFIC,
    OPERATIONAL,
    PER_TOKEN,
    PRICED,
    QUIET,
    SLOW_BUT_EXACT,
    TOKENS_PER_SECOND,
)
from joulemeter import catalog
from joulemeter.accounting import JOULES_PER_KWH

UID: Final = "joulemeter-fleet"
WHO: Final = "namespace, model"
DAY: Final = "1d"
DAY_HOURS: Final = 24
SEVERITIES: Final = ("info", "warning", "critical")


def summary() -> Row:
    """The numbers of now and of the selected range."""
    return Row(
        "Now, and in the selected range",
        [
            stat(
                "GPU power now",
                means=f"Power of all selected GPUs, from their energy counters. {BOUNDARY}",
                unit="watt",
                query=GPU_ENERGY.rate(),
                no_data=NO_ENERGY,
                width=3,
            ),
            stat(
                "Tokens / s now",
                means="Generated tokens per second of the selected models, over the last minutes.",
                unit=TOKENS_PER_SECOND,
                query=GENERATED.rate(),
                no_data=NO_TRAFFIC,
                decimals=0,
                width=3,
            ),
            stat(
                "J / gen. token",
                means="All energy of the selected models (prefill, decode, idle) over their generated"
                f" tokens, over the last minutes. Lower is better; it rises when batches are small. {QUIET}",
                unit=PER_TOKEN,
                query=recent(ENERGY, GENERATED),
                no_data=NO_TRAFFIC,
                width=3,
            ),
            stat(
                "GPU energy",
                means=f"Energy of all selected GPUs over the range. {BOUNDARY} {SLOW_BUT_EXACT}",
                unit="kwatth",
                query=kwh(GPU_ENERGY),
                no_data=NO_ENERGY,
                width=3,
            ),
            stat(
                "Cost ($currency)",
                means=f"Of all selected GPUs over the range. {PRICED}",
                unit="short",
                query=GPU_COST.increase(),
                no_data=NO_PRICE,
                decimals=2,
                width=3,
            ),
            stat(
                "CO₂e",
                means=f"Of all selected GPUs over the range. {OPERATIONAL}",
                unit="massg",
                query=GPU_CO2E.increase(),
                no_data=NO_GRID,
                width=3,
            ),
            stat(
                "Share attributed",
                means="Share of the measured GPU energy that was attributed to a model, whichever models"
                " are selected. The rest is unattributed, with its reason on the exporter's dashboard, or a"
                " few seconds old.",
                unit="percentunit",
                query=share_attributed(),
                no_data=NO_ENERGY,
                width=3,
            ),
            stat(
                "Readings",
                means="Whether any selected exporter serves simulated readings (`joulemeter demo`)."
                " Simulated numbers say nothing about real hardware.",
                unit="none",
                query=f"max({node(catalog.SIMULATED)})",
                no_data=NO_EXPORTER,
                steps={0: "green", 1: "orange"},
                texts={"0": "measured", "1": "SIMULATED"},
                width=3,
            ),
        ],
    )


def power() -> Row:
    """Who draws it, and how well it is used."""
    return Row(
        "Power and efficiency",
        [
            timeseries(
                "Power by model",
                means="Attributed power of the selected models, idle included, with the unattributed rest"
                " on top: with all models selected, the stack is as high as the power of all GPUs, some"
                f" seconds ago. {BOUNDARY}",
                unit="watt",
                queries=[
                    Query(ENERGY.rate("model"), "{{model}}"),
                    Query(UNATTRIBUTED.rate(), "unattributed"),
                ],
                no_data=NO_ENERGY,
                stacked=True,
                colours={"^unattributed$": GREY},
            ),
            timeseries(
                "J / generated token by model",
                means="All energy of a model (prefill, decode, idle) over its generated tokens."
                f" {LOGARITHMIC} It follows the load: compare models at similar load, on the dashboard Model"
                " efficiency.",
                unit=PER_TOKEN,
                queries=[Query(recent(ENERGY, GENERATED, "model"), "{{model}}")],
                no_data=NO_TRAFFIC,
                logarithmic=True,
            ),
        ],
    )


def who() -> Row:
    """Who uses it."""
    return Row(
        "Who uses it, in the selected range",
        [
            table(
                "Models",
                means="Energy, efficiency, cost and emissions of every selected model. Cost is electricity"
                " and, if it has a price, GPU time.",
                labels={"namespace": "Namespace", "model": "Model"},
                columns=[
                    Column("Energy", kwh(by=WHO), "kwatth"),
                    Column("J/gen. token", whole(ENERGY, GENERATED, WHO), PER_TOKEN, width=100),
                    Column("Wh/request", f"{whole(ENERGY, REQUESTS, WHO)} / 3600", "watth", width=100),
                    Column("Tokens", GENERATED.increase(WHO)),
                    Column("Idle", whole(IDLE_ENERGY, ENERGY, WHO), "percentunit", width=80),
                    Column("Cost", COST.increase(WHO), decimals=2, shown="$currency"),
                    Column(
                        "Cost/Mtok",
                        f"{MILLION} * {whole(COST, GENERATED, WHO)}",
                        decimals=3,
                        width=110,
                        shown="$currency/Mtok",
                    ),
                    Column("CO₂e", CO2E.increase(WHO), "massg"),
                    Column("CO₂e/Mtok", f"{MILLION} * {whole(CO2E, GENERATED, WHO)}", "massg", width=100),
                ],
                no_data=NO_MODEL,
                sort_by="Energy",
                height=6,
            ),
            table(
                "Nodes",
                means="One row per exporter, which is one node. Utilization is the mean over its GPUs now,"
                " of the time in which a kernel ran; unattributed is the share of its energy that no model"
                " is charged for.",
                labels={"instance": "Node"},
                columns=[
                    Column("GPUs", f"count by (instance) ({node(catalog.GPU_INFO)})", "none", width=70),
                    Column("Power", GPU_ENERGY.rate("instance"), "watt"),
                    Column("Energy", kwh(GPU_ENERGY, "instance"), "kwatth"),
                    Column(
                        "Utilization", f"avg by (instance) ({node(catalog.GPU_UTILIZATION)})", "percentunit"
                    ),
                    Column(
                        "Unattributed",
                        over(UNATTRIBUTED.increase("instance"), GPU_ENERGY.increase("instance")),
                        "percentunit",
                        steps={0.2: "orange"},
                        width=110,
                    ),
                    Column("CO₂e", GPU_CO2E.increase("instance"), "massg"),
                ],
                no_data=NO_EXPORTER,
                sort_by="Energy",
                width=14,
                height=6,
            ),
            bargauge(
                "Energy by namespace",
                means="The ten namespaces whose pods used most of the models' energy over the range, for"
                " showback. Outside Kubernetes there is none.",
                unit="kwatth",
                queries=[
                    Query(
                        f"sort_desc(topk(10, label_replace({kwh(by='namespace')},"
                        ' "namespace", "(none)", "namespace", "")))',
                        "{{namespace}}",
                    )
                ],
                no_data=NO_MODEL,
                width=10,
                height=6,
            ),
        ],
    )


def alerts() -> Row:
    """What fired."""
    levels = " or ".join(
        f'{level} * max by (alertname, severity) (ALERTS{{{ALERTS}, severity="{severity}"}})'
        for level, severity in enumerate(SEVERITIES, 1)
    )
    return Row(
        "Alerts",
        [
            state_timeline(
                "Firing alerts",
                means="Joulemeter's alerts over time, by name, coloured by severity. Empty means that none"
                " fired, or that the alert rules are not loaded: see Status, Rules, in Prometheus.",
                unit="none",
                queries=[Query(levels, "{{alertname}} ({{severity}})")],
                no_data="no alert fired, or the rules are not loaded",
                steps={1: "blue", 2: "orange", 3: "red"},
                texts={str(level): severity for level, severity in enumerate(SEVERITIES, 1)},
                width=24,
                height=6,
            )
        ],
    )


def weeks() -> Row:
    """Day by day, from recorded hours."""
    kwh_each = f" / {JOULES_PER_KWH}"
    return Row(
        "Day by day over 14 days, from recorded hours",
        [
            _per_day(
                "Energy per day by model",
                f"Energy of every day. {BOUNDARY}",
                "kwatth",
                (records.ENERGY, records.UNATTRIBUTED_ENERGY, records.GPU_ENERGY),
                kwh_each,
            ),
            _per_day(
                "CO₂e per day by model",
                f"Emissions of every day. {OPERATIONAL}",
                "massg",
                (records.CO2E, records.UNATTRIBUTED_CO2E, records.GPU_CO2E),
            ),
            _per_day(
                "Cost per day by model ($currency)",
                f"Cost of every day. {PRICED}",
                "short",
                (records.COST, records.UNATTRIBUTED_COST, records.GPU_COST),
                decimals=2,
                currency=CURRENCY,
            ),
        ],
    )


def _per_day(
    title: str,
    means: str,
    unit: str,
    recorded: tuple[records.Record, records.Record, records.Record],
    each: str = "",
    *,
    decimals: int | None = None,
    **labels: str,
) -> Panel:
    """Draw what models, nobody and all GPUs used on every day; the first two are the third."""

    def day(rule: records.Record, by: str = "") -> str:
        return f"{records.over_hours(rule, DAY_HOURS, by=by, ahead=True, **labels)}{each}"

    of_models, of_nobody, of_gpus = recorded
    return timeseries(
        title,
        means=f"{means} A bar stands for the day that begins on its left, today's for the day so far. Grey is"
        " unattributed; dashed are all GPUs, which the bars reach if all models are selected. From the hourly"
        " recording rules: quick over months; cluster, namespace and model apply, job and instance do not.",
        unit=unit,
        queries=[
            Query(day(of_models, "model"), "{{model}}"),
            Query(day(of_nobody), "unattributed"),
            Query(day(of_gpus), "all GPUs", dashed=True),
        ],
        no_data=NO_RECORDS,
        stacked=True,
        bars=True,
        colours={"^unattributed$": GREY},
        decimals=decimals,
        step=DAY,
        last="14d",
        width=8,
        height=11,
    )


def build() -> str:
    """Return the dashboard's JSON."""
    return dashboard(
        UID,
        "Joulemeter / Fleet",
        means="What the GPUs that serve language models draw, what they deliver for it, what it costs and"
        " emits. Start here, then follow a model or a node.",
        variables=[*model_variables(), currency()],
        rows=[summary(), alerts(), power(), who(), weeks()],
    )
