"""What the kubelet calls a container's devices, and the whole GPUs behind them."""

import pytest

from joulemeter.discovery.device_ids import Device, claimed, gpus_of

ONE = "GPU-11111111-1111-4111-8111-111111111111"
TWO = "GPU-22222222-2222-4222-8222-222222222222"
MIG = "MIG-33333333-3333-4333-8333-333333333333"
NAMES = {"nvidia0": ONE, "nvidia1": TWO, MIG: TWO}
DRA = "gpu.nvidia.com"


def plugged(*ids: str, resource: str = "nvidia.com/gpu") -> list[Device]:
    return [Device(resource, one) for one in ids]


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        (plugged(ONE), {ONE}),
        (plugged(ONE, TWO), {ONE, TWO}),
        (plugged(f"{ONE}::0", f"{ONE}::3", resource="nvidia.com/gpu.shared"), {ONE}),
        (plugged(f"{TWO}-7"), {TWO}),
        (plugged(MIG, resource="nvidia.com/mig-1g.10gb"), {TWO}),
        (plugged(f"{MIG}::1", resource="nvidia.com/mig-1g.10gb.shared"), {TWO}),
        (plugged(f"MIG-{ONE}/1/0", f"MIG-{ONE}/2/0"), {ONE}),
        (plugged("nvidia0"), {ONE}),
        (plugged("nvidia1/vgpu0", "nvidia1/gi3/vgpu1"), {TWO}),
        ([Device(DRA, "gpu-1")], {TWO}),
        ([Device(DRA, "gpu-0-mig-1g10gb-19-2")], {ONE}),
        ([Device("k8s.gpu.nvidia.com/claim", "6d0fb2d0-1c5e-gpu-1")], {TWO}),
        ([Device("k8s.gpu.nvidia.com/device", "gpu-0")], {ONE}),
        ([Device("nvidia.com/gpu", TWO)], {TWO}),
    ],
)
def test_parts_and_replicas_stand_for_their_gpu_once(devices: list[Device], found: set[str]):
    assert gpus_of(devices, {ONE, TWO}, NAMES) == (found, frozenset())


@pytest.mark.parametrize(
    "device",
    [
        Device("rdma/hca", "mlx5_0"),
        Device("intel.com/sriov", "0000:3b:02.1"),
        Device("gpu.intel.com", "gpu-0"),
        Device("cpu.dra.k8s.io", "gpu-0"),
    ],
)
def test_what_is_no_gpu_of_nvidia_is_passed_over(device: Device):
    assert gpus_of([device], {ONE, TWO}, NAMES) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "device",
    [
        Device("nvidia.com/gpu", "GPU-99999999-9999-4999-8999-999999999999"),
        Device("nvidia.com/mig-1g.10gb", "MIG-99999999-9999-4999-8999-999999999999"),
        Device("nvidia.com/gpu", "nvidia7"),
        Device(DRA, "gpu-12"),
        Device("nvidia.com/gpu", f"{ONE}9"),
        Device("nvidia.com/pgpu", "42"),
    ],
)
def test_gpu_that_is_not_measured_is_named(device: Device):
    assert gpus_of([device, *plugged(ONE)], {ONE, TWO}, NAMES) == ({ONE}, {device.name})


def test_older_kubelets_tell_a_claims_cdi_names_alone():
    assert claimed(DRA, "gpu-0", ["k8s.gpu.nvidia.com/claim=x-gpu-0"]) == (Device(DRA, "gpu-0"),)
    assert claimed("", "", ["k8s.gpu.nvidia.com/claim=x-gpu-0"]) == (
        Device("k8s.gpu.nvidia.com/claim", "x-gpu-0"),
    )
    assert claimed("", "", []) == ()
