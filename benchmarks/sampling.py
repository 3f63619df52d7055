"""The energy thread by itself: `python -m benchmarks.sampling` reads the node's GPUs until stdin is closed."""

import select
import sys

from joulemeter.config import load
from joulemeter.meters.nvml import NvmlMeter
from joulemeter.runtime.sampler import Sampler


def main() -> None:
    """Sample as the daemon does by default, and take the readings once a second."""
    sampler = Sampler(NvmlMeter(), interval_seconds=load("", source="").sampling.interval_seconds)
    sampler.start()
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        if not sampler.drain():
            sys.exit(f"no readings: {sampler.meter_problem}")
    sampler.stop()


if __name__ == "__main__":
    main()
