/*
 * A virtual libnvidia-ml.so.1: NVML's binary interface (nvml.h of driver branch 580 and later), answered from a state
 * file that other processes write (environment variable JOULEMETER_VIRTUAL_NVML_STATE). It exists so that tests and the
 * demo drive the real pynvml binding: struct layouts, error codes, ticks of the energy counter, latency.
 *
 * What it does not do: the energy counter is exact at its ticks (a real one is sampled), field 185 and
 * nvmlDeviceGetPowerUsage give instant power where most real boards give a 1 s average, what a process uses is its
 * server's mean of the last half second or so whatever time is asked about, MIG instances have a UUID, list their processes and
 * nothing else, and there are no events or sample buffers.
 *
 * The state's layout is rendered from layout.py into layout.h when this file is compiled. Every value has one writer.
 * Rings are lock-free: a writer stores the piece, then the count; a reader that sees the count move reads again.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

typedef unsigned int nvmlReturn_t;
typedef void *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};

/* ------------------------------------------------------------------------------------------------ structs of nvml.h */

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    unsigned int pid;
    unsigned long long timeStamp;
    unsigned int smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    union {
        double dVal;
        unsigned int uiVal;
        unsigned long long ullVal;
    } value;
} nvmlFieldValue_t;

enum { SAMPLE_MICROSECONDS = 1000000 / 6 }; /* "between 1 second and 1/6 second", as nvml.h says of utilisation */
enum { VALUE_UNSIGNED_INT = 1, VALUE_UNSIGNED_LONG_LONG = 3 };

/* ---------------------------------------------------------------------------------------------------- this process */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct state *state;       /* never unmapped: another thread may be reading it */
static dev_t state_device;
static ino_t state_inode;
static unsigned int references;   /* nvmlInit calls not yet shut down */
static uint64_t library_epoch;    /* counts initialisations; part of every handle */
static uint64_t driver_epoch;     /* the driver's, when we initialised */

static double now_seconds(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static long long wall_microseconds(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (long long)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

/* Map the file that the environment names now, unless it is the one we have. */
static nvmlReturn_t attach(void) {
    const char *path = getenv("JOULEMETER_VIRTUAL_NVML_STATE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat found;
    if (file < 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    nvmlReturn_t result = NVML_SUCCESS;
    if (fstat(file, &found) != 0 || found.st_size != (off_t)sizeof(struct state)) {
        result = NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    } else if (!state || found.st_dev != state_device || found.st_ino != state_inode) {
        struct state *mapped = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (mapped == MAP_FAILED) {
            result = NVML_ERROR_UNKNOWN;
        } else if (mapped->layout_id != LAYOUT_ID) {
            munmap(mapped, sizeof *mapped);
            result = NVML_ERROR_LIB_RM_VERSION_MISMATCH;
        } else {
            __atomic_store_n(&state, mapped, __ATOMIC_RELEASE);
            state_device = found.st_dev;
            state_inode = found.st_ino;
            references = 0; /* what was initialised belongs to another node */
        }
    }
    close(file);
    return result;
}

/* Count a call, take its time, and say whether it fails. */
static nvmlReturn_t behave(struct behaviour *behaviour) {
    uint64_t call = __atomic_add_fetch(&behaviour->calls, 1, __ATOMIC_RELAXED);
    uint64_t pause = behaviour->latency_microseconds;
    if (pause) {
        struct timespec rest = {(time_t)(pause / 1000000), (long)(pause % 1000000) * 1000};
        nanosleep(&rest, NULL);
    }
    return behaviour->one_in > 1 && call % behaviour->one_in ? NVML_SUCCESS : behaviour->code;
}

static nvmlReturn_t ready(void) {
    if (!__atomic_load_n(&references, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    if (!state->driver_loaded)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    return state->driver_epoch == driver_epoch ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

static nvmlReturn_t system_call(int function) {
    nvmlReturn_t result = ready();
    return result ? result : behave(&state->behaviours[function]);
}

static nvmlReturn_t device_call(struct gpu *gpu, int function) {
    nvmlReturn_t result = behave(&gpu->behaviours[function]);
    return gpu->present ? result : NVML_ERROR_GPU_IS_LOST;
}

/* A handle is a number: the initialisation it belongs to, the MIG instance from 1 (3 bits; 0: the whole GPU), and the
 * GPU from 1 (5 bits). */
static nvmlDevice_t handle_of(unsigned int index) {
    return (nvmlDevice_t)(uintptr_t)(library_epoch << 8 | (index + 1));
}

static unsigned int instance_of(nvmlDevice_t handle) { return (unsigned int)((uintptr_t)handle >> 5 & 7); }

static nvmlReturn_t enter_any(nvmlDevice_t handle, int function, struct gpu **gpu) {
    uintptr_t number = (uintptr_t)handle;
    uintptr_t index = (number & 0x1f) - 1;
    nvmlReturn_t result = ready();
    if (result)
        return result;
    if (number >> 8 != library_epoch || index >= state->gpu_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *gpu = &state->gpus[index];
    return device_call(*gpu, function);
}

static nvmlReturn_t enter(nvmlDevice_t handle, int function, struct gpu **gpu) {
    nvmlReturn_t result = enter_any(handle, function, gpu);
    return !result && instance_of(handle) ? NVML_ERROR_NOT_SUPPORTED : result;
}

#define ENTER(handle, function)                                                                                         \
    struct gpu *gpu;                                                                                                    \
    nvmlReturn_t entered = enter(handle, FN_##function, &gpu);                                                          \
    if (entered)                                                                                                        \
    return entered

static nvmlReturn_t copy_text(char *into, unsigned int size, const char *text) {
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(into, text);
    return NVML_SUCCESS;
}

/* -------------------------------------------------------------------------------------------------- energy, power */

/* The newest piece that began by `at`; the oldest kept if all began later; zeros if none was written. */
static struct piece piece_at(const struct ring *ring, double at) {
    for (;;) {
        struct piece found = {0, 0, 0, 0};
        uint64_t written = __atomic_load_n(&ring->written, __ATOMIC_ACQUIRE);
        /* The slot that the next write will use is never read. */
        for (uint64_t back = 1; back <= written && back < PIECES; back++) {
            found = ring->pieces[(written - back) % PIECES];
            if (found.at_seconds <= at)
                break;
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&ring->written, __ATOMIC_RELAXED) == written)
            return found;
    }
}

static double ring_joules(const struct ring *ring, double at) {
    struct piece piece = piece_at(ring, at);
    double until = fmin(at, piece.until_seconds);
    return until > piece.at_seconds ? piece.joules + piece.watts * (until - piece.at_seconds) : piece.joules;
}

static double ring_watts(const struct ring *ring, double at) {
    struct piece piece = piece_at(ring, at);
    return at >= piece.at_seconds && at < piece.until_seconds ? piece.watts : 0;
}

static double used_joules(const struct gpu *gpu, double at) {
    double joules = ring_joules(&gpu->idle, at);
    for (int slot = 0; slot < SLOTS; slot++)
        joules += ring_joules(&gpu->slots[slot].draw, at);
    return joules;
}

static unsigned int milliwatts(const struct gpu *gpu) {
    double at = now_seconds(), watts = ring_watts(&gpu->idle, at);
    for (int slot = 0; slot < SLOTS; slot++)
        watts += ring_watts(&gpu->slots[slot].draw, at);
    return (unsigned int)(watts * 1000);
}

/* What the counter shows: energy at the last tick, since the counter was last set, in whole quanta. */
static nvmlReturn_t counter(const struct gpu *gpu, unsigned long long *millijoules) {
    struct origin origin;
    uint64_t written;
    if (!gpu->has_energy_counter)
        return NVML_ERROR_NOT_SUPPORTED;
    do {
        written = __atomic_load_n(&gpu->origins_written, __ATOMIC_ACQUIRE);
        origin = gpu->origins[(written - 1) % 2];
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (__atomic_load_n(&gpu->origins_written, __ATOMIC_RELAXED) != written);
    double at = now_seconds();
    if (gpu->update_period_seconds > 0)
        at = floor(at / gpu->update_period_seconds) * gpu->update_period_seconds;
    double joules = origin.shown_joules;
    if (at > origin.at_seconds)
        joules += fmax(0, used_joules(gpu, at) - origin.used_joules);
    /* A hundredth of a microjoule: 12.345 J is 12344.999999999998 in binary and means 12345. */
    unsigned long long shown = (unsigned long long)(joules * 1000 + 1e-5);
    *millijoules = shown - shown % gpu->quantum_millijoules;
    return NVML_SUCCESS;
}

/* ------------------------------------------------------------------------------------------------ library, system */

uint64_t joulemeter_virtual_nvml_layout(void) { return LAYOUT_ID; }

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    nvmlReturn_t result = attach();
    if (!result)
        result = behave(&state->behaviours[FN_Init]);
    if (!result && !state->driver_loaded)
        result = NVML_ERROR_DRIVER_NOT_LOADED;
    if (!result) {
        if (!references || driver_epoch != state->driver_epoch)
            library_epoch++;
        driver_epoch = state->driver_epoch;
        __atomic_add_fetch(&references, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t result = NVML_ERROR_UNINITIALIZED;
    if (references) {
        result = behave(&state->behaviours[FN_Shutdown]);
        if (!result)
            __atomic_sub_fetch(&references, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

const char *nvmlErrorString(nvmlReturn_t result) {
    static const char *const texts[] = {
        "The operation was successful", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
        "GPU requires restart", "The operating system has blocked the request.", "RM has detected an NVML/RM version mismatch.",
        "In use by another client", "Insufficient Memory", "No data", "VGPU ECC not supported",
        "Insufficient Resources", "Frequency not supported", "Argument version mismatch", "Deprecated",
        "System is not in ready state", "GPU not found", "Invalid state",
    };
    return result < sizeof texts / sizeof *texts ? texts[result] : "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    nvmlReturn_t result = system_call(FN_SystemGetDriverVersion);
    return result ? result : copy_text(version, length, state->driver_version);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    char text[sizeof state->driver_version + 3];
    nvmlReturn_t result = system_call(FN_SystemGetNVMLVersion);
    if (result)
        return result;
    snprintf(text, sizeof text, "13.%s", state->driver_version); /* CUDA's major version, then the driver's */
    return copy_text(version, length, text);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    nvmlReturn_t result = system_call(FN_DeviceGetCount);
    if (!result)
        *count = state->gpu_count;
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *handle) {
    nvmlReturn_t result = ready();
    if (!result)
        result = index < state->gpu_count ? device_call(&state->gpus[index], FN_DeviceGetHandleByIndex)
                                          : NVML_ERROR_INVALID_ARGUMENT;
    if (!result)
        *handle = handle_of(index);
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
    nvmlReturn_t result = ready();
    if (result)
        return result;
    for (unsigned int index = 0; index < state->gpu_count; index++) {
        if (strcmp(uuid, state->gpus[index].uuid) == 0) {
            result = device_call(&state->gpus[index], FN_DeviceGetHandleByUUID);
            if (!result)
                *handle = handle_of(index);
            return result;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

/* --------------------------------------------------------------------------------------------------------- devices */

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned int length) {
    ENTER(handle, DeviceGetName);
    return copy_text(name, length, gpu->product);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned int length) {
    struct gpu *gpu;
    nvmlReturn_t entered = enter_any(handle, FN_DeviceGetUUID, &gpu);
    if (entered)
        return entered;
    if (!instance_of(handle))
        return copy_text(uuid, length, gpu->uuid);
    char of_instance[sizeof gpu->uuid + 2]; /* the GPU's, with the instance for its first digit */
    snprintf(of_instance, sizeof of_instance, "MIG-%u%s", instance_of(handle), gpu->uuid + sizeof "GPU-");
    return copy_text(uuid, length, of_instance);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t handle, unsigned int *number) {
    ENTER(handle, DeviceGetMinorNumber);
    *number = (unsigned int)(gpu - state->gpus);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned int *index) {
    ENTER(handle, DeviceGetIndex);
    *index = (unsigned int)(gpu - state->gpus);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *pci) {
    ENTER(handle, DeviceGetPciInfo);
    memset(pci, 0, sizeof *pci);
    pci->bus = (unsigned int)(gpu - state->gpus) + 1;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", pci->bus & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus & 0xff);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, unsigned long long *millijoules) {
    ENTER(handle, DeviceGetTotalEnergyConsumption);
    return counter(gpu, millijoules);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned int *power) {
    ENTER(handle, DeviceGetPowerUsage);
    *power = milliwatts(gpu);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t handle, unsigned int *limit) {
    ENTER(handle, DeviceGetEnforcedPowerLimit);
    *limit = gpu->power_limit_milliwatts;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t handle, unsigned int *limit) {
    ENTER(handle, DeviceGetPowerManagementLimit);
    *limit = gpu->power_limit_milliwatts;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t handle, unsigned int *least, unsigned int *most) {
    ENTER(handle, DeviceGetPowerManagementLimitConstraints);
    *least = gpu->min_power_limit_milliwatts;
    *most = gpu->max_power_limit_milliwatts;
    return NVML_SUCCESS;
}

static nvmlReturn_t read_field(struct gpu *gpu, nvmlFieldValue_t *field) {
    nvmlReturn_t result;
    if (field->scopeId) /* whole board only; module and memory scopes exist on few products */
        return NVML_ERROR_NOT_SUPPORTED;
    field->valueType = VALUE_UNSIGNED_LONG_LONG;
    switch (field->fieldId) {
    case 74: case 75: case 76: case 77: case 78: case 79:
        field->value.ullVal = gpu->throttle_nanoseconds[field->fieldId - 74];
        return behave(&gpu->behaviours[FN_Field74 + (int)(field->fieldId - 74)]);
    case 83:
        result = behave(&gpu->behaviours[FN_Field83]);
        return result ? result : counter(gpu, &field->value.ullVal);
    case 185: case 186:
        field->valueType = VALUE_UNSIGNED_INT;
        field->value.uiVal = milliwatts(gpu);
        return behave(&gpu->behaviours[field->fieldId == 185 ? FN_Field185 : FN_Field186]);
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *fields) {
    ENTER(handle, DeviceGetFieldValues);
    for (int i = 0; i < count; i++) {
        fields[i].value.ullVal = 0;
        fields[i].latencyUsec = 0;
        fields[i].nvmlReturn = read_field(gpu, &fields[i]);
        fields[i].timestamp = wall_microseconds();
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *rates) {
    ENTER(handle, DeviceGetUtilizationRates);
    if (gpu->mig_instances)
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned int percent = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        percent += gpu->slots[slot].utilization_percent;
    rates->gpu = percent < 100 ? percent : 100;
    rates->memory = rates->gpu / 2;
    return NVML_SUCCESS;
}

static unsigned long long used_memory(const struct gpu *gpu) {
    unsigned long long bytes = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        if (gpu->slots[slot].pid)
            bytes += gpu->slots[slot].memory_bytes;
    return bytes < gpu->memory_total_bytes ? bytes : gpu->memory_total_bytes;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    ENTER(handle, DeviceGetMemoryInfo);
    memory->total = gpu->memory_total_bytes;
    memory->used = used_memory(gpu);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
    ENTER(handle, DeviceGetMemoryInfo);
    if (memory->version != (sizeof *memory | 2 << 24))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = gpu->memory_total_bytes;
    memory->reserved = 0;
    memory->used = used_memory(gpu);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned int sensor, unsigned int *celsius) {
    ENTER(handle, DeviceGetTemperature);
    if (sensor)
        return NVML_ERROR_INVALID_ARGUMENT;
    *celsius = gpu->temperature_celsius;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t handle, unsigned long long *reasons) {
    ENTER(handle, DeviceGetCurrentClocksEventReasons);
    *reasons = gpu->clocks_event_reasons;
    return NVML_SUCCESS;
}

/* The name that drivers before 535 know. */
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t handle, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(handle, reasons);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned int *count, nvmlProcessInfo_t *list) {
    struct gpu *gpu;
    unsigned int instance = instance_of(handle);
    nvmlReturn_t entered = enter_any(
        handle, instance ? FN_MigDeviceGetComputeRunningProcesses : FN_DeviceGetComputeRunningProcesses, &gpu);
    if (entered)
        return entered;
    unsigned int room = list ? *count : 0, found = 0;
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *slot = &gpu->slots[i];
        unsigned int pid = slot->pid, part = gpu->mig_instances ? slot->mig_instance : ~0U;
        if (pid && (!instance || instance - 1 == part) && found++ < room)
            list[found - 1] = (nvmlProcessInfo_t){pid, slot->memory_bytes, part, gpu->mig_instances ? 0 : ~0U};
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t handle, nvmlProcessUtilizationSample_t *list,
                                             unsigned int *count, unsigned long long since) {
    ENTER(handle, DeviceGetProcessUtilization);
    unsigned long long now = (unsigned long long)wall_microseconds(), sampled = now - now % SAMPLE_MICROSECONDS;
    if (gpu->mig_instances)
        return NVML_ERROR_NOT_SUPPORTED;
    if (since >= sampled) {
        *count = 0;
        return NVML_ERROR_NOT_FOUND;
    }
    unsigned int room = list ? *count : 0, found = 0;
    for (int i = 0; i < SLOTS; i++) {
        unsigned int pid = gpu->slots[i].pid, percent = gpu->slots[i].utilization_percent;
        if (pid && percent && found++ < room)
            list[found - 1] = (nvmlProcessUtilizationSample_t){
                pid, sampled, percent, percent / 2, 0, 0};
    }
    *count = found;
    if (!found)
        return NVML_ERROR_NOT_FOUND;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned int *current, unsigned int *pending) {
    ENTER(handle, DeviceGetMigMode);
    *current = *pending = gpu->mig_instances > 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned int *count) {
    ENTER(handle, DeviceGetMaxMigDeviceCount);
    *count = MAX_MIG_INSTANCES;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned int index, nvmlDevice_t *instance) {
    ENTER(handle, DeviceGetMigDeviceHandleByIndex);
    if (index >= gpu->mig_instances)
        return NVML_ERROR_NOT_FOUND;
    *instance = (nvmlDevice_t)((uintptr_t)handle | (uintptr_t)(index + 1) << 5);
    return NVML_SUCCESS;
}
