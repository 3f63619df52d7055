"""What a model's energy should be: learned from its own windows, then frozen. Pure.

Expected joules of a window are linear, with coefficients >= 0, in one of two sets of quantities:

* ENGINE, for the same engine work: the time the GPUs were there, steps, prompt tokens, decoded tokens, context
  reads, and min(batch, k) per step for a few k. The last bend energy over the batch, for models whose
  power is no straight line of it; a ridge keeps them at 0 wherever straight lines do.
* LOAD, for the same offered load: the time, decoded and prompt tokens, and 1 - exp(-rate / r) for a few rates
  r, because power is concave in load: the busy floor is paid by the first request.

Both are fitted to rows of a minute, weighted so that relative errors count: nights as much as noons
(docs/adr/0010-baselines.md has the figures).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import mul
from typing import Final

from joulemeter.engine_work import EngineWork
from joulemeter.least_squares import nonnegative
from joulemeter.load import Load, Ranges, in_ranges, widened
from joulemeter.sharing import Share

ROW_SECONDS: Final = 60.0
"""Windows are fitted by the minute: a prompt that is counted in the window after its energy does no harm."""
USABLE_SECONDS: Final = 3600.0
"""A baseline is used, and marked as learning, once it has learned for so long."""
USABLE_WORKED_SECONDS: Final = 120.0
IMPLAUSIBLE_RATIO: Final = 2.0
"""A row whose work should have taken so many times its energy was never done: a counter has jumped."""
REFUSED_ROWS: Final = 10
"""After so many in a row it is not a counter that has jumped: what was believed is wrong."""
FROZEN_WORKED_SECONDS: Final = 3600.0
"""How much of its time the model must have worked: a week without a request says nothing of what one costs."""
BATCHES: Final = (4, 8, 16, 32, 64, 128, 256, 512)
RATES_TOKENS_PER_SECOND: Final = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
RIDGE: Final = 1e-7
BEND_RIDGE: Final = 1e-4
"""Of the diagonal. Bends are weighed down so that beyond the range of load seen the straight line goes on."""


class Basis(StrEnum):
    """What stays the same when energy is compared; the label `basis`."""

    ENGINE = "engine"
    LOAD = "load"


@dataclass(frozen=True, slots=True, order=True)
class BaselineKey:
    """What a baseline belongs to: never a pod, a GPU's UUID or a version."""

    model: str
    product: str
    gpus: int


@dataclass(frozen=True, slots=True)
class BaselineWindow:
    """One server's settled window.

    `available_seconds` is the time in which the GPUs were this model's to use: the window, less the time in which
    other models' steps ran on them. `holders` is how many models share the idle energy. `energy_joules`
    has this model's part of it.
    """

    duration_seconds: float
    available_seconds: float
    holders: int
    energy_joules: float
    work: EngineWork

    @property
    def load(self) -> Load:
        """What was asked of the model."""
        return Load.of(self.work, self.available_seconds)


Row = tuple[float, ...]
ENGINE_NAMES: Final = (
    *("available_second", "step", "prompt_token", "decoded_token", "context_read"),
    *(f"step_by_batch_to_{batch}" for batch in BATCHES),
)
LOAD_NAMES: Final = (
    *("available_second", "prompt_token", "decoded_token"),
    *(f"second_by_rate_{rate}" for rate in RATES_TOKENS_PER_SECOND),
)
NAMES: Final[Mapping[Basis, tuple[str, ...]]] = {Basis.ENGINE: ENGINE_NAMES, Basis.LOAD: LOAD_NAMES}
"""What each coefficient multiplies, in the order of the rows."""
STRAIGHT: Final[Mapping[Basis, int]] = {Basis.ENGINE: 5, Basis.LOAD: 3}
"""How many of them, from the first, are not bends."""


def rows(window: BaselineWindow) -> dict[Basis, Row]:
    """Return what a window's energy is linear in, on each basis."""
    work, seconds = window.work, max(0.0, window.available_seconds)
    own_seconds = seconds / max(1, window.holders)
    batch = work.decoded_tokens / work.steps if work.steps > 0 else 0.0
    rate = work.decoded_tokens / seconds if seconds > 0 else math.inf
    return {
        Basis.ENGINE: (
            *(own_seconds, work.steps, work.prompt_tokens, work.decoded_tokens, work.context_reads),
            *(work.steps * min(batch, one) for one in BATCHES),
        ),
        Basis.LOAD: (
            *(own_seconds, work.prompt_tokens, work.decoded_tokens),
            *(-seconds * math.expm1(-rate / one) for one in RATES_TOKENS_PER_SECOND),
        ),
    }


@dataclass(slots=True)
class Equations:
    """Normal equations of the rows so far; each counts by its relative error."""

    normal: list[list[float]]
    right: list[float]

    @classmethod
    def empty(cls, size: int) -> "Equations":
        """Return those of no row."""
        return cls([[0.0] * size for _ in range(size)], [0.0] * size)

    def add(self, row: Iterable[float], joules: float) -> None:
        """Take in a row whose energy, > 0, was that."""
        relative = [value / joules for value in row]
        for i, value in enumerate(relative):
            if value:
                self.right[i] += value
                line = self.normal[i]
                for j, other in enumerate(relative):
                    line[j] += value * other

    def solved(self, straight: int) -> Row:
        """Return the coefficients; the first `straight` are no bends."""
        normal = [line.copy() for line in self.normal]
        for i, line in enumerate(normal):
            line[i] *= 1.0 + (RIDGE if i < straight else BEND_RIDGE)
        return tuple(nonnegative(normal, self.right))


@dataclass(slots=True)
class Learning:
    """What a baseline keeps while it learns."""

    equations: dict[Basis, Equations]
    learned_seconds: float = 0.0
    worked_seconds: float = 0.0
    _refused_rows: int = 0
    _sums: dict[Basis, list[float]] = field(default_factory=dict)
    _joules: float = 0.0
    _seconds: float = 0.0
    _load: Load = field(default_factory=Load)

    @classmethod
    def fresh(cls) -> "Learning":
        """Return the state of one that has learned nothing."""
        return cls({basis: Equations.empty(len(names)) for basis, names in NAMES.items()})

    def take(self, window: BaselineWindow, believed: Row | None) -> Load | None:
        """Take in a window, and return the load of the row that it completes, if that is to be believed.

        Args:
            window: what was measured and done.
            believed: coefficients by engine work, once there are some.
        """
        for basis, row in rows(window).items():
            sums = self._sums.get(basis) or [0.0] * len(row)
            self._sums[basis] = [one + other for one, other in zip(sums, row, strict=True)]
        self._joules += window.energy_joules
        self._seconds += window.duration_seconds
        self._load = self._load.plus(window.load)
        if self._seconds < ROW_SECONDS:
            return None
        sums_by_basis, joules, load = self._sums, self._joules, self._load
        self._sums, self._joules, self._seconds, self._load = {}, 0.0, 0.0, Load()
        if believed is not None and self._refuses(
            sum(map(mul, believed, sums_by_basis[Basis.ENGINE])), joules
        ):
            return None
        if joules > 0:
            for basis, equations in self.equations.items():
                equations.add(sums_by_basis[basis], joules)
        return load

    def _refuses(self, expected_joules: float, joules: float) -> bool:
        implausible = expected_joules > IMPLAUSIBLE_RATIO * joules
        self._refused_rows = self._refused_rows + 1 if implausible else 0
        return 0 < self._refused_rows <= REFUSED_ROWS


@dataclass(slots=True)
class Baseline:
    """One baseline. `coefficients` are joules of what `NAMES` say; without any it cannot be used yet.

    `learning` is None once it is frozen: from then on nothing changes it.
    """

    id: str
    key: BaselineKey
    started_at_timestamp_seconds: float
    learning: Learning | None
    coefficients: dict[Basis, Row] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    frozen_at_timestamp_seconds: float | None = None

    @classmethod
    def begun(cls, key: BaselineKey, now_timestamp_seconds: float) -> "Baseline":
        """Return one that knows nothing. Its id tells it from any other of the same key."""
        text = "\0".join((key.model, key.product, str(key.gpus), repr(now_timestamp_seconds)))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(digest[:8], key, now_timestamp_seconds, Learning.fresh())

    @property
    def state(self) -> str:
        """The label `state` of `joulemeter_model_baseline_info`."""
        return "frozen" if self.learning is None else "learning"

    @property
    def usable(self) -> bool:
        """Whether it can say what to expect."""
        return bool(self.coefficients)

    def expected_joules(self, window: BaselineWindow) -> dict[Basis, float]:
        """Return what the window should have taken; `usable` must be so."""
        return {
            basis: sum(joules * value for joules, value in zip(self.coefficients[basis], row, strict=True))
            for basis, row in rows(window).items()
        }

    def share(self, window: BaselineWindow) -> Share:
        """Return what the same engine work should have taken, apart from what the GPUs draw without it."""
        names, coefficients = NAMES[Basis.ENGINE], self.coefficients[Basis.ENGINE]
        joules = dict(zip(names, map(mul, coefficients, rows(window)[Basis.ENGINE]), strict=True))
        base_joules, prompt_joules = joules.pop("available_second"), joules.pop("prompt_token")
        return Share(base_joules, prompt_joules, math.fsum(joules.values()))

    def learn(
        self,
        window: BaselineWindow,
        *,
        fresh_seconds: float,
        learn_seconds: float,
        now_timestamp_seconds: float,
    ) -> None:
        """Learn from a window, unless frozen.

        Args:
            window: what was measured and done.
            fresh_seconds: how much of its time no replica has brought a window of yet.
            learn_seconds: freeze once so much time is learned.
            now_timestamp_seconds: noted when it freezes.
        """
        learning = self.learning
        if learning is None or (not learning.worked_seconds and not window.work.any):
            return
        learning.learned_seconds += fresh_seconds
        learning.worked_seconds += window.duration_seconds if window.work.any else 0.0
        row = learning.take(window, self.coefficients.get(Basis.ENGINE))
        if row is None:
            return
        self.ranges = widened(self.ranges, row)
        usable_seconds = min(USABLE_SECONDS, learn_seconds)
        if learning.learned_seconds < usable_seconds or learning.worked_seconds < USABLE_WORKED_SECONDS:
            return
        self.coefficients = {
            basis: equations.solved(STRAIGHT[basis]) for basis, equations in learning.equations.items()
        }
        if learning.learned_seconds >= learn_seconds and learning.worked_seconds >= FROZEN_WORKED_SECONDS:
            self.learning = None
            self.frozen_at_timestamp_seconds = now_timestamp_seconds

    def in_range(self, load: Load) -> bool:
        """Whether it has seen such a load."""
        return in_ranges(self.ranges, load)
