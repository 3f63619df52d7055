"""Power over time as its writer lays it down: pieces in a ring of the state file, one writer, any readers.

A writer stores the piece and then the count, and a reader that sees the count move reads again: no lock that
a killed writer could leave behind. (The order of the two stores is certain on x86; elsewhere it rests on
CPython doing hundreds of instructions in between.)
"""

import math
import time

from joulemeter.simulation import layout


class Slot:
    """One process's use of one GPU: its power over time, its memory and its place in the process list."""

    def __init__(self, slot: layout.Slot) -> None:
        self._slot = slot

    def occupy(self, pid: int, *, memory_bytes: int = 0, mig_instance: int = 0) -> None:
        """Enter the GPU's process list; the instance counts where the GPU is cut into some."""
        self._slot.mig_instance = mig_instance
        self._slot.memory_bytes = memory_bytes
        self._slot.pid = pid

    def vacate(self) -> None:
        """Leave the process list and draw nothing from now on."""
        self._slot.pid = 0
        self._slot.utilization_percent = 0
        self.draw(0.0, max(time.monotonic(), self.written_seconds))

    def use(self, percent: int) -> None:
        """Set the share of time in which this process keeps the GPU busy, 0 to 100."""
        self._slot.utilization_percent = percent

    def draw(self, watts: float, at_seconds: float | None = None, until_seconds: float = math.inf) -> None:
        """Draw `watts` above idle from `at_seconds` (default now) until `until_seconds` or the next call.

        A time in the future may be given; what was already said about the time after it is replaced.

        Raises:
            ValueError: the power is negative or not finite, or the time lies before the piece written last.
        """
        append(self._slot.draw, watts, time.monotonic() if at_seconds is None else at_seconds, until_seconds)

    @property
    def written_seconds(self) -> float:
        """The time from which the power written last holds: no power can be written for before."""
        ring = self._slot.draw
        return float(ring.pieces[(ring.written - 1) % layout.PIECES].at_seconds) if ring.written else 0.0

    def energy_joules(self, at_seconds: float | None = None) -> float:
        """Return what was drawn through this slot until then (default now)."""
        return ring_joules(self._slot.draw, time.monotonic() if at_seconds is None else at_seconds)


def append(ring: layout.Ring, watts: float, at_seconds: float, until_seconds: float) -> None:
    """Add a piece of constant power; see `Slot.draw`."""
    if not (math.isfinite(watts) and watts >= 0):
        raise ValueError(f"watts={watts} is not >= 0")
    last = ring.pieces[(ring.written - 1) % layout.PIECES] if ring.written else layout.Piece()
    if at_seconds < last.at_seconds:
        raise ValueError(f"at_seconds={at_seconds} lies before the power written last, at {last.at_seconds}")
    joules = ring_joules(ring, at_seconds)
    ring.pieces[ring.written % layout.PIECES] = layout.Piece(at_seconds, until_seconds, joules, watts)
    ring.written += 1  # last: this publishes the piece


def ring_joules(ring: layout.Ring, at_seconds: float) -> float:
    """Evaluate a ring as `ring_joules` in virtual_nvml.c does, to the same bit."""
    while True:
        written = ring.written
        piece = layout.Piece()
        for back in range(1, min(written, layout.PIECES - 1) + 1):
            piece = ring.pieces[(written - back) % layout.PIECES]
            if piece.at_seconds <= at_seconds:
                break
        until = min(at_seconds, piece.until_seconds)
        grown = until > piece.at_seconds
        joules = piece.joules + piece.watts * (until - piece.at_seconds) if grown else piece.joules
        if ring.written == written:
            return float(joules)
