"""What is remembered of a server beside its counters: answers, refusals, and one log line per change."""

import logging
from collections import Counter

from joulemeter.catalog import OBSERVATION_DURATION
from joulemeter.errors import JoulemeterError, PageError
from joulemeter.histogram import Histogram

log = logging.getLogger(__name__)


class ServerHealth:
    """One server's answers; `answers` after one, `problem` is the last error's message, None while it answers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.answers = False
        self.durations = Histogram(OBSERVATION_DURATION.buckets)
        self.refused: Counter[str] = Counter()
        self.problem: str | None = None

    def answered(self, duration_seconds: float, what: str) -> None:
        """Count an answer that was understood; `what` says what the server is."""
        self.durations.observe(duration_seconds)
        if not self.answers:
            log.info("server %s: answers, %s", self._name, what)
        self.answers, self.problem = True, None

    def failed(self, error: JoulemeterError) -> None:
        """Count an answer that was refused, or none at all."""
        if isinstance(error, PageError):
            self.refused[error.reason] += 1
        if self.problem is None:
            log.warning("%s; its energy is pending", error)
        self.answers, self.problem = False, str(error)
