"""Recording rules that alerts need: measured over expected energy, of load that the baselines have seen.

Every exporter has baselines of its own. Numerator and denominator are kept by baseline until the last step, which
takes only those that models are compared with now: accepting or resetting one ends what was measured against it.
"""

from collections.abc import Mapping
from typing import Final

from dashboards.records import LEVEL, Record
from joulemeter import catalog

SERVED: Final = "cluster, job, instance, server, model, namespace, pod"
"""The labels that tell one model of one server from another, wherever it is scraped."""
EXPORTER: Final = f"{LEVEL}, job, instance"
"""A model on one exporter; `instance` is the node, whichever pod of the DaemonSet runs there."""
ENGINE, LOAD = catalog.BASES
CURRENT: Final = f"on ({LEVEL}, baseline) {catalog.MODEL_BASELINE_INFO.name}"
"""Matches the baselines in use."""
REMEMBERED: Final = "12h"
"""How long a regression is remembered, unless a baseline is replaced: longer than a night hides it."""
REPLACED_WITHIN: Final = "13h"
"""Longer than that, so that what was measured before does not come back when it is over."""


def _settled() -> str:
    """The models with a baseline in use that is frozen, or has learned for a day: before, it has not seen one."""
    info = catalog.MODEL_BASELINE_INFO.name
    a_day_ago = f"last_over_time({info}[1h] offset 1d)"
    return f'({info}{{state="frozen"}} or ({info} and on ({EXPORTER}, baseline) {a_day_ago}))'


SETTLED: Final = f"on ({LEVEL}) {_settled()}"
"""Matches models that an alert may speak of."""
TARGET: Final = "model:joulemeter_model_energy_joules_per_generated_token:target"
TARGETS: Final[Mapping[str, float]] = {}
"""Joules per generated token that a model may need, idle included, by its name. Nobody can say yours but you."""


def _in_range(metric: catalog.Metric) -> str:
    """Watts by model and baseline, of servers whose load the baseline has seen; elsewhere it can be wrong."""
    seen = f"{catalog.MODEL_BASELINE_IN_RANGE.name} == 1"
    return f"sum by ({LEVEL}, basis, baseline) (rate({metric.name}[5m]) and on ({SERVED}) {seen})"


COMPARED: Final = Record(
    "namespace_model_baseline:joulemeter_model_compared_energy_joules:rate5m",
    _in_range(catalog.MODEL_COMPARED_ENERGY),
)
EXPECTED: Final = Record(
    "namespace_model_baseline:joulemeter_model_expected_energy_joules:rate5m",
    _in_range(catalog.MODEL_EXPECTED_ENERGY),
)


def _ratio(window: str) -> Record:
    """Measured over expected of a model in the last hours, of the baselines in use together."""

    def joules(rule: Record) -> str:
        return f"sum by ({LEVEL}, basis) (sum_over_time({rule.record}[{window}]) and {CURRENT})"

    return Record(
        f"namespace_model:joulemeter_model_energy_joules_per_expected_joule:ratio_rate{window}",
        f"{joules(COMPARED)} / {joules(EXPECTED)}",
    )


def _least(ratio: Record, window: str) -> Record:
    """What the engine's ratio did not fall below for so long: what `for` would ask, but it can be remembered.

    Not of a model whose baselines are all younger than a day.
    """
    engine = f'{ratio.record}{{basis="{ENGINE}"}}'
    throughout = f"min_over_time({engine}[{window}]) and {engine} offset {window} and {engine} and {SETTLED}"
    return Record(f"{ratio.record}_min{window}", throughout)


RATIO: Final = _ratio("1h")
RATIO_SLOW: Final = _ratio("6h")
LEAST: Final = _least(RATIO, "15m")
LEAST_SLOW: Final = _least(RATIO_SLOW, "30m")
RECORDS: Final = (COMPARED, EXPECTED, RATIO, RATIO_SLOW, LEAST, LEAST_SLOW)


def remembered(least: Record, ratio: Record, threshold: float) -> str:
    """Whether a ratio was above a threshold of late, or is and a baseline was replaced; only of models that are there.

    `keep_firing_for` would keep an alert that a baseline accepted since has ended, and a restart of Prometheus
    would forget it; the recorded series do neither. Replaced: of the same exporter one is new and one has gone; nodes
    that come and nodes that go, even in the same night, change nothing.
    """
    info = catalog.MODEL_BASELINE_INFO.name
    by_baseline = f"unless on ({EXPORTER}, baseline)"
    new = f"{info} {by_baseline} last_over_time({info}[{REPLACED_WITHIN}] offset {REPLACED_WITHIN})"
    gone = f"last_over_time({info}[{REPLACED_WITHIN}]) {by_baseline} {info}"
    late = f"max_over_time({least.record}[{REMEMBERED}]) > {threshold}"
    now = f'{least.record} > {threshold} and on ({LEVEL}) {ratio.record}{{basis="{ENGINE}"}} > {threshold}'
    return (
        f"(({late} unless on ({LEVEL}) (({new}) and on ({EXPORTER}) ({gone}))) or ({now}))"
        f" and on ({LEVEL}) {info}"
    )
