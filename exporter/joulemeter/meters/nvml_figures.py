"""The slow figures of one GPU, as NVML gives them: power, limits, use, memory, temperature, throttling.

`nvml` is the binding, `handle` a device of its present initialisation.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import pynvml

from joulemeter.model import GpuStatus

T = TypeVar("T")

WATTS_PER_MILLIWATT: Final = 1e-3
SECONDS_PER_NANOSECOND: Final = 1e-9

VIOLATION_FIELDS: Final = {
    "power_cap": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
    "sync_boost": pynvml.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST,
    "board_limit": pynvml.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT,
    "reliability": pynvml.NVML_FI_DEV_PERF_POLICY_RELIABILITY,
}


def optional(nvml: Any, call: Callable[[], T]) -> T | None:
    """Return None where NVML fails, or lacks the function (of which pynvml makes no NVMLError)."""
    try:
        return call()
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return None


def read_status(nvml: Any, handle: Any) -> GpuStatus:
    """Read all slow figures; what fails is None."""
    memory = optional(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    limit_milliwatts = optional(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return GpuStatus(
        power_watts=optional(nvml, lambda: power_watts(nvml, handle)),
        power_limit_watts=None if limit_milliwatts is None else limit_milliwatts * WATTS_PER_MILLIWATT,
        utilization_ratio=optional(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        memory_used_bytes=None if memory is None else float(memory.used),
        memory_total_bytes=None if memory is None else float(memory.total),
        temperature_celsius=optional(
            nvml, lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        ),
        throttle_seconds=optional(nvml, lambda: throttle_seconds(nvml, handle)) or {},
    )


def power_watts(nvml: Any, handle: Any) -> float:
    """Instantaneous draw where the driver has it, for nvmlDeviceGetPowerUsage is a 1 s mean on many boards.

    Raises:
        nvml.NVMLError: neither can be read.
    """
    wanted = [nvml.NVML_FI_DEV_POWER_INSTANT]
    fields = optional(nvml, lambda: nvml.nvmlDeviceGetFieldValues(handle, wanted))
    if fields and fields[0].nvmlReturn == nvml.NVML_SUCCESS:
        return float(fields[0].value.uiVal) * WATTS_PER_MILLIWATT
    return float(nvml.nvmlDeviceGetPowerUsage(handle)) * WATTS_PER_MILLIWATT


def throttle_seconds(nvml: Any, handle: Any) -> dict[str, float]:
    """Time that clocks were held back since the driver was loaded, by reason; what fails is left out."""
    fields = nvml.nvmlDeviceGetFieldValues(handle, list(VIOLATION_FIELDS.values()))
    return {
        reason: field.value.ullVal * SECONDS_PER_NANOSECOND
        for reason, field in zip(VIOLATION_FIELDS, fields, strict=True)
        if field.nvmlReturn == nvml.NVML_SUCCESS
    }
