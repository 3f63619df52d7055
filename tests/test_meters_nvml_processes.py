"""Processes on a GPU through the real binding: who computes, how much of it each uses, and GPUs cut into instances."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pynvml
import pytest

from joulemeter.meters.nvml import NvmlMeter
from joulemeter.meters.nvml_processes import ProcessUse
from joulemeter.simulation.state import NvmlState

SAMPLED_SECONDS = 1 / 6
UTILIZATION = "DeviceGetProcessUtilization"


@pytest.fixture
def meter(virtual_nvml: NvmlState) -> Iterator[NvmlMeter]:
    made = NvmlMeter()
    made.open()
    yield made
    made.close()


# ---------------------------------------------------------------------------------------------- use


def test_use_is_told_by_process(meter, virtual_nvml):
    uuid = virtual_nvml.uuid(0)
    virtual_nvml.set_processes(0, {4242: 0, 4343: 0, 4444: 0})
    virtual_nvml.slot(0, 0).use(60)
    virtual_nvml.slot(0, 1).use(25)
    assert meter.process_use(uuid) == {4242: 0.6, 4343: 0.25}  # of 4444, which did nothing, NVML says nothing
    time.sleep(SAMPLED_SECONDS)
    virtual_nvml.slot(0, 0).use(5)
    assert meter.process_use(uuid) == {4242: 0.05, 4343: 0.25}


def test_idle_gpu_is_used_by_nobody_once_it_has_told_of_somebody(meter, virtual_nvml):
    first, second = virtual_nvml.uuid(0), virtual_nvml.uuid(1)
    virtual_nvml.set_processes(0, {4242: 0})
    assert (meter.process_use(first), meter.process_use(second)) == (None, None)
    virtual_nvml.slot(0, 0).use(60)
    assert meter.process_use(first) == {4242: 0.6}
    virtual_nvml.slot(0, 0).use(0)
    time.sleep(SAMPLED_SECONDS)
    assert (meter.process_use(first), meter.process_use(second)) == ({}, None)


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,  # more processes than a moment ago
    ],
)
def test_use_that_cannot_be_read_is_not_told(meter, virtual_nvml, code):
    virtual_nvml.set_processes(0, {4242: 0})
    virtual_nvml.slot(0, 0).use(60)
    assert meter.process_use(virtual_nvml.uuid(0)) == {4242: 0.6}
    virtual_nvml.set_error(0, UTILIZATION, code)
    assert meter.process_use(virtual_nvml.uuid(0)) is None


def test_lost_and_unknown_gpus_tell_nothing(meter, virtual_nvml):
    virtual_nvml.set_processes(0, {4242: 0})
    virtual_nvml.slot(0, 0).use(60)
    virtual_nvml.lose(0)
    for _ in range(2):
        meter.read()
    assert meter.process_use(virtual_nvml.uuid(0)) is None
    assert meter.process_use("GPU-never-seen") is None


@dataclass(frozen=True)
class Sample:
    pid: int
    timeStamp: int  # noqa: N815 - NVML's name
    smUtil: int  # noqa: N815


class Driver:
    """What the call answers is in a test's hand."""

    NVMLError = pynvml.NVMLError
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError

    def __init__(self) -> None:
        self.answer: Callable[[], list[Sample]] = list
        self.asked_since: list[int] = []

    def nvmlDeviceGetProcessUtilization(self, _: object, since: int) -> list[Sample]:  # noqa: N802
        self.asked_since.append(since)
        return self.answer()


def failing(code: int) -> list[Sample]:
    raise pynvml.NVMLError(code)


def test_samples_of_one_process_are_averaged_and_rubbish_is_left_out():
    driver, use = Driver(), ProcessUse()
    driver.answer = lambda: [Sample(7, 50_000_000, 40), Sample(7, 60_000_000, 20), Sample(8, 55_000_000, 101)]
    assert use.read(driver, None) == {7: 0.3}
    driver.answer = lambda: [Sample(0, 0, 0), Sample(7, 60_000_000, 20), Sample(8, 70_000_000, 10)]
    assert use.read(driver, None) == {8: 0.1}  # older ones were told before
    assert driver.asked_since == [0, 60_000_000]


def test_success_without_samples_is_no_use():
    """Of such an answer pynvml makes the error "Success"."""
    driver, use = Driver(), ProcessUse()
    driver.answer = lambda: failing(pynvml.NVML_SUCCESS)
    assert use.read(driver, None) is None
    driver.answer = lambda: [Sample(7, 50_000_000, 40)]
    assert use.read(driver, None) == {7: 0.4}
    driver.answer = lambda: failing(pynvml.NVML_SUCCESS)
    assert use.read(driver, None) == {}


def test_clock_that_is_set_back_silences_for_some_reads_only():
    driver, use = Driver(), ProcessUse()
    samples = [Sample(7, 99_000_000, 40), Sample(8, 98_000_000, 20)]

    def newer() -> list[Sample]:
        found = [sample for sample in samples if sample.timeStamp > driver.asked_since[-1]]
        return found or failing(pynvml.NVML_ERROR_NOT_FOUND)

    driver.answer = newer
    told = {7: 0.4, 8: 0.2}
    assert [use.read(driver, None) for _ in range(9)] == [told, *[{}] * 8]  # old ones are told once
    samples[:] = [Sample(7, 39_000_000, 10)]
    answers = [use.read(driver, None) for _ in range(4)]
    assert {7: 0.1} in answers
    samples[:] = [Sample(7, 40_000_000, 30)]
    assert use.read(driver, None) == {7: 0.3}


# ---------------------------------------------------------------------------------------------- instances


def divide(state: NvmlState) -> None:
    """Cut the first GPU into three instances; a process on each of two of them."""
    state.set_mig_instances(0, 3)
    state.slot(0, 0).occupy(4242, memory_bytes=2**30, mig_instance=0)
    state.slot(0, 1).occupy(4343, memory_bytes=2**30, mig_instance=2)


def test_virtual_instances_list_their_own_processes(meter, virtual_nvml):
    divide(virtual_nvml)
    whole = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetMigMode(whole) == [1, 1]
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(whole)
    assert [(process.pid, process.gpuInstanceId) for process in listed] == [(4242, 0), (4343, 2)]
    instances = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, index) for index in range(3)]
    by_instance = [pynvml.nvmlDeviceGetComputeRunningProcesses(instance) for instance in instances]
    assert [[process.pid for process in one] for one in by_instance] == [[4242], [], [4343]]
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, 3)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetTotalEnergyConsumption(instances[0])
    with pytest.raises(ValueError, match="8 MIG instances: a GPU has room for 7"):
        virtual_nvml.set_mig_instances(0, 8)


def test_gpus_are_known_by_device_file_and_by_instance(meter, virtual_nvml):
    first, second = virtual_nvml.uuid(0), virtual_nvml.uuid(1)
    assert meter.other_names() == {"nvidia0": first, "nvidia1": second}
    divide(virtual_nvml)
    names = meter.other_names()
    whole = pynvml.nvmlDeviceGetHandleByIndex(0)
    instances = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, index) for index in range(3)]
    uuids = [pynvml.nvmlDeviceGetUUID(instance) for instance in instances]
    assert names == {"nvidia0": first, "nvidia1": second} | dict.fromkeys(uuids, first)
    assert all(uuid.startswith("MIG-") and len(uuid) == len(first) for uuid in uuids)
    virtual_nvml.set_error(0, "DeviceGetMinorNumber", pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert meter.other_names().keys() == names.keys() - {"nvidia0"}


@pytest.mark.parametrize("code", [pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NO_PERMISSION])
def test_processes_on_instances_are_their_gpus(meter, virtual_nvml, code):
    divide(virtual_nvml)
    virtual_nvml.set_error(
        0, "DeviceGetComputeRunningProcesses", code
    )  # the whole tells privileged users only
    assert meter.compute_processes() == {
        virtual_nvml.uuid(0): {4242, 4343},
        virtual_nvml.uuid(1): frozenset(),
    }


def test_instances_that_may_not_be_asked_either_leave_their_gpu_out(meter, virtual_nvml):
    divide(virtual_nvml)
    for function in ("DeviceGetComputeRunningProcesses", "MigDeviceGetComputeRunningProcesses"):
        virtual_nvml.set_error(0, function, pynvml.NVML_ERROR_NO_PERMISSION)
    assert meter.compute_processes() == {virtual_nvml.uuid(1): frozenset()}


def test_divided_gpu_is_measured_as_one_and_tells_no_use(meter, virtual_nvml):
    divide(virtual_nvml)
    virtual_nvml.slot(0, 0).use(60)
    assert [reading.uuid for reading in meter.read()] == [virtual_nvml.uuid(0), virtual_nvml.uuid(1)]
    status = meter.status(virtual_nvml.uuid(0))
    assert status.utilization_ratio is None
    assert status.power_watts == pytest.approx(100.0)
    assert meter.process_use(virtual_nvml.uuid(0)) is None
