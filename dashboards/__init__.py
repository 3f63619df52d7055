"""Dashboards, recording rules and alerts as code; used from a checkout, with `joulemeter[dashboards]`."""
