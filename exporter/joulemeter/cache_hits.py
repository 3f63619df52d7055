"""Prompt tokens that a cache saved, taken out of counters that hold them. Pure."""

from dataclasses import dataclass, field

from joulemeter.model import PageReading, Role


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


@dataclass(slots=True)
class Restarts:
    """Says whose prompts are counted by another process than on the page before.

    Known by the process's start time, or by a counter that fell.
    """

    _start_time_seconds: float | None = None
    _last: dict[str, float] = field(default_factory=dict)
    _models: set[str] = field(default_factory=set)

    def advance(self, page: PageReading, default_model: str) -> set[str]:
        """Return the models of processes that are new on this page."""
        known, told = self._start_time_seconds, page.start_time_seconds
        restarted = set(self._models) if None not in (known, told) and known != told else set()
        self._start_time_seconds = known if told is None else told
        for reading in page.readings:
            if reading.role in (Role.PROMPT_WITH_CACHED, Role.CACHED_PROMPT):
                model = reading.model or default_model
                self._models.add(model)
                if reading.value < self._last.get(reading.series, 0.0):
                    restarted.add(model)
                self._last[reading.series] = reading.value
        return restarted
