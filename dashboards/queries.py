"""PromQL that panels share; the names come from the catalogue, so that a rename fails here."""

from dataclasses import dataclass
from typing import Final

from joulemeter import catalog
from joulemeter.accounting import JOULES_PER_KWH

RANGE: Final = "$__range"
RECENT: Final = "$__rate_interval"
SUBQUERY: Final = f"[{RANGE}:5m]"
TOKENS_PER_SECOND_FLOOR: Final = 0.5
"""Below this, energy per token is idle energy divided by chance: one quiet night hour would fill the axis."""
REQUESTS_PER_SECOND_FLOOR: Final = 0.01
MILLION: Final = "1e6"

TARGETS: Final = 'cluster=~"$cluster", job=~"$job", instance=~"$instance"'
SERVED: Final = f'{TARGETS}, namespace=~"$namespace", model=~"$model"'
CURRENCY: Final = "$currency"
"""Every sum of money selects one: no sum crosses currencies."""
EXPORTER: Final = "cluster, job, instance"
"""The labels that tell one exporter from another: what its page says has to add up by itself."""


def of_exporters(series: str) -> str:
    """Take of series that any target has those of exporters: the variables' All is every target of Prometheus.

    Also of those that are down, and were up within a day.
    """
    return f"({series} and on ({EXPORTER}) last_over_time({node(catalog.BUILD_INFO)}[1d]))"


def node(metric: catalog.Metric, **labels: str) -> str:
    """Select a metric's series of the chosen exporters; a value with a | is a regular expression."""
    return _selected(metric.name, TARGETS, labels)


def model(metric: catalog.Metric, **labels: str) -> str:
    """Select a metric's series of the chosen models."""
    return _selected(metric.name, SERVED, labels)


def buckets(metric: catalog.Metric, by: str = "le", window: str = RECENT, *, function: str = "rate") -> str:
    """Return how the buckets of a histogram grow."""
    select = model if "model" in metric.labels else node
    chosen = select(metric).replace(metric.name, f"{metric.name}_bucket", 1)
    return f"sum by ({by}) ({function}({chosen}[{window}]))"


def _selected(name: str, where: str, labels: dict[str, str]) -> str:
    also = "".join(f', {key}{"=~" if "|" in value else "="}"{value}"' for key, value in labels.items())
    return f"{name}{{{where}{also}}}"


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter's series; only its increases mean something."""

    series: str

    def rate(self, by: str = "", *, window: str = RECENT, offset: str = "") -> str:
        """Per second."""
        return self._summed("rate", by, window, offset)

    def increase(self, by: str = "", *, window: str = RANGE, offset: str = "") -> str:
        """Over the range."""
        return self._summed("increase", by, window, offset)

    def _summed(self, function: str, by: str, window: str, offset: str) -> str:
        moved = f" offset {offset}" if offset else ""
        return f"sum{f' by ({by})' if by else ''} ({function}({self.series}[{window}]{moved}))"


ENERGY: Final = Counter(model(catalog.MODEL_ENERGY))
PREFILL_ENERGY: Final = Counter(model(catalog.MODEL_ENERGY, phase="prefill"))
DECODE_ENERGY: Final = Counter(model(catalog.MODEL_ENERGY, phase="decode"))
IDLE_ENERGY: Final = Counter(model(catalog.MODEL_ENERGY, phase="idle"))
PROMPT: Final = Counter(model(catalog.MODEL_TOKENS, kind="prompt"))
GENERATED: Final = Counter(model(catalog.MODEL_TOKENS, kind="generation"))
COMPUTED: Final = Counter(model(catalog.MODEL_TOKENS, kind="prompt|generation"))
REQUESTS: Final = Counter(model(catalog.MODEL_REQUESTS))
CO2E: Final = Counter(model(catalog.MODEL_CO2E))
COST: Final = Counter(model(catalog.MODEL_COST, currency=CURRENCY))
ELECTRICITY_COST: Final = Counter(model(catalog.MODEL_COST, component="electricity", currency=CURRENCY))
COMPARED: Final = Counter(model(catalog.MODEL_COMPARED_ENERGY, basis="engine"))
EXPECTED: Final = Counter(model(catalog.MODEL_EXPECTED_ENERGY, basis="engine"))

GPU_ENERGY: Final = Counter(node(catalog.GPU_ENERGY))
GPU_CO2E: Final = Counter(node(catalog.GPU_CO2E))
GPU_COST: Final = Counter(node(catalog.GPU_COST, currency=CURRENCY))
ATTRIBUTED: Final = Counter(node(catalog.MODEL_ENERGY))
"""All models', whichever are chosen."""
UNATTRIBUTED: Final = Counter(node(catalog.UNATTRIBUTED_ENERGY))
THROTTLED: Final = Counter(node(catalog.GPU_THROTTLE))


def over(top: str, bottom: str, *, floor: float = 0.0) -> str:
    """Divide; absent, not infinite, where the bottom is not more than `floor`."""
    return f"{top} / ({bottom} > {floor:g})"


def recent(top: Counter, bottom: Counter, by: str = "", *, floor: float = TOKENS_PER_SECOND_FLOOR) -> str:
    """Divide two rates of the same windows."""
    return over(top.rate(by), bottom.rate(by), floor=floor)


def whole(top: Counter, bottom: Counter, by: str = "", *, offset: str = "") -> str:
    """Divide two increases over the range."""
    return over(top.increase(by, offset=offset), bottom.increase(by, offset=offset))


def kwh(energy: Counter = ENERGY, by: str = "") -> str:
    """Energy over the range."""
    return f"{energy.increase(by)} / {JOULES_PER_KWH}"


def against(days: int) -> str:
    """Energy per generated token in the range over that of the same range some days earlier, less one."""
    return f"({whole(ENERGY, GENERATED)}) / ({whole(ENERGY, GENERATED, offset=f'{days}d')}) - 1"


# ------------------------------------------------------------------------------------------------- adding up


def total(metric: catalog.Metric, level: str = EXPORTER, **labels: str) -> str:
    """What each exporter's page shows for one part; 0, not absent, while it has no series."""
    of = {"joules": catalog.GPU_ENERGY, "grams": catalog.GPU_CO2E, "cost": catalog.GPU_COST}
    measured = next(gpu for unit, gpu in of.items() if unit in metric.name)
    none = f"0 * sum by ({level}) ({node(measured, **labels)})"
    return f"(sum by ({level}) ({node(metric, **labels)}) or {none})"


def conservation(measured: catalog.Metric = catalog.GPU_ENERGY, **labels: str) -> str:
    """The largest relative difference, over exporters, between what was measured and where it went.

    From the raw totals of one page, which have to agree at every instant: `increase()` extrapolates each
    series by itself, and its results never add up.
    """
    parts = {
        catalog.GPU_ENERGY: (
            catalog.MODEL_ENERGY,
            catalog.UNATTRIBUTED_ENERGY,
            catalog.PENDING_ENERGY,
            catalog.RETIRED_ENERGY,
        ),
        catalog.GPU_CO2E: (
            catalog.MODEL_CO2E,
            catalog.UNATTRIBUTED_CO2E,
            catalog.PENDING_CO2E,
            catalog.RETIRED_CO2E,
        ),
        catalog.GPU_COST: (
            catalog.MODEL_COST,
            catalog.UNATTRIBUTED_COST,
            catalog.PENDING_COST,
            catalog.RETIRED_COST,
        ),
    }[measured]
    all_of_it = f"sum by ({EXPORTER}) ({node(measured, **labels)})"
    placed = " - ".join(total(part, **labels) for part in parts)
    return f"max(abs({all_of_it} - {placed}) / ({all_of_it} > 0))"


def share_attributed() -> str:
    """From sums over all selected exporters; 0 while no model has a series."""
    return f"({ATTRIBUTED.increase()} or vector(0)) / ({GPU_ENERGY.increase()} > 0)"


def occurred(counter: Counter, by: str) -> str:
    """Return the rate by a label, of what occurred in the range; the page has a zero for what never did."""
    return f"{counter.rate(by)} and sum by ({by}) (increase({counter.series}[{RANGE}] @ end())) > 0"


def unattributed_by_reason() -> str:
    """Power by every reason that occurred in the range."""
    return occurred(UNATTRIBUTED, "reason")


# ----------------------------------------------------------------------------------------------- by the load


def at_load(low: float, high: float) -> str:
    """Energy per generated token in the times whose throughput, of all chosen models together, was in a class."""
    return _per_token_while(f"{GENERATED.rate(window='5m')} >= {low:g} < {high:g}")


def at_high_load(quantile: float) -> str:
    """The same in the busiest times of the range: at or above a quantile of its throughput."""
    tokens = GENERATED.rate(window="5m")
    return _per_token_while(f"{tokens} >= quantile_over_time({quantile:g}, {tokens}{SUBQUERY} @ end())")


def _per_token_while(tokens: str) -> str:
    energy = ENERGY.rate(window="5m")
    return f"sum_over_time(({energy} and ({tokens})){SUBQUERY}) / sum_over_time(({tokens}){SUBQUERY})"
