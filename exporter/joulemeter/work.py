"""What a model of a server did, in the amounts that servers tell. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """What one model of one server did; cumulative in a history, an increase in a window.

    `running_seconds` is the integral of the running requests over time, `context_token_seconds` that of the
    tokens they keep in the KV cache, `inter_token_seconds` the time between generated tokens, summed over them;
    `prefill_seconds` and `decode_seconds` are what the engine's steps took by its own clock. `covered_seconds` is how
    long requests ran at all, by the gauge; `timed_steps` is in how many steps tokens were decoded, by the time between
    tokens: both are told page by page (`pacing`).
    What the server does not tell is None.
    """

    prompt_tokens: float = 0.0
    cached_prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    requests: float = 0.0
    running_seconds: float = 0.0
    steps: float | None = None
    first_tokens: float | None = None
    inter_token_seconds: float | None = None
    context_token_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    covered_seconds: float = 0.0
    timed_steps: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything was done at all."""
        return any((self.prompt_tokens, self.cached_prompt_tokens, self.generation_tokens)) or any(
            (self.requests, self.running_seconds, self.steps, self.first_tokens)
        )

    def __add__(self, other: "Work") -> "Work":
        return self._combined(other, 1.0)

    def __sub__(self, other: "Work") -> "Work":
        return self._combined(other, -1.0)

    def interpolated(self, later: "Work", ratio: float) -> "Work":
        """Return the work at `ratio` of the way from here to `later`."""
        return self._combined(later - self, ratio)

    def scaled(self, ratio: float) -> "Work":
        """Return `ratio` of it."""
        return Work()._combined(self, ratio)

    def _combined(self, other: "Work", factor: float) -> "Work":
        return Work(
            self.prompt_tokens + factor * other.prompt_tokens,
            self.cached_prompt_tokens + factor * other.cached_prompt_tokens,
            self.generation_tokens + factor * other.generation_tokens,
            self.requests + factor * other.requests,
            self.running_seconds + factor * other.running_seconds,
            _sum(self.steps, other.steps, factor),
            _sum(self.first_tokens, other.first_tokens, factor),
            _sum(self.inter_token_seconds, other.inter_token_seconds, factor),
            _sum(self.context_token_seconds, other.context_token_seconds, factor),
            _sum(self.prefill_seconds, other.prefill_seconds, factor),
            _sum(self.decode_seconds, other.decode_seconds, factor),
            self.covered_seconds + factor * other.covered_seconds,
            self.timed_steps + factor * other.timed_steps,
        )


def _sum(one: float | None, other: float | None, factor: float) -> float | None:
    """Return one and so much of the other; what was never told stays untold."""
    if one is None and other is None:
        return None
    return (one or 0.0) + factor * (other or 0.0)
