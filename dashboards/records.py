"""Recording rules as data, for alerts and for panels over long ranges. They are named `level:metric:operations`."""

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


ENERGY: Final = Record(
    "namespace_model:joulemeter_model_energy_joules:rate1h",
    f"sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}[1h]))",
)
GENERATED: Final = Record(
    "namespace_model:joulemeter_model_generated_tokens:rate1h",
    f'sum by ({LEVEL}) (rate({catalog.MODEL_TOKENS.name}{{kind="generation"}}[1h]))',
)
PER_GENERATED_TOKEN: Final = Record(
    "namespace_model:joulemeter_model_energy_joules_per_generated_token:ratio_rate1h",
    f"{ENERGY.record} / ({GENERATED.record} > {TOKENS_PER_SECOND_FLOOR})",
)
RECORDS: Final = (ENERGY, GENERATED, PER_GENERATED_TOKEN)
