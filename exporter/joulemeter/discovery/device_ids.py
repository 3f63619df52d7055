"""What the kubelet calls the devices of a container -> the GPUs they are, or are parts of. Pure.

Energy is counted for whole GPUs, so a replica, a slice or a MIG instance stands for its GPU.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

WHOLE: Final = re.compile(r"(?:MIG-)?(GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-f])")
"""A GPU's UUID; `GPU-...::2` and `GPU-...-2` are replicas of it, `MIG-GPU-.../1/0` is how drivers before 470 named an
instance."""
INSTANCE: Final = re.compile(r"MIG-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DEVICE_FILE: Final = re.compile(r"(nvidia[0-9]+)(?:/.*)?")
"""GKE's device plugin: `nvidia0`, `nvidia0/gi3`, `nvidia0/vgpu1`."""
CLAIMED: Final = re.compile(r"(?:.*-)?gpu-([0-9]+)(?:-mig-.*)?")
"""NVIDIA's DRA driver names devices by minor number, `gpu-0`, `gpu-0-mig-1g10gb-19-2`; in CDI the claim's uid is
before it."""
NVIDIA: Final = "nvidia.com/"
DRA_DRIVER: Final = "gpu.nvidia.com"
CDI_KINDS: Final = frozenset({"k8s.gpu.nvidia.com/device", "k8s.gpu.nvidia.com/claim", "nvidia.com/gpu"})


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a container was given: whose it is (a resource, or a DRA driver), and what it is called there."""

    kind: str
    name: str


def claimed(driver: str, device: str, cdi_names: Iterable[str]) -> tuple[Device, ...]:
    """Return the devices of a claim; a kubelet before 1.34 tells the CDI names alone."""
    if driver and device:
        return (Device(driver, device),)
    kinds_and_names = (name.partition("=") for name in cdi_names)
    return tuple(Device(kind, name) for kind, _, name in kinds_and_names)


def gpus_of(
    devices: Iterable[Device], gpus: Collection[str], other_names: Mapping[str, str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Find the GPUs that devices are, or are parts of.

    Args:
        devices: all devices of a container; those that are no GPUs (network adapters, say) are passed over.
        gpus: UUIDs of the GPUs that are measured.
        other_names: UUIDs by what else GPUs and their MIG instances are called (`EnergyMeter.other_names`).

    Returns:
        UUIDs, each once; and the names of devices of NVIDIA's that are none of these GPUs.
    """
    found: set[str] = set()
    unknown: set[str] = set()
    for device in devices:
        uuid = _gpu(device, other_names)
        if uuid is not None and uuid in gpus:
            found.add(uuid)
        elif uuid is not None or is_gpu(device):
            unknown.add(device.name)
    return frozenset(found), frozenset(unknown)


def is_gpu(device: Device) -> bool:
    """Say whether a device is of NVIDIA's."""
    return device.kind.startswith(NVIDIA) or device.kind == DRA_DRIVER or device.kind in CDI_KINDS


def _gpu(device: Device, other_names: Mapping[str, str]) -> str | None:
    if whole := WHOLE.match(device.name):
        return whole[1]
    if instance := INSTANCE.match(device.name):
        return other_names.get(instance[0])
    if file := DEVICE_FILE.fullmatch(device.name):
        return other_names.get(file[1])
    if (device.kind == DRA_DRIVER or device.kind in CDI_KINDS) and (minor := CLAIMED.fullmatch(device.name)):
        return other_names.get(f"nvidia{minor[1]}")
    return None
