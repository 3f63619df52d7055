"""One case: simulated, back-filled, recorded, evaluated; and what of it was false, found, or missed."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.alerts.cases import EPISODE_SECONDS, Case, Episode
from benchmarks.alerts.firing import Span
from benchmarks.alerts.prometheus import Prometheus
from benchmarks.alerts.rules import FITTED_DAYS, naive, ours
from benchmarks.alerts.weeks import MONDAY_TIMESTAMP_SECONDS, weeks
from benchmarks.prometheus import ROOT
from benchmarks.truth.ratios import DAY_SECONDS

RULES: Final = ROOT / "dashboards/generated/prometheus/rules.yaml"
WANTED_SECONDS: Final = ((1.25, 2700.0), (1.15, 3600.0), (1.10, 7200.0))
"""How soon a regression is to be found whose true ratio, over the first hour, is at least that."""


@dataclass(frozen=True, slots=True)
class Say:
    """Tells how far a run is, in seconds since the bench began."""

    begun_timestamp_seconds: float

    def __call__(self, text: str) -> None:
        """Tell it."""
        seconds = time.time() - self.begun_timestamp_seconds
        print(f"{seconds:6.0f} s  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Delay:
    """One episode: how much dearer decoding got, what that made of all energy in the first hour, and when it was
    found; None if it was not, or not before it ended. `masked` if the alert still fired from before.
    """

    decode_power: float
    true_ratio: float
    seconds: float | None
    masked: bool

    @property
    def wanted_seconds(self) -> float | None:
        """How soon it is to be found; None if it is too small to say."""
        return next((limit for ratio, limit in WANTED_SECONDS if self.true_ratio >= ratio), None)


@dataclass(slots=True)
class Outcome:
    """What came of a case, by rule: when it fired, and how late it was for each episode."""

    case: Case
    fired: dict[str, list[Span]] = field(default_factory=dict)
    weeks_counted: dict[str, float] = field(default_factory=dict)
    delays: dict[str, list[Delay]] = field(default_factory=dict)


def evaluate(case: Case, say: Callable[[str], None], *, with_naive: bool = True) -> Outcome:
    """Run a case. Our rules are counted from the first minute, naive ones once they have what they compare with."""
    found = weeks(case.label, case.nodes)
    say(f"{case.label}: simulated, {sum(map(len, found.series.values()))} samples")
    outcome = Outcome(case)
    rules = [(rule, 0.0) for rule in ours()]
    if with_naive:
        rules += [(rule, FITTED_DAYS * DAY_SECONDS) for rule in naive(found)]
    with tempfile.TemporaryDirectory(prefix="joulemeter-alerts-") as folder:
        prometheus = Prometheus(Path(folder) / "prometheus")
        prometheus.backfill(found.series)
        prometheus.record(RULES, MONDAY_TIMESTAMP_SECONDS, MONDAY_TIMESTAMP_SECONDS + case.seconds)
        say(f"{case.label}: back-filled and recorded")
        with prometheus.running():
            for rule, since_seconds in rules:
                spans = [
                    span
                    for spans in rule.fired(prometheus, case.seconds).values()
                    for span in spans
                    if span[1] >= since_seconds
                ]
                outcome.fired[rule.name] = sorted(spans)
                outcome.weeks_counted[rule.name] = (case.seconds - since_seconds) / (7 * DAY_SECONDS)
                outcome.delays[rule.name] = [
                    delay(case, one, spans, found.true_ratio) for one in case.episodes
                ]
    say(f"{case.label}: {', '.join(f'{len(spans)} {name}' for name, spans in outcome.fired.items())}")
    return outcome


def delay(
    case: Case, one: Episode, spans: Sequence[Span], true_ratio: Callable[[float, float], float]
) -> Delay:
    """Return how long after its begin one of the case's episodes was found."""
    begins = one.begins_seconds
    ends = case.seconds if case.stays else begins + EPISODE_SECONDS
    first = min((first for first, _ in spans if begins <= first < ends), default=None)
    return Delay(
        one.decode_power,
        true_ratio(begins, begins + 3600.0),
        None if first is None else first - begins,
        masked=any(first < begins <= last for first, last in spans),
    )
