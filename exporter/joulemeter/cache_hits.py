"""Prompt tokens that a cache saved, taken out of counters that hold them. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class CacheHits:
    """Turns a counter of prompts, cache hits included, into computed prompt tokens, which never fall.

    A hit may be counted some pages before its prompt, or after it. What could not be taken out yet is kept for the
    prompts to come, of the same process only: another one never counts them.
    """

    _outstanding_tokens: float = 0.0

    def taken_out(self, with_cached_increase: float, cached_increase: float) -> float:
        """Return the computed tokens (>= 0) of one interval."""
        computed = with_cached_increase - cached_increase - self._outstanding_tokens
        self._outstanding_tokens = max(0.0, -computed)
        return max(0.0, computed)

    def forget(self) -> None:
        """Begin anew: the server restarted, or counts prompts in another way."""
        self._outstanding_tokens = 0.0
