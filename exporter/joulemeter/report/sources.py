"""Which exporter a series is from, when each was scraped, and which of them show the same GPUs twice. Pure."""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from joulemeter import catalog
from joulemeter.catalog import Metric
from joulemeter.report.increases import Life, falls, longest_seconds

Target = frozenset[tuple[str, str]]
"""The labels that the scraper gave: who was asked."""
Key = tuple[str, ...]
"""The values of a metric's own labels, in the catalogue's order."""
Span = tuple[float, float]

OVERWRITTEN: Final = "exported_"
"""What Prometheus puts before a label of ours if it has one of that name, and `honor_labels` is not set."""
OWN: Final = frozenset(
    label
    for metric in (catalog.UNATTRIBUTED_COST, catalog.MODEL_COST, catalog.UNATTRIBUTED_TOKENS)
    for label in metric.labels
)
"""The labels of all series that are added up. No scraper's label has one of these names: with `honor_labels`, GPUs'
series carry the exporter's own namespace and pod, and models' series those of the server."""
HANDOVER_SECONDS: Final = 300.0
"""For as long an old daemon and the one that takes its place may both be there."""
GUARD_SECONDS: Final = 60.0
"""Two scrapers' clocks and snapshots differ: pages that lie closer than this may be in the wrong order."""
AGREEING_RATIO: Final = 0.9


@dataclass(frozen=True, slots=True)
class Series:
    """Raw samples of one series: its labels without the name, times (Unix, ascending) and values."""

    labels: Mapping[str, str]
    at_seconds: Sequence[float]
    values: Sequence[float]

    def within(self, spans: Sequence[Span]) -> "Series":
        """Return the samples in any of these spans."""
        kept = [
            index
            for begin, end in spans
            for index in range(bisect_left(self.at_seconds, begin), bisect_right(self.at_seconds, end))
        ]
        return Series(
            self.labels, [self.at_seconds[index] for index in kept], [self.values[index] for index in kept]
        )


def target_of(labels: Mapping[str, str]) -> Target:
    """Return the labels that are not ours."""
    return frozenset(
        (name, value) for name, value in labels.items() if name.removeprefix(OVERWRITTEN) not in OWN
    )


def key_of(metric: Metric, labels: Mapping[str, str]) -> Key:
    """Return the values of our labels; an empty one is no label in Prometheus."""
    return tuple(labels.get(OVERWRITTEN + name, labels.get(name, "")) for name in metric.labels)


def shown(target: Target) -> str:
    """Name an exporter in a message."""
    labels = ", ".join(f'{name}="{value}"' for name, value in sorted(target))
    return f"{{{labels}}}"


def joined(parts: Sequence[Series]) -> Series:
    """Merge series whose labels differ only in what is not kept (the exporter's pod, after a restart of it)."""
    if len(parts) == 1:
        return parts[0]
    samples = {at: value for part in parts for at, value in zip(part.at_seconds, part.values, strict=True)}
    times = sorted(samples)
    return Series(parts[0].labels, times, [samples[at] for at in times])


def by_source(metric: Metric, found: Iterable[Series]) -> dict[tuple[Target, Key], Series]:
    """Sort series by exporter and by their own labels."""
    parts: dict[tuple[Target, Key], list[Series]] = defaultdict(list)
    for one in found:
        parts[target_of(one.labels), key_of(metric, one.labels)].append(one)
    return {where: joined(some) for where, some in parts.items()}


@dataclass(slots=True)
class Sighting:
    """What the energy counters of one exporter's GPUs tell: its pages and restarts, and values where they are kept."""

    page_seconds: "array[float]" = field(default_factory=lambda: array("d"))
    restart_seconds: set[float] = field(default_factory=set)
    kept: dict[Key, "tuple[array[float], array[float]]"] = field(default_factory=dict)
    last: dict[Key, tuple[float, float]] = field(default_factory=dict)

    def take(self, chunk: Mapping[Key, Series], *, keep: bool) -> None:
        """Take in the next samples of all GPUs."""
        known_seconds = self.page_seconds[-1] if self.page_seconds else float("-inf")
        pages = {at for one in chunk.values() for at in one.at_seconds if at > known_seconds}
        self.page_seconds.extend(sorted(pages))
        for key, one in chunk.items():
            at_last, value_last = self.last.get(key, (float("-inf"), 0.0))
            begin = bisect_right(one.at_seconds, at_last)
            times, values = list(one.at_seconds[begin:]), list(one.values[begin:])
            if not times:
                continue
            self.restart_seconds.update(falls([at_last, *times], [value_last, *values]))
            self.last[key] = times[-1], values[-1]
            if keep:
                kept_times, kept_values = self.kept.setdefault(key, (array("d"), array("d")))
                kept_times.extend(times)
                kept_values.extend(values)

    def samples(self, key: Key) -> Series:
        """Return what was kept of a GPU."""
        times, values = self.kept.get(key, ((), ()))
        return Series({}, times, values)

    def seen_after(self, at_seconds: float) -> bool:
        """Say whether there is a page later than an instant."""
        return bool(self.page_seconds) and self.page_seconds[-1] > at_seconds

    def life(self) -> Life:
        """Return its life."""
        return Life(self.page_seconds, tuple(sorted(self.restart_seconds)))


@dataclass(frozen=True, slots=True)
class Use:
    """Whose samples these are: those of exporter `of`, in these spans alone where there are any."""

    of: Target
    spans: tuple[Span, ...] | None = None

    def samples(self, series: Series) -> Series:
        """Return the samples that count."""
        return series if self.spans is None else series.within(self.spans)


@dataclass(frozen=True, slots=True)
class Sources:
    """Exporters, each joule once: which samples are used as whose, the lives, and what a reader has to know."""

    uses: Mapping[Target, Use]
    lives: Mapping[Target, Life]
    warnings: tuple[str, ...] = ()


def suspects(uuids: Mapping[Target, frozenset[str]]) -> frozenset[Target]:
    """Return exporters that show a GPU that another one shows too."""
    holders: dict[str, set[Target]] = defaultdict(set)
    for target, some in uuids.items():
        for uuid in some:
            holders[uuid].add(target)
    return frozenset(target for some in holders.values() if len(some) > 1 for target in some)


def sources(sightings: Mapping[Target, Sighting]) -> Sources:
    """Find replicas: exporters scraped twice, by two Prometheus servers or two jobs.

    Of those that show the same GPU at the same time with the same counts, the one with the most pages counts; the
    others fill its gaps. With other counts they are two daemons on one GPU: only one of them counts. One that begins
    after another has ended is the same node under another name: both count.
    """
    uses: dict[Target, Use] = {}
    lives: dict[Target, Life] = {}
    warnings: list[str] = []
    order = sorted(sightings, key=lambda one: (-len(sightings[one].page_seconds), sorted(one)))
    for target in order:
        mine = sightings[target]
        if not mine.page_seconds:
            continue
        twins = [other for other in lives if _overlap_seconds(mine, sightings[other]) > 0]
        same = next((other for other in twins if _agree(mine, sightings[other])), None)
        rival = next(
            (other for other in twins if _overlap_seconds(mine, sightings[other]) > HANDOVER_SECONDS), None
        )
        if same is not None:
            pages = sorted(
                at for other in lives if _share(mine, sightings[other]) for at in lives[other].page_seconds
            )
            spans = tuple((before + GUARD_SECONDS, after - GUARD_SECONDS) for before, after in _gaps(pages))
            uses[target] = Use(same, spans)
            lives[same] = _filled(sightings[same], mine, spans)
        elif rival is not None:
            warnings.append(
                f"{shown(target)} and {shown(rival)} both measure the same GPU; only {shown(rival)} counts here."
                " Run one joulemeter on a node"
            )
        else:
            uses[target], lives[target] = Use(target), mine.life()
    return Sources(uses, lives, tuple(warnings))


def _share(one: Sighting, other: Sighting) -> bool:
    return bool({uuid for _, uuid in one.kept} & {uuid for _, uuid in other.kept})


def _overlap_seconds(one: Sighting, other: Sighting) -> float:
    if not _share(one, other):
        return 0.0
    begin = max(one.page_seconds[0], other.page_seconds[0])
    return min(one.page_seconds[-1], other.page_seconds[-1]) - begin


def _agree(one: Sighting, other: Sighting) -> bool:
    """Say whether an exporter's counts lie between those of another, as they do if both are one daemon's."""
    agreeing = asked = 0
    near_seconds = longest_seconds(other.page_seconds)
    for key in one.kept.keys() & other.kept.keys():
        times, values = other.kept[key]
        for at, value in zip(*one.kept[key], strict=True):
            index = bisect_left(times, at)
            if 0 < index < len(times) and times[index] - times[index - 1] <= near_seconds:
                asked += 1
                # A snapshot's age: a page may show what the next one of the other scraper shows.
                low, high = values[max(0, index - 2)], values[min(len(times) - 1, index + 1)]
                agreeing += low <= value <= high
    return asked > 0 and agreeing >= AGREEING_RATIO * asked


def _gaps(page_seconds: Sequence[float]) -> list[Span]:
    longest = longest_seconds(page_seconds)
    inside = [span for span in pairwise(page_seconds) if span[1] - span[0] > longest]
    return [(float("-inf"), page_seconds[0]), *inside, (page_seconds[-1], float("inf"))]


def _filled(main: Sighting, filler: Sighting, spans: Sequence[Span]) -> Life:
    """Add a replica's pages to a life, and find the restarts anew; `main` holds all afterwards."""
    merged = Sighting()
    parts: dict[Key, Series] = {}
    for key in main.kept.keys() | filler.kept.keys():
        parts[key] = joined([main.samples(key), filler.samples(key).within(spans)])
    merged.take(parts, keep=True)
    main.page_seconds, main.restart_seconds = merged.page_seconds, merged.restart_seconds
    main.kept, main.last = merged.kept, merged.last
    return main.life()
