"""What a report's figures rest on: how energy was measured and split, whose grid factors, which PUE. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from joulemeter import catalog
from joulemeter.catalog import Metric
from joulemeter.report.sources import Series

Shares = Mapping[tuple[str, ...], float]
"""How much of the time, 0 to 1, by values of labels; the largest first."""

GRID_LABELS: Final = ("zone", "source", "factor", "boundary", "granularity", "dataset")


@dataclass(frozen=True, slots=True)
class Basis:
    """Shares of the range's samples: of servers, GPUs and nodes together, each for as long as it was there."""

    methods: Shares
    splits: Shares
    energy_sources: Shares
    products: Shares
    grid: Shares
    """By `GRID_LABELS`."""
    qualities: Shares
    """By zone and quality."""
    pue: tuple[float, float] | None
    """Lowest and highest."""
    simulated_ratio: float
    versions: tuple[str, ...]


def queries(selector: str, seconds: float) -> dict[str, str]:
    """Return what to ask at the end of the range, by the name that `basis` wants the answer under."""
    window = f"[{round(seconds * 1000)}ms]"

    def counted(metric: Metric, *labels: str) -> str:
        return f"sum by ({', '.join(labels)}) (count_over_time({metric.name}{selector}{window}))"

    return {
        "servers": counted(catalog.SERVER_INFO, "method", "split"),
        "gpus": counted(catalog.GPU_INFO, "energy_source", "product"),
        "grid": counted(catalog.GRID_INFO, *GRID_LABELS),
        "qualities": f"sum by (zone, quality) (sum_over_time({catalog.GRID_QUALITY.name}{selector}{window}))",
        "pue_low": f"min(min_over_time({catalog.PUE.name}{selector}{window}))",
        "pue_high": f"max(max_over_time({catalog.PUE.name}{selector}{window}))",
        "simulated": f"avg(avg_over_time({catalog.SIMULATED.name}{selector}{window}))",
        "versions": counted(catalog.BUILD_INFO, "version"),
    }


def basis(answers: Mapping[str, Iterable[Series]]) -> Basis:
    """Read the answers to `queries`."""
    pue = [one.values[-1] for name in ("pue_low", "pue_high") for one in answers[name]]
    return Basis(
        methods=_shares(answers["servers"], "method"),
        splits=_shares(answers["servers"], "split"),
        energy_sources=_shares(answers["gpus"], "energy_source"),
        products=_shares(answers["gpus"], "product"),
        grid=_shares(answers["grid"], *GRID_LABELS),
        qualities=_shares(answers["qualities"], "zone", "quality"),
        pue=(pue[0], pue[-1]) if pue else None,
        simulated_ratio=max((one.values[-1] for one in answers["simulated"]), default=0.0),
        versions=tuple(sorted(one.labels.get("version", "") for one in answers["versions"])),
    )


def _shares(answer: Iterable[Series], *labels: str) -> Shares:
    """Divide by the sum, within each zone where there are zones."""
    counts: dict[tuple[str, ...], float] = defaultdict(float)
    for one in answer:
        counts[tuple(one.labels.get(label, "") for label in labels)] += one.values[-1]
    zoned = labels[0] == "zone"
    sums: dict[str, float] = defaultdict(float)
    for key, count in counts.items():
        sums[key[0] if zoned else ""] += count
    shares = {key: count / sums[key[0] if zoned else ""] for key, count in counts.items() if count}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
