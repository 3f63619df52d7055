"""Fixtures that several test modules need."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytest_plugins = ("nvml_fixture",)


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool. Without it: skipped on a laptop, failed in CI, where nothing may be missing."""
    unpacked = ROOT / ".cache/tools/usr/bin/promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    if found:
        return found
    reason = "promtool is neither on the PATH nor in .cache/tools; run: tools/install-tools.sh"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
