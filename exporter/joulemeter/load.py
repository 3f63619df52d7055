"""What was asked of a model, and whether it is like what was asked of it before. Pure."""

from dataclasses import dataclass
from typing import Final

from joulemeter.engine_work import EngineWork

RANGE_MARGIN: Final = 1.1
LOAD_HALF_LIFE_SECONDS: Final = 300.0
"""The present load is what was done in the last minutes: single windows are nearly empty or nearly full."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked of a model over a while; sums, and the rates that a range is made of."""

    seconds: float = 0.0
    steps: float = 0.0
    prompt_tokens: float = 0.0
    decoded_tokens: float = 0.0
    context_reads: float = 0.0

    @classmethod
    def of(cls, work: EngineWork, seconds: float) -> "Load":
        """Return that of a window in which the GPUs were there for so long."""
        return cls(seconds, work.steps, work.prompt_tokens, work.decoded_tokens, work.context_reads)

    def plus(self, other: "Load", *, keep: float = 1.0) -> "Load":
        """Return the sum; `keep` is how much of this one still counts."""
        return Load(
            keep * self.seconds + other.seconds,
            keep * self.steps + other.steps,
            keep * self.prompt_tokens + other.prompt_tokens,
            keep * self.decoded_tokens + other.decoded_tokens,
            keep * self.context_reads + other.context_reads,
        )

    def rates(self) -> dict[str, float]:
        """Return what must lie in the range seen; what a load without work does not have is left out."""
        tokens = self.prompt_tokens + self.decoded_tokens
        found = {}
        if self.seconds > 0:
            found["prompt_tokens_per_second"] = self.prompt_tokens / self.seconds
            found["decoded_tokens_per_second"] = self.decoded_tokens / self.seconds
        if tokens > 0:
            found["prompt_ratio"] = self.prompt_tokens / tokens
        if self.steps > 0 and self.decoded_tokens > 0:
            found["batch"] = self.decoded_tokens / self.steps
            found["context_tokens"] = self.context_reads / self.decoded_tokens
        return found


Ranges = dict[str, tuple[float, float]]


def widened(ranges: Ranges, load: Load) -> Ranges:
    """Return ranges that a load lies in."""
    wider = dict(ranges)
    for name, value in load.rates().items():
        low, high = ranges.get(name, (value, value))
        wider[name] = (min(low, value), max(high, value))
    return wider


def in_ranges(ranges: Ranges, load: Load) -> bool:
    """Whether a load lies where baselines were learned, with a tenth of margin."""
    return all(
        name in ranges and ranges[name][0] / RANGE_MARGIN <= value <= ranges[name][1] * RANGE_MARGIN
        for name, value in load.rates().items()
    )
