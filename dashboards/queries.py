"""PromQL that panels share; the names come from the catalogue, so that a rename fails here."""

from typing import Final

from joulemeter import catalog
from joulemeter.accounting import JOULES_PER_KWH

TOKENS_PER_SECOND_FLOOR: Final = 0.5
"""Below this, energy per token is idle energy divided by chance: one quiet night hour would fill the axis."""

TARGETS: Final = 'cluster=~"$cluster", job=~"$job", instance=~"$instance"'
NODE: Final = f"{{{TARGETS}}}"
MODEL: Final = f'{{{TARGETS}, model=~"$model"}}'
GENERATED: Final = f'{{{TARGETS}, model=~"$model", kind="generation"}}'
COMPUTED: Final = f'{{{TARGETS}, model=~"$model", kind=~"prompt|generation"}}'

EXPORTER: Final = "cluster, job, instance"
"""The labels that tell one exporter from another: what its page says has to add up by itself."""


def per_token(tokens: str, function: str, window: str, *, by: str = "", floor: float) -> str:
    """Energy over tokens of the same windows; absent, not infinite, where there are not more than `floor`."""
    energy = f"sum{by} ({function}({catalog.MODEL_ENERGY.name}{MODEL}[{window}]))"
    made = f"sum{by} ({function}({catalog.MODEL_TOKENS.name}{tokens}[{window}]))"
    return f"{energy} / ({made} > {floor:g})"


def total(metric: catalog.Metric) -> str:
    """The joules that each exporter's page shows for one part; 0, not absent, while it has no series."""
    none = f"0 * sum by ({EXPORTER}) ({catalog.GPU_ENERGY.name}{NODE})"
    return f"(sum by ({EXPORTER}) ({metric.name}{NODE}) or {none})"


def conservation() -> str:
    """The largest relative difference, over exporters, between what was measured and where it went.

    From the raw totals of one page, which have to agree at every instant: `increase()` extrapolates each
    series by itself, and its results never add up.
    """
    measured = f"sum by ({EXPORTER}) ({catalog.GPU_ENERGY.name}{NODE})"
    parts = (
        catalog.MODEL_ENERGY,
        catalog.UNATTRIBUTED_ENERGY,
        catalog.PENDING_ENERGY,
        catalog.RETIRED_ENERGY,
    )
    placed = " - ".join(total(part) for part in parts)
    return f"max(abs({measured} - {placed}) / ({measured} > 0))"


def share_attributed() -> str:
    """From sums over all selected exporters; 0 while no model has a series."""
    model = f"sum(increase({catalog.MODEL_ENERGY.name}{NODE}[$__range]))"
    measured = f"sum(increase({catalog.GPU_ENERGY.name}{NODE}[$__range]))"
    return f"({model} or vector(0)) / ({measured} > 0)"


def unattributed(by: str = "") -> str:
    """Power that no model is charged for."""
    return f"sum{by} (rate({catalog.UNATTRIBUTED_ENERGY.name}{NODE}[$__rate_interval]))"


def unattributed_by_reason() -> str:
    """The same for every reason that occurred in the range; the page has a zero for each that never did."""
    by = " by (reason)"
    occurred = f"sum{by} (increase({catalog.UNATTRIBUTED_ENERGY.name}{NODE}[$__range] @ end())) > 0"
    return f"{unattributed(by)} and {occurred}"


def kwh(by: str = "") -> str:
    """Attributed energy over the range."""
    return f"sum{by} (increase({catalog.MODEL_ENERGY.name}{MODEL}[$__range])) / {JOULES_PER_KWH}"
