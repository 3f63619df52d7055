"""Virtual GPUs behind the real pynvml: one library per test process, a fresh state file per test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest

from joulemeter.simulation import library
from joulemeter.simulation.state import NvmlState, VirtualGpu


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """The library, loaded; pynvml finds it by its soname for the rest of the process."""
    path = library.virtual_library()
    library.load(path)
    return path


@pytest.fixture
def make_nvml(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., NvmlState]]:
    """Make the node of this test from `VirtualGpu`s; pynvml is not initialised."""

    def make(*gpus: VirtualGpu) -> NvmlState:
        state = NvmlState.create(tmp_path / "nvml.state", gpus)
        monkeypatch.setenv(library.STATE_VARIABLE, str(state.path))
        return state

    yield make
    with contextlib.suppress(pynvml.NVMLError):  # what a test left initialised must not reach the next
        while True:
            pynvml.nvmlShutdown()


@pytest.fixture
def virtual_nvml(make_nvml: Callable[..., NvmlState]) -> NvmlState:
    """A node with two idle GPUs of 100 W; pynvml is not initialised."""
    return make_nvml(VirtualGpu(idle_watts=100.0), VirtualGpu(idle_watts=100.0))
