"""The one loop, with fakes around it: who is asked when, what waits for whom, and what ends it."""

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fake_meter import FakeMeter
from nodes import Server, gpu

from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.dialects import by_name
from joulemeter.errors import MeterError, ServerUnreachableError
from joulemeter.model import EnergyReading, GpuStatus, Observation, Pod
from joulemeter.runtime.observer import Observer, Periods
from joulemeter.runtime.sampler import Sampler
from joulemeter.server_config import ServerConfig
from joulemeter.snapshot import Snapshot

INTERVAL_SECONDS = 0.04
OFTEN = Periods(*[INTERVAL_SECONDS] * 4)


@dataclass
class FakeWatch:
    """A server that answers at once, unless `answering` says otherwise."""

    server: ServerConfig
    tick: Callable[[], int]
    cost_seconds: float = INTERVAL_SECONDS
    answering: Callable[[], Awaitable[object]] | None = None
    asked_in: list[int] = field(default_factory=list)
    response_seconds: deque[float] = field(default_factory=deque)
    version: str = "1"
    up: bool | None = None

    def __post_init__(self) -> None:
        self.dialect = by_name("vllm")
        self.counters = Server(model=self.server.name)

    def interval_seconds(self) -> float:
        return self.cost_seconds

    async def observe(self) -> Observation:
        self.asked_in.append(self.tick())
        at_seconds = time.monotonic()
        self.counters.generation += 1
        page = self.counters.page()
        if self.answering is not None:
            await self.answering()
        self.response_seconds.append(0.001)
        return Observation(self.server.name, at_seconds, page)


class Bench:
    """An observer and everything around it; `ticks` counts its snapshots."""

    def __init__(
        self,
        *servers: str,
        look: Callable[[], Awaitable[Sequence[ServerConfig]]] | None = None,
        sampler: Callable[[FakeMeter], Sampler] = lambda meter: Sampler(meter, interval_seconds=0.02),
        periods: Periods = OFTEN,
    ) -> None:
        self.ticks = 0
        self.ticked = asyncio.Condition()
        self.watches: dict[str, FakeWatch] = {}
        self.owners: Callable[[], Mapping[str, frozenset[str] | None]] = dict
        self.at_snapshot: Callable[[], object] = lambda: None
        self.discovered: dict[str, ServerConfig] = {}
        self.meter = FakeMeter(time.monotonic, known={"GPU-0": gpu(0)})
        self.books = Bookkeeper(Terms(), price=unpriced, attributor=Attributor())
        self.sampler = sampler(self.meter)
        self.observer = Observer(
            self.books,
            self.sampler,
            self.meter,
            watch=self._watch,
            look=look,
            discovered=lambda: self.discovered,
            owners=self._find_owners,
            snapshot=self._snapshot,
            interval_seconds=INTERVAL_SECONDS,
            periods=periods,
        )
        for name in servers:
            self.observer.add_server(ServerConfig(f"http://127.0.0.1:1/{name}/metrics", name))

    def _watch(self, server: ServerConfig) -> FakeWatch:
        self.watches[server.name] = FakeWatch(server, lambda: self.ticks)
        return self.watches[server.name]

    def _find_owners(self) -> Mapping[str, frozenset[str] | None]:
        return self.owners()

    def _snapshot(self, _: Observer) -> Snapshot:
        self.at_snapshot()
        self.ticks += 1
        return Snapshot({"tick": {(): self.ticks}})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the observer during the block; a failure of it ends the block's waiting and is raised."""
        stop = asyncio.Event()
        self.task = asyncio.create_task(self.observer.run(stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await self.task

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come; the bound is for machines that are busy."""
        async with asyncio.timeout(20):
            while not condition():
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.005)

    async def more_ticks(self, number: int) -> None:
        wanted = self.ticks + number
        await self.until(lambda: self.ticks >= wanted)


# ---------------------------------------------------------------------------------------------- asking


async def test_servers_of_a_group_are_asked_together():
    """One rule aligns the clocks of servers that share GPUs; the slower interval is that of the group."""
    bench = Bench("a", "b", "alone")
    for name, uuids in {"a": {"GPU-0"}, "b": {"GPU-0", "GPU-1"}, "alone": {"GPU-2"}}.items():
        bench.books.own(name, frozenset(uuids), time.monotonic())
    bench.watches["b"].cost_seconds = 4 * INTERVAL_SECONDS
    async with bench.running():
        await bench.more_ticks(40)
    a, b, alone = (bench.watches[name].asked_in for name in ("a", "b", "alone"))
    assert a == b
    assert 3 <= len(a) <= 14  # about every fourth tick; fewer if ticks were late
    assert len(alone) > 2 * len(a)


async def test_server_that_does_not_answer_delays_nobody():
    bench = Bench("slow", "quick")
    bench.watches["slow"].answering = asyncio.Event().wait
    async with bench.running():
        await bench.more_ticks(20)
        assert len(bench.watches["quick"].asked_in) >= 10
        assert bench.watches["slow"].asked_in == [0]  # and it is not asked again meanwhile
        assert bench.books.servers["quick"].history.observed_at_seconds is not None
        assert bench.observer.latest == Snapshot({"tick": {(): bench.ticks}})


async def test_answer_that_comes_late_is_taken_in_by_the_next_tick():
    bench = Bench("late")
    answer = asyncio.Event()
    bench.watches["late"].answering = answer.wait
    seen: list[list[float]] = []
    history = bench.books.servers["late"].history
    bench.at_snapshot = lambda: seen.append(history.midpoints_between(-math.inf, math.inf))
    begun = time.monotonic()
    async with bench.running():
        await bench.more_ticks(3)
        assert seen[:3] == [[]] * 3
        answered = time.monotonic()
        answer.set()
        await bench.until(lambda: seen[-1] != [])
    assert begun <= seen[-1][0] < answered  # it is dated when it was asked for, not when it was taken in


async def test_failing_server_is_told_once_and_asked_on(caplog):
    caplog.set_level(logging.INFO)
    bench = Bench("bad", "good")
    down = True

    async def answering() -> None:
        if down:
            raise ServerUnreachableError("bad: no answer")

    bench.watches["bad"].answering = answering
    async with bench.running():
        await bench.more_ticks(10)
        assert len(bench.watches["bad"].asked_in) > 5
        assert bench.observer.health["bad"].problem == "bad: no answer"
        down = False
        await bench.until(lambda: bench.observer.health["bad"].problem is None)
    lines = [r.getMessage() for r in caplog.records if "bad" in r.getMessage()]
    assert lines == ["bad: no answer; its energy is pending", "server bad: answers, vllm 1"]


async def test_server_found_later_is_watched_from_then_on():
    found = ServerConfig("http://127.0.0.1:8000/metrics", "127.0.0.1:8000")

    async def look() -> list[ServerConfig]:
        return [found]

    bench = Bench(look=look)  # again and again: it is the same server
    async with bench.running():
        await bench.until(lambda: len(bench.watches) == 1)
        first = bench.watches[found.name]
        await bench.until(lambda: len(first.asked_in) > 3)
    assert list(bench.observer.watches.values()) == [first]
    assert bench.observer.health.keys() == {found.name}


# ---------------------------------------------------------------------------------------------- measuring


async def test_readings_reach_the_books():
    bench = Bench()
    bench.meter.on_read = lambda n: [EnergyReading("GPU-0", float(n), time.monotonic())]
    async with bench.running():
        await bench.until(lambda: len(bench.meter.read_at) > 10)
        await bench.more_ticks(2)
    measured = bench.books.gpus["GPU-0"].measured.energy_joules
    assert 8 <= measured <= len(bench.meter.read_at) - 1


async def test_gpu_that_appears_while_readings_are_taken_in():
    """The sampler finds a GPU and reads it in one go, at any moment of a tick."""

    class Appearing(Sampler):
        def drain(self) -> list[EnergyReading]:
            bench.meter.known["GPU-7"] = gpu(7)
            return [EnergyReading("GPU-7", 1.0, time.monotonic())]

    bench = Bench(sampler=lambda meter: Appearing(meter, interval_seconds=0.02))
    async with bench.running():
        await bench.more_ticks(2)
    assert bench.books.gpus.keys() == {"GPU-7"}


async def test_slow_readings_delay_nobody():
    bench = Bench("chat")
    release = threading.Event()

    def status(_: str) -> GpuStatus:
        release.wait(60)
        return GpuStatus(power_watts=1.0)

    bench.meter.on_status = status
    bench.owners = lambda: (release.wait(60), {})[1]
    try:
        async with bench.running():
            await bench.more_ticks(10)
            assert len(bench.watches["chat"].asked_in) >= 5
            assert bench.observer.statuses == {}
            release.set()
            await bench.until(lambda: bench.observer.statuses == {"GPU-0": GpuStatus(power_watts=1.0)})
    finally:
        release.set()


async def test_slow_readings_and_owners_are_asked_for_as_soon_as_there_is_a_gpu():
    rare = Periods(*[3600.0] * 4)
    bench = Bench("chat", periods=rare)
    bench.owners = lambda: {"chat": frozenset({"GPU-0"})}
    bench.meter.known.clear()
    async with bench.running():
        await bench.more_ticks(3)
        assert bench.observer.statuses == {}
        bench.meter.known["GPU-0"] = gpu(0)
        await bench.until(lambda: bench.observer.statuses.keys() == {"GPU-0"})
        await bench.until(lambda: bench.books.servers["chat"].uses == {"GPU-0"})


async def test_throttling_counts_from_when_it_was_first_seen():
    bench = Bench()
    told = {"thermal": 100.0}
    bench.meter.on_status = lambda _: GpuStatus(throttle_seconds=dict(told))

    def counted() -> float | None:
        return bench.observer.throttle_seconds.get(("GPU-0", "thermal"))

    async with bench.running():
        await bench.until(lambda: counted() == 0.0)
        told["thermal"] = 103.0
        await bench.until(lambda: counted() == 3.0)
        told["thermal"] = 2.0  # the driver was loaded again
        await bench.until(lambda: counted() == 5.0)


async def test_use_of_processes_is_asked_of_shared_gpus_that_tell():
    bench = Bench("chat", "code")
    bench.meter.known |= {f"GPU-{index}": gpu(index) for index in (1, 2)}
    bench.meter.use = {"GPU-0": {7: 0.5}, "GPU-1": {8: 0.25}}  # GPU-2 does not tell
    bench.owners = lambda: {
        "chat": frozenset({"GPU-0", "GPU-1", "GPU-2"}),
        "code": frozenset({"GPU-1", "GPU-2"}),
    }
    async with bench.running():
        await bench.until(lambda: bench.observer.process_use == {"GPU-1": {8: 0.25}})
        bench.meter.use.clear()
        await bench.until(lambda: bench.observer.process_use == {})


# ---------------------------------------------------------------------------------------------- owning


async def test_owners_are_asked_for_again_and_kept_while_they_cannot_be_told():
    answers: defaultdict[int, Mapping[str, frozenset[str] | None]] = defaultdict(lambda: {"chat": None})
    answers |= {2: {"chat": frozenset({"GPU-0"})}}
    calls = 0

    def owners() -> Mapping[str, frozenset[str] | None]:
        nonlocal calls
        calls += 1
        return answers[calls - 1]

    bench = Bench("chat")
    bench.owners = owners
    async with bench.running():
        await bench.until(lambda: bench.books.servers["chat"].uses == {"GPU-0"})
        await bench.until(lambda: calls > 5)
        assert bench.books.servers["chat"].uses == {"GPU-0"}


# ---------------------------------------------------------------------------------------------- ending


def bug(*_: object) -> object:
    raise KeyError("a bug")


async def async_bug() -> list[ServerConfig]:
    raise KeyError("a bug")


def observing(bench: Bench) -> None:
    bench.watches["chat"].answering = async_bug


def owning(bench: Bench) -> None:
    bench.owners = bug


def reading_slowly(bench: Bench) -> None:
    bench.meter.on_status = bug


def composing(bench: Bench) -> None:
    bench.at_snapshot = bug


@pytest.mark.parametrize("place", [observing, owning, reading_slowly, composing])
async def test_bug_ends_the_loop_soon(place: Callable[[Bench], None]):
    """Our own bugs crash loudly, wherever they are, and we are restarted."""
    bench = Bench("chat")
    place(bench)
    with pytest.raises(KeyError, match="a bug"):
        async with bench.running():
            await bench.more_ticks(5)


async def test_bug_while_looking_for_servers_ends_the_loop():
    bench = Bench(look=async_bug)
    with pytest.raises(KeyError, match="a bug"):
        async with bench.running():
            await bench.more_ticks(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_bug_of_the_energy_thread_ends_the_loop():
    bench = Bench()
    bench.meter.on_read = bug
    with pytest.raises(KeyError, match="a bug"):
        async with bench.running():
            await bench.until(lambda: False)


async def test_meter_that_is_not_there_ends_nothing():
    bench = Bench("chat")

    def fail(_: int) -> None:
        raise MeterError("nvml: no library")

    bench.meter.on_open = fail
    async with bench.running():
        await bench.more_ticks(5)
        assert bench.sampler.meter_problem == "nvml: no library"
        assert bench.observer.problem() is None


async def test_stop_waits_for_no_server():
    bench = Bench("slow")
    bench.watches["slow"].answering = asyncio.Event().wait
    async with bench.running():
        await bench.more_ticks(2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert bench.meter.closed == 1


async def test_slow_initialisation_is_no_problem_for_two_minutes():
    behind_seconds = 60.0
    opening, release = threading.Event(), threading.Event()

    def open_(_: int) -> None:
        opening.set()
        release.wait(60)

    bench = Bench(
        sampler=lambda meter: Sampler(
            meter, interval_seconds=0.02, clock=lambda: time.monotonic() - behind_seconds
        )
    )
    bench.meter.on_open = open_
    try:
        async with bench.running():
            await bench.until(opening.is_set)
            assert bench.observer.problem() is None
            await bench.more_ticks(2)
            release.set()
            await bench.until(lambda: bench.observer.problem() == "sampler: no beat for 60 s")
    finally:
        release.set()


@pytest.mark.parametrize("behind_seconds", [0.0, 60.0])
async def test_silence_is_a_problem(behind_seconds: float):
    def clock() -> float:
        return time.monotonic() - behind_seconds

    bench = Bench(sampler=lambda meter: Sampler(meter, interval_seconds=0.02, clock=clock))
    assert bench.observer.problem() == ("sampler: no beat for 60 s" if behind_seconds else None)
    bench.observer.ticked_at_seconds -= behind_seconds
    assert bench.observer.problem() == ("observer: no beat for 60 s" if behind_seconds else None)


async def test_owners_that_are_not_found_are_looked_for_ever_more_rarely():
    looked_in: list[int] = []
    bench = Bench("a", periods=Periods(owners_seconds=3600.0, first_owners_seconds=INTERVAL_SECONDS))
    bench.owners = lambda: looked_in.append(bench.ticks) or {"a": None}
    async with bench.running():
        await bench.more_ticks(40)
    gaps = [later - earlier for earlier, later in itertools.pairwise(looked_in)]
    assert 3 <= len(looked_in) <= 9  # at 1, 2, 4, 8, 16, 32 intervals, and again when it first answered
    assert gaps[-1] > 4 * min(gaps)


# ---------------------------------------------------------------------------------------------- coming and going


def pod(name: str, uid: str = "u") -> ServerConfig:
    return ServerConfig(f"http://127.0.0.1:1/{name}/metrics", name, pod=Pod("ns", name, uid))


async def test_discovered_servers_come_and_go():
    bench = Bench("configured")
    async with bench.running():
        bench.discovered = {"a": pod("a"), "b": pod("b")}
        await bench.until(lambda: bench.observer.watches.keys() == {"configured", "a", "b"})
        assert bench.books.servers["a"].pod == Pod("ns", "a", "u")
        await bench.until(lambda: len(bench.watches["a"].asked_in) > 1)
        bench.discovered = {"b": pod("b")}
        await bench.until(lambda: bench.observer.watches.keys() == {"configured", "b"})
        asked = len(bench.watches["a"].asked_in)
        await bench.more_ticks(3)
        assert len(bench.watches["a"].asked_in) == asked
        assert bench.observer.health.keys() == {"configured", "b"}


async def test_server_that_goes_while_it_is_asked_is_waited_for_no_longer():
    bench = Bench()
    hung = asyncio.Event()
    async with bench.running():
        bench.discovered = {"a": pod("a")}
        await bench.until(lambda: "a" in bench.watches)
        bench.watches["a"].answering = hung.wait
        await bench.more_ticks(3)
        bench.discovered = {}
        await bench.until(lambda: not bench.observer.watches)
        bench.owners = lambda: {"a": frozenset({"GPU-0"})}  # an answer that comes too late
        await bench.more_ticks(3)
        assert bench.books.is_free("a")


async def test_pod_that_takes_a_name_over_waits_until_the_books_of_the_last_are_closed():
    bench = Bench()
    bench.owners = lambda: {"a": frozenset({"GPU-0"})}
    async with bench.running():
        bench.discovered = {"a": pod("a", "one")}
        await bench.until(lambda: "a" in bench.watches and bool(bench.books.servers["a"].uses))
        await bench.until(lambda: len(bench.watches["a"].asked_in) > 1)
        first = bench.watches["a"]
        is_free = bench.books.is_free
        bench.books.is_free = lambda name: False  # type: ignore[method-assign]
        bench.discovered = {"a": pod("a", "two")}
        await bench.until(lambda: not bench.observer.watches)
        await bench.more_ticks(3)
        assert bench.watches["a"] is first
        bench.books.is_free = lambda name: True  # type: ignore[method-assign]
        await bench.until(lambda: bench.watches["a"] is not first)
        assert bench.books.servers["a"].pod == Pod("ns", "a", "two")
        assert not is_free("a")


async def test_discovered_server_never_takes_the_name_of_a_configured_one():
    bench = Bench("a")
    async with bench.running():
        bench.discovered = {"a": pod("a")}
        await bench.more_ticks(3)
        bench.discovered = {}
        await bench.more_ticks(3)
        assert bench.observer.watches["a"].server.pod is None
