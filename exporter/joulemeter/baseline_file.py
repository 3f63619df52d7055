"""Baselines as JSON text, and back: one form for the state that is kept and for files that travel. Pure."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from joulemeter.baseline import NAMES, Baseline, BaselineKey, Basis, Equations, Learning
from joulemeter.errors import BaselineError

FORMAT: Final = "joulemeter-baselines"
VERSION: Final = 1


def encode(baselines: Iterable[Baseline], now_timestamp_seconds: float) -> str:
    """Write baselines down."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "saved_at_timestamp_seconds": now_timestamp_seconds,
            "baselines": [_encoded(one) for one in baselines],
        },
        indent=1,
        allow_nan=False,
    )


def decode(text: str, *, source: str) -> list[Baseline]:
    """Read baselines; `source` names the text in errors.

    Raises:
        BaselineError: it is not such a file, of another version, or a value in it cannot be.
    """
    return decode_dated(text, source=source)[0]


def decode_dated(text: str, *, source: str) -> tuple[list[Baseline], float]:
    """Read baselines, and when they were written (Unix time)."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BaselineError(
            f"{source}: not JSON text: {error}; restore it, or remove it to learn anew"
        ) from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise BaselineError(f"{source}: not a file of baselines (no format {FORMAT!r}); name one that"
                            " `joulemeter baseline export` wrote")  # fmt: skip
    if whole.get("version") != VERSION:
        raise BaselineError(
            f"{source}: written in version {whole.get('version')!r} of the form, this release reads {VERSION};"
            " use the release that wrote it, or remove it to learn anew"
        )
    place = "saved_at_timestamp_seconds"
    try:
        saved_at = _number(whole[place])
        place = "baselines"
        found = []
        for index, one in enumerate(whole[place]):
            place = f"baselines[{index}]"
            found.append(_decoded(one))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BaselineError(
            f"{source}: {place}: {what}; restore the file, or remove it to learn anew"
        ) from error
    if len({one.key for one in found}) < len(found):
        raise BaselineError(f"{source}: two baselines of one model, product and number of GPUs; keep one")
    return found, saved_at


def _encoded(one: Baseline) -> dict[str, Any]:
    key = one.key
    written: dict[str, Any] = {
        "id": one.id,
        "model": key.model,
        "product": key.product,
        "gpus": key.gpus,
        "state": one.state,
        "started_at_timestamp_seconds": one.started_at_timestamp_seconds,
        "frozen_at_timestamp_seconds": one.frozen_at_timestamp_seconds,
        "ranges": {name: list(pair) for name, pair in one.ranges.items()},
        "joules_per": {
            basis: dict(zip(NAMES[basis], row, strict=True)) for basis, row in one.coefficients.items()
        },
    }
    if one.learning is not None:
        written["learning"] = {
            "learned_seconds": one.learning.learned_seconds,
            "worked_seconds": one.learning.worked_seconds,
            "equations": {
                basis: {"normal": equations.normal, "right": equations.right}
                for basis, equations in one.learning.equations.items()
            },
        }
    return written


def _decoded(raw: Mapping[str, Any]) -> Baseline:
    gpus = raw["gpus"]
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 1:
        raise ValueError(f"gpus: expected a whole number from 1, got {gpus!r}")
    state = raw["state"]
    if state not in ("learning", "frozen"):
        raise ValueError(f"state: expected 'learning' or 'frozen', got {state!r}")
    coefficients = {Basis(basis): _row(Basis(basis), row) for basis, row in raw["joules_per"].items()}
    if coefficients.keys() not in (set(), set(Basis)) or (state == "frozen" and not coefficients):
        raise ValueError("joules_per: coefficients of both bases are needed")
    frozen_at = raw["frozen_at_timestamp_seconds"]
    return Baseline(
        _text(raw["id"]),
        BaselineKey(_text(raw["model"]), _text(raw["product"]), gpus),
        _number(raw["started_at_timestamp_seconds"]),
        _learning(raw["learning"]) if state == "learning" else None,
        coefficients,
        {_text(name): (_number(low), _number(high)) for name, (low, high) in raw["ranges"].items()},
        None if frozen_at is None else _number(frozen_at),
    )


def _row(basis: Basis, raw: Mapping[str, Any]) -> tuple[float, ...]:
    if raw.keys() != set(NAMES[basis]):
        raise ValueError(f"joules_per.{basis}: expected {', '.join(NAMES[basis])}")
    return tuple(_number(raw[name]) for name in NAMES[basis])


def _learning(raw: Mapping[str, Any]) -> Learning:
    equations = {}
    for basis, names in NAMES.items():
        one = raw["equations"][basis]
        normal = [[_number(value) for value in line] for line in one["normal"]]
        right = [_number(value) for value in one["right"]]
        if {len(normal), len(right), *map(len, normal)} != {len(names)}:
            raise ValueError(f"learning.equations.{basis}: expected {len(names)} by {len(names)} numbers")
        equations[basis] = Equations(normal, right)
    return Learning(equations, _number(raw["learned_seconds"]), _number(raw["worked_seconds"]))


def _number(raw: object) -> float:
    """Return a number that can be: finite and not negative, as all of them are."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or raw < 0:
        raise ValueError(f"expected a number >= 0, got {raw!r:.80}")
    return float(raw)


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"expected text, got {raw!r:.80}")
    return raw
