"""Alerts as data. Each has a page under docs/runbook, by its name, and promtool unit tests under tests/rules."""

from dataclasses import dataclass
from typing import Final

from dashboards.alert_records import LEAST, LEAST_SLOW, LOAD, RATIO, RATIO_SLOW, SETTLED, TARGET, remembered
from dashboards.records import LEVEL
from joulemeter import catalog

JOB: Final = "joulemeter"
"""What the exporter's job is called in Prometheus; `absent()` needs the name itself."""
EXPORTER: Final = "cluster, job, instance"
GPU: Final = f"{EXPORTER}, gpu, uuid"
REGRESSION_RATIO: Final = 1.08
REGRESSION_SLOW_RATIO: Final = 1.05
"""Not below: on hardware the baseline itself may be wrong by 1 to 3 %."""
TOKENS_PER_SECOND_FLOOR: Final = 1
IDLE_WATTS_FLOOR: Final = 50
IMPLAUSIBLE_RATIO: Final = 1.2
UNATTRIBUTED_RATIO: Final = 0.2
CONSERVED_RATIO: Final = 1e-8
"""The law is 1e-9; a hundred sums of floats stay far below both."""
GRID_AGE_SECONDS: Final = 3 * 3600
MARGINAL_ONLY: Final = "watttime"
"""Sources whose signal is only shown: with them alone, static grams are what was asked for."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; its runbook page carries its name. `hold` is its `for`, `keep` its `keep_firing_for`, if any."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str
    keep: str = ""


def _interval(quantile: float) -> str:
    """A quantile of the time between two rounds of readings."""
    buckets = f"sum by ({EXPORTER}, le) (rate({catalog.SAMPLE_INTERVAL.name}_bucket[10m]))"
    return f"histogram_quantile({quantile}, {buckets})"


_MODEL: Final = "{{ $labels.model }} (cluster {{ $labels.cluster }}, namespace {{ $labels.namespace }})"
_INSTANCE: Final = "{{ $labels.instance }} (cluster {{ $labels.cluster }})"
_GPU: Final = "GPU {{ $labels.gpu }} ({{ $labels.uuid }}) of " + _INSTANCE
_PERCENT: Final = "{{ $value | humanizePercentage }}"

REGRESSION: Final = Alert(
    name="JoulemeterEnergyPerTokenRegression",
    expr=remembered(LEAST, RATIO, REGRESSION_RATIO),
    hold="1m",
    keep="15m",
    severity="critical",
    summary="A model needs more energy than it did for the same engine work.",
    description=(
        f"{_MODEL} used {_PERCENT} of the energy that its baseline expects of the same engine work, over an hour,"
        " at its worst in the last 12 hours. Less traffic, longer prompts, a warmer cache or another replica do"
        " not raise this figure."
    ),
)
REGRESSION_SLOW: Final = Alert(
    name="JoulemeterEnergyPerTokenRegressionSlow",
    expr=remembered(LEAST_SLOW, RATIO_SLOW, REGRESSION_SLOW_RATIO),
    hold="1m",
    keep="15m",
    severity="warning",
    summary="A model needs somewhat more energy than it did for the same engine work, for hours.",
    description=(
        f"{_MODEL} used {_PERCENT} of the energy that its baseline expects of the same engine work, over six"
        " hours, at its worst in the last 12 hours."
    ),
)
LOAD_HIGH: Final = Alert(
    name="JoulemeterEnergyForLoadHigh",
    expr=f'{RATIO.record}{{basis="{LOAD}"}} > {REGRESSION_RATIO} and {SETTLED}',
    hold="1h",
    severity="info",
    summary="A model needs more energy than it did for the same offered load.",
    description=(
        f"{_MODEL} used {_PERCENT} of the energy that its baseline expects of the same tokens per second, over the"
        " last hour. Other batches or other prompts can be the reason; this basis is for the eye."
    ),
)
OUT_OF_RANGE: Final = Alert(
    name="JoulemeterBaselineOutOfRange",
    expr=f"avg by ({LEVEL}) (avg_over_time({catalog.MODEL_BASELINE_IN_RANGE.name}[1d])) < 0.5",
    hold="6h",
    severity="info",
    summary="A model's load is not what its baseline was learned from, so a regression would not be seen.",
    description=(
        f"The baseline of {_MODEL} had seen such a load in only {_PERCENT} of the last day; in the rest of it,"
        " measured and expected energy are not compared."
    ),
)

# ------------------------------------------------------------------------------------------------- efficiency
GENERATED: Final = f'{catalog.MODEL_TOKENS.name}{{kind="generation"}}'


def _per_token(window: str) -> str:
    """Joules per generated token; absent while fewer than a token a second is generated."""
    energy = f"sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}[{window}]))"
    return f"{energy} / (sum by ({LEVEL}) (rate({GENERATED}[{window}])) > {TOKENS_PER_SECOND_FLOOR})"


def _above_target(windows: tuple[str, str], times: float) -> str:
    return " and ".join(
        f"{_per_token(window)} > on (model) group_left () {times} * {TARGET}" for window in windows
    )


TARGET_MISSED: Final = Alert(
    name="JoulemeterEnergyPerTokenAboveTarget",
    expr=f"({_above_target(('1h', '5m'), 1.5)}) or ({_above_target(('6h', '30m'), 1.2)})",
    hold="15m",
    severity="warning",
    summary="A model needs more energy per generated token than its target allows.",
    description=(
        f'{_MODEL} needs {{{{ $value | printf "%.2f" }}}} J per generated token: half more than its target in the'
        " last hour, or a fifth more in the last six hours, and now."
    ),
)
IDLE_HIGH: Final = Alert(
    name="JoulemeterModelIdleEnergyHigh",
    expr=(
        f'sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}{{phase="idle"}}[1h]))'
        f" / (sum by ({LEVEL}) (rate({catalog.MODEL_ENERGY.name}[1h])) > {IDLE_WATTS_FLOOR}) > 0.8"
    ),
    hold="6h",
    severity="info",
    summary="A model's GPUs do hardly anything but wait.",
    description=f"{_PERCENT} of the energy of {_MODEL} was idle in the last hour, and so for six hours.",
)

# ------------------------------------------------------------------------------------------------- hardware
LOST: Final = f'label_replace({catalog.SOURCE_UP.name}{{kind="gpu"}} == 0, "uuid", "$1", "source", "(.+)")'
STALLED: Final = Alert(
    name="JoulemeterGPUEnergyStalled",
    expr=f"increase({catalog.GPU_ENERGY.name}[10m]) == 0 unless on ({EXPORTER}, uuid) {LOST}",
    hold="10m",
    severity="warning",
    summary="A GPU answers, but its energy counter stands still.",
    description=f"The energy of {_GPU} has not moved for ten minutes, although the GPU can be read.",
)
IMPLAUSIBLE: Final = Alert(
    name="JoulemeterEnergyImplausible",
    expr=(
        f"rate({catalog.GPU_ENERGY.name}[5m])"
        f" / on ({GPU}) ({catalog.GPU_POWER_LIMIT.name} > 0) > {IMPLAUSIBLE_RATIO}"
    ),
    hold="10m",
    severity="warning",
    summary="A GPU's energy counter says more than the board can draw.",
    description=f"{_GPU} would draw {_PERCENT} of its power limit, by its energy counter.",
)
_CHECKED: Final = f"avg_over_time({catalog.CROSSCHECK.name}[15m])"
CROSSCHECK: Final = Alert(
    name="JoulemeterEnergyCrossCheckFailing",
    expr=f"{_CHECKED} < 0.8 or {_CHECKED} > 1.25",
    hold="30m",
    severity="warning",
    summary="A GPU's energy counter and its power reading disagree.",
    description=f"Integrated power is {_PERCENT} of the energy counter's increase on {_GPU}.",
)
THROTTLED: Final = Alert(
    name="JoulemeterGPUThermalThrottling",
    expr=f'rate({catalog.GPU_THROTTLE.name}{{reason="thermal"}}[15m]) > 0.2',
    hold="15m",
    keep="15m",
    severity="warning",
    summary="A GPU is too hot to keep its clocks.",
    description=f"{_GPU} was held back by its temperature in {_PERCENT} of the time.",
)

# ------------------------------------------------------------------------------------------------- attribution
_MEASURED: Final = f"sum by ({EXPORTER}) (rate({catalog.GPU_ENERGY.name}[30m])) > 0"
UNATTRIBUTED: Final = Alert(
    name="JoulemeterUnattributedEnergyHigh",
    expr=(
        f'sum by ({EXPORTER}) (rate({catalog.UNATTRIBUTED_ENERGY.name}{{reason!="idle"}}[30m]))'
        f" / ({_MEASURED}) > {UNATTRIBUTED_RATIO}"
        f' and on ({EXPORTER}) {catalog.SOURCE_UP.name}{{kind="server"}}'
    ),
    hold="1h",
    severity="warning",
    summary="Much of a serving node's GPU energy is attributed to nobody.",
    description=f"{_PERCENT} of the GPU energy of {_INSTANCE} is attributed to no model.",
)


def _total(metric: catalog.Metric) -> str:
    """Joules on an exporter's page; 0, not absent, while there is no such series."""
    none = f"0 * sum by ({EXPORTER}) ({catalog.GPU_ENERGY.name})"
    return f"(sum by ({EXPORTER}) ({metric.name}) or {none})"


_PLACES: Final = (
    catalog.MODEL_ENERGY,
    catalog.UNATTRIBUTED_ENERGY,
    catalog.PENDING_ENERGY,
    catalog.RETIRED_ENERGY,
)
NOT_CONSERVED: Final = Alert(
    name="JoulemeterEnergyNotConserved",
    expr=(
        f"abs(1 - ({' + '.join(map(_total, _PLACES))})"
        f" / (sum by ({EXPORTER}) ({catalog.GPU_ENERGY.name}) > 0)) > {CONSERVED_RATIO:g}"
    ),
    hold="15m",
    severity="critical",
    summary="Energy on an exporter's page does not add up.",
    description=(
        f"Measured energy and the sum of where it went differ by {{{{ $value }}}} of it on {_INSTANCE}. This is a"
        " fault of joulemeter, or of what changes its series on the way: none of its joules can be trusted."
    ),
)
OVERWRITTEN: Final = Alert(
    name="JoulemeterLabelsOverwritten",
    expr=(
        f'count by ({EXPORTER}) ({catalog.SERVER_INFO.name}{{exported_pod!=""}}'
        f' or {catalog.SERVER_INFO.name}{{exported_namespace!=""}}) > 0'
    ),
    hold="15m",
    severity="warning",
    summary="The pod and namespace of joulemeter's series are those of the exporter, not of the models.",
    description=(
        f"{_INSTANCE} is scraped without honor_labels, {{{{ $value }}}} series have exported_pod or"
        " exported_namespace."
    ),
)

# ------------------------------------------------------------------------------------------------- the exporter
ABSENT: Final = Alert(
    name="JoulemeterAbsent",
    expr=f'absent(up{{job="{JOB}"}} == 1)',
    hold="15m",
    severity="critical",
    summary="No joulemeter is scraped.",
    description=f'Prometheus has no target of the job "{JOB}" that answers, so no GPU energy is recorded.',
)
DOWN: Final = Alert(
    name="JoulemeterDown",
    expr=f'up{{job="{JOB}"}} == 0',
    hold="10m",
    severity="warning",
    summary="A joulemeter cannot be scraped.",
    description=f"{_INSTANCE} does not answer; the energy of its GPUs is not recorded.",
)
STUCK: Final = Alert(
    name="JoulemeterPageStale",
    expr=f"timestamp({catalog.LAST_TICK.name}) - {catalog.LAST_TICK.name} > 60",
    hold="5m",
    severity="warning",
    summary="A joulemeter answers, but what it shows is old.",
    description=f"The page of {_INSTANCE} was {{{{ $value | humanizeDuration }}}} old when it was scraped.",
)
SOURCE_DOWN: Final = Alert(
    name="JoulemeterSourceDown",
    expr=f'{catalog.SOURCE_UP.name}{{kind=~"meter|gpu|server|kubernetes"}} == 0',
    hold="15m",
    severity="warning",
    summary="A joulemeter cannot read what it measures or observes.",
    description=f"The {{{{ $labels.kind }}}} {{{{ $labels.source }}}} of {_INSTANCE} cannot be read.",
)
LATE: Final = Alert(
    name="JoulemeterSamplingLate",
    expr=f"{_interval(0.99)} > 0.25 and {_interval(0.99)} > 4 * {_interval(0.5)}",
    hold="15m",
    severity="info",
    summary="A joulemeter reads energy counters late.",
    description=(
        f"One in a hundred readings of {_INSTANCE} comes {{{{ $value | humanizeDuration }}}} after the one before."
    ),
)
_AVERAGE: Final = f'{{source!~"{MARGINAL_ONLY}"}}'
GRID_STALE: Final = Alert(
    name="JoulemeterGridDataStale",
    expr=(
        f'max by (cluster, zone) ({catalog.GRID_QUALITY.name}{{quality=~"stale|static"}} == 1'
        f" and on ({EXPORTER}) {catalog.GRID_FETCHES.name}{_AVERAGE})"
        f" or time() - max by (cluster, zone) ({catalog.GRID_LAST_SUCCESS.name}{_AVERAGE}) > {GRID_AGE_SECONDS}"
    ),
    hold="30m",
    severity="warning",
    summary="Grams of CO2e are computed with an old or a yearly carbon intensity.",
    description=(
        "For zone {{ $labels.zone }} (cluster {{ $labels.cluster }}) a live source is configured, but what is in use"
        " is stale or static, or no source has answered for three hours."
    ),
)
GRID_DOWN: Final = Alert(
    name="JoulemeterGridSourceDown",
    expr=f'sum by (cluster, source) ({catalog.SOURCE_UP.name}{{kind="grid"}} == bool 0) > 0',
    hold="2h",
    severity="info",
    summary="A source of carbon intensity does not answer.",
    description="{{ $labels.source }} (cluster {{ $labels.cluster }}) fails on {{ $value }} exporters.",
)
ALERTS: Final = (
    *(REGRESSION, REGRESSION_SLOW, LOAD_HIGH, OUT_OF_RANGE, TARGET_MISSED, IDLE_HIGH),
    *(STALLED, IMPLAUSIBLE, CROSSCHECK, THROTTLED, UNATTRIBUTED, NOT_CONSERVED, OVERWRITTEN),
    *(ABSENT, DOWN, STUCK, SOURCE_DOWN, LATE, GRID_STALE, GRID_DOWN),
)
