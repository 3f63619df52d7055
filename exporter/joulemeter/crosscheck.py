"""Two witnesses for the same joules: power integrated over a minute, against the energy counter. Pure."""

from collections import deque

from joulemeter.counters import PowerIntegral

WINDOW_SECONDS = 60.0
SHORTEST_SECONDS = 30.0
"""Below this the counter's 100 ms lumps and the power sensor's averaging are too large a part."""


class CrossCheck:
    """Ratio of integrated power to the counter's increase over the last minute; 1 is agreement.

    Field reports go from 1 % apart to 187 J against 327 J on an idle card (ml-energy/zeus issues 12 and 181),
    and power sensors of A100 and H100 see a quarter of the time (arXiv 2312.02741): outside 0.8 to 1.25 one of
    the two is not to be believed.
    """

    def __init__(self) -> None:
        self._integral = PowerIntegral()
        self._points: deque[tuple[float, float, float]] = deque()

    def advance(self, at_seconds: float, power_watts: float, counted_joules: float) -> None:
        """Take in a reading of both; a gap in the readings starts afresh."""
        if self._points and at_seconds - self._points[-1][0] > WINDOW_SECONDS / 10:
            self._points.clear()
            self._integral = PowerIntegral()
        self._points.append((at_seconds, self._integral.advance(at_seconds, power_watts), counted_joules))
        while self._points[0][0] < at_seconds - WINDOW_SECONDS:
            self._points.popleft()

    @property
    def ratio(self) -> float | None:
        """Integrated over counted, or None while there is too little of either."""
        if not self._points:
            return None
        (begin, integral_before, counted_before), (end, integral, counted) = self._points[0], self._points[-1]
        if end - begin < SHORTEST_SECONDS or counted <= counted_before:
            return None
        return (integral - integral_before) / (counted - counted_before)
