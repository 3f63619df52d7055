"""The energy thread: reads every GPU's counter on absolute deadlines, and nothing else."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from joulemeter.catalog import SAMPLE_INTERVAL
from joulemeter.errors import MeterError
from joulemeter.histogram import Histogram
from joulemeter.meters import EnergyMeter
from joulemeter.model import EnergyReading

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0
BEAT_SECONDS = 1.0
"""While it waits for a driver to appear the thread is well, and says so."""
SHORT_SECONDS = 0.1
"""How much longer the thread may take to end; nobody notices."""
KEPT_READINGS = 100_000
"""Ten minutes of eight GPUs at 20 Hz, should nobody drain; older ones may go, for counters are cumulative."""


class Stop(threading.Event):
    """An event whose short waits are plain sleeps, which take half the processor time of a condition's."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or about that long; a wait of up to SHORT_SECONDS always lasts it out."""
        if timeout is None or timeout > SHORT_SECONDS:
            return super().wait(timeout)
        time.sleep(max(0.0, timeout))
        return self.is_set()


class Sampler:
    """Polls a meter at a fixed rate; deadlines keep their phase, and rounds that are late are dropped.

    Lateness moves a time stamp, not a joule: the counter is cumulative and each reading carries the midpoint
    of its own call.

    Args:
        meter: what to read; opened, read and closed in the thread.
        interval_seconds: from round to round.
        clock: monotonic seconds.
        stop: ends the thread when set; the thread waits on it between rounds.
    """

    def __init__(
        self,
        meter: EnergyMeter,
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        self._meter = meter
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._readings: deque[EnergyReading] = deque(maxlen=KEPT_READINGS)
        self._stop = stop or Stop()
        self._thread = threading.Thread(target=self._run, name="joulemeter-sampler", daemon=True)
        self.intervals = Histogram(SAMPLE_INTERVAL.buckets)
        self.meter_up = False
        self.meter_problem: str | None = None
        self.beat_at_seconds = clock()
        self.opening = False
        self.crashed: BaseException | None = None

    def start(self) -> None:
        """Start the thread; the meter is opened in it, for that can take seconds a GPU."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """End the thread and close the meter. A call wedged in the driver is left behind."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def drain(self) -> list[EnergyReading]:
        """Take the readings since the last call, oldest first."""
        taken = []
        while self._readings:
            taken.append(self._readings.popleft())
        return taken

    def _run(self) -> None:
        try:
            retry_seconds = FIRST_RETRY_SECONDS
            while not self._stop.is_set():
                try:
                    self._open()
                    self._reached()
                    retry_seconds = FIRST_RETRY_SECONDS
                    self._sample()
                except MeterError as error:
                    self._unreachable(error)
                    self._meter.close()
                self._pause(retry_seconds)
                retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)
        except BaseException as error:  # a bug of ours: the supervisor raises it in the main thread
            self.crashed = error
            raise
        finally:
            self._meter.close()

    def _open(self) -> None:
        self._beat()
        self.opening = True
        try:
            self._meter.open()
        finally:
            self.opening = False

    def _sample(self) -> None:
        due = self._clock()
        last = None
        while not self._stop.is_set():
            begun = self._beat()
            if last is not None:
                self.intervals.observe(begun - last)
            last = begun
            self._readings.extend(self._meter.read())
            due += self._interval_seconds
            now = self._clock()
            if due <= now:  # late by whole rounds: drop them, keep the phase
                due += self._interval_seconds * ((now - due) // self._interval_seconds + 1)
            self._stop.wait(due - now)

    def _pause(self, seconds: float) -> None:
        until = self._beat() + seconds
        while not self._stop.is_set() and (left := until - self._beat()) > 0:
            self._stop.wait(min(left, BEAT_SECONDS))

    def _beat(self) -> float:
        self.beat_at_seconds = self._clock()
        return self.beat_at_seconds

    def _reached(self) -> None:
        if not self.meter_up and self.meter_problem is not None:
            log.info("meter: reached")
        self.meter_up, self.meter_problem = True, None

    def _unreachable(self, error: MeterError) -> None:
        if self.meter_problem != str(error):
            log.warning("meter: %s; trying again", error)
        self.meter_up, self.meter_problem = False, str(error)
