"""Recording rules as data, for alerts and for panels over long ranges. They are named `level:metric:operations`.

Hours are recorded as rates over one hour, at the interval of the rule group. It has to stay below five minutes, after
which Prometheus takes a series for gone: recorded once an hour, they would be invisible most of the time. Over weeks,
`sum_over_time(record[7d:1h]) * 3600` (see `over_hours`) reads one sample per hour in place of every scrape.
"""

from dataclasses import dataclass
from typing import Final

from joulemeter import catalog

LEVEL: Final = "cluster, namespace, model"
TOKENS_PER_SECOND_FLOOR: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule, named `level:metric:operations`; the level always includes `cluster`."""

    record: str
    expr: str


def _hour(metric: catalog.Metric, *also: str) -> Record:
    """Record the hourly rate of a counter by model, and by some of its labels."""
    name = "_".join(("namespace_model", *also))
    by = ", ".join((LEVEL, *also))
    return Record(
        f"{name}:{metric.name.removesuffix('_total')}:rate1h", f"sum by ({by}) (rate({metric.name}[1h]))"
    )


ENERGY: Final = _hour(catalog.MODEL_ENERGY)
GENERATED: Final = Record(
    "namespace_model:joulemeter_model_generated_tokens:rate1h",
    f'sum by ({LEVEL}) (rate({catalog.MODEL_TOKENS.name}{{kind="generation"}}[1h]))',
)
PER_GENERATED_TOKEN: Final = Record(
    "namespace_model:joulemeter_model_energy_joules_per_generated_token:ratio_rate1h",
    f"{ENERGY.record} / ({GENERATED.record} > {TOKENS_PER_SECOND_FLOOR})",
)
IDLE_ENERGY: Final = Record(
    "namespace_model:joulemeter_model_idle_energy_joules:rate1h",
    f'sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}{{phase="idle"}}[1h]))',
)
CO2E: Final = _hour(catalog.MODEL_CO2E)
COST: Final = _hour(catalog.MODEL_COST, "currency")
RECORDS: Final = (ENERGY, GENERATED, PER_GENERATED_TOKEN, IDLE_ENERGY, CO2E, COST)

CHOSEN: Final = 'cluster=~"$cluster", namespace=~"$namespace", model=~"$model"'
"""How panels choose among records, which have neither job nor instance."""


def over_hours(rule: Record, hours: int, *, by: str = "", **labels: str) -> str:
    """Add up what a rule recorded, an hour at a time: what its counter gained over so many hours.

    The window is a second short: Prometheus 2 counts both its ends, Prometheus 3 one.
    """
    where = CHOSEN + "".join(f', {key}="{value}"' for key, value in labels.items())
    summed = f"sum_over_time({rule.record}{{{where}}}[{hours * 3600 - 1}s:1h])"
    return f"3600 * sum{f' by ({by})' if by else ''} ({summed})"
