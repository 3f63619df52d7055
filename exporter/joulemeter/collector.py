"""Snapshot -> metric families -> the page. The catalogue names, the snapshot holds, this only formats."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from joulemeter import catalog
from joulemeter.snapshot import Snapshot


def family(spec: catalog.Metric, snapshot: Snapshot) -> Metric:
    """Build one family with its samples in label order, so that output is stable."""
    if spec.kind == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
        for labels, value in sorted(snapshot.histograms.get(spec.name, {}).items()):
            bounds = [*(str(float(bound)) for bound in value.bounds), "+Inf"]  # canonical: 1.0, not 1
            buckets = [(bound, float(count)) for bound, count in zip(bounds, value.counts, strict=True)]
            histogram.add_metric(labels, buckets=buckets, sum_value=value.sum)
        return histogram
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    plain = kind(spec.name, spec.help, labels=spec.labels)
    for labels, number in sorted(snapshot.samples.get(spec.name, {}).items()):
        plain.add_metric(labels, float(number))
    return plain


class SnapshotCollector(Collector):
    """Renders one Snapshot after another."""

    def __init__(self, latest: Callable[[], Snapshot]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        """Names for collision checks, without collecting."""
        return [family(spec, Snapshot({})) for spec in catalog.ALL]

    def collect(self) -> Iterable[Metric]:
        """Take one reference to one immutable snapshot, then only format it; families without samples stay out."""
        snapshot = self._latest()
        for spec in catalog.ALL:
            if snapshot.samples.get(spec.name) or snapshot.histograms.get(spec.name):
                yield family(spec, snapshot)


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Format a page as the client's Accept header asks; returns the body and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(lambda: snapshot))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
