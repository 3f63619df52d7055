"""What one GPU and the MIG instances it is cut into are called beside its UUID.

`nvml` is the binding, `handle` a device of its present initialisation.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from joulemeter.meters.nvml_figures import optional


def other_names(nvml: Any, handle: Any) -> Iterator[str]:
    """Yield the name of its device file, `nvidiaN`, and the UUIDs of the instances that may be asked."""
    minor = optional(nvml, lambda: nvml.nvmlDeviceGetMinorNumber(handle))
    if minor is not None:
        yield f"nvidia{minor}"
    for instance in instances(nvml, handle):
        uuid = optional(nvml, partial(nvml.nvmlDeviceGetUUID, instance))
        if uuid is not None:
            yield uuid


def instances(nvml: Any, handle: Any) -> Iterator[Any]:
    """Yield the MIG instances that may be asked; none of a GPU that is whole."""
    current, _ = optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)) or (None, None)
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for index in range(optional(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0):
        instance = optional(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index))
        if instance is not None:  # an index that no instance has is NOT_FOUND
            yield instance
