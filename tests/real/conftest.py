"""Keeps these tests out of a plain `pytest`, and prints their summary at the end."""

import pytest

# They need `install.sh` and minutes. `make test-real` names the file, and what is named is not ignored.
collect_ignore = ["test_real_vllm.py"]

SUMMARY = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> list[tuple[str, str]]:
    """Rows of what and value, printed after the run."""
    return pytestconfig.stash.setdefault(SUMMARY, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rows."""
    rows = config.stash.get(SUMMARY, [])
    if rows:
        terminalreporter.section("joulemeter beside a real vLLM")
        width = max(len(what) for what, _ in rows)
        for what, value in rows:
            terminalreporter.write_line(f"{what:<{width}}  {value}")
