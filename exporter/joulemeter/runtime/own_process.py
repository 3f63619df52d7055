"""What the daemon's own process takes, as every Prometheus client tells it."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client.process_collector import ProcessCollector

from joulemeter import catalog
from joulemeter.catalog import Metric

SHOWN: Final = {
    metric.name.removesuffix("_total"): metric
    for metric in (
        catalog.PROCESS_CPU,
        catalog.PROCESS_MEMORY,
        catalog.PROCESS_VIRTUAL_MEMORY,
        catalog.PROCESS_START,
        catalog.PROCESS_OPEN_FDS,
        catalog.PROCESS_MAX_FDS,
    )
}


EVERY_SECONDS: Final = 5.0
"""As often as the GPUs' gauges are read; reading takes 0.3 ms."""


class OwnProcess:
    """Reads this process's figures from /proc, where there is one.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._collector = ProcessCollector(registry=None)
        self._figures: Mapping[Metric, float] = {}
        self._due_seconds = clock()

    def read(self) -> Mapping[Metric, float]:
        """Return the figures of the last few seconds; what cannot be read is left out."""
        now = self._clock()
        if now >= self._due_seconds:
            self._due_seconds = now + EVERY_SECONDS
            self._figures = {
                SHOWN[family.name]: family.samples[0].value
                for family in self._collector.collect()
                if family.name in SHOWN
            }
        return self._figures
