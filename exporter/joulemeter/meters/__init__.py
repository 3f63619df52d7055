"""Meters: what reads joules from hardware. Shell."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from joulemeter.model import EnergyReading, Gpu, GpuStatus


class EnergyMeter(Protocol):
    """A library that counts joules. `read` is called from one thread, the slow calls from any."""

    def open(self) -> None:
        """Find the GPUs. Raises MeterError when the library or the driver is not there; may be called again."""

    def read(self) -> Sequence[EnergyReading]:
        """Read every GPU that answers; a GPU that fails is left out, retried later and not in `up`.

        Raises MeterError when the library as a whole has to be opened again.
        """

    @property
    def gpus(self) -> Mapping[str, Gpu]:
        """Every GPU ever seen, by UUID."""

    @property
    def up(self) -> frozenset[str]:
        """UUIDs of the GPUs that answer; one failed call between two that succeed is no loss."""

    def status(self, uuid: str) -> GpuStatus:
        """The slow readings of one GPU; what fails is None."""

    def compute_processes(self) -> Mapping[str, frozenset[int]]:
        """Pids with a compute context, by UUID. Slow (milliseconds a GPU on a real driver)."""

    def process_use(self, uuid: str) -> Mapping[int, float] | None:
        """Share of a GPU that each process used since last asked, 0 to 1, by pid; None where it is not told.

        A process that is not named used nothing.
        """

    def other_names(self) -> Mapping[str, str]:
        """UUIDs of GPUs by what else they, or parts of them, are called: `nvidiaN` by minor number, `MIG-...`. Slow."""

    def close(self) -> None:
        """Let go of the library."""
