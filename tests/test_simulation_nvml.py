"""The virtual NVML library, driven through the unmodified pynvml."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from joulemeter.errors import JoulemeterError
from joulemeter.simulation import layout, library
from joulemeter.simulation.state import NvmlState, VirtualGpu

STEADY = VirtualGpu(idle_watts=0.0, update_period_seconds=0.0)
"""Draws nothing by itself, and its counter has no ticks."""


@pytest.fixture
def nvml(virtual_nvml: NvmlState) -> NvmlState:
    pynvml.nvmlInit()
    return virtual_nvml


def counter_joules(index: int = 0) -> float:
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(index)) / 1000


def error_of(call: Callable[[], object]) -> int:
    with pytest.raises(pynvml.NVMLError) as caught:
        call()
    return int(caught.value.value)


# ------------------------------------------------------------ energy


def test_counter_shows_what_was_drawn_until_the_last_tick(nvml):
    slot = nvml.slot(0, 3)
    start = time.monotonic()
    slot.draw(400.0, start, start + 0.25)
    time.sleep(0.4)
    before = time.monotonic()
    shown = counter_joules()
    after = time.monotonic()
    least = nvml.energy_joules(0, before // 0.1 * 0.1)
    most = nvml.energy_joules(0, after // 0.1 * 0.1)
    assert least - 0.001 <= shown <= most + 0.001
    assert slot.energy_joules() == pytest.approx(100.0, rel=1e-12)


def test_counter_moves_only_on_ticks_by_power_times_period(nvml):
    nvml.slot(0, 0).draw(400.0)  # 500 W in all
    seen = []
    until = time.monotonic() + 10
    while len(set(seen)) < 6 and time.monotonic() < until:
        seen.append(counter_joules())
        time.sleep(0.005)
    values = sorted(set(seen))
    assert seen == sorted(seen)
    ticks = [(b - a) / 50.0 for a, b in itertools.pairwise(values[1:])]  # the first one may be partial
    assert len(ticks) == 4
    assert min(ticks) > 0.5
    assert ticks == pytest.approx([round(tick) for tick in ticks], abs=0.001)


def test_energy_of_all_slots_and_idle_adds_up(nvml):
    start = time.monotonic()
    for index in range(layout.SLOTS):
        nvml.slot(0, index).draw(10.0 * index, start, start + 0.1)
    at = start + 0.2
    idle = nvml.energy_joules(0, at) - nvml.energy_joules(0, start)
    assert idle == pytest.approx(100.0 * 0.2 + 0.1 * sum(10.0 * i for i in range(layout.SLOTS)))


def test_power_written_ahead_counts_when_its_time_comes(nvml):
    slot = nvml.slot(0, 0)
    now = time.monotonic()
    slot.draw(50.0, now + 1, now + 2)
    slot.draw(80.0, now + 2, now + 3)
    assert [slot.energy_joules(now + t) for t in (0.5, 1.5, 2.5, 4)] == pytest.approx([0, 25, 90, 130])


def test_history_is_bounded_and_never_makes_the_counter_fall(nvml):
    slot = nvml.slot(0, 0)
    start = time.monotonic()
    for i in range(5 * layout.PIECES):
        slot.draw(100.0, start + i, start + i + 0.5)
    kept_from = start + 5 * layout.PIECES - (layout.PIECES - 1)
    assert slot.energy_joules(kept_from + 0.25) == pytest.approx(50.0 * (4 * layout.PIECES + 1) + 25)
    assert slot.energy_joules(start) == pytest.approx(
        50.0 * (4 * layout.PIECES + 1)
    )  # forgotten: the oldest kept


def test_slot_goes_on_where_its_last_writer_died(nvml):
    code = (
        "import sys, time, pathlib\n"
        "from joulemeter.simulation.state import NvmlState\n"
        "slot = NvmlState.open(pathlib.Path(sys.argv[1])).slot(0, 0)\n"
        "now = time.monotonic()\n"
        "slot.draw(300.0, now, now + 0.05)\n"
    )
    for times in (1, 2):
        subprocess.run([sys.executable, "-c", code, str(nvml.path)], check=True, timeout=20)
        time.sleep(0.06)
        assert nvml.slot(0, 0).energy_joules() == pytest.approx(15.0 * times)


def test_c_and_python_agree_to_the_bit(make_nvml):
    state = make_nvml(STEADY)
    pynvml.nvmlInit()
    for i in range(100):
        now = time.monotonic()
        state.slot(0, i % 3).draw(1e6 + i, now, now + 1e-4)
    for index in range(3):
        state.slot(0, index).draw(0.0)
    assert counter_joules() == int(state.energy_joules(0) * 1000 + 1e-5) / 1000


def test_quantum(make_nvml):
    state = make_nvml(VirtualGpu(idle_watts=0.0))
    state.set_counter_behaviour(0, update_period_seconds=0.0, quantum_millijoules=1000)
    pynvml.nvmlInit()
    state.set_counter(0, 12.999)
    assert counter_joules() == 12.0


def test_counter_can_be_set_directly(make_nvml):
    state = make_nvml(STEADY)
    pynvml.nvmlInit()
    for joules in (12.345, 1e9 + 0.001, 0.0):
        state.set_counter(0, joules)
        assert counter_joules() == joules
        assert state.energy_joules(0) == 0.0


def test_reset_starts_the_counter_again_but_not_the_truth(nvml):
    time.sleep(0.15)
    used = nvml.energy_joules(0)
    nvml.reset_counter(0)
    for wait_seconds in (0.0, 0.2):
        time.sleep(wait_seconds)
        shown = counter_joules()
        assert shown <= nvml.energy_joules(0) - used
    assert shown >= 9.0
    assert used >= 15.0


def test_instant_power_in_all_its_places(nvml):
    nvml.slot(1, 7).draw(345.5)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(1)
    fields = pynvml.nvmlDeviceGetFieldValues(gpu, [185, 186])
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 445_500
    assert [field.value.uiVal for field in fields] == [445_500, 445_500]
    nvml.set_idle_watts(1, 90.0)
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 435_500


# ------------------------------------------------------------ what a GPU answers


def test_identity_and_slow_readings(make_nvml):
    state = make_nvml(VirtualGpu(product="NVIDIA L4", uuid="GPU-abc", power_limit_watts=72.0), VirtualGpu())
    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByUUID("GPU-abc")
    state.set_temperature(0, 66)
    state.set_clocks_event_reasons(0, 4)
    assert pynvml.nvmlDeviceGetCount() == 2
    assert pynvml.nvmlSystemGetDriverVersion() == "580.95.05"
    assert pynvml.nvmlSystemGetNVMLVersion() == "13.580.95.05"
    assert (pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlDeviceGetUUID(gpu)) == ("NVIDIA L4", "GPU-abc")
    assert pynvml.nvmlDeviceGetIndex(gpu) == 0
    assert pynvml.nvmlDeviceGetPciInfo(gpu).busId == "00000000:01:00.0"
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 72_000
    state.set_power_limit(0, 60.0)
    assert pynvml.nvmlDeviceGetPowerManagementLimit(gpu) == 60_000
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [200_000, 700_000]
    assert pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU) == 66
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 4
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) == 4
    assert pynvml.nvmlDeviceGetMigMode(gpu) == [0, 0]
    assert error_of(lambda: pynvml.nvmlDeviceGetHandleByUUID("GPU-x")) == pynvml.NVML_ERROR_NOT_FOUND
    assert error_of(lambda: pynvml.nvmlDeviceGetHandleByIndex(2)) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_processes_memory_and_utilisation(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu) == []
    assert error_of(lambda: pynvml.nvmlDeviceGetProcessUtilization(gpu, 0)) == pynvml.NVML_ERROR_NOT_FOUND
    nvml.set_processes(0, {4242: 10 * 2**30, 4343: 2**30})
    nvml.slot(0, 0).use(60)
    nvml.slot(0, 1).use(70)
    running = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert [(p.pid, p.usedGpuMemory) for p in running] == [(4242, 10 * 2**30), (4343, 2**30)]
    used = [(s.pid, s.smUtil) for s in pynvml.nvmlDeviceGetProcessUtilization(gpu, 0)]
    assert used == [(4242, 60), (4343, 70)]
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu == 100
    for memory in (
        pynvml.nvmlDeviceGetMemoryInfo(gpu),
        pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2),
    ):
        assert (memory.total, memory.used, memory.free) == (80 * 2**30, 11 * 2**30, 69 * 2**30)
    nvml.slot(0, 0).vacate()
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)] == [4343]
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(1)) == []


def test_fields_answer_one_by_one(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    for field in range(74, 80):
        nvml.set_throttle_nanoseconds(0, field, field * 10**9)
    nvml.set_counter(0, 7.0)
    nvml.set_error(0, "Field186", pynvml.NVML_ERROR_NOT_SUPPORTED)
    asked = [*range(74, 80), 83, 186, (185, 1), 9999]
    values = pynvml.nvmlDeviceGetFieldValues(gpu, asked)
    assert [v.nvmlReturn for v in values] == [0] * 7 + [pynvml.NVML_ERROR_NOT_SUPPORTED] * 3
    assert [v.value.ullVal for v in values][:6] == [field * 10**9 for field in range(74, 80)]
    assert 7000 <= values[6].value.ullVal <= 7000 + 100 * 1000
    assert values[6].valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    assert abs(values[6].timestamp / 1e6 - time.time()) < 60


# ------------------------------------------------------------ faults


def test_lost_gpu_is_lost_on_calls_and_handles_and_comes_back(nvml):
    gpu, uuid = pynvml.nvmlDeviceGetHandleByIndex(0), nvml.uuid(0)
    nvml.lose(0)
    for call in (
        lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu),
        lambda: pynvml.nvmlDeviceGetHandleByIndex(0),
        lambda: pynvml.nvmlDeviceGetHandleByUUID(uuid),
    ):
        assert error_of(call) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert pynvml.nvmlDeviceGetCount() == 2
    assert counter_joules(1) >= 0
    nvml.restore(0)
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == uuid


def test_no_energy_counter(nvml):
    nvml.set_energy_counter(0, supported=False)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert error_of(counter_joules) == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetFieldValues(gpu, [83])[0].nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 100_000


def test_one_call_in_n_fails(nvml):
    nvml.set_error(0, "DeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN, one_in=3)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    failed = []
    for _ in range(9):
        try:
            pynvml.nvmlDeviceGetPowerUsage(gpu)
            failed.append(False)
        except pynvml.NVMLError_Unknown:
            failed.append(True)
    assert failed == [False, False, True] * 3
    nvml.set_error(0, "DeviceGetPowerUsage", 0)
    assert [pynvml.nvmlDeviceGetPowerUsage(gpu) for _ in range(3)] == [100_000] * 3


def test_errors_have_nvmls_words(nvml):
    nvml.set_error(0, "DeviceGetName", pynvml.NVML_ERROR_NOT_READY)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(pynvml.NVMLError, match="System is not in ready state"):
        pynvml.nvmlDeviceGetName(gpu)
    assert pynvml.nvmlErrorString(999) == "Unknown Error"


def test_latency_and_call_counts(nvml):
    nvml.set_latency(0, "DeviceGetComputeRunningProcesses", 0.02)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    start = time.monotonic()
    pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert time.monotonic() - start >= 0.02
    pynvml.nvmlDeviceGetFieldValues(gpu, [83, 186])
    assert nvml.call_counts(0) == {
        "DeviceGetHandleByIndex": 1,
        "DeviceGetComputeRunningProcesses": 1,
        "DeviceGetFieldValues": 1,
        "Field83": 1,
        "Field186": 1,
    }
    assert nvml.call_counts(1) == {}
    assert nvml.call_counts(None) == {"Init": 1}


def test_calls_of_many_threads_are_all_counted(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    threads = [
        threading.Thread(target=lambda: [pynvml.nvmlDeviceGetPowerUsage(gpu) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert nvml.call_counts(0)["DeviceGetPowerUsage"] == 2000


def test_handle_of_an_earlier_initialisation_is_stale(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlShutdown()
    assert error_of(lambda: pynvml.nvmlDeviceGetName(gpu)) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert error_of(lambda: pynvml.nvmlDeviceGetName(gpu)) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_inits_are_counted(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 100_000
    pynvml.nvmlShutdown()
    assert error_of(pynvml.nvmlShutdown) == pynvml.NVML_ERROR_UNINITIALIZED


def test_driver_unloaded_and_reloaded(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    nvml.set_counter(0, 5000.0)
    nvml.unload_driver()
    assert error_of(lambda: pynvml.nvmlDeviceGetName(gpu)) == pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    pynvml.nvmlShutdown()
    assert error_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    nvml.load_driver()
    pynvml.nvmlInit()
    assert counter_joules() < 5000.0


def test_driver_reloaded_under_a_client_asks_it_to_initialise_again(nvml):
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    nvml.unload_driver()
    nvml.load_driver()
    assert error_of(lambda: pynvml.nvmlDeviceGetName(gpu)) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert error_of(lambda: pynvml.nvmlDeviceGetName(gpu)) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert counter_joules() < 100.0


def test_init_can_fail(virtual_nvml):
    virtual_nvml.set_error(None, "Init", pynvml.NVML_ERROR_UNKNOWN)
    assert error_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_UNKNOWN
    virtual_nvml.set_error(None, "Init", 0)
    pynvml.nvmlInit()


def test_without_a_state_file_there_is_no_driver(nvml_library, monkeypatch, tmp_path):
    for path in (None, str(tmp_path / "absent")):
        monkeypatch.delenv(library.STATE_VARIABLE, raising=False)
        if path:
            monkeypatch.setenv(library.STATE_VARIABLE, path)
        assert error_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_DRIVER_NOT_LOADED


def test_new_state_file_is_a_new_node_to_a_client_that_initialises_again(make_nvml):
    make_nvml(VirtualGpu())
    pynvml.nvmlInit()
    old = pynvml.nvmlDeviceGetHandleByIndex(0)
    make_nvml(VirtualGpu(), VirtualGpu())
    assert pynvml.nvmlDeviceGetCount() == 1  # until then it keeps the node it had
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 2
    assert error_of(lambda: pynvml.nvmlDeviceGetName(old)) == pynvml.NVML_ERROR_INVALID_ARGUMENT


# ------------------------------------------------------------ layout, library, file


def test_struct_sizes_are_those_of_nvml_h():
    sizes = {
        pynvml.nvmlPciInfo_t: 68,
        pynvml.c_nvmlMemory_t: 24,
        pynvml.c_nvmlMemory_v2_t: 40,
        pynvml.c_nvmlProcessInfo_t: 24,
        pynvml.c_nvmlProcessUtilizationSample_t: 32,
        pynvml.c_nvmlFieldValue_t: 40,
        pynvml.c_nvmlUtilization_t: 8,
    }
    assert {kind: ctypes.sizeof(kind) for kind in sizes} == sizes


def test_library_is_found_by_its_soname_in_a_fresh_process(nvml_library, virtual_nvml):
    code = "import pynvml\npynvml.nvmlInit()\nprint(pynvml.nvmlDeviceGetCount())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_library.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_build_is_kept(tmp_path):
    first = library.build(tmp_path)
    built_at = first.stat().st_mtime_ns
    assert library.build(tmp_path) == first
    assert first.stat().st_mtime_ns == built_at
    assert [path.name for path in first.parent.iterdir()] == [library.SONAME]


def test_named_library_wins_and_must_exist(tmp_path, monkeypatch):
    named = tmp_path / "lib.so"
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(named))
    with pytest.raises(JoulemeterError, match=r"no file .*lib\.so'; unset it"):
        library.virtual_library()
    named.touch()
    assert library.virtual_library() == named
    with pytest.raises(JoulemeterError, match="not a virtual NVML library"):
        library.load(named)


def test_no_compiler_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JoulemeterError, match="apt-get install gcc"):
        library.build(tmp_path)


def test_cache_that_cannot_be_written_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(JoulemeterError, match="set XDG_CACHE_HOME"):
        library.build()


def test_file_of_another_release_is_refused_by_both_sides(virtual_nvml):
    content = bytearray(virtual_nvml.path.read_bytes())
    content[0] ^= 1
    other = Path(f"{virtual_nvml.path}.other")
    other.write_bytes(content)
    other.replace(virtual_nvml.path)
    assert error_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    with pytest.raises(JoulemeterError, match="another release"):
        NvmlState.open(virtual_nvml.path)
    virtual_nvml.path.write_bytes(b"short")
    assert error_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    with pytest.raises(JoulemeterError, match="make it with"):
        NvmlState.open(virtual_nvml.path)


BAD = {
    "GPU 2: the virtual node has 2": lambda state: state.lose(2),
    "slot 16: a virtual GPU has slots 0 to 15": lambda state: state.slot(0, 16),
    "function 'DeviceGetNme'": lambda state: state.set_error(0, "DeviceGetNme", 1),
    "function 'Init'": lambda state: state.set_error(0, "Init", 1),
    "watts=-1": lambda state: state.slot(0, 0).draw(-1),
    "watts=nan": lambda state: state.slot(0, 0).draw(float("nan")),
    "lies before": lambda state: (state.slot(0, 0).draw(1), state.slot(0, 0).draw(1, 0.0)),
    "17 processes": lambda state: state.set_processes(0, dict.fromkeys(range(1, 18), 0)),
    "17 GPUs": lambda state: NvmlState.create(state.path, [VirtualGpu()] * 17),
}


@pytest.mark.parametrize("message", BAD)
def test_misuse_is_named(virtual_nvml, message):
    with pytest.raises(ValueError, match=message):
        BAD[message](virtual_nvml)


def test_reader_never_hangs_on_a_writer_killed_while_writing(nvml):
    code = (
        "import sys, time, pathlib\n"
        "from joulemeter.simulation.state import NvmlState\n"
        "slot = NvmlState.open(pathlib.Path(sys.argv[1])).slot(0, 0)\n"
        "print('ready', flush=True)\n"
        "while True: slot.draw(300.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(nvml.path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        seen = [counter_joules() for _ in range(2000)]
        os.kill(writer.pid, signal.SIGKILL)
    assert seen == sorted(seen)
    assert counter_joules() >= seen[-1]


def test_vacated_slot_draws_no_more_than_was_written_ahead(nvml):
    slot = nvml.slot(0, 0)
    ahead = time.monotonic() + 5
    slot.draw(100.0, ahead, ahead + 1)
    slot.vacate()
    assert slot.energy_joules(ahead + 10) == 0.0


def test_an_image_gets_the_library_where_it_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "lib/virtual.so"
    assert library.main([str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    library.load(output)
