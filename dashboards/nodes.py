"""Joulemeter / Node and GPU: utilization, saturation and errors of GPUs, and what their energy went to."""

from typing import Final

from dashboards.page import Row, dashboard, node_variables
from dashboards.panels import Query, stat, timeseries
from dashboards.queries import ATTRIBUTED, GPU_ENERGY, THROTTLED, UNATTRIBUTED, kwh, node
from dashboards.tables import Column, table
from dashboards.words import BOUNDARY, GREY, NO_ENERGY, NO_MODEL
from joulemeter import catalog

UID: Final = "joulemeter-gpu"
NO_GPU: Final = "no GPU"
NOT_SAID: Final = "driver does not say"
GPU: Final = "instance, gpu"
GPUS: Final = f"count({node(catalog.GPU_INFO)})"
LIMIT: Final = node(catalog.GPU_POWER_LIMIT)


def summary() -> Row:
    """The numbers of the selected nodes."""
    return Row(
        "Selected nodes",
        [
            stat(
                "Power now",
                means=f"Power of the selected nodes' GPUs, from their energy counters. {BOUNDARY}",
                unit="watt",
                query=GPU_ENERGY.rate(),
                no_data=NO_ENERGY,
            ),
            stat(
                "Power of limit",
                means="GPU power as a share of the enforced limits of those GPUs that have one. Near 100 %"
                " clocks are held back: see Throttling by reason.",
                unit="percentunit",
                query=f"sum(rate({GPU_ENERGY.series}[$__rate_interval]) and on (cluster, job, {GPU}) {LIMIT})"
                f" / sum({LIMIT})",
                no_data=NOT_SAID,
                steps={0.95: "orange"},
                decimals=0,
            ),
            stat(
                "GPUs",
                means="GPUs that the selected exporters see, those included that were lost since they"
                " started.",
                unit="none",
                query=GPUS,
                no_data=NO_GPU,
            ),
            stat(
                "Mean utilization",
                means="Share of time in which a kernel ran, mean over GPUs. 100 % does not mean that a GPU"
                " is busy in the sense of power: read it next to power.",
                unit="percentunit",
                query=f"avg({node(catalog.GPU_UTILIZATION)})",
                no_data=NOT_SAID,
                decimals=0,
            ),
            stat(
                "Hottest GPU",
                means="The highest GPU temperature now. Most data centre GPUs slow down at 85 to 95 °C.",
                unit="celsius",
                query=f"max({node(catalog.GPU_TEMPERATURE)})",
                no_data=NOT_SAID,
                steps={0: "green", 80: "orange", 90: "red"},
            ),
            stat(
                "Throttled time",
                means="Time in which clocks were held back, over the range, as a share of the GPUs' time."
                " Reasons add up, so a GPU that two hold back counts twice.",
                unit="percentunit",
                query=f"{THROTTLED.increase()} / ({GPUS} * $__range_s)",
                no_data=NOT_SAID,
                steps={0: "green", 0.05: "orange"},
            ),
        ],
    )


def gpus() -> Row:
    """Every GPU over time."""
    return Row(
        "Every GPU",
        [
            timeseries(
                "Power by GPU",
                means=f"Power by GPU from its energy counter; dashed: the highest enforced limit. {BOUNDARY}",
                unit="watt",
                queries=[
                    Query(GPU_ENERGY.rate(GPU), "{{instance}} GPU {{gpu}}"),
                    Query(f"max({LIMIT})", "limit", dashed=True),
                ],
                no_data=NO_ENERGY,
                colours={"^limit$": "red"},
                many=True,
            ),
            timeseries(
                "Attributed power by server",
                means="What the nodes' GPU energy was attributed to, by serving process or pod, stacked;"
                " grey is unattributed.",
                unit="watt",
                queries=[
                    Query(
                        ATTRIBUTED.rate("instance, namespace, pod, server"),
                        "{{server}} {{namespace}} {{pod}} {{instance}}",
                    ),
                    Query(UNATTRIBUTED.rate(), "unattributed"),
                ],
                no_data=NO_MODEL,
                stacked=True,
                colours={"^unattributed$": GREY},
            ),
            timeseries(
                "Utilization",
                means="Share of time in which a kernel ran, by GPU: the mean of what the driver said of its last"
                " period at each scrape since the point before. A decoding server shows 100 % at any batch size.",
                unit="percentunit",
                queries=[Query(_mean(catalog.GPU_UTILIZATION), "{{instance}} GPU {{gpu}}")],
                no_data=NOT_SAID,
                many=True,
            ),
            timeseries(
                "Temperature",
                means="Temperature of every GPU, mean of what it was at each scrape since the point before. A GPU"
                " that runs hotter than its neighbours at the same power has a cooling problem.",
                unit="celsius",
                queries=[Query(_mean(catalog.GPU_TEMPERATURE), "{{instance}} GPU {{gpu}}")],
                no_data=NOT_SAID,
                many=True,
                from_zero=False,
            ),
            timeseries(
                "Memory used",
                means="Device memory in use, by GPU. Servers of language models reserve most of it at their"
                " start, so this says little about load.",
                unit="bytes",
                queries=[Query(node(catalog.GPU_MEMORY_USED), "{{instance}} GPU {{gpu}}")],
                no_data=NOT_SAID,
                many=True,
                width=8,
            ),
            timeseries(
                "Kernel time by server, shared GPUs",
                means="Share of time in which kernels of each server's processes ran, on GPUs that servers"
                " share, as the driver samples it: a second opinion beside the estimated split of their energy,"
                " and no part of it.",
                unit="percentunit",
                queries=[Query(node(catalog.SERVER_GPU_UTILIZATION), "{{instance}} GPU {{gpu}} {{server}}")],
                no_data="no GPU is shared",
                width=8,
            ),
            timeseries(
                "Throttling by reason",
                means="Share of the GPUs' time in which each reason held clocks down. power_cap is often"
                " meant so; thermal and board_limit never are.",
                unit="percentunit",
                queries=[
                    Query(
                        f"{THROTTLED.rate('reason')} / on () group_left () {GPUS}",
                        "{{reason}}",
                    )
                ],
                no_data=NOT_SAID,
                ratio=True,
                colours={"^thermal$": "red", "^power_cap$": "yellow"},
                width=8,
            ),
        ],
    )


def _mean(momentary: catalog.Metric) -> str:
    """Return the mean between two points of what a driver says of an instant; one scrape of it alone is chance."""
    return f"avg_over_time({node(momentary)}[$__rate_interval])"


def inventory() -> Row:
    """Every GPU now."""
    what = f"{GPU}, product, driver_version, energy_source, uuid"
    memory = f"sum by ({GPU}, uuid) ({node(catalog.GPU_MEMORY_USED)})"
    named = f"* on (instance, gpu, uuid) group_left (product, driver_version, energy_source) max by ({what})"

    def column(expr: str) -> str:
        return f"{expr} {named} ({node(catalog.GPU_INFO)})"

    return Row(
        "Inventory",
        [
            table(
                "GPUs now",
                means="Every GPU with its product, its driver, and where its joules come from: the board's"
                " own counter, or power integrated by joulemeter where the board has none. Energy is that"
                " of the selected range.",
                labels={
                    "instance": "Node",
                    "gpu": "GPU",
                    "product": "Product",
                    "driver_version": "Driver",
                    "energy_source": "Energy from",
                    "uuid": "UUID",
                },
                columns=[
                    Column("Power", column(GPU_ENERGY.rate(f"{GPU}, uuid")), "watt", width=80),
                    Column("Limit", column(f"sum by ({GPU}, uuid) ({LIMIT})"), "watt", width=80),
                    Column(
                        "Used",
                        column(f"sum by ({GPU}, uuid) ({node(catalog.GPU_UTILIZATION)})"),
                        "percentunit",
                        width=80,
                    ),
                    Column("Memory", column(memory), "bytes"),
                    Column(
                        "Temp.",
                        column(f"sum by ({GPU}, uuid) ({node(catalog.GPU_TEMPERATURE)})"),
                        "celsius",
                        steps={80: "orange", 90: "red"},
                        width=80,
                    ),
                    Column("Energy", column(kwh(GPU_ENERGY, f"{GPU}, uuid")), "kwatth"),
                ],
                no_data=NO_GPU,
            )
        ],
    )


def build() -> str:
    """Return the dashboard's JSON."""
    return dashboard(
        UID,
        "Joulemeter / Node and GPU",
        means="The selected nodes' GPUs: power against limit, utilization, throttling, and what their"
        " energy was attributed to.",
        variables=node_variables(),
        rows=[summary(), gpus(), inventory()],
    )
