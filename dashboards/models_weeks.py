"""The row of the dashboard Model efficiency that looks at weeks, from recorded hours."""

from itertools import pairwise
from typing import Final

from dashboards import records
from dashboards.models_energy import LOADS, load_class
from dashboards.page import Row
from dashboards.panels import Query, bargauge, timeseries
from dashboards.queries import MILLION, over
from dashboards.words import NO_RECORDS, PER_TOKEN

WEEK_HOURS: Final = 7 * 24
CURVE_DAYS: Final = 30


def weeks() -> Row:
    """Rolling averages and the load curve, from recorded hours."""
    quick = "From the hourly recording rules: quick over months. Namespace and model apply, job and instance do not."

    def ratio(top: records.Record, bottom: records.Record) -> str:
        return over(
            records.over_hours(top, WEEK_HOURS, by="model"),
            records.over_hours(bottom, WEEK_HOURS, by="model"),
        )

    return Row(
        "Weeks, from recorded hours",
        [
            timeseries(
                "J / generated token, average of 7 days",
                means="All energy of a model over its generated tokens, both of the seven days before each"
                f" point, so that a busy hour counts more than a quiet one. Logarithmic axis."
                f" {quick}",
                unit=PER_TOKEN,
                queries=[Query(ratio(records.ENERGY, records.GENERATED), "{{model}}")],
                no_data=NO_RECORDS,
                logarithmic=True,
                step="1h",
            ),
            timeseries(
                "Idle share, average of 7 days",
                means="Share of a model's energy spent while no request was running, of the seven days"
                f" before each point. {quick}",
                unit="percentunit",
                queries=[Query(ratio(records.IDLE_ENERGY, records.ENERGY), "{{model}}")],
                no_data=NO_RECORDS,
                ratio=True,
                step="1h",
            ),
            timeseries(
                "CO₂e / M generated tokens, average of 7 days",
                means="Emissions per million generated tokens of a model, of the seven days before each"
                f" point. Logarithmic axis. {quick}",
                unit="massg",
                queries=[Query(f"{MILLION} * {ratio(records.CO2E, records.GENERATED)}", "{{model}}")],
                no_data=NO_RECORDS,
                logarithmic=True,
                step="1h",
            ),
            bargauge(
                f"J / generated token by throughput, {CURVE_DAYS} days",
                means=f"The load curve of the last {CURVE_DAYS} days up to the end of the range: energy per generated"
                " token in the hours whose mean throughput lay in a class, of all selected models together. Hours"
                f" even out what five minutes show. {quick}",
                unit=PER_TOKEN,
                queries=[
                    Query(records.at_load(low, high, CURVE_DAYS), load_class(low, high))
                    for low, high in pairwise(LOADS)
                ],
                no_data=NO_RECORDS,
            ),
        ],
    )
