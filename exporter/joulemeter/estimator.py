"""What a step, a prompt token, a decoded token and a token of context cost: learned from the windows. Pure.

Every window of an owner group is one equation: energy measured while steps ran = sum over its models of coefficient
times amount. The equations are kept as normal equations that forget over hours, with a prior of proportions that the
data takes over, and solved for coefficients >= 0. Whatever is found only moves energy between models and
phases: the parts are scaled to what was measured (`attribution`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Final

from joulemeter.engine_work import Effort
from joulemeter.least_squares import nonnegative, variances
from joulemeter.model import Phase, User

HALF_LIFE_SECONDS: Final = 4 * 3600.0
"""Of time in which a model had work: what a model does seldom is not forgotten while others work."""
PRIOR_DEVIATION_RATIO: Final = 0.5
"""How far each of the prior's proportions may be off."""
CORRELATION: Final = 10.0
"""Errors of neighbouring windows are alike (the sensor drifts, an engine is not quite linear): so many windows say
no more than one whose errors are its own."""
GUESSED_DOUBT: Final = 10.0
"""How much less windows say in which steps were guessed: such a count errs with the traffic, not by chance."""
EDGE_SECONDS: Final = 0.03
"""Of the busy draw: what ticks leave open where idle time begins or ends in a window."""
ERROR_RATIO: Final = 0.03
"""Of a window's energy: what an engine is not linear, to begin with."""
LEAST_ERROR: Final = 0.1
"""Mean square of the errors, in units of the two above: nothing is known better than to one percent."""
RECENT_MEMORY: Final = 0.95
USUAL_MEMORY: Final = 0.998
SURPRISE: Final = 4.0
"""Errors whose square is so many times the usual: the engine has changed, and what was learned is forgotten faster."""
SURPRISED_SPEED: Final = 64.0
OUTLIER_DEVIATIONS: Final = 2.5
"""Beyond this a window counts less (Huber)."""
IMPLAUSIBLE_RATIO: Final = 1000.0
"""Work that should have taken so many times the measured energy was never done: a counter has jumped."""
REFUSED_WINDOWS: Final = 6
"""After so many in a row it is not a counter that has jumped: what was believed is wrong, and learned anew."""
EAGER_WINDOWS: Final = 12
SOLVE_EVERY_WINDOWS: Final = 6
KNOWN_RATIO: Final = 0.3
"""A split whose phases are known better than this is called estimated."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a model: joules per unit of `Effort.amounts`, and how sure the energy of each phase is.

    Uncertainties are posterior standard deviations over values; a phase that had no energy yet has none.
    """

    joules_per_unit: tuple[float, ...]
    uncertainty_ratio: Mapping[Phase, float] = field(default_factory=dict)
    amounts: tuple[float, ...] = ()
    """What the model did of late."""
    guessed: bool = False
    """An amount was neither counted nor timed: then it errs with the traffic, which no deviation shows."""

    @property
    def known(self) -> bool:
        """Whether the data says more than the prior does."""
        told = bool(self.uncertainty_ratio) and not self.guessed
        return told and max(self.uncertainty_ratio.values()) < KNOWN_RATIO

    def joules(self, work: Effort) -> tuple[float, float]:
        """Return what prefill and decode should have taken."""
        decode_amounts = (max(0.0, a - p) for a, p in zip(work.amounts, work.prefill_amounts, strict=True))
        prefill_joules = sum(map(mul, self.joules_per_unit, work.prefill_amounts))
        return prefill_joules, sum(map(mul, self.joules_per_unit, decode_amounts))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a model did of late."""

    amounts: tuple[float, ...]
    prefill_amounts: tuple[float, ...]
    any: bool = False
    guessed: bool = False

    def then(self, work: Effort, kept_ratio: float) -> "_Seen":
        """Return this and what is kept of what was before."""
        return _Seen(
            tuple(kept_ratio * old + new for old, new in zip(self.amounts, work.amounts, strict=True)),
            tuple(
                kept_ratio * old + new
                for old, new in zip(self.prefill_amounts, work.prefill_amounts, strict=True)
            ),
            any=True,
            guessed=work.guessed,
        )


@dataclass(slots=True)
class _Group:
    """Models that had work in the same windows: how many windows, and how far off they were."""

    windows: int = 0
    refused: int = 0
    """Windows in a row that were not believed."""
    recent_error: float = 1.0
    usual_error: float = 1.0
    """Mean squares, in units of what is expected; one wild window does not count for many."""

    @property
    def speed(self) -> float:
        """How much faster than usual to forget."""
        surprised = self.windows > EAGER_WINDOWS and self.recent_error > SURPRISE * self.usual_error
        return SURPRISED_SPEED if surprised else 1.0

    def weigh(self, measured_joules: float, expected_joules: float, edge_joules: float) -> float:
        """Return a window's weight, and remember how far off it was."""
        weight = 1.0 / (edge_joules**2 + (ERROR_RATIO * measured_joules) ** 2)
        square = weight * (measured_joules - expected_joules) ** 2
        self.windows += 1
        if self.windows == 1:
            return weight  # nothing was expected yet
        bounded = min(square, 9.0 * self.recent_error)
        self.recent_error = max(
            LEAST_ERROR, RECENT_MEMORY * self.recent_error + (1 - RECENT_MEMORY) * bounded
        )
        memory = min(USUAL_MEMORY, 1.0 - 1.0 / self.windows)
        self.usual_error = max(LEAST_ERROR, memory * self.usual_error + (1 - memory) * self.recent_error)
        outlying = OUTLIER_DEVIATIONS * (self.recent_error / square) ** 0.5 if square > 0 else 1.0
        return weight * min(1.0, outlying) if self.windows > EAGER_WINDOWS else weight


Key = tuple[User, int]
"""An unknown: a model, and the place of the amount in `Effort.amounts`."""


class Estimator:
    """Learns for all the models of a node; those that share GPUs are solved together.

    It keeps the normal matrix N, the present solution x, and the gradient g = sum w (y - f'x) f of the windows'
    equations there, in place of the right-hand side: then rows can be forgotten at different speeds, and models
    dropped, without moving the solution of the others.
    """

    def __init__(self, prior: Sequence[float], *, half_life_seconds: float = HALF_LIFE_SECONDS) -> None:
        self._prior = tuple(prior)
        self._half_life_seconds = half_life_seconds
        self._estimates: dict[User, Estimate] = {}
        self._seen: dict[User, _Seen] = {}
        self._solution: dict[Key, float] = {}
        self._normal: dict[Key, dict[Key, float]] = {}
        self._gradient: dict[Key, float] = {}
        self._groups: dict[frozenset[User], _Group] = {}

    def estimate(self, user: User) -> Estimate:
        """Return what is known of a model; before anything was learned, the prior."""
        return self._estimates.get(user) or Estimate(self._prior)

    def advance(
        self,
        works: Mapping[User, Effort],
        active_joules: float,
        *,
        duration_seconds: float,
        busy_watts: float,
    ) -> None:
        """Take in a window of an owner group, or several added up (`equations`).

        Args:
            works: what each of its models did.
            active_joules: measured while steps ran, all GPUs of the group together.
            duration_seconds: of the window.
            busy_watts: floor of the draw while steps run, all GPUs together.
        """
        works = {user: work for user, work in works.items() if work.any}
        if not works or active_joules <= 0:
            return
        for user in works.keys() - self._estimates.keys():
            self._open(user)
        row = {
            (user, number): amount
            for user, work in works.items()
            for number, amount in enumerate(work.amounts)
            if amount > 0
        }
        users = frozenset(works)
        expected_joules = self._expected_joules(row)
        if expected_joules > IMPLAUSIBLE_RATIO * active_joules:
            if self._refused(users):
                return
            expected_joules = self._expected_joules(row)
        group = self._groups.setdefault(users, _Group())
        group.refused = 0
        kept = 0.5 ** (group.speed * duration_seconds / self._half_life_seconds)
        for user, work in works.items():
            self._fade(user, kept**0.5)
            self._seen[user] = self._seen[user].then(work, kept)
        weight = group.weigh(active_joules, expected_joules, EDGE_SECONDS * busy_watts)
        for key, amount in row.items():
            self._gradient[key] += weight * amount * (active_joules - expected_joules)
            entries = self._normal[key]
            for other, other_amount in row.items():
                entries[other] = entries.get(other, 0.0) + weight * amount * other_amount
        if group.windows <= EAGER_WINDOWS or group.windows % SOLVE_EVERY_WINDOWS == 0:
            guessed = any(work.guessed for work in works.values())
            doubt = CORRELATION * group.recent_error * (GUESSED_DOUBT if guessed else 1.0)
            self._solve(sorted(users), doubt)

    def forget(self, user: User) -> None:
        """Drop a model that is long gone; what was learned of the others stays."""
        if self._estimates.pop(user, None) is None:
            return
        del self._seen[user]
        for key in self._keys([user]):
            del self._solution[key], self._gradient[key], self._normal[key]
            for row in self._normal.values():
                row.pop(key, None)
        self._groups = {users: group for users, group in self._groups.items() if user not in users}

    # ------------------------------------------------------------------------------------------ equations

    def _expected_joules(self, row: Mapping[Key, float]) -> float:
        return sum(amount * self._solution[key] for key, amount in row.items())

    def _refused(self, users: frozenset[User]) -> bool:
        """Whether a window that cannot be is left out; after many in a row, what was learned is, and False returned."""
        group = self._groups.setdefault(users, _Group())
        group.refused += 1
        if group.refused <= REFUSED_WINDOWS:
            return True
        for user in users:
            self.forget(user)
            self._open(user)
        return False

    def _open(self, user: User) -> None:
        self._estimates[user] = Estimate(self._prior)
        nothing = (0.0,) * len(self._prior)
        self._seen[user] = _Seen(nothing, nothing)
        for key in self._keys([user]):
            self._solution[key] = self._prior[key[1]]
            self._gradient[key] = 0.0
            self._normal[key] = {}

    def _keys(self, users: Sequence[User]) -> list[Key]:
        return [(user, number) for user in users for number in range(len(self._prior))]

    def _fade(self, user: User, factor: float) -> None:
        """Scale a model's rows and columns: what is its own fades twice, what it shares with others once."""
        for key in self._keys([user]):
            self._gradient[key] *= factor
            for other in self._normal[key]:
                if other[0] == user:
                    self._normal[key][other] *= factor * factor
                else:
                    self._normal[key][other] *= factor
                    self._normal[other][key] *= factor

    def _solve(self, users: Sequence[User], doubt: float) -> None:
        """Find the coefficients of these models, those of others as they are; windows are worth one over `doubt`."""
        keys = self._keys(users)
        normal = [[self._normal[key].get(other, 0.0) / doubt for other in keys] for key in keys]
        before = [self._solution[key] for key in keys]
        right = [
            self._gradient[key] / doubt + sum(map(mul, row, before))
            for key, row in zip(keys, normal, strict=True)
        ]
        centre = self._centre(users, normal, right)
        for index, value in enumerate(centre):
            ridge = 1.0 / (PRIOR_DEVIATION_RATIO * max(value, before[index])) ** 2
            normal[index][index] += ridge
            right[index] += ridge * value
        found = nonnegative(normal, right)
        for key, old, new in zip(keys, before, found, strict=True):
            for other, entry in self._normal[key].items():
                self._gradient[other] -= entry * (new - old)
        self._solution.update(zip(keys, found, strict=True))
        try:
            uncertainties = self._uncertainties(users, normal, found)
        except ValueError:  # rounding: amounts of ten orders of magnitude
            uncertainties = [{} for _ in users]
        size = len(self._prior)
        for index, (user, ratios) in enumerate(zip(users, uncertainties, strict=True)):
            places = slice(index * size, (index + 1) * size)
            seen = self._seen[user]
            own = Estimate(tuple(found[places]), ratios, seen.amounts, seen.guessed)
            if not own.known:
                # The model's own energy stands, its phases follow the prior: no precision that is not there.
                believed = replace(own, joules_per_unit=tuple(centre[places]))
                ratio = sum(own.joules(seen)) / sum(believed.joules(seen))
                own = replace(own, joules_per_unit=tuple(ratio * value for value in centre[places]))
            self._estimates[user] = own

    def _centre(
        self, users: Sequence[User], normal: Sequence[Sequence[float]], right: Sequence[float]
    ) -> list[float]:
        """Return the prior in the size that suits each model: its proportions, and the data's joules."""
        size = len(self._prior)
        places = [range(index * size, (index + 1) * size) for index in range(len(users))]
        prior = self._prior * len(users)
        alike = [
            [sum(prior[i] * normal[i][j] * prior[j] for i in rows for j in columns) for columns in places]
            for rows in places
        ]
        joules = [sum(prior[i] * right[i] for i in rows) for rows in places]
        common = sum(joules) / sum(map(sum, alike))
        if common <= 0:
            return list(prior)
        for index in range(len(users)):  # models on one GPU are not alike, but rarely ten times as large
            alike[index][index] += 1.0 / common**2
            joules[index] += 1.0 / common
        scales = nonnegative(alike, joules)
        return [max(scales[i // size], common / 100.0) * value for i, value in enumerate(prior)]

    def _uncertainties(
        self, users: Sequence[User], normal: Sequence[Sequence[float]], found: Sequence[float]
    ) -> list[dict[Phase, float]]:
        """Return for each model how far its phases' parts of the measured energy may be off."""
        amounts = [amount for user in users for amount in self._seen[user].amounts]
        total_joules = sum(map(mul, amounts, found))
        sums: list[list[float]] = []
        named: list[tuple[int, Phase]] = []
        size = len(self._prior)
        for index, user in enumerate(users):
            seen = self._seen[user]
            decode = [a - p for a, p in zip(seen.amounts, seen.prefill_amounts, strict=True)]
            for phase, of_phase in ((Phase.PREFILL, seen.prefill_amounts), (Phase.DECODE, decode)):
                begin = index * size
                joules = sum(map(mul, of_phase, found[begin : begin + size]))
                if joules <= 0:
                    continue
                shares = [-amount / total_joules for amount in amounts]
                for number, amount in enumerate(of_phase):
                    shares[begin + number] += amount / joules
                sums.append(shares)
                named.append((index, phase))
        ratios: list[dict[Phase, float]] = [{} for _ in users]
        for (index, phase), variance in zip(named, variances(normal, sums), strict=True):
            ratios[index][phase] = variance**0.5
        return ratios
