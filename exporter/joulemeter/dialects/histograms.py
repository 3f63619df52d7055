"""Histograms of finished requests' lengths, as servers write them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from joulemeter.dialects.pages import MAX_VALUE, Sample, Series, series_key
from joulemeter.errors import PageError
from joulemeter.model import Length, LengthReading


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Histogram `name`, spelled without the server's prefix and without a suffix, holds that length."""

    length: Length
    name: str

    @property
    def samples(self) -> tuple[str, str]:
        """The samples of it that are read; the count is the last bucket's."""
        return f"{self.name}_bucket", f"{self.name}_sum"


def read_lengths(
    samples: Sequence[Sample],
    rules: Mapping[str, LengthRule],
    model_labels: Iterable[str],
) -> tuple[tuple[LengthReading, ...], list[Sample]]:
    """Read the histograms of a page, and return the samples that are not theirs.

    A histogram without its sum or its last bucket is left out.

    Args:
        samples: of the page.
        rules: by the folded names of their samples.
        model_labels: labels that name the model, best first.

    Raises:
        PageError: `bad_value` if a bound is no number or above MAX_VALUE, or the counts fall along the bounds.
    """
    buckets: dict[tuple[Length, str], dict[float, float]] = {}
    sums: dict[tuple[Length, str], Sample] = {}
    others: list[Sample] = []
    for sample in samples:
        rule = rules.get(sample.series.name)
        if rule is None:
            others.append(sample)
            continue
        place = rule.length, sample.series.told(_engine)
        if sample.series.name.endswith("_sum"):
            sums[place] = sample
        else:
            buckets.setdefault(place, {})[sample.series.told(_bound)] = sample.value
    return tuple(_readings(buckets, sums, tuple(model_labels))), others


def _engine(series: Series) -> str:
    """Name whose histogram a bucket or a sum is of: the labels, but for the bucket's bound."""
    return series_key("", {key: value for key, value in series.labels.items() if key != "le"})


def _bound(series: Series) -> float:
    written = series.labels.get("le", "")
    try:
        bound = float(written)
    except ValueError:
        bound = -1.0
    if not (0 <= bound <= MAX_VALUE or bound == math.inf):  # NaN fails this too
        raise PageError(
            "bad_value",
            f"{series.name}: le={written[:200]!r}: expected a number from 0 to {MAX_VALUE:g}, or +Inf;"
            " report the line to the server's project",
        )
    return bound


def _readings(
    buckets: Mapping[tuple[Length, str], Mapping[float, float]],
    sums: Mapping[tuple[Length, str], Sample],
    model_labels: tuple[str, ...],
) -> Iterator[LengthReading]:
    for (length, series), by_bound in buckets.items():
        total, bounds = sums.get((length, series)), sorted(by_bound)
        if total is None or bounds[-1] != math.inf:
            continue
        counts = tuple(round(by_bound[bound]) for bound in bounds)
        if any(here < below for below, here in pairwise(counts)):
            name = total.series.name.removesuffix("_sum")
            raise PageError(
                "bad_value",
                f"{name}: counts {counts} fall from bucket to bucket; if it stays, ask the server's own page"
                " with curl and report it to its project",
            )
        labels = total.series.labels
        model = next((labels[label] for label in model_labels if labels.get(label)), "")
        at_most = tuple(round(bound) for bound in bounds[:-1])
        yield LengthReading(length, model, series, at_most, counts, round(total.value))
