"""The processes on one GPU, as NVML names them: who computes there, and how much of it each of them uses.

`nvml` is the binding, `handle` a device of its present initialisation.
"""

from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any, Final

import pynvml

from joulemeter.meters.nvml_figures import optional
from joulemeter.meters.nvml_names import instances

PERCENT: Final = 100
MAX_SILENT_READS: Final = 3
"""After so many all samples are asked for: they carry Unix time, and after it was set back none seems newer."""
NO_SAMPLES: Final = frozenset({pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_SUCCESS})
"""What the call answers while nobody uses the GPU; of a success without samples pynvml makes an error too."""


def compute_pids(nvml: Any, handle: Any) -> frozenset[int] | None:
    """Pids with a compute context; None where nobody may be named.

    A GPU that is cut into MIG instances names the processes of all of them, but to privileged users only
    (nvml.h, nvmlDeviceGetComputeRunningProcesses); others are told by the instances that they may use. Energy is
    counted for the whole GPU, so all are processes of the GPU.
    """
    named = [
        processes
        for part in (handle, *instances(nvml, handle))
        if (processes := optional(nvml, partial(nvml.nvmlDeviceGetComputeRunningProcesses, part))) is not None
    ]
    return frozenset(int(process.pid) for processes in named for process in processes) if named else None


class ProcessUse:
    """How much of one GPU each process used since it was last asked, as NVML samples it.

    NVML names only processes that used the GPU: one that is not named used nothing. But silence is no answer
    from a driver that never named anybody, and MIG mode has no such samples.
    """

    def __init__(self) -> None:
        self._newest_microseconds = 0
        self._silent_reads = 0
        self._answers = False

    def read(self, nvml: Any, handle: Any) -> Mapping[int, float] | None:
        """Mean share of the time in which a process's kernels ran, 0 to 1, by pid; None where it is not told."""
        since = self._newest_microseconds if self._silent_reads < MAX_SILENT_READS else 0
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except nvml.NVMLError as error:
            if error.value not in NO_SAMPLES:
                return None
            samples = ()
        except nvml.NVMLLibraryMismatchError:
            return None
        # Beyond 100 is what drivers leave in entries that they do not use.
        fresh = [sample for sample in samples if sample.timeStamp > since and sample.smUtil <= PERCENT]
        newest = max((int(sample.timeStamp) for sample in fresh), default=0)
        if newest in {0, self._newest_microseconds}:  # nothing, or what was told before
            self._silent_reads = self._silent_reads + 1 if since else 0
            return {} if self._answers else None
        self._newest_microseconds, self._silent_reads, self._answers = newest, 0, True
        percents: dict[int, list[int]] = {}
        for sample in fresh:
            percents.setdefault(int(sample.pid), []).append(sample.smUtil)
        return {pid: fmean(found) / PERCENT for pid, found in percents.items()}
