"""NVIDIA GPUs through NVML's `pynvml` binding: millijoules since the driver was loaded, read as joules."""

import ctypes
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from joulemeter.counters import PowerIntegral
from joulemeter.errors import MeterError
from joulemeter.meters.nvml_figures import WATTS_PER_MILLIWATT, optional, power_watts, read_status
from joulemeter.meters.nvml_names import other_names
from joulemeter.meters.nvml_processes import ProcessUse, compute_pids
from joulemeter.model import EnergyReading, EnergySource, Gpu, GpuStatus

log = logging.getLogger(__name__)

JOULES_PER_MILLIJOULE: Final = 1e-3
FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 30.0
RESCAN_SECONDS: Final = 30.0
POWER_EVERY_ROUNDS: Final = 4
"""Power is only the cross-check where there is a counter: every fourth round is plenty for a minute's mean."""

LIBRARY_GONE: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
UNSUPPORTED: Final = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})

DEVICES_BLOCKED: Final = "the device files are blocked: recreate the container, or restart the service"
"""Unknown Error too: `systemctl daemon-reload` takes running containers' devices away (nvidia-container-toolkit#48)."""
REMEDIES: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the NVIDIA driver, give the container the `utility` driver"
    " capability, or name another library in JOULEMETER_NVML_LIBRARY",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the NVIDIA kernel module (nvidia-smi should list the GPUs)",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was upgraded under us: restart joulemeter",
    pynvml.NVML_ERROR_OPERATING_SYSTEM: DEVICES_BLOCKED,
    pynvml.NVML_ERROR_UNKNOWN: DEVICES_BLOCKED,
    pynvml.NVML_ERROR_NO_PERMISSION: "run where the device files /dev/nvidia* may be read",
}


@dataclass(slots=True)
class _Device:
    """A GPU's state in this process; `handle` is None while it is lost."""

    gpu: Gpu
    handle: Any
    integral: PowerIntegral
    failing_since_seconds: float | None = None
    failures: int = 0
    retry_at_seconds: float = 0.0
    process_use: ProcessUse = field(default_factory=ProcessUse)


class NvmlMeter:
    """Reads energy, and the slow figures, of every NVIDIA GPU; a GPU that fails comes back by UUID.

    Args:
        library: path of an NVML library to load in place of the driver's.
        nvml: the binding, `pynvml`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        library: str | None = None,
        *,
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._nvml = nvml
        self._clock = clock
        self._devices: dict[str, _Device] = {}
        self._driver_version = ""
        self._opened = False
        self._round = 0
        self._rescan_at_seconds = 0.0
        self._left_out: dict[int, str] = {}

    @property
    def gpus(self) -> Mapping[str, Gpu]:
        """Every GPU ever seen, by UUID."""
        return {uuid: device.gpu for uuid, device in self._devices.copy().items()}

    @property
    def up(self) -> frozenset[str]:
        """UUIDs of the GPUs that answer; one failed call between two that succeed is no loss."""
        devices = self._devices.copy().items()
        return frozenset(
            uuid for uuid, d in devices if d.handle is not None and d.failing_since_seconds is None
        )

    def open(self) -> None:
        """Initialise NVML and find the GPUs. Raises MeterError with the remedy."""
        nvml = self._nvml
        try:
            self._load()
            nvml.nvmlInit()
            self._opened = True
            self._driver_version = nvml.nvmlSystemGetDriverVersion()
            for device in self._devices.values():
                device.handle = None  # handles of the last initialisation are stale
                device.retry_at_seconds = 0.0
            self._scan()
        except nvml.NVMLError as error:
            raise MeterError(f"nvml: {self._explain(error)}") from error

    def read(self) -> Sequence[EnergyReading]:
        """Read every GPU's energy; power too in every fourth round, or where there is no energy counter."""
        now = self._clock()
        if now >= self._rescan_at_seconds:
            self._guarded(self._scan)
        self._round += 1
        with_power = self._round % POWER_EVERY_ROUNDS == 0
        readings = []
        for device in self._devices.values():
            if now < device.retry_at_seconds:
                continue
            try:
                if device.handle is None:
                    device.handle = self._nvml.nvmlDeviceGetHandleByUUID(device.gpu.uuid)
                reading = self._read_device(device, with_power=with_power)
            except self._nvml.NVMLError as error:
                self._failed(device, error, now)
                continue
            self._answered(device, now)
            readings.append(reading)
        return readings

    def status(self, uuid: str) -> GpuStatus:
        """The slow readings of one GPU; what fails is None."""
        device = self._answering(uuid)
        return read_status(self._nvml, device.handle) if device else GpuStatus()

    def compute_processes(self) -> Mapping[str, frozenset[int]]:
        """Pids with a compute context on each GPU that answers."""
        processes = {}
        for uuid, device in self._devices.copy().items():
            handle = device.handle
            pids = None if handle is None else compute_pids(self._nvml, handle)
            if pids is not None:
                processes[uuid] = pids
        return processes

    def process_use(self, uuid: str) -> Mapping[int, float] | None:
        """Share of a GPU that each process used since last asked, by pid; None where it is not told."""
        device = self._answering(uuid)
        return device.process_use.read(self._nvml, device.handle) if device else None

    def other_names(self) -> Mapping[str, str]:
        """UUIDs by device file and by MIG instance, of the GPUs that answer."""
        names: dict[str, str] = {}
        for uuid, device in self._devices.copy().items():
            handle = device.handle
            if handle is not None:
                names |= dict.fromkeys(other_names(self._nvml, handle), uuid)
        return names

    def close(self) -> None:
        """Shut NVML down."""
        if self._opened:
            self._opened = False
            optional(self._nvml, self._nvml.nvmlShutdown)

    def _answering(self, uuid: str) -> _Device | None:
        """Return a GPU that answers now."""
        device = self._devices.get(uuid)
        answers = device is not None and device.handle is not None and device.failing_since_seconds is None
        return device if answers else None

    def _load(self) -> None:
        """Load the named library, if any, before the binding loads the driver's."""
        if not self._library or self._nvml.nvmlLib is not None:
            return
        try:
            library = ctypes.CDLL(self._library)
            problem = None if hasattr(library, "nvmlInitWithFlags") else "no NVML library; name one"
        except OSError as error:
            problem = f"{error}; name an NVML library"
        if problem:
            remedy = "or unset it to use the driver's"
            raise MeterError(f"JOULEMETER_NVML_LIBRARY={self._library}: {problem}, {remedy}")
        self._nvml.nvmlLib = library

    def _scan(self) -> None:
        """Take note of GPUs not seen before; indexes of known ones stay."""
        nvml = self._nvml
        self._rescan_at_seconds = self._clock() + RESCAN_SECONDS
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(handle)
                if uuid in self._devices:
                    continue
                gpu = self._describe(index, uuid, handle)
            except nvml.NVMLError as error:
                self._leave_out(index, error)
                continue
            self._left_out.pop(index, None)
            self._devices[uuid] = _Device(gpu, handle, PowerIntegral())
            log.info("gpu %d: %s %s, energy from %s", index, gpu.product, uuid, gpu.energy_source)

    def _leave_out(self, index: int, error: Exception) -> None:
        """Say once why a GPU is not measured; of one that was lost, that has been said."""
        lost = {device.gpu.index for device in self._devices.values() if device.gpu.uuid not in self.up}
        if index not in lost and self._left_out.get(index) != str(error):
            self._left_out[index] = str(error)
            log.warning("gpu %d: %s; not measured, trying again", index, error)

    def _describe(self, index: int, uuid: str, handle: Any) -> Gpu:
        nvml = self._nvml
        source = EnergySource.COUNTER
        try:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError as error:
            if error.value not in UNSUPPORTED:
                raise
            power_watts(nvml, handle)  # neither: not a GPU that we can measure
            source = EnergySource.POWER_INTEGRATION
        limits = optional(nvml, lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle))
        limit = limits[1] if limits else optional(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        watts = limit * WATTS_PER_MILLIWATT if limit else None
        return Gpu(index, uuid, nvml.nvmlDeviceGetName(handle), self._driver_version, source, watts)

    def _read_device(self, device: _Device, *, with_power: bool) -> EnergyReading:
        nvml, uuid, handle = self._nvml, device.gpu.uuid, device.handle
        if device.gpu.energy_source is EnergySource.POWER_INTEGRATION:
            begun = self._clock()
            watts = power_watts(nvml, handle)
            at_seconds = (begun + self._clock()) / 2
            return EnergyReading(uuid, device.integral.advance(at_seconds, watts), at_seconds, watts)
        begun = self._clock()
        millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        at_seconds = (begun + self._clock()) / 2
        watts_now = optional(nvml, lambda: power_watts(nvml, handle)) if with_power else None
        return EnergyReading(uuid, millijoules * JOULES_PER_MILLIJOULE, at_seconds, watts_now)

    def _failed(self, device: _Device, error: Exception, now: float) -> None:
        """Leave the GPU out and retry with backoff; a library that is gone is opened again as a whole."""
        if getattr(error, "value", None) in LIBRARY_GONE:
            for each in self._devices.values():
                each.failing_since_seconds = each.failing_since_seconds or now
            raise MeterError(f"nvml: {self._explain(error)}") from error
        device.failures += 1
        if device.failures == 1:  # one failed call in ten is no lost GPU: try again in the next round
            return
        if device.failures == 2:  # noqa: PLR2004 - once a state change
            device.failing_since_seconds = now
            log.warning("gpu %s: %s; its counters stand still until it is back", device.gpu.uuid, error)
        device.handle = None
        backoff_seconds = FIRST_RETRY_SECONDS * 2.0 ** min(device.failures - 2, 10)
        device.retry_at_seconds = now + min(backoff_seconds, LAST_RETRY_SECONDS)

    def _answered(self, device: _Device, now: float) -> None:
        if device.failures > 1 and device.failing_since_seconds is not None:
            log.info("gpu %s: back after %.1f s", device.gpu.uuid, now - device.failing_since_seconds)
        device.failing_since_seconds, device.failures = None, 0

    def _guarded(self, scan: Callable[[], None]) -> None:
        try:
            scan()
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) in LIBRARY_GONE:
                raise MeterError(f"nvml: {self._explain(error)}") from error
            log.debug("nvml: scan failed: %s", error)

    def _explain(self, error: Exception) -> str:
        remedy = REMEDIES.get(getattr(error, "value", None) or 0)
        return f"{error}: {remedy}" if remedy else str(error)
