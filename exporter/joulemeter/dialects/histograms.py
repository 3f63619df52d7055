"""Histograms of finished requests' lengths, as servers write them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from joulemeter.dialects.pages import REMEMBERED_SERIES, Sample, fold, series_key
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
    rules: Iterable[LengthRule],
    prefixes: Iterable[str],
    model_labels: Iterable[str],
) -> tuple[tuple[LengthReading, ...], list[Sample]]:
    """Read the histograms of a page, and return the samples that are not theirs.

    A histogram without its sum or its last bucket is left out.

    Raises:
        PageError: `bad_value` if a bound is no number, or the counts fall along the bounds.
    """
    names = {fold(prefix + name): rule for prefix in prefixes for rule in rules for name in rule.samples}
    buckets: dict[tuple[Length, str], dict[float, Sample]] = {}
    sums: dict[tuple[Length, str], Sample] = {}
    others: list[Sample] = []
    for sample in samples:
        rule = names.get(sample.name)
        if rule is None:
            others.append(sample)
            continue
        series, written = _place(tuple(sample.labels.items()))
        if sample.name.endswith("_sum"):
            sums[rule.length, series] = sample
        else:
            buckets.setdefault((rule.length, series), {})[_bound(sample.name, written)] = sample
    return tuple(_readings(buckets, sums, tuple(model_labels))), others


@lru_cache(REMEMBERED_SERIES)
def _place(labels: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """Return a histogram's series and what is written as the bucket's bound; a page has the same ones every second."""
    return series_key("", {key: value for key, value in labels if key != "le"}), dict(labels).get("le", "")


def _readings(
    buckets: Mapping[tuple[Length, str], Mapping[float, Sample]],
    sums: Mapping[tuple[Length, str], Sample],
    model_labels: tuple[str, ...],
) -> Iterator[LengthReading]:
    for (length, series), by_bound in buckets.items():
        total, bounds = sums.get((length, series)), sorted(by_bound)
        if total is None or bounds[-1] != float("inf"):
            continue
        counts = tuple(round(by_bound[bound].value) for bound in bounds)
        if any(here < below for below, here in pairwise(counts)):
            name = total.name.removesuffix("_sum")
            raise PageError(
                "bad_value",
                f"{name}: counts {counts} fall from bucket to bucket; if it stays, ask the server's own page"
                " with curl and report it to its project",
            )
        model = next((total.labels[label] for label in model_labels if total.labels.get(label)), "")
        at_most = tuple(round(bound) for bound in bounds[:-1])
        yield LengthReading(length, model, series, at_most, counts, round(total.value))


def _bound(name: str, written: str) -> float:
    try:
        bound = float(written)
    except ValueError:
        bound = -1.0
    if not bound >= 0:  # NaN fails this too
        raise PageError(
            "bad_value",
            f"{name}: le={written!r}: expected a number >= 0 or +Inf; report the line to the server's project",
        )
    return bound
