"""Models on shared GPUs: who of them got dearer. Pure.

When a model begins to cost more, the estimator that splits energy takes hours to say whose it is. Given what each of
them should have taken two unknowns a model are left, the ratios of its prompts and of its other work to that:

    energy - sum of bases = sum over models of ratio x work + noise,   ratios >= 0

where a base is what a model's part of the GPUs draws if no step runs, and work what its steps add. The ratios
drift: they are followed by a Kalman filter, which lets those grow uncertain that the traffic of the hour cannot tell
apart, and keeps what it knew of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

ROW_SECONDS: Final = 60.0
"""Windows are taken by the minute: what is counted a window late errs less, and noise in work is what makes one
model pay for another."""
DRIFT_PER_SECOND: Final = 3e-6
"""Variance that a second adds to what a model's ratios have in common, and to each alone: a tenth an hour."""
NOISE: Final = 4e-4
"""Variance of a row over its energy: two hundredths."""
BELIEF: Final = 0.02
"""Variance of what a model's ratios have in common, and of each alone, while nothing is known but that they are 1."""
KINDS: Final = 2
"""Ratios of each model."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a model should have taken in a window: its base, and above it what prompts and all other work added."""

    base_joules: float
    prompt_joules: float
    other_joules: float

    @property
    def works(self) -> tuple[float, float]:
        """What the model's ratios multiply."""
        return self.prompt_joules, self.other_joules


@dataclass(slots=True)
class _Row:
    """Windows of a minute: energy, what of it is above the bases, and each work."""

    works: list[float]
    joules: float = 0.0
    above_joules: float = 0.0
    seconds: float = 0.0

    def add(self, joules: float, above_joules: float, works: Sequence[float], seconds: float) -> None:
        self.joules += joules
        self.above_joules += above_joules
        self.works = [one + other for one, other in zip(self.works, works, strict=True)]
        self.seconds += seconds


class Sharing:
    """So many models that use the same GPUs, and the ratios of what they take to what they should take."""

    def __init__(self, models: int) -> None:
        self._size = KINDS * models
        self._ratios = [1.0] * self._size
        self._covariance = [
            [self._shared(i, j, BELIEF) for j in range(self._size)] for i in range(self._size)
        ]
        self._row = _Row([0.0] * self._size)
        self._drifted_seconds = 0.0

    def split(self, joules: float, shares: Sequence[Share], duration_seconds: float) -> list[float] | None:
        """Take in a window and split what all took; None if it says nothing: no work, or less than the bases."""
        self._drifted_seconds += duration_seconds
        works = [work for share in shares for work in share.works]
        above_joules = joules - math.fsum(share.base_joules for share in shares)
        if above_joules <= 0 or not any(work > 0 for work in works):
            return None
        self._row.add(joules, above_joules, works, duration_seconds)
        if self._row.seconds >= ROW_SECONDS:
            self._learn(self._row)
            self._row = _Row([0.0] * self._size)
        taken = [ratio * work for ratio, work in zip(self._ratios, works, strict=True)]
        parts = [math.fsum(taken[i : i + KINDS]) for i in range(0, self._size, KINDS)]
        whole = math.fsum(parts)
        if whole <= 0:
            return None
        return [
            share.base_joules + above_joules * part / whole for share, part in zip(shares, parts, strict=True)
        ]

    def _learn(self, row: _Row) -> None:
        """Take in a row: one step of a Kalman filter whose state walks at random."""
        self._drift()
        work = [one / row.joules for one in row.works]
        toward = [math.fsum(map(mul, line, work)) for line in self._covariance]
        variance = math.fsum(map(mul, toward, work)) + NOISE
        surprise = row.above_joules / row.joules - math.fsum(map(mul, self._ratios, work))
        self._ratios = [
            max(0.0, ratio + surprise * one / variance)
            for ratio, one in zip(self._ratios, toward, strict=True)
        ]
        for line, one in zip(self._covariance, toward, strict=True):
            for j, other in enumerate(toward):
                line[j] -= one * other / variance

    def _drift(self) -> None:
        """Let the ratios grow uncertain, but no more than at first: a model may rest for days."""
        added = DRIFT_PER_SECOND * self._drifted_seconds
        self._drifted_seconds = 0.0
        for i, line in enumerate(self._covariance):
            for j in range(self._size):
                line[j] += self._shared(i, j, added)
        most = self._shared(0, 0, BELIEF)
        scales = [min(1.0, math.sqrt(most / line[i])) for i, line in enumerate(self._covariance)]
        for scale, line in zip(scales, self._covariance, strict=True):
            for j, other in enumerate(scales):
                line[j] *= scale * other

    @staticmethod
    def _shared(i: int, j: int, variance: float) -> float:
        """Return an element of the covariance of ratios whose common part and own parts have that variance."""
        return variance * ((i // KINDS == j // KINDS) + (i == j))
