"""A Prometheus text page as numbers to ask for."""

import math
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of one page."""

    samples: tuple[Sample, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a page in the text format, version 0.0.4."""
        return cls(tuple(s for family in text_string_to_metric_families(text) for s in family.samples))

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of this name that have these labels."""
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of those samples; 0 if there are none."""
        return math.fsum(s.value for s in self.find(name, **labels))

    def names(self) -> frozenset[str]:
        """Return the sample names on the page."""
        return frozenset(s.name for s in self.samples)
