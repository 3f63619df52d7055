"""The state file behind the virtual NVML library: what virtual GPUs are, draw and answer, from any process.

Times are CLOCK_MONOTONIC seconds, which all processes of a machine share. Each value has one writer: a slot
belongs to the process that draws through it, the rest to whoever made the node.
"""

import math
import mmap
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from joulemeter.errors import JoulemeterError
from joulemeter.simulation import layout
from joulemeter.simulation.draw import Slot, append, ring_joules

DRIVER_VERSION = "580.95.05"
THROTTLE_FIELD = 74  # the first of the six, NVML_FI_DEV_PERF_POLICY_POWER


@dataclass(frozen=True, slots=True)
class VirtualGpu:
    """A virtual board, by default like an H100 SXM whose energy counter moves every 100 ms."""

    product: str = "NVIDIA H100 80GB HBM3"
    uuid: str = ""
    """Empty: one is made from the index."""
    idle_watts: float = 120.0
    power_limit_watts: float = 700.0
    min_power_limit_watts: float = 200.0
    max_power_limit_watts: float = 700.0
    memory_total_bytes: int = 80 * 2**30
    temperature_celsius: int = 40
    update_period_seconds: float = 0.1
    quantum_millijoules: int = 1
    has_energy_counter: bool = True

    def uuid_at(self, index: int) -> str:
        """Return the UUID that it has at an index of a node."""
        return self.uuid or f"GPU-00000000-0000-4000-8000-{index:012x}"


class NvmlState:
    """The state of a virtual node, live in shared memory."""

    def __init__(self, path: Path, state: layout.State) -> None:
        self.path = path
        self._state = state

    @classmethod
    def create(
        cls, path: Path, gpus: Sequence[VirtualGpu], *, driver_version: str = DRIVER_VERSION
    ) -> "NvmlState":
        """Make a new node in a new file; a library that maps an old one takes it at its next init.

        Raises:
            ValueError: more GPUs than the file has room for, or a text that is too long.
        """
        if len(gpus) > layout.MAX_GPUS:
            raise ValueError(f"{len(gpus)} GPUs: a virtual node has room for {layout.MAX_GPUS}")
        state = layout.State(
            layout_id=layout.LAYOUT_ID,
            gpu_count=len(gpus),
            driver_loaded=1,
            driver_version=driver_version.encode(),
        )
        now = time.monotonic()
        for index, gpu in enumerate(gpus):
            _fill(state.gpus[index], gpu, index, now)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        scratch.write_bytes(bytes(state))
        scratch.replace(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "NvmlState":
        """Map a node that another process made.

        Raises:
            JoulemeterError: there is no such file, or it was written by another release.
        """
        try:
            with path.open("r+b") as file:
                shared = mmap.mmap(file.fileno(), 0)
            state = layout.State.from_buffer(shared)
        except (OSError, ValueError) as error:  # too short for a State is a ValueError
            raise JoulemeterError(
                f"virtual node: cannot use {path}: {error}; make it with NvmlState.create"
            ) from error
        if state.layout_id != layout.LAYOUT_ID:
            raise JoulemeterError(
                f"virtual node: {path} was written by another release of joulemeter; make it anew"
            )
        return cls(path, state)

    @property
    def gpu_count(self) -> int:
        """How many GPUs the node has, lost ones included."""
        return int(self._state.gpu_count)

    def uuid(self, gpu: int) -> str:
        """Return the GPU's UUID."""
        return str(self._gpu(gpu).uuid.decode())

    # ------------------------------------------------------------ draw, and the truth

    def slot(self, gpu: int, slot: int) -> Slot:
        """Return a draw slot; it must have no other writer."""
        if not 0 <= slot < layout.SLOTS:
            raise ValueError(f"slot {slot}: a virtual GPU has slots 0 to {layout.SLOTS - 1}")
        return Slot(self._gpu(gpu).slots[slot])

    def idle_watts(self, gpu: int) -> float:
        """Return what the board draws by itself now."""
        ring = self._gpu(gpu).idle
        return float(ring.pieces[(ring.written - 1) % layout.PIECES].watts)

    def set_idle_watts(self, gpu: int, watts: float) -> None:
        """Change what the board draws by itself, from now on."""
        append(self._gpu(gpu).idle, watts, time.monotonic(), math.inf)

    def energy_joules(self, gpu: int, at_seconds: float | None = None) -> float:
        """Return what the board has really used since it was made: ground truth, whatever its counter shows.

        Exact now and for as long back as each writer's last `layout.PIECES - 1` changes of power reach.
        """
        at = time.monotonic() if at_seconds is None else at_seconds
        board = self._gpu(gpu)
        total = ring_joules(board.idle, at)
        for slot in board.slots:  # the library adds in this order too
            total += ring_joules(slot.draw, at)
        return total

    # ------------------------------------------------------------ the counter

    def set_counter(self, gpu: int, joules: float) -> None:
        """Make the energy counter show `joules` now and go on from there; what was used stays true."""
        board = self._gpu(gpu)
        now = time.monotonic()
        used = self.energy_joules(gpu, now)
        board.origins[board.origins_written % 2] = layout.Origin(now, joules, used)
        board.origins_written += 1

    def reset_counter(self, gpu: int) -> None:
        """Start the energy counter again at zero, as a GPU reset does."""
        self.set_counter(gpu, 0.0)

    def set_counter_behaviour(
        self, gpu: int, *, update_period_seconds: float | None = None, quantum_millijoules: int | None = None
    ) -> None:
        """Change how often the counter moves (0: always) and in what steps."""
        board = self._gpu(gpu)
        if update_period_seconds is not None:
            board.update_period_seconds = update_period_seconds
        if quantum_millijoules is not None:
            board.quantum_millijoules = quantum_millijoules

    def set_energy_counter(self, gpu: int, *, supported: bool) -> None:
        """Take the energy counter away (NVML_ERROR_NOT_SUPPORTED, as before Volta), or give it back."""
        self._gpu(gpu).has_energy_counter = supported

    # ------------------------------------------------------------ slow readings

    def set_temperature(self, gpu: int, celsius: int) -> None:
        """Set the temperature."""
        self._gpu(gpu).temperature_celsius = celsius

    def set_power_limit(self, gpu: int, watts: float) -> None:
        """Set the enforced limit; it is only shown, draws are not cut."""
        self._gpu(gpu).power_limit_milliwatts = round(watts * 1000)

    def set_clocks_event_reasons(self, gpu: int, bits: int) -> None:
        """Set why clocks are held back, as NVML's bits."""
        self._gpu(gpu).clocks_event_reasons = bits

    def set_throttle_nanoseconds(self, gpu: int, field: int, nanoseconds: int) -> None:
        """Set a throttle counter by its field id, 74 (power cap) to 79 (reliability)."""
        self._gpu(gpu).throttle_nanoseconds[field - THROTTLE_FIELD] = nanoseconds

    def set_processes(self, gpu: int, memory_bytes: Mapping[int, int]) -> None:
        """Replace the GPU's process list: bytes by pid."""
        if len(memory_bytes) > layout.SLOTS:
            raise ValueError(f"{len(memory_bytes)} processes: a virtual GPU has room for {layout.SLOTS}")
        for slot in self._gpu(gpu).slots:
            slot.pid = 0
        for index, (pid, size) in enumerate(memory_bytes.items()):
            self.slot(gpu, index).occupy(pid, memory_bytes=size)

    def set_mig_instances(self, gpu: int, count: int) -> None:
        """Cut the GPU into MIG instances; 0 takes it out of MIG mode."""
        if not 0 <= count <= layout.MAX_MIG_INSTANCES:
            raise ValueError(f"{count} MIG instances: a GPU has room for {layout.MAX_MIG_INSTANCES}")
        self._gpu(gpu).mig_instances = count

    # ------------------------------------------------------------ faults

    def set_error(self, gpu: int | None, function: str, code: int, *, one_in: int = 1) -> None:
        """Make every `one_in`-th call of a function fail with an NVML code; 0 heals it.

        Args:
            gpu: None for what belongs to no GPU (`layout.SYSTEM_FUNCTIONS`).
            function: one of `layout.FUNCTIONS`; `Field186` is one field within DeviceGetFieldValues.
            code: an NVML_ERROR_* value.
            one_in: 1 for every call.
        """
        behaviour = self._behaviour(gpu, function)
        behaviour.one_in = one_in
        behaviour.code = code

    def set_latency(self, gpu: int | None, function: str, seconds: float) -> None:
        """Make a function take this long."""
        self._behaviour(gpu, function).latency_microseconds = round(seconds * 1e6)

    def lose(self, gpu: int) -> None:
        """Drop the GPU off the bus: its calls and its handles answer NVML_ERROR_GPU_IS_LOST."""
        self._gpu(gpu).present = 0

    def restore(self, gpu: int) -> None:
        """Bring a lost GPU back; it kept drawing and counting."""
        self._gpu(gpu).present = 1

    def unload_driver(self) -> None:
        """Make init and every call answer NVML_ERROR_DRIVER_NOT_LOADED."""
        self._state.driver_loaded = 0

    def load_driver(self) -> None:
        """Load the driver: counters start again, and clients must initialise again."""
        for gpu in range(self.gpu_count):
            self.reset_counter(gpu)
        self._state.driver_epoch += 1
        self._state.driver_loaded = 1

    def call_counts(self, gpu: int | None) -> dict[str, int]:
        """Return how often each function in `layout.FUNCTIONS` was called; those never called are absent."""
        behaviours = (self._state if gpu is None else self._gpu(gpu)).behaviours
        counts = zip(layout.FUNCTIONS, (behaviour.calls for behaviour in behaviours), strict=True)
        return {name: calls for name, calls in counts if calls}

    def _gpu(self, gpu: int) -> layout.Gpu:
        if not 0 <= gpu < self._state.gpu_count:
            raise ValueError(f"GPU {gpu}: the virtual node has {self._state.gpu_count}")
        found: layout.Gpu = self._state.gpus[gpu]
        return found

    def _behaviour(self, gpu: int | None, function: str) -> layout.Behaviour:
        names = layout.SYSTEM_FUNCTIONS if gpu is None else layout.DEVICE_FUNCTIONS
        if function not in names:
            raise ValueError(f"function {function!r}: one of {', '.join(names)}")
        owner = self._state if gpu is None else self._gpu(gpu)
        found: layout.Behaviour = owner.behaviours[layout.FUNCTIONS.index(function)]
        return found


def _fill(board: layout.Gpu, gpu: VirtualGpu, index: int, now: float) -> None:
    board.product = gpu.product.encode()
    board.uuid = gpu.uuid_at(index).encode()
    board.present = 1
    board.has_energy_counter = gpu.has_energy_counter
    board.update_period_seconds = gpu.update_period_seconds
    board.quantum_millijoules = gpu.quantum_millijoules
    board.origins[0] = layout.Origin(now, 0.0, 0.0)
    board.origins_written = 1
    board.power_limit_milliwatts = round(gpu.power_limit_watts * 1000)
    board.min_power_limit_milliwatts = round(gpu.min_power_limit_watts * 1000)
    board.max_power_limit_milliwatts = round(gpu.max_power_limit_watts * 1000)
    board.temperature_celsius = gpu.temperature_celsius
    board.memory_total_bytes = gpu.memory_total_bytes
    append(board.idle, gpu.idle_watts, now, math.inf)
