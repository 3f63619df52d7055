"""The one loop: ask the servers, cut the timelines where the answers came in, settle, publish one snapshot."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joulemeter.accounts import NO_POD
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.counters import RunningTotal
from joulemeter.errors import JoulemeterError
from joulemeter.meters import EnergyMeter
from joulemeter.model import GpuStatus, Observation
from joulemeter.ownership import owner_groups, shared_gpus
from joulemeter.runtime.health import ServerHealth
from joulemeter.runtime.sampler import Sampler
from joulemeter.runtime.threads import in_daemon_thread
from joulemeter.runtime.watch import ServerWatch
from joulemeter.server_config import ServerConfig
from joulemeter.snapshot import Snapshot

log = logging.getLogger(__name__)

ANSWER_SECONDS = 0.2
"""How long a tick waits for answers; what comes later is taken in by the next one."""
WEDGED_SECONDS = 10.0
OPENING_SECONDS = 120.0
"""Without persistence mode NVML takes up to ten seconds a GPU to initialise; to be restarted meanwhile helps nobody."""

Owners = Callable[[], Mapping[str, frozenset[str] | None]]


@dataclass(frozen=True, slots=True)
class Periods:
    """How often the work beside the ticks is done.

    Process lists take milliseconds a GPU of the driver's lock. Owners are looked for often when a server begins to
    answer, then ever more rarely.
    """

    status_seconds: float = 5.0
    owners_seconds: float = 15.0
    first_owners_seconds: float = 2.0
    look_seconds: float = 15.0


class Observer:
    """Ticks from start to start of each interval; a late tick is skipped, not queued.

    Args:
        books: the node's books; only this loop touches them.
        sampler: where energy readings come from.
        meter: for the slow readings.
        watch: makes the watch of a server.
        look: looks for servers that nobody configured; those it names are watched from then on.
        discovered: the servers that come and go, by name, as they are now.
        owners: finds each server's GPUs (UUIDs; None where that cannot be told now); blocking.
        snapshot: composes what the page shows.
        interval_seconds: between ticks.
        periods: of the work beside them.
    """

    name = "observer"

    def __init__(
        self,
        books: Bookkeeper,
        sampler: Sampler,
        meter: EnergyMeter,
        *,
        watch: Callable[[ServerConfig], ServerWatch],
        owners: Owners,
        snapshot: Callable[["Observer"], Snapshot],
        interval_seconds: float,
        look: Callable[[], Awaitable[Sequence[ServerConfig]]] | None = None,
        discovered: Callable[[], Mapping[str, ServerConfig]] = dict,
        periods: Periods | None = None,
    ) -> None:
        self._books = books
        self._sampler = sampler
        self._meter = meter
        self._watch = watch
        self._look = look
        self._discovered = discovered
        self._visiting: dict[str, ServerConfig] = {}
        self._owners = owners
        self._compose = snapshot
        self._interval_seconds = interval_seconds
        self._periods = periods or Periods()
        self._watches: dict[str, ServerWatch] = {}
        self._due_seconds: dict[str, float] = {}
        self._answers: list[Observation] = []
        self._background: dict[str, asyncio.Task[None]] = {}
        self._next_seconds: dict[str, float] = {}
        self._throttle: dict[tuple[str, str], RunningTotal] = {}
        self._owners_seconds = self._periods.first_owners_seconds
        self._learned: set[str] = set()
        self.health: dict[str, ServerHealth] = {}
        self.statuses: dict[str, GpuStatus] = {}
        self.process_use: Mapping[str, Mapping[int, float]] = {}
        self.latest: Snapshot | None = None
        self.ticked_at_seconds = time.monotonic()

    @property
    def throttle_seconds(self) -> dict[tuple[str, str], float]:
        """Time held back since the GPU was first seen, by UUID and reason."""
        return {key: total.total for key, total in self._throttle.items()}

    @property
    def watches(self) -> Mapping[str, ServerWatch]:
        """The servers watched, by name."""
        return self._watches

    def add_server(self, server: ServerConfig) -> None:
        """Watch a server from now on."""
        self._watches[server.name] = self._watch(server)
        self._due_seconds[server.name] = 0.0
        self.health[server.name] = ServerHealth(server.name)
        self._books.expect_server(
            server.name,
            server.model or server.name,
            time.monotonic(),
            counts_tokens=server.tokens,
            pod=server.pod or NO_POD,
        )
        self._look_for_owners_soon()

    def remove_server(self, name: str) -> None:
        """Watch a server no longer; what it did until it last answered is still settled as its own."""
        asking = self._background.pop(name, None)
        if asking is not None:
            asking.cancel()
        del self._watches[name], self._due_seconds[name], self.health[name]
        self._books.release(name)

    def problem(self) -> str | None:
        """What is wrong with the loops, or None while they tick."""
        now = time.monotonic()
        wedged_seconds = max(WEDGED_SECONDS, 10 * self._interval_seconds)
        opening = self._sampler.opening
        for what, beat_at_seconds, limit_seconds in (
            ("observer", self.ticked_at_seconds, wedged_seconds),
            ("sampler", self._sampler.beat_at_seconds, OPENING_SECONDS if opening else wedged_seconds),
        ):
            silent_seconds = now - beat_at_seconds
            if silent_seconds > limit_seconds:
                return f"{what}: no beat for {silent_seconds:.0f} s"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`."""
        loop = asyncio.get_running_loop()
        self._sampler.start()
        try:
            next_at = loop.time()
            while not stop.is_set():
                await self._tick()
                next_at += self._interval_seconds
                next_at = max(loop.time(), next_at)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(next_at):
                        await stop.wait()
        finally:
            for task in self._background.values():
                task.cancel()
            await asyncio.gather(*self._background.values(), return_exceptions=True)
            await in_daemon_thread(self._sampler.stop)

    async def _tick(self) -> None:
        if self._sampler.crashed is not None:
            raise self._sampler.crashed
        for key in list(self._background):
            self._is_running(key)  # raises what ended it
        now, periods = time.monotonic(), self._periods
        if self._look is not None:
            self._every("look", periods.look_seconds, now, self._look_for_servers)
        asked = self._ask_servers(now)
        if self._meter.gpus:  # as soon as there are some
            self._every("status", periods.status_seconds, now, self._read_statuses)
            self._every("owners", self._owners_seconds, now, self._find_owners)
        if asked:
            await asyncio.wait(asked, timeout=min(ANSWER_SECONDS, self._interval_seconds / 2))
        self._take_in()
        self._follow_discovered()
        self._books.settle(time.monotonic())
        self.latest = self._compose(self)
        self.ticked_at_seconds = time.monotonic()

    def _take_in(self) -> None:
        readings = self._sampler.drain()
        gpus = self._meter.gpus  # after: the thread may have found another GPU meanwhile
        for reading in readings:
            self._books.meter(gpus[reading.uuid], (reading,))
        for uuid, account in self._books.gpus.items():
            period_seconds = account.timeline.period_seconds
            if period_seconds is not None and uuid not in self._learned:
                self._learned.add(uuid)
                log.info("gpu %d: its counter moves every %.0f ms", account.gpu.index, period_seconds * 1e3)
        answers, self._answers = self._answers, []
        for observation in answers:
            dialect = self._watches[observation.server].dialect
            self._books.observe(observation, has_phases=dialect is None or dialect.has_phases)

    def _follow_discovered(self) -> None:
        """Let those go that are gone or have changed; who takes a name over waits until its books are closed."""
        wanted = self._discovered()
        for name, server in list(self._visiting.items()):
            if wanted.get(name) != server:
                log.info("server %s: gone", name)
                del self._visiting[name]
                self.remove_server(name)
        for name, server in wanted.items():
            if name not in self._watches and self._books.is_free(name):
                log.info("server %s: found at %s", name, server.url)
                self._visiting[name] = server
                self.add_server(server)

    def _ask_servers(self, now: float) -> list[asyncio.Task[None]]:
        """Ask every owner group that is due, its servers together; a group still being asked waits."""
        known = {name: self._books.servers[name].uses for name in self._watches}
        groups = [group.servers for group in owner_groups(known)]
        groups += [(name,) for name, uses in known.items() if not uses]
        tasks = []
        for servers in groups:
            due = min(self._due_seconds[name] for name in servers)
            if now < due - self._interval_seconds / 4 or any(self._is_running(name) for name in servers):
                continue
            interval_seconds = max(self._watches[name].interval_seconds() for name in servers)
            for name in servers:
                self._due_seconds[name] = now + interval_seconds
                tasks.append(self._start(name, self._observe(name)))
        return tasks

    async def _observe(self, name: str) -> None:
        watch, health = self._watches[name], self.health[name]
        try:
            observation = await watch.observe()
        except JoulemeterError as error:
            health.failed(error)
            return
        dialect = watch.dialect.name if watch.dialect else ""
        if not health.answers:
            self._look_for_owners_soon()
        health.answered(watch.response_seconds[-1], " ".join(filter(None, (dialect, watch.version))))
        self._answers.append(observation)

    async def _look_for_servers(self) -> None:
        if self._look is not None:
            for server in await self._look():
                if server.name not in self._watches:
                    log.info("server %s: found at %s", server.name, server.url)
                    self.add_server(server)

    async def _read_statuses(self) -> None:
        shared = shared_gpus(self._books.servers[name].uses for name in self._watches)
        statuses, use = await in_daemon_thread(
            lambda: (
                {uuid: self._meter.status(uuid) for uuid in self._meter.gpus},
                {uuid: self._meter.process_use(uuid) for uuid in shared},
            )
        )
        self.process_use = {uuid: of_gpu for uuid, of_gpu in use.items() if of_gpu is not None}
        for uuid, status in statuses.items():
            self.statuses[uuid] = status
            for reason, seconds in status.throttle_seconds.items():
                self._throttle.setdefault((uuid, reason), RunningTotal()).advance(seconds)

    async def _find_owners(self) -> None:
        owners = await in_daemon_thread(self._owners)
        for name, uuids in owners.items():
            if uuids is not None and name in self._watches:
                self._books.own(name, uuids, time.monotonic())
        unowned = any(not self._books.servers[name].uses for name in self._watches)
        rarely = self._periods.owners_seconds
        self._owners_seconds = min(2 * self._owners_seconds, rarely) if unowned else rarely

    def _look_for_owners_soon(self) -> None:
        self._owners_seconds = self._periods.first_owners_seconds
        self._next_seconds["owners"] = 0.0

    def _every(
        self, task: str, seconds: float, now: float, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Start background work when it is due and not still running."""
        if now >= self._next_seconds.get(task, 0.0) and not self._is_running(task):
            self._next_seconds[task] = now + seconds
            self._start(task, work())

    def _is_running(self, key: str) -> bool:
        task = self._background.get(key)
        if task is None:
            return False
        if task.done():
            task.result()  # a bug of ours in the background is raised here, in the loop
            del self._background[key]
            return False
        return True

    def _start(self, key: str, work: Awaitable[None]) -> asyncio.Task[None]:
        self._background[key] = task = asyncio.ensure_future(work)
        return task
