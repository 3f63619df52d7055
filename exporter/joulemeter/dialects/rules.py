"""The engine behind every dialect: which series plays which role, as data."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from joulemeter.dialects import IdentityQuestion, SidePage
from joulemeter.dialects.histograms import LengthRule, read_lengths
from joulemeter.dialects.pages import MAX_VALUE, Sample, Series, fold, series_key
from joulemeter.errors import PageError
from joulemeter.model import GAUGES, Moves, PageReading, Role, RoleReading

START_TIME: Final = "process_start_time_seconds"
REMEMBERED_PAGES: Final = 64
"""Ways in which pages of one dialect differ in the series that they have."""
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
            self._number(info.series.labels)
            for info in infos
            if all(
                info.series.labels.get(label, value) == value for label, value in sample.series.labels.items()
            )
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
        return not names.isdisjoint(self._own_families)

    def read(self, samples: tuple[Sample, ...]) -> PageReading:
        """See `Dialect`. Readings come in page order; their keys are unique."""
        present = frozenset(sample.series.name for sample in samples)
        if not self.recognises(present):
            raise PageError("not_metrics", f"no series of {self.name} on the page")
        rules = self._rules(present)
        lengths, counted = read_lengths(samples, self._length_rules, self.model_labels)
        factors = _Factors(counted)
        furthest: dict[str, RoleReading] = {}
        for sample in counted:
            for reading in self._readings(sample, rules.get(sample.series.name, ()), factors):
                twin = furthest.setdefault(reading.series, reading)
                if reading.value > twin.value:
                    furthest[reading.series] = reading
        return PageReading(self.name, tuple(furthest.values()), _start_time(samples), lengths)

    @cached_property
    def _own_families(self) -> frozenset[str]:
        return self.families - {START_TIME}

    @cached_property
    def _length_rules(self) -> Mapping[str, LengthRule]:
        """By the folded names of their samples."""
        return {
            fold(prefix + name): rule
            for prefix in self.prefixes
            for rule in self.lengths
            for name in rule.samples
        }

    @cached_property
    def _rules(self) -> Callable[[frozenset[str]], Mapping[str, tuple[Rule, ...]]]:
        """Rules by the folded name of their series, given the names on a page: the same every second."""
        return lru_cache(REMEMBERED_PAGES)(self._rules_of)

    @cached_property
    def _named(self) -> Callable[[Series], tuple[str, str]]:
        """The model that a series names, and its key without ranks."""
        return _naming(self.model_labels, self.rank_labels)

    def _rules_of(self, present: frozenset[str]) -> Mapping[str, tuple[Rule, ...]]:
        found: dict[str, tuple[Rule, ...]] = {}
        for rule in (*self.always, *self._way(present)):
            if not self._rests(rule, present):
                for name in {fold(prefix + rule.name) for prefix in self.prefixes}:
                    found[name] = (*found.get(name, ()), rule)
        return found

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
        model, series = sample.series.told(self._named)
        for rule in rules:
            if rule.where and sample.series.labels.get(rule.where[0]) != rule.where[1]:
                continue
            if rule.times is None:
                yield RoleReading(rule.role, model, series, sample.value, rule.moves)
                continue
            factor = factors.of(sample, rule.times, prefix=sample.series.name.removesuffix(rule.name))
            if factor is not None:
                key = f"{series}*{rule.factor_name}"
                yield RoleReading(rule.role, model, key, sample.value * factor, rule.moves)


class _Factors:
    """What a page's samples are multiplied with."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.series.name, []).append(sample)

    def of(self, sample: Sample, times: str | InLabels, *, prefix: str) -> float | None:
        """Return the factor of a sample, None if it is not on the page."""
        if isinstance(times, InLabels):
            return times.of(sample, self._by_name.get(prefix + times.name, ()))
        others, labels = self._by_name.get(prefix + times, ()), sample.series.labels
        same = (other for other in others if other.series.labels == labels)
        return next((other.value for other in same), None)


@lru_cache(REMEMBERED_PAGES)  # one function for all that ask the same: series remember what it told
def _naming(
    model_labels: tuple[str, ...], rank_labels: frozenset[str]
) -> Callable[[Series], tuple[str, str]]:
    def named(series: Series) -> tuple[str, str]:
        labels = {key: value for key, value in series.labels.items() if key not in rank_labels}
        model = next((labels[label] for label in model_labels if labels.get(label)), "")
        return model, series.key if len(labels) == len(series.labels) else series_key(series.name, labels)

    return named


def _start_time(samples: Iterable[Sample]) -> float | None:
    """Return the process's start if the page is of one process; a page of several has several, or none."""
    starts = [sample.value for sample in samples if sample.series.name == START_TIME]
    return starts[0] if len(starts) == 1 else None
