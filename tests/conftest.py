"""Fixtures that several test modules need."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.prometheus import PrometheusError, tool

GOLDEN = Path(__file__).parent / "golden"
pytest_plugins = ("nvml_fixture",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew; then read the diff"
    )


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Compares a whole text with a file in tests/golden, byte for byte, or writes it there."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if pytestconfig.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
        assert path.exists(), f"no {path.name} in tests/golden: run pytest --update-golden and read it"
        assert text == path.read_bytes().decode(), (
            "if it is meant: pytest --update-golden, then read the diff"
        )

    return check


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    return _tool("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The path of Prometheus."""
    return _tool("prometheus")


def _tool(name: str) -> str:
    """Find a tool. Without it: skipped on a laptop, failed in CI, where nothing may be missing."""
    try:
        return tool(name)
    except PrometheusError as error:
        _missing(str(error))


@pytest.fixture(scope="session")
def systemd_analyze() -> str:
    """The path of systemd-analyze."""
    return shutil.which("systemd-analyze") or _missing(
        "systemd-analyze is not on the PATH; run: sudo apt-get install systemd"
    )


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
