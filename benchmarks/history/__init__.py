"""Simulated days in a real Prometheus: what dashboards and recording rules are tested and drawn with."""
