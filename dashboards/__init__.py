"""Dashboards, rules and the reference, generated; used from a checkout, with `joulemeter[dashboards]`."""
