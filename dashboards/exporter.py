"""Joulemeter / Exporter health and accuracy: whether the figures can be trusted."""

from collections.abc import Mapping
from typing import Final

from dashboards.page import Row, currency, dashboard, model_variables
from dashboards.panels import Query, bargauge, stat, timeseries
from dashboards.queries import (
    CURRENCY,
    GPU_ENERGY,
    TARGETS,
    Counter,
    buckets,
    conservation,
    model,
    node,
    occurred,
    of_exporters,
    unattributed_by_reason,
)
from dashboards.tables import Column, heatmap, state_timeline, table
from dashboards.words import NO_ENERGY, NO_EXPORTER, NO_MODEL, NO_PRICE, PHASE_COLOURS
from joulemeter import catalog

UID: Final = "joulemeter-exporter"
UP: Final = of_exporters(f"up{{{TARGETS}}}")
RESTARTS: Final = Counter(node(catalog.METER_RESETS))
LOST_TOKENS: Final = Counter(model(catalog.UNATTRIBUTED_TOKENS))
FETCHES: Final = Counter(node(catalog.GRID_FETCHES))
REFUSED: Final = Counter(node(catalog.REFUSED_PAGES))
BAD_IF_ANY: Final[Mapping[float, str]] = {0: "green", 1: "red"}
ADDS_UP: Final = {0: "green", 1e-9: "red"}
BELOW: Final[Mapping[str | tuple[float, float], str]] = {(0.0, 1e-9): "below 10⁻⁹"}
LAW: Final = (
    "measured minus attributed, unattributed, pending and retired, relative to the measured, from the raw"
    " totals of one page of each exporter; the worst exporter. More than one part in a billion is a fault of"
    " joulemeter."
)


def state() -> Row:
    """What is wrong now."""
    tick = node(catalog.LAST_TICK)
    return Row(
        "Now",
        [
            stat(
                "Exporters down",
                means="Exporters that Prometheus cannot scrape, of those that it could at some time of the last"
                " day. Other targets of Prometheus do not count, whatever jobs are selected.",
                unit="none",
                query=f"count({UP} == 0) or 0 * count({UP})",
                no_data=NO_EXPORTER,
                steps=BAD_IF_ANY,
            ),
            stat(
                "Sources down",
                means="Sources (meter, GPUs, servers, grid) whose last read failed. What they would have"
                " told is absent, not zero. The row Sources says which.",
                unit="none",
                query=f"count({node(catalog.SOURCE_UP)} == 0) or 0 * count({node(catalog.SOURCE_UP)})",
                no_data=NO_EXPORTER,
                steps=BAD_IF_ANY,
            ),
            stat(
                "Servers unreachable",
                means="Inference servers that do not answer; after a minute their GPUs' energy becomes"
                " unattributed.",
                unit="none",
                query=f"count({node(catalog.SOURCE_UP, kind='server')} == 0)"
                f" or 0 * count({node(catalog.SOURCE_UP, kind='server')})",
                no_data="no server",
                steps=BAD_IF_ANY,
            ),
            stat(
                "Sampling interval p99",
                means="99th percentile of the time between two rounds of energy readings, over the last"
                " minutes. It should be the configured one (0.05 s); above about 1 s short requests are"
                " attributed badly.",
                unit="s",
                query=f"histogram_quantile(0.99, {buckets(catalog.SAMPLE_INTERVAL)})",
                no_data=NO_EXPORTER,
                steps={0: "green", 0.25: "orange", 1: "red"},
            ),
            stat(
                "Oldest page",
                means="Age that the exporters' pages had when they were scraped, the oldest. More than some"
                " seconds: the exporter hangs, though it still answers.",
                unit="s",
                query=f"max(timestamp({tick}) - {tick})",
                no_data=NO_EXPORTER,
                steps={0: "green", 30: "orange", 60: "red"},
            ),
            stat(
                "Worst cross-check",
                means="The largest deviation, over GPUs, of power integrated over a minute from the energy"
                " counter's increase. Some percent are usual where the driver averages power.",
                unit="percentunit",
                query=f"max(abs({node(catalog.CROSSCHECK)} - 1))",
                no_data="no counter to check",
                steps={0: "green", 0.1: "orange"},
            ),
            stat(
                "Energy adds up",
                means=f"Joules: {LAW}",
                unit="percentunit",
                query=conservation(),
                no_data=NO_ENERGY,
                steps=ADDS_UP,
                texts=BELOW,
                width=8,
            ),
            stat(
                "CO₂e adds up",
                means=f"Grams: {LAW}",
                unit="percentunit",
                query=conservation(catalog.GPU_CO2E),
                no_data=NO_ENERGY,
                steps=ADDS_UP,
                texts=BELOW,
                width=8,
            ),
            stat(
                "Cost adds up ($currency)",
                means=f"Money in the chosen currency: {LAW}",
                unit="percentunit",
                query=conservation(catalog.GPU_COST, currency=CURRENCY),
                no_data=NO_PRICE,
                steps=ADDS_UP,
                texts=BELOW,
                width=8,
            ),
        ],
    )


def accuracy() -> Row:
    """How far the figures can be trusted."""
    return Row(
        "Accuracy",
        [
            timeseries(
                "Cross-check by GPU",
                means="Power integrated over a minute over the energy counter's increase, by GPU: 100 % is"
                " agreement, and up to 5 % more or less (shaded) is usual. A GPU that stays away from it by"
                " itself reads one of the two wrongly.",
                unit="percentunit",
                queries=[Query(node(catalog.CROSSCHECK), "{{instance}} GPU {{gpu}}")],
                no_data="no counter to check",
                band=(0.95, 1.05),
                many=True,
            ),
            timeseries(
                "Unattributed energy by reason",
                means="Share of the GPUs' energy that no model is charged for. no_server: nothing we know"
                " runs on the GPU; server_unreachable: its server did not answer for too long; idle: the"
                " configuration gives idle energy to nobody; meter_gap: the counter could not be read"
                " meanwhile. Reasons that did not occur in the range are left out.",
                unit="percentunit",
                queries=[
                    Query(
                        f"({unattributed_by_reason()}) / on () group_left () {GPU_ENERGY.rate()}",
                        "{{reason}}",
                    )
                ],
                no_data="no unattributed energy",
                stacked=True,
                ratio=True,
            ),
            timeseries(
                "Uncertainty of the split",
                means="How far the split between a model's phases and other models on its GPUs may be off,"
                " by model and phase. At 30 % and above the phases follow the hardware's prior. Models that"
                " have their GPUs to themselves get all of their energy, whatever this says.",
                unit="percentunit",
                queries=[
                    Query(
                        f"max by (model, phase) ({model(catalog.PHASE_UNCERTAINTY)})", "{{phase}} {{model}}"
                    )
                ],
                no_data=NO_MODEL,
                colours=PHASE_COLOURS,
            ),
            heatmap(
                "Sampling interval",
                means="Distribution of the time between two rounds of energy readings. One tight band at"
                " the configured interval is right; a tail upwards means that the exporter is starved of"
                " CPU.",
                unit="s",
                query=buckets(catalog.SAMPLE_INTERVAL, function="increase"),
                no_data=NO_EXPORTER,
            ),
        ],
    )


def sources() -> Row:
    """What is read, and how that goes."""
    return Row(
        "Sources",
        [
            state_timeline(
                "Sources up",
                means="Whether the last read of each source succeeded: the meter, every GPU, server and"
                " grid source.",
                unit="none",
                queries=[
                    Query(
                        f"min by (instance, kind, source) ({node(catalog.SOURCE_UP)})",
                        "{{instance}} {{kind}} {{source}}",
                    )
                ],
                no_data=NO_EXPORTER,
                steps={0: "red", 1: "green"},
                texts={"0": "down", "1": "up"},
                height=12,
            ),
            timeseries(
                "Answer time of servers, p95",
                means="95th percentile of the time that a server takes to answer joulemeter. A server that"
                " formats its metrics beside its tokens is asked less often when this rises.",
                unit="s",
                queries=[
                    Query(
                        f"histogram_quantile(0.95,"
                        f" {buckets(catalog.OBSERVATION_DURATION, 'instance, source, le')})",
                        "{{instance}} {{source}}",
                    )
                ],
                no_data="no server",
                height=12,
            ),
            timeseries(
                "Answers that could not be used",
                means="Answers of servers per minute that were refused, by reason: an error status, a"
                " redirect, too large, no metrics, an impossible value, or too many series. All else keeps"
                " running. Reasons that did not occur in the range are left out.",
                unit="suffix:/min",
                queries=[Query(f"60 * ({occurred(REFUSED, 'reason')})", "{{reason}}")],
                no_data="none in the range",
                height=6,
            ),
            timeseries(
                "Tokens without energy",
                means="Tokens per minute of windows whose energy could not be attributed, by reason. They"
                " are in no ratio. Reasons that did not occur in the range are left out.",
                unit="suffix:tok/min",
                queries=[Query(f"60 * ({occurred(LOST_TOKENS, 'reason')})", "{{reason}}")],
                no_data="none in the range",
                height=6,
            ),
            bargauge(
                "Answers of grid sources",
                means="How often each live source of carbon intensity was asked in the range, by what came"
                " of it. auth and rate_limited want a look at the account; while none is ok, older values"
                " or annual factors are used.",
                unit="none",
                queries=[
                    Query(f"round({FETCHES.increase('source, outcome')}) > 0", "{{source}} {{outcome}}")
                ],
                no_data="no live source",
                colours={"(?<! ok)$": "orange"},
                height=5,
            ),
            bargauge(
                "Since the last answer of a grid source",
                means="Time since each live source last gave an answer that could be used, on the node that"
                " waits longest. A source is asked every 15 minutes, and only while no better one is fresh.",
                unit="s",
                queries=[
                    Query(
                        f"max by (zone, source) (time() - {node(catalog.GRID_LAST_SUCCESS)})",
                        "{{zone}} {{source}}",
                    )
                ],
                no_data="no live source",
                height=5,
            ),
        ],
    )


def footprint() -> Row:
    """What the exporter is and costs."""
    built = "instance, version, pythonversion"
    return Row(
        "Exporters",
        [
            table(
                "Versions",
                means="Version of joulemeter on every node, how many GPUs it reads and how their joules are"
                " obtained (by the board's counter, or by integrating power), and how often an energy"
                " counter started anew in the range.",
                labels={"instance": "Node", "version": "Version", "pythonversion": "Python"},
                columns=[
                    Column("GPUs by counter", _gpus_from("counter", built), "none", width=140),
                    Column("GPUs by power", _gpus_from("power_integration", built), "none", width=130),
                    Column(
                        "Counter restarts",
                        _beside(RESTARTS.increase("instance"), built),
                        "none",
                        decimals=0,
                        width=140,
                    ),
                ],
                no_data=NO_EXPORTER,
                height=8,
                width=12,
            ),
            timeseries(
                "Series per scrape",
                means="Series on each exporter's page: watch it when models come and go.",
                unit="short",
                queries=[Query(of_exporters(f"scrape_samples_scraped{{{TARGETS}}}"), "{{instance}}")],
                no_data=NO_EXPORTER,
                width=6,
                height=8,
            ),
            timeseries(
                "Scrape time",
                means="How long Prometheus waits for each exporter's page. It is formatted beforehand, so"
                " more than some tens of milliseconds are the network or a starved exporter.",
                unit="s",
                queries=[Query(of_exporters(f"scrape_duration_seconds{{{TARGETS}}}"), "{{instance}}")],
                no_data=NO_EXPORTER,
                width=6,
                height=8,
            ),
            timeseries(
                "CPU of the exporter",
                means="Processor time that each exporter takes: 100 % is one core. A few percent are usual; more"
                " than that is sampling or observing more often than configured by default.",
                unit="percentunit",
                queries=[
                    Query(
                        of_exporters(f"rate({node(catalog.PROCESS_CPU)}[$__rate_interval])"), "{{instance}}"
                    )
                ],
                no_data=NO_EXPORTER,
                width=12,
            ),
            timeseries(
                "Memory of the exporter",
                means="Resident memory of each exporter. It is flat; with discovery in Kubernetes it is some"
                " 20 MiB more. A line that keeps rising is a fault to report.",
                unit="bytes",
                queries=[Query(of_exporters(node(catalog.PROCESS_MEMORY)), "{{instance}}")],
                no_data=NO_EXPORTER,
                width=12,
            ),
        ],
    )


def _gpus_from(source: str, built: str) -> str:
    return _beside(f"count by (instance) ({node(catalog.GPU_INFO, energy_source=source)})", built)


def _beside(by_instance: str, built: str) -> str:
    """Return a node's figure with what its exporter was built of; 0 where the node has none."""
    builds = f"max by ({built}) ({node(catalog.BUILD_INFO)})"
    return f"{builds} * on (instance) group_left () {by_instance} or 0 * {builds}"


def build() -> str:
    """Return the dashboard's JSON."""
    return dashboard(
        UID,
        "Joulemeter / Exporter health and accuracy",
        means="Can the figures be trusted: are exporters up, are readings on time, does every joule have"
        " one place, do two ways of measuring agree.",
        variables=[*model_variables(), currency()],
        rows=[state(), accuracy(), sources(), footprint()],
    )
