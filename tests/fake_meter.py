"""A meter in a test's hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from joulemeter.model import EnergyReading, Gpu, GpuStatus


@dataclass
class FakeMeter:
    """A meter whose opening and reading do what a test says, and which notes when it was asked.

    `on_open` and `on_read` get the number of the call, from 0.
    """

    clock: Callable[[], float]
    on_open: Callable[[int], object] = lambda _: None
    on_read: Callable[[int], Sequence[EnergyReading] | None] = lambda _: None
    opened_at: list[float] = field(default_factory=list)
    read_at: list[float] = field(default_factory=list)
    closed: int = 0
    known: dict[str, Gpu] = field(default_factory=dict)
    on_status: Callable[[str], GpuStatus] = lambda _: GpuStatus()
    processes: dict[str, frozenset[int]] = field(default_factory=dict)
    use: dict[str, dict[int, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> Mapping[str, Gpu]:
        return dict(self.known)

    @property
    def up(self) -> frozenset[str]:
        return frozenset(self.known)

    def open(self) -> None:
        self.opened_at.append(self.clock())
        self.on_open(len(self.opened_at) - 1)

    def read(self) -> Sequence[EnergyReading]:
        self.read_at.append(self.clock())
        return self.on_read(len(self.read_at) - 1) or ()

    def status(self, uuid: str) -> GpuStatus:
        return self.on_status(uuid)

    def compute_processes(self) -> Mapping[str, frozenset[int]]:
        return self.processes

    def process_use(self, uuid: str) -> Mapping[int, float] | None:
        return self.use.get(uuid)

    def other_names(self) -> Mapping[str, str]:
        return dict(self.names)

    def close(self) -> None:
        self.closed += 1
