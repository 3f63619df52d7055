"""Fixtures that several test modules share."""

pytest_plugins = ("nvml_fixture",)
