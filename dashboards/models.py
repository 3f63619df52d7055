"""Joulemeter / Model efficiency: what a token and a request cost in energy, and whether that is new."""

from typing import Final

from dashboards import models_cost, models_energy, models_weeks
from dashboards.page import Row, currency, dashboard, model_variables, number
from dashboards.panels import stat
from dashboards.queries import (
    COMPUTED,
    ENERGY,
    GENERATED,
    IDLE_ENERGY,
    REQUESTS,
    against,
    at_high_load,
    buckets,
    kwh,
    whole,
)
from dashboards.words import (
    BOUNDARY,
    NO_MODEL,
    NO_TRAFFIC,
    PER_TOKEN,
)
from joulemeter import catalog
from joulemeter.accounting import JOULES_PER_KWH

UID: Final = "joulemeter-model"
BUSY: Final = 0.9
NO_YESTERDAY: Final = "no yesterday"


def summary() -> Row:
    """The numbers of the selected range."""
    return Row(
        "Selected models, selected range",
        [
            stat(
                "J / generated token",
                means="All energy of the selected models (prefill, decode and idle) over their generated"
                " tokens. Lower is better; it rises when prompts get longer and when batches get smaller.",
                unit=PER_TOKEN,
                query=whole(ENERGY, GENERATED),
                no_data=NO_TRAFFIC,
            ),
            stat(
                "J / token",
                means="All energy of the selected models over computed prompt tokens and generated tokens:"
                " the fairer figure when prompts are long. Prompt tokens that came from a cache are not"
                " counted: nothing was computed for them.",
                unit=PER_TOKEN,
                query=whole(ENERGY, COMPUTED),
                no_data=NO_TRAFFIC,
            ),
            stat(
                "Wh / request",
                means="Attributed energy, idle included, per finished request.",
                unit="watth",
                query=f"{whole(ENERGY, REQUESTS)} / 3600",
                no_data=NO_TRAFFIC,
            ),
            stat(
                "Idle share",
                means="Share of the models' energy spent while no request was running. A high one says:"
                " scale down, consolidate or batch.",
                unit="percentunit",
                query=whole(IDLE_ENERGY, ENERGY),
                no_data=NO_MODEL,
            ),
            stat(
                "Against yesterday",
                means="J / generated token in the range, relative to the same range one day earlier: +20 %"
                " is worse. Traffic and prompts move it too; what does not is the row Measured over"
                " expected energy.",
                unit="percentunit",
                query=against(1),
                no_data=NO_YESTERDAY,
                decimals=1,
            ),
            stat(
                "J / token at P90 load",
                means="J / generated token in the busiest tenth of the range, by generated tokens per"
                " second over five minutes: what the models need when they are well used, whatever the"
                " nights were like.",
                unit=PER_TOKEN,
                query=at_high_load(BUSY),
                no_data=NO_TRAFFIC,
            ),
            stat(
                "Energy",
                means=f"Energy attributed to the selected models over the range, idle included. {BOUNDARY}",
                unit="kwatth",
                query=kwh(),
                no_data=NO_MODEL,
            ),
            stat(
                "Generated tokens / J",
                means="Generated tokens per joule of the selected models: the inverse of J / generated"
                " token.",
                unit="suffix:tok/J",
                query=whole(GENERATED, ENERGY),
                no_data=NO_MODEL,
            ),
            stat(
                "Generated tokens / kWh",
                means="Generated tokens per kilowatt-hour of the selected models: 3,600,000 times those per"
                " joule.",
                unit="short",
                query=f"{JOULES_PER_KWH} * {whole(GENERATED, ENERGY)}",
                no_data=NO_MODEL,
            ),
            stat(
                "Requests / kWh",
                means="Finished requests (queries) per kilowatt-hour of the selected models.",
                unit="short",
                query=f"{JOULES_PER_KWH} * {whole(REQUESTS, ENERGY)}",
                no_data=NO_MODEL,
            ),
            stat(
                "Generated tokens / $currency",
                means="Generated tokens per unit of the chosen currency, of electricity and, if it has a"
                " price, GPU time.",
                unit="short",
                query=models_cost.per_money(GENERATED),
                no_data="no price configured",
            ),
            stat(
                "Median J of a request",
                means="Prefill and decode energy of the median finished request, from a histogram estimated"
                " from the lengths that servers report. Idle is not in it. Other quantiles hold only to"
                " their bucket.",
                unit="joule",
                query=f"histogram_quantile(0.5,"
                f" {buckets(catalog.MODEL_REQUEST_ENERGY, window='$__range', function='increase')})",
                no_data=NO_TRAFFIC,
            ),
        ],
    )


def build() -> str:
    """Return the dashboard's JSON."""
    return dashboard(
        UID,
        "Joulemeter / Model efficiency",
        means="What a token, a request and a unit of money buy in energy, by model and by phase, and"
        " whether a model suddenly needs more.",
        variables=[
            *model_variables(),
            currency(),
            number("attempts", "Attempts", "1"),
            number("side_tokens", "Pre/post tokens", "0"),
            number("side_price", "Pre/post price per Mtok", "0"),
            number("change", "Change (%)", "10"),
        ],
        rows=[
            summary(),
            models_energy.per_token(),
            models_energy.expected(),
            models_energy.where(),
            models_cost.per_million(),
            models_cost.responses(),
            models_weeks.weeks(),
            models_energy.replicas(),
        ],
    )
