"""The energy thread: deadlines, backoff, heartbeats, and how it ends. Time is fake unless a test is about stopping."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from fake_meter import FakeMeter

from joulemeter.errors import MeterError
from joulemeter.model import EnergyReading
from joulemeter.runtime.observer import WEDGED_SECONDS
from joulemeter.runtime.sampler import KEPT_READINGS, SHORT_SECONDS, Sampler, Stop

INTERVAL_SECONDS = 0.05


class Time(threading.Event):
    """A clock, and a stop event on which waiting lets it run instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0
        self.on_wait: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.seconds

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds += max(0.0, timeout or 0.0)
        self.on_wait()
        return self.is_set()


def reading(number: float) -> EnergyReading:
    return EnergyReading("GPU-0", float(number), 1000.0 + number)


def run(sampler: Sampler, thread_ends: Callable[[], bool]) -> None:
    """Start, and wait until the thread has ended by itself."""
    sampler.start()
    deadline = time.monotonic() + 30
    while not thread_ends() and time.monotonic() < deadline:
        time.sleep(0.002)
    sampler.stop(10)
    assert thread_ends()


def sampled(now: Time, meter: FakeMeter) -> Sampler:
    """Run until the stop event is set by the meter."""
    sampler = Sampler(meter, interval_seconds=INTERVAL_SECONDS, clock=now, stop=now)
    run(sampler, now.is_set)
    return sampler


def rounds(now: Time, durations: Sequence[float]) -> tuple[Sampler, list[float]]:
    """Sample as often as there are durations, each round taking so long; return when rounds began."""

    def read(number: int) -> None:
        now.seconds += durations[number]
        if number == len(durations) - 1:
            now.set()

    meter = FakeMeter(now, on_read=read)
    sampler = sampled(now, meter)
    return sampler, [round(at - 1000.0, 6) for at in meter.read_at]


# ---------------------------------------------------------------------------------------------- deadlines


def test_deadlines_keep_their_phase_whatever_a_round_takes():
    _, begun = rounds(Time(), [0.0, 0.049, 0.013, 0.031, 0.0, 0.0499, 0.02, 0.0])
    assert begun == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35]


def test_late_rounds_are_dropped_and_not_queued():
    _, begun = rounds(Time(), [0.0, 0.172, 0.0, 0.051, 0.0, 3.01, 0.0, 0.0])
    assert begun == [0.0, 0.05, 0.25, 0.3, 0.4, 0.45, 3.5, 3.55]


def test_intervals_are_counted():
    sampler, begun = rounds(Time(), [0.0, 0.172, 0.0, 0.0])
    value = sampler.intervals.value()
    assert value.counts[-1] == 3
    assert value.sum == pytest.approx(begun[-1])
    assert dict(zip(value.bounds, value.counts, strict=False))[0.15] == 2  # the third took 200 ms


def test_short_waits_last_and_long_ones_end_when_told():
    stop = Stop()
    begun = time.monotonic()
    assert not stop.wait(0.02)
    assert not stop.wait(-1.0)
    assert time.monotonic() - begun >= 0.02
    threading.Timer(0.05, stop.set).start()
    assert stop.wait(60.0)
    assert stop.wait(SHORT_SECONDS / 2)
    assert time.monotonic() - begun < 30


# ---------------------------------------------------------------------------------------------- readings


def test_readings_are_taken_once_and_in_order_while_others_come():
    now, total = Time(), 20_000

    def read(number: int) -> list[EnergyReading]:
        if number == total - 1:
            now.set()
        return [reading(number)]

    sampler = Sampler(FakeMeter(now, on_read=read), interval_seconds=INTERVAL_SECONDS, clock=now, stop=now)
    taken: list[EnergyReading] = []

    def drained() -> bool:
        taken.extend(sampler.drain())
        return now.is_set()

    run(sampler, drained)
    taken += sampler.drain()
    assert [one.total_joules for one in taken] == list(range(total))
    assert sampler.drain() == []


def test_queue_is_bounded_and_keeps_the_newest():
    now, each = Time(), 1000

    def read(number: int) -> list[EnergyReading]:
        if number == 119:
            now.set()
        return [reading(number * each + i) for i in range(each)]

    taken = sampled(now, FakeMeter(now, on_read=read)).drain()
    assert len(taken) == KEPT_READINGS == 100_000
    assert (taken[0], taken[-1]) == (reading(20_000), reading(119_999))


# ---------------------------------------------------------------------------------------------- a meter that fails


def failing(now: Time, times: int) -> Callable[[int], None]:
    """Fail the first so many times, then end the run."""

    def attempt(number: int) -> None:
        if number < times:
            raise MeterError("nvml: Driver Not Loaded")
        now.set()

    return attempt


def test_meter_is_opened_again_with_backoff():
    now = Time()
    meter = FakeMeter(now, on_open=failing(now, 8))
    sampled(now, meter)
    gaps = [round(b - a, 6) for a, b in itertools.pairwise(meter.opened_at)]
    assert gaps == [1, 2, 4, 8, 16, 30, 30, 30]
    assert meter.closed >= 8


def test_waiting_for_a_driver_is_no_hang():
    """A node whose driver comes late, or never, must not be restarted by its liveness probe."""
    now = Time()
    sampler = Sampler(
        FakeMeter(now, on_open=failing(now, 8)), interval_seconds=INTERVAL_SECONDS, clock=now, stop=now
    )
    silences = []
    now.on_wait = lambda: silences.append(now() - sampler.beat_at_seconds)
    run(sampler, now.is_set)
    assert now() > 1100.0
    assert max(silences) < WEDGED_SECONDS / 5


def test_meter_that_fails_while_read_is_opened_again_soon():
    """Backoff begins anew once the meter was there: a driver that is reloaded is back in a second."""
    now = Time()

    def read(number: int) -> None:
        if number in {3, 6}:
            raise MeterError("nvml: Uninitialized")
        if number == 9:
            now.set()

    meter = FakeMeter(now, on_open=lambda n: failing(now, 3)(n) if n < 3 else None, on_read=read)
    sampled(now, meter)
    opened = [round(at - 1000.0, 6) for at in meter.opened_at]
    assert opened == [0, 1, 3, 7, 7.15 + 1, 8.15 + 0.1 + 1]
    assert len(meter.read_at) == 10


def test_state_of_the_meter_is_told_once_a_change(caplog):
    caplog.set_level(logging.INFO)
    now = Time()
    seen: list[tuple[bool, str | None]] = []

    def open_(number: int) -> None:
        seen.append((sampler.meter_up, sampler.meter_problem))
        if number < 5:
            raise MeterError("a: mend it" if number < 3 else "b")

    def read(number: int) -> None:
        seen.append((sampler.meter_up, sampler.meter_problem))
        if number == 2:
            now.set()

    meter = FakeMeter(now, on_open=open_, on_read=read)
    sampler = Sampler(meter, interval_seconds=INTERVAL_SECONDS, clock=now, stop=now)
    run(sampler, now.is_set)
    assert seen == [(False, None), *[(False, "a: mend it")] * 3, *[(False, "b")] * 2, *[(True, None)] * 3]
    assert [record.getMessage() for record in caplog.records] == [
        "meter: a: mend it; trying again",
        "meter: b; trying again",
        "meter: reached",
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_bug_ends_the_thread_and_is_kept_for_the_supervisor():
    now, bug = Time(), KeyError("a bug")

    def read(number: int) -> None:
        if number == 3:
            raise bug

    meter = FakeMeter(now, on_read=read)
    sampler = Sampler(meter, interval_seconds=INTERVAL_SECONDS, clock=now, stop=now)
    run(sampler, lambda: sampler.crashed is not None)
    assert sampler.crashed is bug
    assert len(meter.read_at) == 4
    assert meter.closed == 1


# ---------------------------------------------------------------------------------------------- stopping, in real time


def stopping_seconds(sampler: Sampler) -> float:
    begun = time.monotonic()
    sampler.stop()
    return time.monotonic() - begun


def test_stop_ends_a_wait_for_the_driver():
    tried = threading.Event()

    def open_(_: int) -> None:
        tried.set()
        raise MeterError("nvml: Driver Not Loaded")

    meter = FakeMeter(time.monotonic, on_open=open_)
    sampler = Sampler(meter, interval_seconds=INTERVAL_SECONDS)
    sampler.start()
    assert tried.wait(10)
    sampler.stop(10)
    closed = meter.closed
    time.sleep(0.05)
    assert closed == meter.closed == 2
    assert len(meter.opened_at) == 1


def test_stop_ends_sampling_and_closes_the_meter():
    reached = threading.Event()
    meter = FakeMeter(time.monotonic, on_read=lambda n: reached.set() if n == 2 else None)
    sampler = Sampler(meter, interval_seconds=0.02)
    sampler.start()
    assert reached.wait(10)
    sampler.stop(10)
    asked = len(meter.read_at)
    time.sleep(0.1)
    assert len(meter.read_at) == asked
    assert meter.closed == 1


def test_stop_leaves_a_wedged_call_behind():
    """A call that hangs in the driver cannot be ended; stopping must not hang with it."""
    wedged, release = threading.Event(), threading.Event()

    def read(_: int) -> None:
        wedged.set()
        release.wait(60)

    meter = FakeMeter(time.monotonic, on_read=read)
    sampler = Sampler(meter, interval_seconds=INTERVAL_SECONDS)
    sampler.start()
    assert wedged.wait(10)
    try:
        assert stopping_seconds(sampler) < 5  # one second, on a machine that has time
        assert meter.closed == 0
    finally:
        release.set()
        sampler.stop(10)
    assert meter.closed == 1
