"""The engine behind every dialect: which series plays which role, as data."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from joulemeter.dialects import IdentityQuestion, SidePage
from joulemeter.dialects.histograms import LengthRule, read_lengths
from joulemeter.dialects.pages import MAX_VALUE, Sample, fold, series_key
from joulemeter.errors import PageError
from joulemeter.model import GAUGES, Moves, PageReading, Role, RoleReading

START_TIME: Final = "process_start_time_seconds"
MODELS: Final = IdentityQuestion("/v1/models", model_at=("data", 0, "id"))


@dataclass(frozen=True, slots=True)
class InLabels:
    """A number that stands in the labels of info series `name`: the product of the labels of one of `ways`.

    The first of `ways` counts whose labels are all there and all hold a number above 0; "None", "0" and the like
    are what servers write before they know. The info series of a sample is the one that agrees with it on every
    label that both have; if several do and say different things, none is believed.
    """

    name: str
    ways: tuple[tuple[str, ...], ...]

    def of(self, sample: Sample, infos: Iterable[Sample]) -> float | None:
        """Return the number that belongs to `sample`, None if it is not known."""
        said = {
            self._number(info.labels)
            for info in infos
            if all(info.labels.get(label, value) == value for label, value in sample.labels.items())
        }
        return said.pop() if len(said) == 1 else None

    def _number(self, labels: Mapping[str, str]) -> float | None:
        for way in self.ways:
            product = math.prod(_positive(labels.get(label, "")) for label in way)
            if 0 < product <= MAX_VALUE:  # NaN fails this too
                return product
        return None


def _positive(text: str) -> float:
    """Return the number that a label holds, NaN if it holds none above 0."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if number > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Rule:
    """Series `name`, spelled without the server's prefix, plays `role`.

    `where` keeps the series with that label value. `times` names a second series of the same labels whose
    value the first is multiplied with, or says in which labels the factor stands; without a factor there is no
    reading. Where a series `unless` is on the page, which another rule must read, this rule rests.
    """

    role: Role
    name: str
    moves: Moves | None = None
    where: tuple[str, str] | None = None
    times: str | InLabels | None = None
    unless: str | None = None

    @property
    def factor_name(self) -> str | None:
        """The series that holds the factor, spelled as `name` is."""
        return self.times.name if isinstance(self.times, InLabels) else self.times

    def __post_init__(self) -> None:
        if (self.moves is None) != (self.role in GAUGES):
            raise ValueError(
                f"{self.name}: a counter moves at some moment and a gauge has none, got {self.moves}"
            )


@dataclass(frozen=True)  # no slots: cached_property keeps its value in __dict__
class CounterDialect:
    """A dialect that is data.

    Args:
        name: see `Dialect`.
        prefixes: what every series of this server starts with, in the server's own spelling.
        always: rules for series that mean the same in every version.
        ways: alternatives, best first; the first whose first rule's series is on the page is used alone, so
            that no token is counted in two ways at once.
        model_labels: labels that name the model, best first.
        rank_labels: labels of workers that publish the same tokens each; the worker that is furthest ahead
            counts, without its rank in the series' key. (With the lowest rank, the count would fall when that
            rank's series appears a page later than the others', and a fall means a restart.)
        lengths: histograms of finished requests' lengths.
        filter_path, questions, side_page, has_phases: see `Dialect`.
    """

    name: str
    prefixes: tuple[str, ...]
    always: tuple[Rule, ...]
    ways: tuple[tuple[Rule, ...], ...] = ()
    model_labels: tuple[str, ...] = ()
    rank_labels: frozenset[str] = frozenset()
    lengths: tuple[LengthRule, ...] = ()
    filter_path: str | None = None
    questions: tuple[IdentityQuestion, ...] = ()
    side_page: SidePage | None = None
    has_phases: bool = True

    @cached_property
    def filter_names(self) -> tuple[str, ...]:
        """See `Dialect`."""
        rules = [*self.always, *(rule for way in self.ways for rule in way)]
        bare = dict.fromkeys(name for rule in rules for name in (rule.name, rule.factor_name) if name)
        bare |= dict.fromkeys(name for rule in self.lengths for name in rule.samples)
        return (*(prefix + name for prefix in self.prefixes for name in bare), START_TIME)

    @cached_property
    def families(self) -> frozenset[str]:
        """See `Dialect`."""
        return frozenset(map(fold, self.filter_names))

    def recognises(self, names: frozenset[str]) -> bool:
        """See `Dialect`. Only series that we read count, for servers share prefixes (vllm_mlx_...)."""
        return not names.isdisjoint(self.families - {START_TIME})

    def read(self, samples: tuple[Sample, ...]) -> PageReading:
        """See `Dialect`. Readings come in page order; their keys are unique."""
        present = frozenset(sample.name for sample in samples)
        if not self.recognises(present):
            raise PageError("not_metrics", f"no series of {self.name} on the page")
        rules = [rule for rule in (*self.always, *self._way(present)) if not self._rests(rule, present)]
        by_name = {
            fold(prefix + rule.name): [other for other in rules if other.name == rule.name]
            for prefix in self.prefixes
            for rule in rules
        }
        lengths, counted = read_lengths(samples, self.lengths, self.prefixes, self.model_labels)
        factors = _Factors(counted)
        furthest: dict[str, RoleReading] = {}
        for sample in counted:
            for reading in self._readings(sample, by_name.get(sample.name, ()), factors):
                twin = furthest.setdefault(reading.series, reading)
                if reading.value > twin.value:
                    furthest[reading.series] = reading
        return PageReading(self.name, tuple(furthest.values()), _start_time(samples), lengths)

    def _way(self, present: frozenset[str]) -> tuple[Rule, ...]:
        for way in self.ways:
            if any(fold(prefix + way[0].name) in present for prefix in self.prefixes):
                return way
        return ()

    def _rests(self, rule: Rule, present: frozenset[str]) -> bool:
        better = rule.unless
        return better is not None and any(fold(prefix + better) in present for prefix in self.prefixes)

    def _readings(self, sample: Sample, rules: Iterable[Rule], factors: "_Factors") -> Iterator[RoleReading]:
        """Yield what one sample means: usually one role, none if its labels are not asked for."""
        labels = {key: value for key, value in sample.labels.items() if key not in self.rank_labels}
        model = next((labels[label] for label in self.model_labels if labels.get(label)), "")
        series = series_key(sample.name, labels)
        for rule in rules:
            if rule.where and sample.labels.get(rule.where[0]) != rule.where[1]:
                continue
            if rule.times is None:
                yield RoleReading(rule.role, model, series, sample.value, rule.moves)
                continue
            factor = factors.of(sample, rule.times, prefix=sample.name.removesuffix(rule.name))
            if factor is not None:
                key = f"{series}*{rule.factor_name}"
                yield RoleReading(rule.role, model, key, sample.value * factor, rule.moves)


class _Factors:
    """What a page's samples are multiplied with."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def of(self, sample: Sample, times: str | InLabels, *, prefix: str) -> float | None:
        """Return the factor of a sample, None if it is not on the page."""
        if isinstance(times, InLabels):
            return times.of(sample, self._by_name.get(prefix + times.name, ()))
        same = (other for other in self._by_name.get(prefix + times, ()) if other.labels == sample.labels)
        return next((other.value for other in same), None)


def _start_time(samples: Iterable[Sample]) -> float | None:
    """Return the process's start if the page is of one process; a page of several has several, or none."""
    starts = [sample.value for sample in samples if sample.name == START_TIME]
    return starts[0] if len(starts) == 1 else None
