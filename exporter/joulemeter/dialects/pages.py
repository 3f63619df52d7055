"""Metrics pages: pick the lines we need, then let prometheus-client parse them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a page; `name` is folded (`:` is `_`), for servers and libraries disagree about colons."""

    name: str
    labels: Mapping[str, str]
    value: float
