"""The layout of the state file that drives the virtual NVML library: the one definition for Python and for C.

`c_header()` renders it for the compiler. `LAYOUT_ID` is built into the library and written into every file,
so that a library and a file of different releases refuse each other instead of misreading.
"""

import ctypes
import hashlib
from typing import Any, Final

MAX_GPUS: Final = 16
SLOTS: Final = 16
"""Draw slots per GPU: processes that can use it at once."""
PIECES: Final = 32
"""History kept per slot: a server that writes every 50 ms keeps 1.5 s, well over a counter's period."""
NAME_BYTES: Final = 96
MAX_MIG_INSTANCES: Final = 7
THROTTLE_COUNTERS: Final = 6

SYSTEM_FUNCTIONS: Final = (
    "Init",
    "Shutdown",
    "SystemGetDriverVersion",
    "SystemGetNVMLVersion",
    "DeviceGetCount",
)
FIELDS: Final = (74, 75, 76, 77, 78, 79, 83, 185, 186)
"""Field ids that DeviceGetFieldValues knows: throttle counters, energy, average and instant power."""
DEVICE_FUNCTIONS: Final = (
    "DeviceGetHandleByIndex",
    "DeviceGetHandleByUUID",
    "DeviceGetName",
    "DeviceGetUUID",
    "DeviceGetIndex",
    "DeviceGetMinorNumber",
    "DeviceGetPciInfo",
    "DeviceGetTotalEnergyConsumption",
    "DeviceGetPowerUsage",
    "DeviceGetEnforcedPowerLimit",
    "DeviceGetPowerManagementLimit",
    "DeviceGetPowerManagementLimitConstraints",
    "DeviceGetFieldValues",
    "DeviceGetUtilizationRates",
    "DeviceGetMemoryInfo",
    "DeviceGetTemperature",
    "DeviceGetCurrentClocksEventReasons",
    "DeviceGetComputeRunningProcesses",
    "MigDeviceGetComputeRunningProcesses",
    "DeviceGetProcessUtilization",
    "DeviceGetMigMode",
    "DeviceGetMaxMigDeviceCount",
    "DeviceGetMigDeviceHandleByIndex",
    *(f"Field{field}" for field in FIELDS),
)
FUNCTIONS: Final = (*SYSTEM_FUNCTIONS, *DEVICE_FUNCTIONS)
"""What is counted and can be told to fail or be slow: NVML's names without `nvml`, single fields, and
calls on MIG instances apart from those on their GPU."""


class Piece(ctypes.Structure):
    """A stretch of constant power: `joules` at `at_seconds`, growing by `watts` until `until_seconds`."""

    _fields_ = (
        ("at_seconds", ctypes.c_double),
        ("until_seconds", ctypes.c_double),
        ("joules", ctypes.c_double),
        ("watts", ctypes.c_double),
    )


class Ring(ctypes.Structure):
    """The latest pieces of one writer; `written` counts all of them and is stored after the piece itself."""

    _fields_ = (("written", ctypes.c_uint64), ("pieces", Piece * PIECES))


class Slot(ctypes.Structure):
    """What one process does on one GPU; written by that process alone."""

    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("mig_instance", ctypes.c_uint32),
        ("utilization_percent", ctypes.c_uint32),
        ("memory_bytes", ctypes.c_uint64),
        ("draw", Ring),
    )


class Origin(ctypes.Structure):
    """Where the counter was last set: it showed `shown_joules` when `used_joules` had been used in all."""

    _fields_ = (
        ("at_seconds", ctypes.c_double),
        ("shown_joules", ctypes.c_double),
        ("used_joules", ctypes.c_double),
    )


class Behaviour(ctypes.Structure):
    """One function: every `one_in`-th call fails with `code`, and each takes `latency_microseconds`."""

    _fields_ = (
        ("code", ctypes.c_uint32),
        ("one_in", ctypes.c_uint32),
        ("latency_microseconds", ctypes.c_uint64),
        ("calls", ctypes.c_uint64),
    )


class Gpu(ctypes.Structure):
    """One board: what it is, how its counter moves, what it reads, and who draws from it."""

    _fields_ = (
        ("product", ctypes.c_char * NAME_BYTES),
        ("uuid", ctypes.c_char * NAME_BYTES),
        ("present", ctypes.c_uint32),
        ("has_energy_counter", ctypes.c_uint32),
        ("update_period_seconds", ctypes.c_double),
        ("quantum_millijoules", ctypes.c_uint64),
        ("origins_written", ctypes.c_uint64),
        ("origins", Origin * 2),
        ("power_limit_milliwatts", ctypes.c_uint32),
        ("min_power_limit_milliwatts", ctypes.c_uint32),
        ("max_power_limit_milliwatts", ctypes.c_uint32),
        ("temperature_celsius", ctypes.c_uint32),
        ("memory_total_bytes", ctypes.c_uint64),
        ("clocks_event_reasons", ctypes.c_uint64),
        ("throttle_nanoseconds", ctypes.c_uint64 * THROTTLE_COUNTERS),
        ("mig_instances", ctypes.c_uint32),
        ("idle", Ring),
        ("slots", Slot * SLOTS),
        ("behaviours", Behaviour * len(FUNCTIONS)),
    )


class State(ctypes.Structure):
    """The whole file."""

    _fields_ = (
        ("layout_id", ctypes.c_uint64),
        ("gpu_count", ctypes.c_uint32),
        ("driver_loaded", ctypes.c_uint32),
        ("driver_epoch", ctypes.c_uint64),
        ("driver_version", ctypes.c_char * NAME_BYTES),
        ("behaviours", Behaviour * len(FUNCTIONS)),
        ("gpus", Gpu * MAX_GPUS),
    )


STRUCTURES: Final = (Piece, Ring, Slot, Origin, Behaviour, Gpu, State)
SCALARS: Final = {
    ctypes.c_char: "char",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_double: "double",
}


def _declare(name: str, kind: Any) -> str:
    if issubclass(kind, ctypes.Array):
        return f"{_declare(name, kind._type_)}[{kind._length_}]"
    if issubclass(kind, ctypes.Structure):
        return f"struct {kind.__name__.lower()} {name}"
    return f"{SCALARS[kind]} {name}"


def _definitions() -> str:
    lines = ["#include <stddef.h>", "#include <stdint.h>"]
    lines += [
        f"#define {name} {value}"
        for name, value in (("SLOTS", SLOTS), ("PIECES", PIECES), ("MAX_MIG_INSTANCES", MAX_MIG_INSTANCES))
    ]
    lines += [f"enum {{ {', '.join(f'FN_{name}' for name in FUNCTIONS)} }};"]
    for structure in STRUCTURES:
        name = structure.__name__.lower()
        lines += [f"struct {name} {{"]
        lines += [f"    {_declare(field[0], field[1])};" for field in structure._fields_]
        lines += [
            "};",
            f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(structure)}, "{name}: size");',
        ]
        lines += [
            f"_Static_assert(offsetof(struct {name}, {field[0]}) == {getattr(structure, field[0]).offset},"
            f' "{name}.{field[0]}: offset");'
            for field in structure._fields_
        ]
    return "\n".join(lines)


LAYOUT_ID: Final = int.from_bytes(hashlib.sha256(_definitions().encode()).digest()[:8], "little")


def c_header() -> str:
    """Return the layout as a C header; the compiler checks each offset against the one Python uses."""
    return f"{_definitions()}\n#define LAYOUT_ID {LAYOUT_ID}ULL\n"
