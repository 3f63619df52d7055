"""The NVML meter through the real binding, on the virtual library: joules, faults, and what it asks the driver for."""

import itertools
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ctypes.util import find_library

import pynvml
import pytest

from joulemeter.counters import EnergyCounter
from joulemeter.errors import MeterError
from joulemeter.meters.nvml import LAST_RETRY_SECONDS, RESCAN_SECONDS, NvmlMeter
from joulemeter.model import EnergyReading, EnergySource, Gpu, GpuStatus
from joulemeter.simulation.state import NvmlState, VirtualGpu

STEADY = VirtualGpu(idle_watts=0.0, update_period_seconds=0.0)
"""Draws nothing by itself, and its counter has no ticks."""
ENERGY = "DeviceGetTotalEnergyConsumption"


class Clock:
    """Monotonic time that can be told to pass."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(virtual_nvml: NvmlState, clock: Clock) -> Iterator[NvmlMeter]:
    """An open meter on two GPUs of 100 W."""
    made = NvmlMeter(clock=clock)
    made.open()
    yield made
    made.close()


def opened(clock: Callable[[], float] = time.monotonic) -> NvmlMeter:
    meter = NvmlMeter(clock=clock)
    meter.open()
    return meter


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


# ---------------------------------------------------------------------------------------------- energy


def test_joules_are_the_counters(make_nvml):
    state = make_nvml(STEADY, STEADY)
    meter = opened()
    state.set_counter(0, 12.345)
    state.set_counter(1, 1e9 + 0.001)
    before = time.monotonic()
    first, second = meter.read()
    after = time.monotonic()
    assert (first.uuid, second.uuid) == (state.uuid(0), state.uuid(1))
    assert first.total_joules == pytest.approx(12.345, rel=1e-12)
    assert second.total_joules == pytest.approx(1e9 + 0.001, rel=1e-14)
    assert before <= first.at_seconds <= second.at_seconds <= after


def test_gpu_is_described(make_nvml):
    state = make_nvml(STEADY, VirtualGpu(product="NVIDIA T4", max_power_limit_watts=70.0))
    meter = opened()
    h100, t4 = state.uuid(0), state.uuid(1)
    assert meter.gpus == {
        h100: Gpu(0, h100, "NVIDIA H100 80GB HBM3", "580.95.05", EnergySource.COUNTER, 700.0),
        t4: Gpu(1, t4, "NVIDIA T4", "580.95.05", EnergySource.COUNTER, 70.0),
    }
    assert meter.up == {h100, t4}


def test_board_that_tells_no_limit_has_none(virtual_nvml):
    for function in ("DeviceGetPowerManagementLimitConstraints", "DeviceGetEnforcedPowerLimit"):
        virtual_nvml.set_error(0, function, pynvml.NVML_ERROR_NOT_SUPPORTED)
    limits = [gpu.max_power_watts for gpu in opened().gpus.values()]
    assert limits == [None, 700.0]


def test_power_comes_with_every_fourth_round(meter, virtual_nvml):
    watts = [meter.read()[0].power_watts for _ in range(8)]
    assert watts == [None, None, None, 100.0] * 2
    assert virtual_nvml.call_counts(0)["DeviceGetFieldValues"] == 2


def test_power_that_fails_spoils_no_energy(meter, virtual_nvml):
    for function in ("DeviceGetFieldValues", "DeviceGetPowerUsage"):
        virtual_nvml.set_error(0, function, pynvml.NVML_ERROR_UNKNOWN)
    readings = [meter.read() for _ in range(8)]
    assert [len(both) for both in readings] == [2] * 8
    assert {both[0].power_watts for both in readings} == {None}


@pytest.mark.parametrize("missing", ["Field186", "DeviceGetFieldValues"])
def test_mean_power_stands_in_for_instant_power(make_nvml, missing):
    """An older driver lacks the field, an older one still the whole function."""
    state = make_nvml(VirtualGpu(idle_watts=150.0, has_energy_counter=False))
    state.set_error(0, missing, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    assert [reading.power_watts for reading in opened().read()] == [150.0]


def test_power_is_integrated_where_there_is_no_counter(make_nvml):
    state = make_nvml(VirtualGpu(idle_watts=100.0, has_energy_counter=False), STEADY)
    meter = opened()
    assert [gpu.energy_source for gpu in meter.gpus.values()] == [
        EnergySource.POWER_INTEGRATION,
        EnergySource.COUNTER,
    ]
    readings: list[EnergyReading] = []
    for watts in (0.0, 400.0, 0.0):
        state.slot(0, 0).draw(watts)
        for _ in range(12):
            readings.append(meter.read()[0])
            time.sleep(0.02)
    assert readings[0].total_joules == 0.0
    assert {reading.power_watts for reading in readings} == {100.0, 500.0}
    first, last = readings[0].at_seconds, readings[-1].at_seconds
    drawn_joules = state.energy_joules(0, last) - state.energy_joules(0, first)
    gaps = [b.at_seconds - a.at_seconds for a, b in itertools.pairwise(readings)]
    one_step_joules = 400.0 * max(gaps) / 2  # a trapezoid across a step is wrong by at most this
    assert readings[-1].total_joules == pytest.approx(drawn_joules, abs=2 * one_step_joules)
    assert drawn_joules > 150.0


def test_fast_loop_asks_for_energy_and_rarely_power_and_nothing_else(meter, virtual_nvml):
    """Listing processes takes milliseconds of the driver's lock; energy and power take microseconds."""
    before = virtual_nvml.call_counts(0)
    for _ in range(100):
        meter.read()
    counts = virtual_nvml.call_counts(0)
    asked = {
        name: counts[name] - before.get(name, 0) for name in counts if counts[name] > before.get(name, 0)
    }
    assert asked == {ENERGY: 100, "DeviceGetFieldValues": 25, "Field186": 25}


# ---------------------------------------------------------------------------------------------- single GPUs failing


def test_one_failing_call_in_ten_loses_no_joule_and_says_nothing(make_nvml, caplog):
    caplog.set_level(logging.INFO)
    state = make_nvml(STEADY)
    meter = opened()
    said_at_start = len(caplog.records)
    state.set_error(0, ENERGY, pynvml.NVML_ERROR_UNKNOWN, one_in=10)
    counter, joules, rounds = EnergyCounter(700.0), 0.0, 0
    for millijoules in range(0, 200_000, 1000):
        state.set_counter(0, millijoules / 1000)
        readings = meter.read()
        assert meter.up == {state.uuid(0)}  # its gauges must not flicker
        for reading in readings:
            rounds += 1
            increase = counter.advance(reading)
            joules += increase.energy_joules if increase else 0.0
    assert rounds == 180
    assert joules == pytest.approx(199.0, rel=1e-12)
    assert said(caplog)[said_at_start:] == []


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN])
def test_gpu_that_goes_and_returns(meter, virtual_nvml, clock, caplog, code):
    caplog.set_level(logging.INFO)
    sick, well = virtual_nvml.uuid(0), virtual_nvml.uuid(1)
    if code == pynvml.NVML_ERROR_GPU_IS_LOST:
        virtual_nvml.lose(0)
    else:
        virtual_nvml.set_error(0, ENERGY, code)  # after a cgroup change every call says Unknown Error
    for _ in range(200):
        assert [reading.uuid for reading in meter.read()] == [well]
        clock.ahead_seconds += 0.5
    assert meter.up == {well}
    assert meter.gpus.keys() == {sick, well}
    assert meter.status(sick) == GpuStatus()
    assert virtual_nvml.call_counts(0)["DeviceGetHandleByUUID"] < 15  # backoff, not twice a second
    virtual_nvml.restore(0)
    virtual_nvml.set_error(0, ENERGY, 0)
    clock.ahead_seconds += LAST_RETRY_SECONDS
    assert [reading.uuid for reading in meter.read()] == [sick, well]
    assert meter.up == {sick, well}
    assert meter.gpus[sick].index == 0
    gone, back = said(caplog)
    assert gone.startswith(f"WARNING gpu {sick}: ")
    assert gone.endswith("; its counters stand still until it is back")
    assert back.startswith(f"INFO gpu {sick}: back after 1")


def test_gpus_are_known_by_uuid_when_indexes_change(make_nvml, clock):
    """A driver that was loaded again may number the boards differently; the label `gpu` does not move."""
    a, b = (
        VirtualGpu(uuid="GPU-a", update_period_seconds=0.0),
        VirtualGpu(uuid="GPU-b", update_period_seconds=0.0),
    )
    state = make_nvml(a, b)
    meter = opened(clock)
    state.lose(0)
    for _ in range(2):
        meter.read()
    state.unload_driver()
    with pytest.raises(MeterError):
        meter.read()
    meter.close()
    state = make_nvml(b, VirtualGpu(uuid="GPU-c"), a)
    meter.open()
    state.set_counter(0, 1000.0)
    state.set_counter(2, 3000.0)
    clock.ahead_seconds += LAST_RETRY_SECONDS
    joules = {reading.uuid: reading.total_joules for reading in meter.read()}
    assert joules["GPU-b"] == pytest.approx(1000.0, abs=100)
    assert joules["GPU-a"] == pytest.approx(3000.0, abs=100)
    assert {uuid: gpu.index for uuid, gpu in meter.gpus.items()} == {"GPU-a": 0, "GPU-b": 1, "GPU-c": 1}


@pytest.mark.parametrize(
    ("function", "code"),
    [(ENERGY, pynvml.NVML_ERROR_NOT_READY), ("DeviceGetName", pynvml.NVML_ERROR_NO_PERMISSION)],
)
def test_gpu_that_cannot_be_described_is_named_once_and_taken_in_later(
    virtual_nvml, clock, caplog, function, code
):
    """H100 PCIe says `System is not in ready state` for a while: that is no GPU without a counter."""
    virtual_nvml.set_error(0, function, code)
    meter = opened(clock)
    for _ in range(4):
        clock.ahead_seconds += RESCAN_SECONDS
        assert [reading.uuid for reading in meter.read()] == [virtual_nvml.uuid(1)]
    (line,) = said(caplog)
    assert line.startswith("WARNING gpu 0: ")
    assert line.endswith("; not measured, trying again")
    virtual_nvml.set_error(0, function, 0)
    clock.ahead_seconds += RESCAN_SECONDS
    assert len(meter.read()) == 2
    assert meter.gpus[virtual_nvml.uuid(0)].energy_source is EnergySource.COUNTER


def test_gpu_with_neither_counter_nor_power_is_left_out(make_nvml, caplog):
    state = make_nvml(VirtualGpu(has_energy_counter=False), STEADY)
    for function in ("DeviceGetFieldValues", "DeviceGetPowerUsage"):
        state.set_error(0, function, pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert opened().gpus.keys() == {state.uuid(1)}
    assert said(caplog) == ["WARNING gpu 0: Not Supported; not measured, trying again"]


def test_gpus_that_appear_later_are_found(virtual_nvml, clock):
    virtual_nvml.lose(0)
    virtual_nvml.lose(1)
    meter = opened(clock)
    assert (meter.gpus, meter.read()) == ({}, [])
    virtual_nvml.restore(1)
    assert meter.read() == []  # looking for GPUs is not for every round
    clock.ahead_seconds += RESCAN_SECONDS
    assert [reading.uuid for reading in meter.read()] == [virtual_nvml.uuid(1)]
    assert [gpu.index for gpu in meter.gpus.values()] == [1]


def test_node_without_gpus_is_no_error(make_nvml):
    make_nvml()
    meter = opened()
    assert (meter.gpus, meter.up, meter.read(), meter.compute_processes()) == ({}, frozenset(), [], {})


# ---------------------------------------------------------------------------------------------- the library failing


def test_devices_that_were_taken_away_are_said(virtual_nvml):
    for code in (pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_OPERATING_SYSTEM):
        virtual_nvml.set_error(None, "Init", code)
        with pytest.raises(MeterError, match="blocked: recreate the container, or restart the service"):
            NvmlMeter().open()


def test_driver_that_is_unloaded_and_loaded_again(meter, virtual_nvml):
    virtual_nvml.set_counter(0, 5000.0)
    assert len(meter.read()) == 2
    virtual_nvml.unload_driver()
    with pytest.raises(MeterError, match=r"Driver Not Loaded: load the NVIDIA kernel module"):
        meter.read()
    assert meter.up == frozenset()
    meter.close()
    with pytest.raises(MeterError, match="Driver Not Loaded"):
        meter.open()
    assert meter.compute_processes() == {}
    assert meter.status(virtual_nvml.uuid(0)) == GpuStatus()
    virtual_nvml.load_driver()
    meter.open()
    first, second = meter.read()  # old handles are stale: Invalid Argument
    assert first.total_joules < 5000.0
    assert meter.up == {first.uuid, second.uuid}


def test_driver_loaded_again_between_two_rounds(meter, virtual_nvml):
    meter.read()
    virtual_nvml.unload_driver()
    virtual_nvml.load_driver()
    with pytest.raises(MeterError, match="Uninitialized"):
        meter.read()
    meter.close()
    meter.open()
    assert len(meter.read()) == 2


def test_driver_that_goes_while_gpus_are_looked_for(meter, virtual_nvml, clock):
    virtual_nvml.set_error(None, "DeviceGetCount", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    clock.ahead_seconds += RESCAN_SECONDS
    with pytest.raises(MeterError, match="the driver was upgraded under us: restart joulemeter"):
        meter.read()


def test_scan_that_fails_otherwise_waits_for_the_next(meter, virtual_nvml, clock):
    virtual_nvml.set_error(None, "DeviceGetCount", pynvml.NVML_ERROR_UNKNOWN)
    clock.ahead_seconds += RESCAN_SECONDS
    assert len(meter.read()) == 2


def test_inits_and_shutdowns_are_even(virtual_nvml):
    virtual_nvml.set_error(None, "DeviceGetCount", pynvml.NVML_ERROR_UNKNOWN)
    meter = NvmlMeter()
    for _ in range(3):
        with pytest.raises(MeterError):
            meter.open()
        meter.close()
    meter.close()
    counts = virtual_nvml.call_counts(None)
    assert counts["Init"] == counts["Shutdown"] == 3


def failure_to_open(library: str | None) -> str:
    """What is said in a process of its own: the binding keeps a library for good."""
    code = (
        "import sys\n"
        "from joulemeter.errors import MeterError\n"
        "from joulemeter.meters.nvml import NvmlMeter\n"
        "try:\n"
        "    NvmlMeter(sys.argv[1] or None).open()\n"
        "except MeterError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, library or ""], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    return done.stdout


def test_named_library_that_does_not_exist(tmp_path):
    path = tmp_path / "libnvidia-ml.so.1"
    message = failure_to_open(str(path))
    assert message.startswith(f"JOULEMETER_NVML_LIBRARY={path}: ")
    assert message.endswith("; name an NVML library, or unset it to use the driver's\n")


def test_named_library_that_is_another():
    assert failure_to_open("libc.so.6") == (
        "JOULEMETER_NVML_LIBRARY=libc.so.6: no NVML library; name one, or unset it to use the driver's\n"
    )


@pytest.mark.skipif(find_library("nvidia-ml") is not None, reason="this machine has an NVML library")
def test_no_library_at_all():
    message = failure_to_open(None)
    assert message.startswith("nvml: NVML Shared Library Not Found: install the NVIDIA driver")
    assert "JOULEMETER_NVML_LIBRARY" in message


# ---------------------------------------------------------------------------------------------- slow readings


def test_status(meter, virtual_nvml):
    virtual_nvml.set_power_limit(0, 400.0)
    virtual_nvml.set_temperature(0, 66)
    virtual_nvml.set_processes(0, {4242: 10 * 2**30})
    virtual_nvml.slot(0, 0).use(60)
    for number, field in enumerate(range(74, 80)):
        virtual_nvml.set_throttle_nanoseconds(0, field, number * 10**9)
    assert meter.status(virtual_nvml.uuid(0)) == GpuStatus(
        power_watts=100.0,
        power_limit_watts=400.0,
        utilization_ratio=0.6,
        memory_used_bytes=10 * 2**30,
        memory_total_bytes=80 * 2**30,
        temperature_celsius=66.0,
        throttle_seconds={
            "power_cap": 0.0,
            "thermal": 1.0,
            "sync_boost": 2.0,
            "board_limit": 3.0,
            "reliability": 5.0,
        },
    )


def test_what_cannot_be_read_is_none_and_not_zero(meter, virtual_nvml):
    for function in (
        "DeviceGetFieldValues",
        "DeviceGetPowerUsage",
        "DeviceGetEnforcedPowerLimit",
        "DeviceGetUtilizationRates",
        "DeviceGetMemoryInfo",
        "DeviceGetTemperature",
    ):
        virtual_nvml.set_error(0, function, pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert meter.status(virtual_nvml.uuid(0)) == GpuStatus()
    assert meter.status("GPU-never-seen") == GpuStatus()


def test_throttle_reason_that_cannot_be_read_is_absent(meter, virtual_nvml):
    virtual_nvml.set_error(0, "Field75", pynvml.NVML_ERROR_NOT_SUPPORTED)
    seconds = meter.status(virtual_nvml.uuid(0)).throttle_seconds
    assert set(seconds) == {"power_cap", "sync_boost", "board_limit", "reliability"}


def test_compute_processes(meter, virtual_nvml):
    virtual_nvml.set_processes(0, {4242: 2**30, 4343: 2**30})
    listed = meter.compute_processes()
    assert listed == {virtual_nvml.uuid(0): {4242, 4343}, virtual_nvml.uuid(1): frozenset()}


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_gpu_whose_processes_cannot_be_listed_is_absent(meter, virtual_nvml, code):
    """Of a function that an old driver lacks, pynvml makes NVMLLibraryMismatchError: that is no NVMLError."""
    virtual_nvml.set_error(0, "DeviceGetComputeRunningProcesses", code)
    assert meter.compute_processes() == {virtual_nvml.uuid(1): frozenset()}


def test_lost_gpu_lists_no_processes(meter, virtual_nvml):
    virtual_nvml.lose(0)
    for _ in range(2):
        meter.read()
    assert meter.compute_processes() == {virtual_nvml.uuid(1): frozenset()}
