"""What is known of the grid as text: for `/grid.json`, which the source `relay` reads, and for a restart. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality

VERSION: Final = 1
LONGEST_TEXT: Final = 64
"""Of a label; what others write becomes labels here."""


def encode(zone: str, answers: Mapping[str, GridAnswer]) -> str:
    """Write answers down by the name of their source. Only live sources' answers: all ends are finite."""
    return json.dumps(
        {
            "version": VERSION,
            "zone": zone,
            "sources": {name: asdict(answer) for name, answer in answers.items()},
        },
        allow_nan=False,
    )


def decode(text: str, zone: str) -> dict[str, GridAnswer]:
    """Read answers by the name of their source.

    Raises:
        ValueError: it is no such text, of another version, or of another zone.
    """
    try:
        raw = json.loads(text)
        if raw["version"] != VERSION:
            raise ValueError(
                f"version {raw['version']!r}, expected {VERSION}: run the same joulemeter on both sides"
            )
        if raw["zone"] != zone:
            raise ValueError(f"it is of zone {raw['zone']!r}, expected {zone!r}")
        return {str(name): _answer(answer) for name, answer in raw["sources"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the grid's state: {error!r}") from error


def _answer(raw: Mapping[str, Any]) -> GridAnswer:
    intervals = tuple(sorted(map(_interval, raw["intervals"]), key=lambda one: one.begin_timestamp_seconds))
    return GridAnswer(intervals, _ratio(raw["renewable_ratio"]), _ratio(raw["carbon_free_ratio"]))


def _interval(raw: Mapping[str, Any]) -> GridInterval:
    origin = {name: str(text)[:LONGEST_TEXT] for name, text in raw["origin"].items()}
    return GridInterval(
        _number(raw["begin_timestamp_seconds"]),
        _number(raw["duration_seconds"]),
        _number(raw["intensity_grams_per_kwh"]),
        GridQuality(raw["quality"]),
        GridOrigin(**origin),
    )


def _ratio(raw: object) -> float | None:
    return None if raw is None else min(_number(raw), 1.0)


def _number(raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw) and raw >= 0:
        return float(raw)
    raise ValueError(f"expected a number >= 0, got {raw!r}")
