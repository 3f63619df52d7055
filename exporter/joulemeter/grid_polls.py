"""When to ask a grid source again, and what came of asking so far. Pure, and told the time."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from joulemeter.catalog import GRID_OUTCOMES
from joulemeter.errors import GridError

FIRST_RETRY_SECONDS: Final = 60.0
SLOWEST_RETRY_SECONDS: Final = 3600.0
JITTER_RATIO: Final = 0.1
"""A hundred nodes that were started together ask at different times."""
OK: Final = GRID_OUTCOMES[0]


@dataclass(slots=True)
class Polls:
    """One source. `random_ratio` of its methods is a random number from 0 to 1, for the jitter."""

    poll_seconds: float
    due_seconds: float = 0.0
    failures: int = 0
    off: bool = False
    """It refused this place for good: it is not asked again before a restart."""
    outcome: str | None = None
    """Of the last time; None before the first."""
    problem: str | None = None
    """What was wrong the last time; None if nothing was."""
    outcomes: Counter[str] = field(default_factory=Counter)
    last_success_timestamp_seconds: float | None = None

    @property
    def up(self) -> bool:
        """Whether it answered when it was last asked."""
        return self.outcome == OK

    def is_due(self, now_seconds: float) -> bool:
        """Say whether to ask."""
        return not self.off and now_seconds >= self.due_seconds

    def succeeded(self, now_seconds: float, timestamp_seconds: float, random_ratio: float) -> bool:
        """Note an answer; returns whether that is news."""
        self.failures, self.problem = 0, None
        self.last_success_timestamp_seconds = timestamp_seconds
        self._wait(now_seconds, self.poll_seconds, random_ratio)
        return self._note(OK)

    def failed(self, error: GridError, now_seconds: float, random_ratio: float) -> bool:
        """Note a failure; returns whether that is news. A refusal for good ends the asking."""
        self.failures += 1
        self.off, self.problem = error.permanent, str(error)
        if error.retry_after_seconds is not None:
            seconds = max(error.retry_after_seconds, FIRST_RETRY_SECONDS)
        elif error.outcome == "auth":  # may be a rate limit in disguise: go on, slowly
            seconds = SLOWEST_RETRY_SECONDS
        elif error.outcome == "rate_limited":
            seconds = self.poll_seconds * 2.0 ** min(self.failures, 10)
        else:
            seconds = FIRST_RETRY_SECONDS * 2.0 ** min(self.failures - 1, 10)
        longest = max(SLOWEST_RETRY_SECONDS, error.retry_after_seconds or 0.0)
        self._wait(now_seconds, min(seconds, longest), random_ratio)
        return self._note(error.outcome)

    def _wait(self, now_seconds: float, seconds: float, random_ratio: float) -> None:
        self.due_seconds = now_seconds + seconds * (1.0 + JITTER_RATIO * random_ratio)

    def _note(self, outcome: str) -> bool:
        news = outcome != self.outcome
        self.outcome = outcome
        self.outcomes[outcome] += 1
        return news
