"""Pages with timestamps, as promtool takes them to make blocks of the past."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from prometheus_client.utils import floatToGoString

from joulemeter import catalog
from joulemeter.snapshot import Snapshot

Target = Mapping[str, str]
"""What Prometheus adds to each series: job, instance, cluster."""


def write(out: TextIO, pages: Iterable[tuple[float, Snapshot]], target: Target) -> None:
    """Write scrapes one after another, and what Prometheus notes of each."""
    forms: dict[tuple[str, tuple[str, ...]], str] = {}
    for timestamp, snapshot in pages:
        count = 0
        for name, labels, value in _samples(snapshot):
            form = forms.get((name, labels))
            if form is None:
                forms[name, labels] = form = f"{_series(name, labels, target)} "
            out.write(f"{form}{value!r} {timestamp:.0f}\n")
            count += 1
        for name, noted in (("up", 1), ("scrape_samples_scraped", count), ("scrape_duration_seconds", 0.004)):
            out.write(f"{_series(name, (), target)} {noted} {timestamp:.0f}\n")


def write_series(out: TextIO, labels: Mapping[str, str], points: Iterable[tuple[float, str]]) -> None:
    """Write one series, such as what a query answered."""
    name = labels["__name__"]
    form = _labelled(name, {key: value for key, value in labels.items() if key != "__name__"})
    out.writelines(f"{form} {value} {timestamp:.0f}\n" for timestamp, value in points)


LABELS = {metric.name: metric.labels for metric in catalog.ALL}
LE = ("le",)


def _samples(snapshot: Snapshot) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for name, samples in snapshot.samples.items():
        for labels, value in samples.items():
            yield name, labels, float(value)
    for name, histograms in snapshot.histograms.items():
        for labels, histogram in histograms.items():
            bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
            for bound, count in zip(bounds, histogram.counts, strict=True):
                yield f"{name}_bucket", (*labels, bound), float(count)
            yield f"{name}_count", labels, float(histogram.counts[-1])
            yield f"{name}_sum", labels, histogram.sum


def _series(name: str, values: tuple[str, ...], target: Target) -> str:
    names = LABELS.get(name)
    if names is None:
        family, _, suffix = name.rpartition("_")
        names = (*LABELS.get(family, ()), *(LE if suffix == "bucket" else ()))
    own = dict(zip(names, values, strict=True))
    return _labelled(name, {**target, **own})


def _labelled(name: str, labels: Mapping[str, str]) -> str:
    """Write a series as it is on a page; values here have neither quotes nor line feeds."""
    pairs = [f'{key}="{value}"' for key, value in labels.items() if value]
    return f"{name}{{{','.join(pairs)}}}"
