"""Rows of the dashboard Model efficiency: joules per token, measured over expected, by load, and by replica."""

from itertools import pairwise
from typing import Final

from dashboards import records
from dashboards.alert_records import ENGINE, LOAD, RATIO
from dashboards.alerts import REGRESSION_RATIO
from dashboards.page import Row
from dashboards.panels import Query, bargauge, timeseries
from dashboards.queries import (
    COMPARED,
    DECODE_ENERGY,
    ENERGY,
    EXPECTED,
    GENERATED,
    IDLE_ENERGY,
    PREFILL_ENERGY,
    PROMPT,
    REQUESTS,
    REQUESTS_PER_SECOND_FLOOR,
    TOKENS_PER_SECOND_FLOOR,
    at_load,
    kwh,
    model,
    over,
    recent,
    whole,
)
from dashboards.tables import Column, state_timeline, table
from dashboards.words import (
    BOUNDARY,
    LOGARITHMIC,
    NO_MODEL,
    NO_RECORDS,
    NO_TRAFFIC,
    PER_TOKEN,
    PHASE_COLOURS,
)
from joulemeter import catalog

LOADS: Final = (0.5, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 100_000.0)
"""Limits of the classes of throughput, in tokens per second."""
NO_BASELINE: Final = "no baseline yet"
REPLICA: Final = "namespace, pod, server, model"


def per_token() -> Row:
    """What a token costs."""
    return Row(
        "Energy per token",
        [
            timeseries(
                "J / generated token by model",
                means="All energy of a model (prefill, decode and idle) over its generated tokens; grey and"
                f" dashed: the same time yesterday. {LOGARITHMIC}",
                unit=PER_TOKEN,
                queries=[
                    Query(recent(ENERGY, GENERATED, "model"), "{{model}}"),
                    Query(
                        over(
                            ENERGY.rate("model", offset="1d"),
                            GENERATED.rate("model", offset="1d"),
                            floor=TOKENS_PER_SECOND_FLOOR,
                        ),
                        "{{model}} yesterday",
                        dashed=True,
                    ),
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
                height=11,
            ),
            timeseries(
                "J / token by phase",
                means="Prefill energy per computed prompt token, and decode energy per generated token: a"
                " change of the mix of prompts and answers moves J / generated token but not these; a"
                " slower kernel or lost batching does. The split is an estimate. Colours are of phases: choose one"
                f" model to see it alone. {LOGARITHMIC}",
                unit=PER_TOKEN,
                queries=[
                    Query(recent(PREFILL_ENERGY, PROMPT, "model"), "prefill {{model}}"),
                    Query(recent(DECODE_ENERGY, GENERATED, "model"), "decode {{model}}"),
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
                colours=PHASE_COLOURS,
                height=11,
            ),
        ],
    )


def expected() -> Row:
    """Whether it is what it should be."""

    def ratio(basis: str) -> str:
        return f"max by (model) ({records.chosen(RATIO, basis=basis)})"

    which = f"{REPLICA}, baseline"
    return Row(
        "Measured over expected energy",
        [
            timeseries(
                "Measured / expected, over an hour",
                means="Energy that was measured over what the model's frozen baseline expects for the same"
                " engine work, in times whose load the baseline has seen; 1.15 is 15 % more. Night, traffic and"
                f" prompt length do not move it. Above the line, at {REGRESSION_RATIO:g}, the alert pages. Grey and"
                " dashed: for the same offered load, which a slower engine moves too; for the eye, less exact."
                " From recording rules, of the namespace where it is most: job and instance do not apply.",
                unit="percentunit",
                queries=[
                    Query(ratio(ENGINE), "{{model}}"),
                    Query(ratio(LOAD), "{{model}} by load", dashed=True),
                ],
                no_data=f"{NO_BASELINE}, or {NO_RECORDS}",
                ratio=True,
                from_zero=False,
                limit=REGRESSION_RATIO,
                width=24,
                height=11,
            ),
            state_timeline(
                "Baseline has seen such a load",
                means="Whether the baseline of a model has seen a load such as that of the last minutes."
                " Where it has not, measured over expected proves nothing.",
                unit="none",
                queries=[
                    Query(f"min by (model) ({model(catalog.MODEL_BASELINE_IN_RANGE)})", "{{model}}"),
                ],
                no_data=NO_BASELINE,
                steps={0: "orange", 1: "green"},
                texts={"0": "out of range", "1": "in range"},
                width=24,
                height=5,
            ),
            table(
                "Baselines",
                means="Which baseline every model is compared with, and whether it is frozen or still"
                " learns. The ratio is measured over expected energy of the last hour, for the same engine"
                " work, whether the baseline has seen such a load or not.",
                labels={
                    "namespace": "Namespace",
                    "pod": "Pod",
                    "server": "Server",
                    "model": "Model",
                    "baseline": "Baseline",
                },
                columns=[
                    Column(
                        "State",
                        f"max by ({which}) ({model(catalog.MODEL_BASELINE_INFO, state='frozen')})"
                        f" or 0 * max by ({which}) ({model(catalog.MODEL_BASELINE_INFO, state='learning')})",
                        "none",
                        texts={"0": "learning", "1": "frozen"},
                    ),
                    Column(
                        "Measured / expected",
                        over(COMPARED.rate(which, window="1h"), EXPECTED.rate(which, window="1h")),
                        "percentunit",
                        width=160,
                        decimals=1,
                    ),
                    Column("Compared", kwh(COMPARED, which), "kwatth"),
                ],
                no_data=NO_BASELINE,
                height=5,
            ),
        ],
    )


def where() -> Row:
    """Where the energy goes, and how it depends on the load."""
    return Row(
        "Where the energy goes",
        [
            timeseries(
                "Power by phase",
                means="Attributed power split into prefill, decode and idle (unsplit: the server's page"
                " does not allow it), stacked. The split is an estimate; the sum is not.",
                unit="watt",
                queries=[Query(ENERGY.rate("phase"), "{{phase}}")],
                no_data=NO_MODEL,
                stacked=True,
                colours=PHASE_COLOURS,
            ),
            timeseries(
                "Power and throughput",
                means="Attributed power of the selected models (left) against their generated tokens per"
                " second (right, dashed).",
                unit="watt",
                queries=[
                    Query(ENERGY.rate(), "power"),
                    Query(GENERATED.rate(), "generated tokens / s", right="generated tokens / s"),
                ],
                no_data=NO_MODEL,
            ),
            bargauge(
                "J / generated token by throughput",
                means="The load curve: energy per generated token in the five-minute stretches of the range"
                " whose throughput lay in a class, of all selected models together. A bar that grew at the"
                " same load is a regression; long bars at little load are idle energy. Choose one model for"
                " its own curve.",
                unit=PER_TOKEN,
                queries=[Query(at_load(low, high), load_class(low, high)) for low, high in pairwise(LOADS)],
                no_data=NO_TRAFFIC,
            ),
            timeseries(
                "Wh / request by model",
                means="Attributed energy per finished request by model. Times with less than 0.01 requests"
                " per second are left out. Logarithmic axis.",
                unit="watth",
                queries=[
                    Query(
                        f"{recent(ENERGY, REQUESTS, 'model', floor=REQUESTS_PER_SECOND_FLOOR)} / 3600",
                        "{{model}}",
                    )
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
            ),
            bargauge(
                "Energy by model",
                means=f"Energy attributed to every selected model over the range, idle included. {BOUNDARY}",
                unit="kwatth",
                queries=[Query(f"sort_desc({kwh(by='model')})", "{{model}}")],
                no_data=NO_MODEL,
                height=8,
            ),
            bargauge(
                "Energy by model and phase",
                means="The same, split into prefill, decode and idle (unsplit: the server's page does not"
                " allow it). The split is an estimate; the sum over the phases is not.",
                unit="kwatth",
                queries=[Query(f"sort_desc({kwh(by='model, phase')})", "{{phase}} {{model}}")],
                no_data=NO_MODEL,
                colours=PHASE_COLOURS,
                height=8,
            ),
        ],
    )


def load_class(low: float, high: float) -> str:
    """Name a class of throughput; two classes cover ten times the load."""
    return f"{low:,g} to {high:,g} tok/s" if high < LOADS[-1] else f"above {low:,g} tok/s"


def replicas() -> Row:
    """Which of several is the odd one."""
    return Row(
        "Replicas",
        [
            table(
                "Replicas, in the selected range",
                means="One row per serving pod: one that needs more J / token at the same throughput has a"
                " slow or throttled GPU. Outside Kubernetes namespace and pod are empty.",
                labels={"namespace": "Namespace", "pod": "Pod", "server": "Server", "model": "Model"},
                columns=[
                    Column("Energy", kwh(by=REPLICA), "kwatth"),
                    Column("J/gen. token", whole(ENERGY, GENERATED, REPLICA), PER_TOKEN, width=110),
                    Column("Tok/s now", GENERATED.rate(REPLICA), decimals=1, width=100),
                    Column(
                        "Running", f"sum by ({REPLICA}) ({model(catalog.MODEL_REQUESTS_RUNNING)})", decimals=0
                    ),
                    Column("Idle", whole(IDLE_ENERGY, ENERGY, REPLICA), "percentunit"),
                ],
                no_data=NO_MODEL,
                sort_by="Energy",
                height=6,
            )
        ],
    )
