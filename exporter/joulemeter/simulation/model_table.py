"""The demo's table of models, made from nothing but what the page says. Pure."""

from collections import deque
from dataclasses import dataclass

from joulemeter import catalog
from joulemeter.snapshot import Snapshot

KEPT_WINDOWS = 4
"""Rates are means over the last three settled windows, about half a minute."""

HEAD = f"{'model':<34}{'W':>7}{'prompt/s':>10}{'gener./s':>10}{'J/prompt':>10}{'J/gener.':>10}{'idle':>7}{'of node':>9}"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Totals:
    at_seconds: float
    joules: dict[str, float]
    tokens: dict[str, float]


class ModelTable:
    """Per model: watts, tokens per second, joules per token by phase, idle share, share of the node."""

    def __init__(self) -> None:
        self._history: dict[Key, deque[_Totals]] = {}
        self._latest = Snapshot({})

    def advance(self, snapshot: Snapshot) -> None:
        """Take in a snapshot; a model's totals count when a window of it was settled."""
        self._latest = snapshot
        at_seconds = snapshot.samples[catalog.LAST_TICK.name][()]
        joules, tokens = _by_model(snapshot, catalog.MODEL_ENERGY), _by_model(snapshot, catalog.MODEL_TOKENS)
        for key, phases in joules.items():
            history = self._history.setdefault(key, deque(maxlen=KEPT_WINDOWS))
            if not history or history[-1].joules != phases:
                history.append(_Totals(at_seconds, phases, tokens.get(key, {})))

    def text(self) -> str:
        """The table."""
        measured = sum(self._latest.samples.get(catalog.GPU_ENERGY.name, {}).values())
        rows = [HEAD, *(self._row(key, measured) for key in sorted(self._history))]
        shares = {
            "attributed": sum(self._latest.samples.get(catalog.MODEL_ENERGY.name, {}).values()),
            "no server": sum(self._latest.samples.get(catalog.UNATTRIBUTED_ENERGY.name, {}).values()),
            "pending": sum(self._latest.samples.get(catalog.PENDING_ENERGY.name, {}).values()),
        }
        parts = ", ".join(f"{name} {_share(joules, measured)}" for name, joules in shares.items())
        rows.append(f"measured {measured / 1e3:.2f} kJ: {parts} (the split works in windows of 10 s)")
        return "\n".join(rows)

    def _row(self, key: Key, measured_joules: float) -> str:
        first, last = self._history[key][0], self._history[key][-1]
        seconds = last.at_seconds - first.at_seconds
        joules = {phase: total - first.joules.get(phase, 0.0) for phase, total in last.joules.items()}
        tokens = {kind: total - first.tokens.get(kind, 0.0) for kind, total in last.tokens.items()}
        spent, prompt, generated = (
            sum(joules.values()),
            tokens.get("prompt", 0.0),
            tokens.get("generation", 0.0),
        )
        return (
            f"{key[1]:<34}{_ratio(spent, seconds, '.0f'):>7}"
            f"{_ratio(prompt, seconds, '.1f'):>10}{_ratio(generated, seconds, '.1f'):>10}"
            f"{_ratio(joules.get('prefill', 0.0), prompt, '.3f'):>10}"
            f"{_ratio(joules.get('decode', 0.0), generated, '.3f'):>10}"
            f"{_share(joules.get('idle', 0.0), spent):>7}{_share(sum(last.joules.values()), measured_joules):>9}"
        )


def _by_model(snapshot: Snapshot, metric: catalog.Metric) -> dict[Key, dict[str, float]]:
    sums: dict[Key, dict[str, float]] = {}
    for (server, model, _, _, part), value in snapshot.samples.get(metric.name, {}).items():
        sums.setdefault((server, model), {})[str(part)] = value
    return sums


def _ratio(part: float, whole: float, digits: str) -> str:
    return format(part / whole, digits) if whole > 0 else "-"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "-"
