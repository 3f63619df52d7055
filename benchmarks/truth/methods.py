"""Other ways to split a window, to stand beside the estimator; all are given the very same windows."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from benchmarks.truth.books import PHASES, Comparison
from joulemeter.attribution import GpuWindow, Use, split
from joulemeter.attributor import Attributed, Attributor
from joulemeter.model import User
from joulemeter.priors import ENGINE_JOULES
from joulemeter.windows import Measured, Used
from joulemeter.work import Work

EngineJoules = tuple[float, float, float, float]
WRONG_BY: Final = 3.0
_PRIOR_UNITS: Final = (("step", 0), ("prompt token", 1), ("decoded token", 2))
WRONG_PRIORS: Final = tuple(
    (f"{unit} {sign}{WRONG_BY:g}", index, WRONG_BY if sign == "x" else 1 / WRONG_BY)
    for unit, index in _PRIOR_UNITS
    for sign in ("x", "/")
)
"""A name, which of the prior's coefficients is wrong, and by which factor."""


class Method(Protocol):
    """Splits an owner group's windows; `Attributor` is one."""

    def attribute(self, measured: Mapping[str, Measured], uses: Mapping[User, Used]) -> Attributed:
        """Return joules by GPU, model and phase."""


class TokenShare:
    """All energy by tokens: prompt tokens as users count them, cached ones too, are prefill; generated ones decode.

    What is measured while no token is counted is idle, for want of anybody else. `idle_watts` of each GPU come off
    first: 0 for plain token share.
    """

    def __init__(self, idle_watts: float = 0.0) -> None:
        self._idle_watts = idle_watts

    def attribute(self, measured: Mapping[str, Measured], uses: Mapping[User, Used]) -> Attributed:
        """Split each GPU's window by the tokens of its models."""
        parts = {}
        for uuid, window in measured.items():
            of_gpu = {
                user: Use(_prompt_tokens(use.work), use.work.generation_tokens, loaded=use.loaded)
                for user, use in uses.items()
                if uuid in use.gpus
            }
            idle_joules = min(window.energy_joules, self._idle_watts * window.duration_seconds)
            parts[uuid] = split(GpuWindow(window.energy_joules, idle_joules), of_gpu)
        return Attributed(parts, {}, {})


def _prompt_tokens(work: Work) -> float:
    return max(0.0, work.prompt_tokens) + max(0.0, work.cached_prompt_tokens)


class FixedPrior(Attributor):
    """What the estimator begins with, for ever: idle from the counter's ticks, the rest by the hardware prior."""

    def _learn(self, *_: object, **__: object) -> None:
        """Learn nothing."""


def wrong_prior(index: int, factor: float) -> EngineJoules:
    """Return the prior with one coefficient so many times as large."""
    step, prompt, decoded, read = (
        value * factor if at == index else value for at, value in enumerate(ENGINE_JOULES)
    )
    return step, prompt, decoded, read


def others(idle_watts: float, *, wrong_priors: bool) -> dict[str, Method]:
    """Return the methods that stand beside the estimator, by name.

    Args:
        idle_watts: the true draw of each GPU without steps, which subtracting idle is given for nothing.
        wrong_priors: also the estimator, from each of `WRONG_PRIORS`.
    """
    found: dict[str, Method] = {
        "token share": TokenShare(),
        "idle off, token share": TokenShare(idle_watts),
        "prior, not fitted": FixedPrior(),
    }
    if wrong_priors:
        for name, index, factor in WRONG_PRIORS:
            found[f"prior {name}"] = Attributor(engine_joules=wrong_prior(index, factor))
    return found


class SideBySide(Attributor):
    """The estimator, and what other methods would have booked of the same windows.

    All conserve energy, so how much has been booked so far tells the window.
    """

    def __init__(
        self,
        users: Sequence[User],
        methods: Mapping[str, Method],
        engine_joules: EngineJoules = ENGINE_JOULES,
    ) -> None:
        super().__init__(engine_joules=engine_joules)
        self._methods = dict(methods)
        self._places = {
            (user, phase): (i, j) for i, user in enumerate(users) for j, phase in enumerate(PHASES)
        }
        self._booked = {name: [np.zeros((len(users), len(PHASES)))] for name in self._methods}

    def attribute(self, measured: Mapping[str, Measured], uses: Mapping[User, Used]) -> Attributed:
        """Return the estimator's answer."""
        for name, method in self._methods.items():
            booked = self._booked[name]
            booked.append(booked[-1].copy())
            for parts in method.attribute(measured, uses).parts.values():
                for key, joules in parts.items():
                    booked[-1][self._places[key]] += joules
        return super().attribute(measured, uses)

    def compared(self, ours: Comparison) -> dict[str, Comparison]:
        """Return the comparison of each method, from that of the books."""
        so_far = ours.booked_joules.sum(axis=(1, 2))
        found = {}
        for name, windows in self._booked.items():
            booked = np.stack(windows)
            total = booked.sum(axis=(1, 2))
            columns = booked.reshape(len(total), -1).T
            at = np.stack([np.interp(so_far, total, column) for column in columns], axis=1)
            found[name] = Comparison(ours.at_seconds, at.reshape(ours.booked_joules.shape), ours.true_joules)
        return found
