"""Joulemeter / Models: the power, the energy per token and the kWh of every model, and whether it adds up."""

from typing import Final

from dashboards.panels import Query, Row, bargauge, dashboard, datasource, stat, timeseries, variable
from dashboards.queries import (
    COMPUTED,
    GENERATED,
    MODEL,
    NODE,
    TOKENS_PER_SECOND_FLOOR,
    conservation,
    kwh,
    per_token,
    share_attributed,
    unattributed,
    unattributed_by_reason,
)
from joulemeter import catalog

UID: Final = "joulemeter-models"
NO_ENERGY: Final = "no GPU energy"
NO_MODEL: Final = "no model yet"
NO_TRAFFIC: Final = "no traffic"
GREY: Final = "#8e8e8e"
PHASE_COLOURS: Final = {" prefill$": "orange", " decode$": "blue", " (idle|unsplit)$": GREY}
BOUNDARY: Final = "GPU boards only: CPU, memory, network and cooling are not in it."


def summary() -> Row:
    """The numbers of the selected range."""
    return Row(
        "Selected range",
        [
            stat(
                "Energy",
                means=f"Energy attributed to the selected models over the range, idle included. {BOUNDARY}",
                unit="kwatth",
                query=kwh(),
                no_data=NO_MODEL,
            ),
            stat(
                "J / generated token",
                means="All energy of the selected models (prefill, decode and idle) over their generated"
                " tokens. Lower is better; it rises when prompts get longer and when batches get smaller.",
                unit="si:J/tok",
                query=per_token(GENERATED, "increase", "$__range", floor=0),
                no_data=NO_TRAFFIC,
            ),
            stat(
                "J / token",
                means="All energy of the selected models over computed prompt tokens and generated tokens."
                " Prompt tokens that came from a cache are not counted: nothing was computed for them.",
                unit="si:J/tok",
                query=per_token(COMPUTED, "increase", "$__range", floor=0),
                no_data=NO_TRAFFIC,
            ),
            stat(
                "Share attributed",
                means="Share of the measured GPU energy that was attributed to a model, whichever models"
                " are selected. The rest is unattributed, with its reason below, or a few seconds old.",
                unit="percentunit",
                query=share_attributed(),
                no_data=NO_ENERGY,
            ),
            stat(
                "Conservation error",
                means="Measured energy minus attributed, unattributed, pending and retired energy, relative"
                " to the measured, from the raw totals of each exporter's page; the worst exporter."
                " More than one part in a billion is a fault of joulemeter.",
                unit="percentunit",
                query=conservation(),
                no_data=NO_ENERGY,
                steps={0: "green", 1e-9: "red"},
                texts={(0, 1e-9): "below 10⁻⁹"},
            ),
            stat(
                "Readings",
                means="Whether any selected exporter serves simulated readings (`joulemeter demo`)."
                " Simulated numbers say nothing about real hardware.",
                unit="none",
                query=f"max({catalog.SIMULATED.name}{NODE})",
                no_data="no exporter",
                steps={0: "green", 1: "orange"},
                texts={"0": "measured", "1": "SIMULATED"},
            ),
        ],
    )


def power() -> Row:
    """Who draws it."""
    return Row(
        "Power",
        [
            timeseries(
                "Power by model",
                means="Attributed power of the selected models, idle included, with the unattributed rest on"
                " top: with all models selected, the stack is as high as the power of all GPUs, some seconds"
                " ago."
                f" {BOUNDARY}",
                unit="watt",
                queries=[
                    Query(
                        f"sum by (model) (rate({catalog.MODEL_ENERGY.name}{MODEL}[$__rate_interval]))",
                        "{{model}}",
                    ),
                    Query(unattributed(), "unattributed"),
                ],
                no_data=NO_ENERGY,
                stacked=True,
                colours={"^unattributed$": GREY},
            ),
            timeseries(
                "Unattributed power by reason",
                means="Power that nobody we can name used. no_server: nothing we know runs on the GPU;"
                " server_unreachable: its server did not answer for too long; idle: idle power, where the"
                " configuration gives it to nobody; meter_gap: the counter could not be read meanwhile."
                " Reasons that did not occur in the range are left out.",
                unit="watt",
                queries=[Query(unattributed_by_reason(), "{{reason}}")],
                no_data="no unattributed power",
                stacked=True,
            ),
        ],
    )


def efficiency() -> Row:
    """What a token costs."""
    floor = (
        f"Times with less than {TOKENS_PER_SECOND_FLOOR:g} tokens per second are left out. Logarithmic axis."
    )
    return Row(
        "Energy per token",
        [
            timeseries(
                "J / generated token by model",
                means=f"All energy of a model (prefill, decode and idle) over its generated tokens. {floor}",
                unit="si:J/tok",
                queries=[
                    Query(
                        per_token(
                            GENERATED,
                            "rate",
                            "$__rate_interval",
                            by=" by (model)",
                            floor=TOKENS_PER_SECOND_FLOOR,
                        ),
                        "{{model}}",
                    )
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
            ),
            timeseries(
                "J / token by model",
                means="All energy of a model over its computed prompt tokens and generated tokens, cache hits"
                f" not counted: the fairer figure where prompts are long. {floor}",
                unit="si:J/tok",
                queries=[
                    Query(
                        per_token(
                            COMPUTED,
                            "rate",
                            "$__rate_interval",
                            by=" by (model)",
                            floor=TOKENS_PER_SECOND_FLOOR,
                        ),
                        "{{model}}",
                    )
                ],
                no_data=NO_TRAFFIC,
                logarithmic=True,
            ),
        ],
    )


def energy() -> Row:
    """What it adds up to."""
    return Row(
        "Energy over the range",
        [
            bargauge(
                "Energy by model",
                means=f"Energy attributed to every selected model over the range, idle included. {BOUNDARY}",
                unit="kwatth",
                queries=[Query(f"sort_desc({kwh(' by (model)')})", "{{model}}")],
                no_data=NO_MODEL,
            ),
            bargauge(
                "Energy by model and phase",
                means="The same, split into prefill, decode and idle (unsplit: the server's page does not"
                " allow it). The split is an estimate; the sum over the phases is not.",
                unit="kwatth",
                queries=[Query(f"sort_desc({kwh(' by (model, phase)')})", "{{model}} {{phase}}")],
                no_data=NO_MODEL,
                colours=PHASE_COLOURS,
            ),
        ],
    )


def build() -> str:
    """Return the dashboard's JSON."""
    metric = catalog.GPU_ENERGY.name
    return dashboard(
        UID,
        "Joulemeter / Models",
        means="What the GPUs that serve language models draw, for which model, and what a token costs.",
        variables=[
            datasource(),
            variable("cluster", "Cluster", f"label_values({metric}, cluster)", all_value=".*"),
            variable("job", "Job", f'label_values({metric}{{cluster=~"$cluster"}}, job)', all_value=".+"),
            variable(
                "instance",
                "Instance",
                f'label_values({metric}{{cluster=~"$cluster", job=~"$job"}}, instance)',
                all_value=".+",
            ),
            variable(
                "model", "Model", f"label_values({catalog.MODEL_ENERGY.name}{NODE}, model)", all_value=".*"
            ),
        ],
        rows=[summary(), power(), efficiency(), energy()],
    )
