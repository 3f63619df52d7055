"""Meters: what reads joules from hardware. Shell."""
