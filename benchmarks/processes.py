"""What Linux says of a process: processor time and memory."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB in memory, and MiB in which pages shared by n processes count as an nth."""

    resident: float
    proportional: float


def cpu_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, dead ones included, to the nanosecond.

    The clock's number is what clock_getcpuclockid(3) returns.
    """
    return time.clock_gettime(~pid << 3 | 2)


def memory_mib(pid: int | None = None) -> Memory:
    """Read a process's (by default our own) memory from /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(kib["Rss"] / 1024, kib["Pss"] / 1024)
