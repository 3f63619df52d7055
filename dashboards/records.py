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
    """Record the hourly rate of a counter by some of its labels, and by model if it is of models."""
    of_models = "model" in metric.labels
    name = "_".join(("namespace_model" if of_models else "cluster", *also))
    by = ", ".join((LEVEL if of_models else "cluster", *also))
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
GPU_ENERGY: Final = _hour(catalog.GPU_ENERGY)
GPU_CO2E: Final = _hour(catalog.GPU_CO2E)
GPU_COST: Final = _hour(catalog.GPU_COST, "currency")
UNATTRIBUTED_ENERGY: Final = _hour(catalog.UNATTRIBUTED_ENERGY)
UNATTRIBUTED_CO2E: Final = _hour(catalog.UNATTRIBUTED_CO2E)
UNATTRIBUTED_COST: Final = _hour(catalog.UNATTRIBUTED_COST, "currency")
RECORDS: Final = (
    *(ENERGY, GENERATED, PER_GENERATED_TOKEN, IDLE_ENERGY, CO2E, COST),
    *(GPU_ENERGY, GPU_CO2E, GPU_COST, UNATTRIBUTED_ENERGY, UNATTRIBUTED_CO2E, UNATTRIBUTED_COST),
)

CHOSEN_CLUSTERS: Final = 'cluster=~"$cluster"'
CHOSEN: Final = f'{CHOSEN_CLUSTERS}, namespace=~"$namespace", model=~"$model"'
"""How panels choose among records of models, which have neither job nor instance."""


def chosen(rule: Record, **labels: str) -> str:
    """Select what a rule recorded of the chosen models; of the chosen clusters, if it is of whole clusters."""
    where = CHOSEN if rule.record.startswith("namespace_model") else CHOSEN_CLUSTERS
    also = "".join(f', {key}="{value}"' for key, value in labels.items())
    return f"{rule.record}{{{where}{also}}}"


def over_hours(rule: Record, hours: int, *, by: str = "", ahead: bool = False, **labels: str) -> str:
    """Add up what a rule recorded, an hour at a time: what its counter gained over so many hours.

    The window is a second short: Prometheus 2 counts both its ends, Prometheus 3 one. It lies before the point, or
    after it if `ahead`: a bar that stands where its day begins.
    """
    moved = f" offset -{hours}h" if ahead else ""
    summed = f"sum_over_time({chosen(rule, **labels)}[{hours * 3600 - 1}s:1h]{moved})"
    return f"3600 * sum{f' by ({by})' if by else ''} ({summed})"


def at_load(low: float, high: float, days: int) -> str:
    """Joules per generated token in the hours of the last days whose throughput lay in a class.

    Throughput in generated tokens per second, of all chosen models together.
    """
    energy, tokens = (f"sum({chosen(rule)})" for rule in (ENERGY, GENERATED))
    window = f"[{days * 24 * 3600 - 1}s:1h]"
    there = f"{tokens} >= {low:g} < {high:g}"
    return f"sum_over_time(({energy} and ({there})){window}) / sum_over_time(({there}){window})"
