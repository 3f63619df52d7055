"""What the daemon's process takes, against what the kernel says of it."""

import os
import resource
import time
from pathlib import Path

import pytest

from joulemeter import catalog
from joulemeter.runtime.own_process import EVERY_SECONDS, SHOWN, OwnProcess


def test_figures_are_the_kernels():
    before_seconds = sum(os.times()[:2])
    figures = OwnProcess().read()
    assert set(figures) == set(SHOWN.values())
    assert before_seconds - 0.02 <= figures[catalog.PROCESS_CPU] <= sum(os.times()[:2]) + 0.02
    assert figures[catalog.PROCESS_OPEN_FDS] == pytest.approx(len([*Path("/proc/self/fd").iterdir()]), abs=2)
    assert figures[catalog.PROCESS_MAX_FDS] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < figures[catalog.PROCESS_MEMORY] <= most_bytes + 1024**2
    assert figures[catalog.PROCESS_MEMORY] < figures[catalog.PROCESS_VIRTUAL_MEMORY]
    assert time.time() - 3600 * 24 < figures[catalog.PROCESS_START] < time.time() + 1


def test_figures_are_read_again_once_they_are_old():
    now = [0.0]
    process = OwnProcess(lambda: now[0])
    figures = process.read()
    now[0] = EVERY_SECONDS - 0.1
    assert process.read() is figures
    now[0] = EVERY_SECONDS
    assert process.read() is not figures
