"""The engine behind every dialect: which series plays which role, as data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from joulemeter.dialects import IdentityQuestion
from joulemeter.dialects.pages import Sample, fold
from joulemeter.errors import PageError
from joulemeter.model import GAUGES, Moves, PageReading, Role, RoleReading

START_TIME: Final = "process_start_time_seconds"
MODELS: Final = IdentityQuestion("/v1/models", model_at=("data", 0, "id"))


@dataclass(frozen=True, slots=True)
class Rule:
    """Series `name`, spelled without the server's prefix, plays `role`.

    `where` keeps the series with that label value. `times` names a second series of the same labels whose
    value the first is multiplied with.
    """

    role: Role
    name: str
    moves: Moves | None = None
    where: tuple[str, str] | None = None
    times: str | None = None

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
        filter_path, questions, has_phases: see `Dialect`.
    """

    name: str
    prefixes: tuple[str, ...]
    always: tuple[Rule, ...]
    ways: tuple[tuple[Rule, ...], ...] = ()
    model_labels: tuple[str, ...] = ()
    rank_labels: frozenset[str] = frozenset()
    filter_path: str | None = None
    questions: tuple[IdentityQuestion, ...] = ()
    has_phases: bool = True

    @cached_property
    def filter_names(self) -> tuple[str, ...]:
        """See `Dialect`."""
        rules = [*self.always, *(rule for way in self.ways for rule in way)]
        bare = dict.fromkeys(name for rule in rules for name in (rule.name, rule.times) if name)
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
        rules = (*self.always, *self._way(present))
        by_name = {
            fold(prefix + rule.name): [other for other in rules if other.name == rule.name]
            for prefix in self.prefixes
            for rule in rules
        }
        values = {series_key(sample.name, sample.labels): sample.value for sample in samples}
        furthest: dict[str, RoleReading] = {}
        for sample in samples:
            for reading in self._readings(sample, by_name.get(sample.name, ()), values):
                twin = furthest.setdefault(reading.series, reading)
                if reading.value > twin.value:
                    furthest[reading.series] = reading
        return PageReading(self.name, tuple(furthest.values()), _start_time(samples))

    def _way(self, present: frozenset[str]) -> tuple[Rule, ...]:
        for way in self.ways:
            if any(fold(prefix + way[0].name) in present for prefix in self.prefixes):
                return way
        return ()

    def _readings(
        self, sample: Sample, rules: Iterable[Rule], values: Mapping[str, float]
    ) -> Iterator[RoleReading]:
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
            factor_name = sample.name.removesuffix(rule.name) + rule.times
            factor = values.get(series_key(factor_name, sample.labels))
            if factor is not None:
                key = f"{series}*{rule.times}"
                yield RoleReading(rule.role, model, key, sample.value * factor, rule.moves)


def series_key(name: str, labels: Mapping[str, str]) -> str:
    """Name a series so that pages of one server agree, in whatever order and content type they list it."""
    inner = ",".join(f"{key}={value!r}" for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name


def _start_time(samples: Iterable[Sample]) -> float | None:
    """Return the process's start if the page is of one process; a page of several has several, or none."""
    starts = [sample.value for sample in samples if sample.name == START_TIME]
    return starts[0] if len(starts) == 1 else None
