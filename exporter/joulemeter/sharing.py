"""Models on shared GPUs: who of them got dearer. Pure.

When a model begins to cost more, the estimator that splits energy takes hours to say whose it is. Given what each of
them should have taken there is one unknown a model left, its ratio, and minutes tell it:

    energy - sum of bases = sum over models of ratio x work,   ratios >= 0, over the last windows

where a base is what a model's part of the GPUs draws if no step runs, and work what its steps add.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from joulemeter.least_squares import nonnegative

HALF_LIFE_SECONDS: Final = 300.0
TRUST: Final = 0.005
"""How much says beforehand that all ratios are 1; a window in which a model did all there was counts 1."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a model should have taken in a window: its base, and above it the work."""

    base_joules: float
    work_joules: float


@dataclass(slots=True)
class Sharing:
    """So many models that use the same GPUs, and the ratio of what each took to what it should have taken."""

    models: int
    _normal: list[list[float]] = field(init=False)
    _right: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._normal = [[0.0] * self.models for _ in range(self.models)]
        self._right = [0.0] * self.models

    def split(self, joules: float, shares: Sequence[Share], duration_seconds: float) -> list[float] | None:
        """Take in a window and split what all took; None if it says nothing: no work, or less than the bases."""
        above_joules = joules - math.fsum(share.base_joules for share in shares)
        if above_joules <= 0 or not any(share.work_joules > 0 for share in shares):
            return None
        keep = 0.5 ** (duration_seconds / HALF_LIFE_SECONDS)
        work = [share.work_joules / joules for share in shares]
        for i, one in enumerate(work):
            self._right[i] = keep * self._right[i] + one * above_joules / joules
            for j, other in enumerate(work):
                self._normal[i][j] = keep * self._normal[i][j] + one * other
        normal = [line.copy() for line in self._normal]
        for i, line in enumerate(normal):
            line[i] += TRUST
        ratios = nonnegative(normal, [value + TRUST for value in self._right])
        parts = [ratio * one for ratio, one in zip(ratios, work, strict=True)]
        whole = math.fsum(parts)
        if whole <= 0:
            return None
        return [
            share.base_joules + above_joules * part / whole for share, part in zip(shares, parts, strict=True)
        ]
