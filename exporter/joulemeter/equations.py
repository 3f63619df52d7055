"""Windows -> the equations that the estimator learns from. Pure; holds what waits to be added up.

Servers count a prompt's tokens when it is done. A prompt that is being computed at the edge of two windows has joules
in the first and all its tokens in the second: both equations are wrong, in opposite directions. Their sum is right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from joulemeter.engine_work import Effort
from joulemeter.model import User

STRADDLING_RATIO: Final = 0.005
"""Of an equation's energy: what may lie on the wrong side of its edge. Chats are far below, long prompts above."""
LONGEST_SECONDS: Final = 60.0
"""Where prompts never pause, an equation ends all the same: what windows differ in tells models apart."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts that a model counted in the second after an edge, and about what each of them took."""

    count: float
    each_joules: float
    each_seconds: float

    @property
    def straddling_variance(self) -> float:
        """Mean square of the joules before the edge: by chance, a prompt began there, and is anywhere in its course."""
        return self.count * min(1.0, self.each_seconds) * self.each_joules**2 / 3.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a model's engine did in several windows; an `Effort`."""

    amounts: tuple[float, ...]
    prefill_amounts: tuple[float, ...]
    guessed: bool

    @property
    def any(self) -> bool:
        """Whether an engine ran."""
        return any(self.amounts)

    def __add__(self, other: "Done") -> "Done":
        return Done(
            tuple(map(sum, zip(self.amounts, other.amounts, strict=True))),
            tuple(map(sum, zip(self.prefill_amounts, other.prefill_amounts, strict=True))),
            self.guessed or other.guessed,
        )


@dataclass(frozen=True, slots=True)
class Equation:
    """Energy measured while steps ran, what the models did meanwhile, how long it all took, and the busy floor."""

    works: Mapping[User, Done]
    active_joules: float
    duration_seconds: float
    busy_joules: float
    """The busy floor's, had steps run all the time."""

    @staticmethod
    def of(
        works: Mapping[User, Effort], active_joules: float, duration_seconds: float, busy_watts: float
    ) -> "Equation":
        """Return a window's."""
        done = {user: Done(work.amounts, work.prefill_amounts, work.guessed) for user, work in works.items()}
        return Equation(done, active_joules, duration_seconds, busy_watts * duration_seconds)

    @property
    def busy_watts(self) -> float:
        """Floor of the draw while steps run."""
        return self.busy_joules / self.duration_seconds

    def __add__(self, other: "Equation") -> "Equation":
        works = dict(self.works)
        for user, work in other.works.items():
            works[user] = works[user] + work if user in works else work
        return Equation(
            works,
            self.active_joules + other.active_joules,
            self.duration_seconds + other.duration_seconds,
            self.busy_joules + other.busy_joules,
        )


class Equations:
    """Adds windows up until an edge at which hardly any prompt was being computed."""

    def __init__(self) -> None:
        self._open: dict[frozenset[str], Equation] = {}

    def add(self, gpus: frozenset[str], window: Equation, opening: Iterable[Prompts]) -> Equation | None:
        """Take in the next window of an owner group; return the equation that ended where it began, if one did.

        Args:
            gpus: UUIDs of the group's GPUs.
            window: what was measured and done.
            opening: the prompts of each model that were counted in the window's first second.
        """
        before = self._open.get(gpus)
        self.drop(gpus)
        if before is None:
            self._open[gpus] = window
            return None
        straddling_joules = sum(prompts.straddling_variance for prompts in opening) ** 0.5
        ends = before.duration_seconds + window.duration_seconds > LONGEST_SECONDS
        if ends or straddling_joules <= STRADDLING_RATIO * before.active_joules:
            self._open[gpus] = window
            return before
        self._open[gpus] = before + window
        return None

    def drop(self, gpus: frozenset[str]) -> None:
        """Forget what waits for any of these GPUs: the next window does not follow it, or is of another group."""
        self._open = {others: equation for others, equation in self._open.items() if not others & gpus}

    def forget(self, user: User) -> None:
        """Drop what waits and has a part of a model that is long gone: it would be learned anew."""
        self._open = {gpus: equation for gpus, equation in self._open.items() if user not in equation.works}
