"""Between two pages of a server: for how long it made tokens, and in how many steps. Pure.

A model's steps follow one another while any of its requests runs, and last as long as its tokens are apart, whatever
makes them long: its batch, prompts in between, another model's turn. So

    steps = time in which requests ran / mean time between tokens

Both change from second to second: a long prompt stretches some steps tenfold, while requests queue up and batches
grow. Means over a window would weigh those steps by their long batches; page by page hardly any of that is left.
"""

import math
from dataclasses import dataclass
from typing import Final

WHOLE_RATIO: Final = 0.6
"""Of the running requests' time, what the time between tokens must come to, to be believed."""
REMEMBERED_SECONDS: Final = 600.0
"""Of requests that ran: over how many of them that is judged. Single pages differ by when they came."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What is known of the time from one page to the next: requests that ran at its beginning, that began and ended."""

    seconds: float
    running: float
    began: float
    ended: float

    def covered_seconds(self, sequence_seconds: float) -> float:
        """Return for how long at least one request ran, of the time that all of them ran, added up.

        All the time, if more were there than ended. Else requests of equal length lie there by chance.
        """
        if sequence_seconds <= 0 or self.seconds <= 0:
            return 0.0
        if self.running > self.ended:
            return min(self.seconds, sequence_seconds)
        requests = max(1.0, self.running + self.began)
        each_ratio = min(1.0, sequence_seconds / requests / self.seconds)
        return self.seconds * (1.0 - math.pow(1.0 - each_ratio, requests))

    def decode_steps(self, decoded_tokens: float, sequence_seconds: float) -> float:
        """Return in how many steps the tokens were made; `sequence_seconds` are those between them, added up."""
        if sequence_seconds <= 0:
            return decoded_tokens / max(1.0, self.running)
        return decoded_tokens * self.covered_seconds(sequence_seconds) / sequence_seconds


@dataclass(slots=True)
class Timing:
    """Whether the time between tokens is told of all of them: replies that are not streamed are timed in part."""

    _running_seconds: float = 0.0
    _between_seconds: float = 0.0

    def whole(self, between_seconds: float, running_seconds: float) -> bool:
        """Take in what one page added, and say whether it can be believed."""
        kept = 0.5 ** (running_seconds / REMEMBERED_SECONDS)
        self._running_seconds = kept * self._running_seconds + running_seconds
        self._between_seconds = kept * self._between_seconds + between_seconds
        return self._between_seconds >= WHOLE_RATIO * self._running_seconds
