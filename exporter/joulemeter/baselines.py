"""The baselines of a node: which model is compared with which, and what came of it. Pure; one call per window.

Compared and expected energy advance in exactly the same windows. They are no part of the ledger: a series that
ends is dropped, not retired.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from joulemeter.baseline import (
    Baseline,
    BaselineKey,
    BaselineWindow,
    Basis,
)
from joulemeter.engine_work import EngineWork
from joulemeter.load import LOAD_HALF_LIFE_SECONDS, Load
from joulemeter.model import Phase, User
from joulemeter.sharing import Sharing

SAME_TIME_SECONDS: Final = 1.0
"""Windows of two GPUs that differ by more are not of the same time: one has just joined."""
BIRTH_SECONDS: Final = 60.0
"""New series stay at 0 for so long, so that `increase()` sees their birth; the windows of that time are
neither compared nor expected."""


@dataclass(frozen=True, slots=True)
class SettledGpu:
    """One GPU's settled window: how long, how much of it engine steps ran, and who used which joule."""

    product: str
    duration_seconds: float
    busy_seconds: float
    parts: Mapping[tuple[User, Phase], float]


Windows = dict[User, tuple[BaselineKey, BaselineWindow]]


@dataclass(slots=True)
class Comparison:
    """What one model of one server used since it is compared with one baseline, and what it should have used."""

    opened_at_seconds: float
    advanced_at_seconds: float
    compared_joules: float = 0.0
    expected_joules: dict[Basis, float] = field(default_factory=lambda: dict.fromkeys(Basis, 0.0))


@dataclass(slots=True)
class _Follower:
    """A model of a server, its key, and what was asked of it of late."""

    key: BaselineKey
    load: Load = field(default_factory=Load)


def windows_by_user(
    gpus: Mapping[str, SettledGpu], uses: Mapping[User, frozenset[str]], works: Mapping[User, EngineWork]
) -> Windows:
    """Return each model's window and whose baseline it is for.

    A model is left out if the energy of one of its GPUs is missing, or is of another time than the rest. The time
    in which other models' steps ran is the busy time, shared like the energy of it.

    Args:
        gpus: what was settled, by UUID.
        uses: the GPUs of every model that counts its tokens.
        works: what each of them did.
    """
    found = {}
    for user, uuids in uses.items():
        own = [gpus[uuid] for uuid in uuids if uuid in gpus]
        seconds = [gpu.duration_seconds for gpu in own]
        if not own or len(own) < len(uuids) or max(seconds) - min(seconds) > SAME_TIME_SECONDS:
            continue
        product = ", ".join(sorted({gpu.product for gpu in own}))
        available = [gpu.duration_seconds - _others_busy_seconds(gpu, user) for gpu in own]
        found[user] = (
            BaselineKey(user.model, product, len(own)),
            BaselineWindow(
                duration_seconds=max(seconds),
                available_seconds=math.fsum(available) / len(own),
                holders=max(sum(phase is Phase.IDLE for _, phase in gpu.parts) for gpu in own),
                energy_joules=math.fsum(
                    joules for gpu in own for (one, _), joules in gpu.parts.items() if one == user
                ),
                work=works[user],
            ),
        )
    return found


def _others_busy_seconds(gpu: SettledGpu, user: User) -> float:
    active = [(one, joules) for (one, phase), joules in gpu.parts.items() if phase is not Phase.IDLE]
    total = math.fsum(joules for _, joules in active)
    others = math.fsum(joules for one, joules in active if one != user)
    return gpu.busy_seconds * others / total if total > 0 else 0.0


class Baselines:
    """Learns, freezes and compares.

    Args:
        learn_seconds: how long a baseline learns.
        clock: Unix time, for what people read; no window's time is taken from it.
    """

    def __init__(self, learn_seconds: float, clock: Callable[[], float]) -> None:
        self._learn_seconds = learn_seconds
        self._clock = clock
        self._baselines: dict[BaselineKey, Baseline] = {}
        self._covered_until_seconds: dict[BaselineKey, float] = {}
        self._followers: dict[User, _Follower] = {}
        self._sharings: dict[tuple[tuple[User, str], ...], Sharing] = {}
        """By the models and the baselines that their ratios are to."""
        self.comparisons: dict[tuple[User, str], Comparison] = {}

    # ------------------------------------------------------------------------------------------ by window

    def settle(
        self,
        gpus: Mapping[str, SettledGpu],
        uses: Mapping[User, frozenset[str]],
        works: Mapping[User, EngineWork],
        until_seconds: float,
    ) -> None:
        """Settle the windows of an owner group, which end at the same edge; see `windows_by_user`."""
        windows = windows_by_user(gpus, uses, works)
        compared: Mapping[User, float] = {}
        if len(uses) > 1 and len(windows) == len(uses) and len(set(uses.values())) == 1:
            windows, compared = self._told_apart(windows, [gpus[uuid] for uuid in next(iter(uses.values()))])
        for user, (key, window) in windows.items():
            self.settle_window(user, key, window, until_seconds, compared.get(user))

    def settle_window(
        self,
        user: User,
        key: BaselineKey,
        window: BaselineWindow,
        until_seconds: float,
        compared_joules: float | None = None,
    ) -> None:
        """Compare a settled window with the baseline of its key, then let the baseline learn from it.

        Args:
            user: whose window.
            key: whose baseline.
            window: complete: a window of which some energy was given up is not to be passed.
            until_seconds: its end, on the clock of the books.
            compared_joules: what it is taken to have used, where the baselines know better than the window.
        """
        follower = self._followers.get(user)
        if follower is None or follower.key != key:
            follower = self._followers[user] = _Follower(key)
        keep = 0.5 ** (window.duration_seconds / LOAD_HALF_LIFE_SECONDS)
        follower.load = follower.load.plus(window.load, keep=keep)
        baseline = self._baseline(key)
        series = (user, baseline.id)
        comparison = self.comparisons.setdefault(series, Comparison(until_seconds, until_seconds))
        comparison.advanced_at_seconds = until_seconds
        begun_seconds = until_seconds - window.duration_seconds
        if baseline.usable and begun_seconds >= comparison.opened_at_seconds + BIRTH_SECONDS:
            comparison.compared_joules += window.energy_joules if compared_joules is None else compared_joules
            for basis, joules in baseline.expected_joules(window).items():
                comparison.expected_joules[basis] += joules
        covered_seconds = max(begun_seconds, self._covered_until_seconds.get(key, begun_seconds))
        self._covered_until_seconds[key] = max(until_seconds, covered_seconds)
        baseline.learn(
            window,
            fresh_seconds=max(0.0, until_seconds - covered_seconds),
            learn_seconds=self._learn_seconds,
            now_timestamp_seconds=self._clock(),
        )

    def _told_apart(
        self, windows: Windows, gpus: Sequence[SettledGpu]
    ) -> tuple[Windows, Mapping[User, float]]:
        """Split what models on the same GPUs took anew, once all of their baselines say what to expect.

        Returns:
            The windows, with better times in which the GPUs were there for each, and what each took of their energy.
        """
        users = tuple(sorted(windows))
        baselines = [self._baseline(windows[user][0]) for user in users]
        if not all(one.usable for one in baselines):
            return windows, {}
        series = tuple((user, one.id) for user, one in zip(users, baselines, strict=True))
        sharing = self._sharings.setdefault(series, Sharing(len(users)))
        old = [windows[user][1] for user in users]
        total = math.fsum(window.energy_joules for window in old)
        shares = [one.share(window) for one, window in zip(baselines, old, strict=True)]
        joules = sharing.split(total, shares, old[0].duration_seconds)
        if joules is None:
            return windows, {}
        idle_joules = math.fsum(
            joules for gpu in gpus for (_, phase), joules in gpu.parts.items() if phase is Phase.IDLE
        ) / len(users)
        active = [max(0.0, one - idle_joules) for one in joules]
        busy_seconds = math.fsum(gpu.busy_seconds for gpu in gpus) / len(gpus)
        others = [busy_seconds * (1.0 - one / math.fsum(active)) if any(active) else 0.0 for one in active]
        better = {
            user: (windows[user][0], replace(window, available_seconds=window.duration_seconds - one))
            for user, window, one in zip(users, old, others, strict=True)
        }
        return better, dict(zip(users, joules, strict=True))

    def forget(self, user: User) -> None:
        """Drop a model whose series are dropped; its baseline stays, unless it had hardly begun."""
        gone = self._followers.pop(user, None)
        if gone is not None and all(one.key != gone.key for one in self._followers.values()):
            self._covered_until_seconds.pop(gone.key, None)
            if not self._baseline(gone.key).usable:
                del self._baselines[gone.key]
        self._sharings = {
            key: one for key, one in self._sharings.items() if all(other != user for other, _ in key)
        }
        for series in [series for series in self.comparisons if series[0] == user]:
            del self.comparisons[series]

    def retire(self, now_seconds: float, ttl_seconds: float) -> None:
        """Drop the series of baselines that were replaced so long ago."""
        current = {(user, self._baseline(one.key).id) for user, one in self._followers.items()}
        for series, comparison in list(self.comparisons.items()):
            if series not in current and now_seconds - comparison.advanced_at_seconds > ttl_seconds:
                del self.comparisons[series]
        self._sharings = {key: one for key, one in self._sharings.items() if current.issuperset(key)}

    def followed(self) -> Iterator[tuple[User, Baseline, bool | None]]:
        """Yield each model with its baseline, and whether that has seen the present load (None: not usable)."""
        for user, follower in self._followers.items():
            baseline = self._baseline(follower.key)
            yield user, baseline, baseline.in_range(follower.load) if baseline.usable else None

    # ------------------------------------------------------------------------------------------ by hand

    def all(self) -> list[Baseline]:
        """Return every baseline, those of models that do not run now included."""
        return [self._baselines[key] for key in sorted(self._baselines)]

    def adopt(self, baselines: Iterable[Baseline], *, replace: bool) -> list[Baseline]:
        """Take in baselines from elsewhere, and return those taken.

        Args:
            baselines: read from a file.
            replace: whether they win over what is there, or fill in what is missing.
        """
        taken = [one for one in baselines if replace or one.key not in self._baselines]
        self._baselines.update({one.key: one for one in taken})
        return taken

    def accept(self, baseline_id: str) -> bool:
        """Let what is measured from now on be the new normal: its key learns anew, under a new id, at once."""
        for key, baseline in self._baselines.items():
            if baseline.id == baseline_id:
                self._baselines[key] = Baseline.begun(key, self._clock())
                return True
        return False

    def reset(self, baseline_id: str | None = None) -> int:
        """Forget one baseline, or all (None), and return how many; keys still in use learn anew."""
        gone = [key for key, one in self._baselines.items() if baseline_id in (None, one.id)]
        for key in gone:
            del self._baselines[key]
        return len(gone)

    def _baseline(self, key: BaselineKey) -> Baseline:
        baseline = self._baselines.get(key)
        if baseline is None:
            baseline = self._baselines[key] = Baseline.begun(key, self._clock())
        return baseline
