"""What joulemeter costs and how fast it is, measured: `make bench`, or `python -m benchmarks`."""
