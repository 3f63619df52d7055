"""What the books keep of one GPU and of one server: what was seen, and up to where it is settled. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from joulemeter.counters import EnergyCounter
from joulemeter.crosscheck import CrossCheck
from joulemeter.history import ServerHistory
from joulemeter.model import NOTHING, Amount, EnergyReading, EnergySource, Gpu, Pod
from joulemeter.timeline import Timeline
from joulemeter.work import Work

WINDOW_SECONDS: Final = 9.5
"""Shortest window: ten seconds at one observation a second, with room for a late answer. A prompt's tokens are
counted when its prefill is done, so shorter windows would separate them from their energy."""
OPENING_SECONDS: Final = 1.0
"""The beginning of a window: of the prompts counted then, some were computed in part before it."""


METER_GAP_SECONDS: Final = 10.0
"""Energy of a longer silence of the meter cannot be placed in time: it is real, and nobody's."""

Price = Callable[[float, float, float], Amount]
"""Joules that were used from one instant to another (seconds): with what they caused and cost."""

NO_POD: Final = Pod("", "")
"""That of a server outside Kubernetes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How the books are kept; see the configuration keys of the same names."""

    give_up_seconds: float = 60.0
    zero_hold_seconds: float = 30.0
    series_ttl_seconds: float = 3600.0
    idle: Literal["owner", "unattributed"] = "owner"

    @property
    def keep_seconds(self) -> float:
        """How long details are kept that may still be asked for."""
        return self.give_up_seconds + self.zero_hold_seconds + 6 * WINDOW_SECONDS

    @property
    def hold_most_seconds(self) -> float:
        """How long energy is kept pending at most because ever more models are new on its GPU."""
        return self.give_up_seconds + self.zero_hold_seconds

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons for which energy can be unattributed under these terms."""
        return ("no_server", "server_unreachable", "meter_gap") + (
            ("idle",) if self.idle == "unattributed" else ()
        )


@dataclass(slots=True)
class GpuAccount:
    """One GPU: what was measured, and up to where it is settled."""

    gpu: Gpu
    counter: EnergyCounter
    timeline: Timeline
    settled_until_seconds: float
    hold_until_seconds: float
    priced_until_seconds: float
    settled: Amount = NOTHING
    in_gaps: Amount = NOTHING
    gap_until_seconds: float = -math.inf
    resets: int = 0
    crosscheck: CrossCheck = field(default_factory=CrossCheck)

    @classmethod
    def opened(cls, gpu: Gpu, at_seconds: float, terms: Terms) -> Self:
        """Return that of a GPU of which nothing was read yet."""
        return cls(
            gpu,
            EnergyCounter(gpu.max_power_watts),
            Timeline(at_seconds, keep_seconds=terms.keep_seconds),
            settled_until_seconds=at_seconds,
            hold_until_seconds=at_seconds + terms.zero_hold_seconds,
            priced_until_seconds=at_seconds,
        )

    @property
    def measured(self) -> Amount:
        """All energy since the counter was first seen."""
        return self.timeline.total + self.in_gaps

    @property
    def pending(self) -> Amount:
        """Measured and not settled."""
        return self.timeline.total - self.settled

    def read(self, reading: EnergyReading, price: Price) -> Amount:
        """Take in a reading, and return the energy that cannot be placed in time, which is not pending."""
        increase = self.counter.advance(reading)
        if increase is None:
            return NOTHING
        self.resets += increase.reset
        gap = increase.gap_seconds > METER_GAP_SECONDS
        counted = self.gpu.energy_source is EnergySource.COUNTER
        edge_seconds = reading.at_seconds - (increase.gap_seconds / 2 if counted and not gap else 0.0)
        amount = self._priced(increase.energy_joules, edge_seconds, price)
        if gap:
            self.in_gaps += amount
            self.gap_until_seconds = reading.at_seconds
        self.timeline.append(edge_seconds, NOTHING if gap else amount, read_at_seconds=reading.at_seconds)
        if reading.power_watts is not None and counted:
            self.crosscheck.advance(reading.at_seconds, reading.power_watts, self.measured.energy_joules)
        return amount if gap else NOTHING

    def _priced(self, energy_joules: float, edge_seconds: float, price: Price) -> Amount:
        """Price what a counter's move brings, over the time since it moved before: no time is priced twice or never."""
        if energy_joules == 0:
            return NOTHING
        begin_seconds = self.priced_until_seconds
        self.priced_until_seconds = max(begin_seconds, edge_seconds)
        return price(energy_joules, begin_seconds, self.priced_until_seconds)

    def take(self, until_seconds: float) -> Amount:
        """Move the cursor and return what it passed."""
        cut = self.timeline.at(until_seconds)
        if cut.energy_joules < self.settled.energy_joules:  # interpolation rounds; the cursor never goes back
            cut = self.settled
        taken, self.settled = cut - self.settled, cut
        self.settled_until_seconds = max(self.settled_until_seconds, until_seconds)
        return taken


@dataclass(slots=True)
class ServerAccount:
    """One server: its observed work, and up to where it is settled."""

    default_model: str
    counts_tokens: bool
    wanted_since_seconds: float
    history: ServerHistory
    pod: Pod = NO_POD
    leaving: bool = False
    """It is gone; its last window is still to be settled."""
    gone: bool = False
    """That is done; only its totals are left."""
    has_phases: bool = True
    uses: frozenset[str] = frozenset()
    hold_until_seconds: float = 0.0
    settled_until_seconds: float | None = None
    settled: dict[str, Work] = field(default_factory=dict)
    taken_seconds: tuple[float, float] = (0.0, 0.0)
    """From where to where `take` last went."""

    @property
    def heard_at_seconds(self) -> float:
        """When it last answered, or since when it has been expected to."""
        observed = self.history.observed_at_seconds
        return self.wanted_since_seconds if observed is None else observed

    def take(self, until_seconds: float) -> dict[str, Work]:
        """Move the cursor, not beyond the last observation, and return each model's work that it passed."""
        until_seconds = min(until_seconds, self.heard_at_seconds)
        begun_seconds = self.settled_until_seconds
        self.taken_seconds = (until_seconds if begun_seconds is None else begun_seconds, until_seconds)
        now = self.history.at(until_seconds)
        passed = {model: work - self.settled.get(model, Work()) for model, work in now.items()}
        self.settled = now
        self.settled_until_seconds = until_seconds
        return passed

    @property
    def page_seconds(self) -> float:
        """Mean time between the pages of what `take` last passed."""
        begun_seconds, until_seconds = self.taken_seconds
        pages = self.history.midpoints_between(begun_seconds, until_seconds)
        return (until_seconds - begun_seconds) / max(1, len(pages))

    def running(self, model: str) -> tuple[float, float]:
        """Return a model's running requests where `take` last began, and where it ended."""
        begun_seconds, until_seconds = self.taken_seconds
        return self.history.running_at(begun_seconds, model), self.history.running_at(until_seconds, model)

    def opening(self, model: str) -> Work:
        """Return what a model counted in the first second that `take` last passed."""
        begun_seconds, until_seconds = self.taken_seconds
        opened = self.history.at(min(begun_seconds + OPENING_SECONDS, until_seconds))
        return opened.get(model, Work()) - self.history.at(begun_seconds).get(model, Work())
