"""What the daemon's own process takes, as every Prometheus client tells it."""

from collections.abc import Mapping
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


class OwnProcess:
    """Reads this process's figures from /proc, where there is one."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)

    def read(self) -> Mapping[Metric, float]:
        """Return the figures of now; what cannot be read is left out."""
        return {
            SHOWN[family.name]: family.samples[0].value
            for family in self._collector.collect()
            if family.name in SHOWN
        }
