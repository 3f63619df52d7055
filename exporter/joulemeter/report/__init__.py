"""A report from Prometheus: raw samples in, rows that add up out. Pure; the asking is in runtime/report_command."""
