"""Servers in pods of this node, as they come and go: follows the API server, asks what only looks like a server."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from joulemeter.dialects import recognise
from joulemeter.discovery.api_server import ANY_VERSION, NEWEST, ApiServer
from joulemeter.discovery.pod_table import Event, PodTable
from joulemeter.discovery.pods import uid_of
from joulemeter.errors import DiscoveryError, ExpiredError, PageError, ServerUnreachableError
from joulemeter.runtime.watch import Pages
from joulemeter.server_config import ServerConfig

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0
MOST_REFUSALS: Final = 3
"""So often a watch may fail to begin before the pods are listed anew: a cluster that was restored from a backup does
not know the version that we go on from."""
GUESS_SECONDS: Final = 1.0
FIRST_GUESS_SECONDS: Final = 5.0
LAST_GUESS_SECONDS: Final = 60.0
"""A model takes minutes to load, and what is no server after an hour is asked once a minute."""


@dataclass(slots=True)
class _Guess:
    """What looks like a server, and what came of asking it."""

    server: ServerConfig
    due_seconds: float = 0.0
    wait_seconds: float = FIRST_GUESS_SECONDS
    is_server: bool = False


class PodWatcher:
    """Knows the servers in this node's pods.

    While the API server does not answer, what was known stands.

    Args:
        api: the API server; entered and left by whoever made it.
        pages: asks what looks like a server.
        configured: URLs of servers that the configuration names; what it says of them counts.
        first_retry_seconds: how long to wait after the first failure; twice as long after each further one.
    """

    name = "kubernetes"

    def __init__(
        self,
        api: ApiServer,
        pages: Pages,
        *,
        configured: frozenset[str] = frozenset(),
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._pages = pages
        self._configured = configured
        self._first_retry_seconds = self._retry_seconds = first_retry_seconds
        self._clock = clock
        self._version: str | None = None
        self._refusals = 0
        self._guesses: dict[str, _Guess] = {}
        self._said: frozenset[str] = frozenset()
        self.table = PodTable()
        self.up = False
        self.problem: str | None = None

    def servers(self) -> Mapping[str, ServerConfig]:
        """By name, the servers that are there now."""
        proven = {name: guess.server for name, guess in self._guesses.items() if guess.is_server}
        return {
            name: server
            for name, server in (self.table.servers | proven).items()
            if server.url not in self._configured
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the node's pods until `stop`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow()), group.create_task(self._guess())]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def look(self) -> None:
        """List once, and ask what looks like a server once. Raises DiscoveryError if there is no list."""
        await self._list(ANY_VERSION)
        await self._ask_guesses()

    # ------------------------------------------------------------------------------------------ following

    async def _follow(self) -> None:
        newest = ANY_VERSION
        while True:
            try:
                if self._version is None:
                    await self._list(newest)
                if not await self._watch():
                    await self._wait()  # nor does it help to begin a watch over and over that ends at once
                newest = ANY_VERSION
            except ExpiredError as error:
                log.info("kubernetes: %s; listing the pods anew", error)
                self._version, newest = None, NEWEST
                await self._wait()
            except DiscoveryError as error:
                self._failed(error)
                await self._wait()

    async def _list(self, version: str) -> None:
        pods, self._version = await self._api.list(version)
        self.table.replace(pods)
        self._changed()

    async def _watch(self) -> bool:
        """Follow one watch to its end; return whether it was of any use."""
        begun, has_begun = self._clock(), False
        try:
            async with aclosing(self._api.watch(self._version or ANY_VERSION)) as events:
                async for event in events:
                    has_begun, self._refusals = True, 0
                    self._take_in(event)
        except DiscoveryError:
            self._refusals += 1
            if (
                has_begun or self._refusals >= MOST_REFUSALS
            ):  # what cannot be taken in, or is refused, would be again
                self._version = None
            raise
        return self._clock() - begun > LAST_RETRY_SECONDS

    def _take_in(self, event: Event) -> None:
        self.table.apply(event)
        self._version = event.version
        self._changed()
        if event.pod:
            self._retry_seconds = self._first_retry_seconds
            self._ask_soon(event.pod)

    def _changed(self) -> None:
        if not self.up:
            log.info("kubernetes: %d pods on this node", self.table.pods)
        self.up, self.problem = True, None
        guesses = self.table.guesses
        known = self._guesses
        self._guesses = {
            name: known[name] if name in known and known[name].server == server else _Guess(server)
            for name, server in guesses.items()
        }
        problems = frozenset(self.table.problems)
        for problem in sorted(problems - self._said):
            log.warning("kubernetes: %s", problem)
        self._said = problems

    def _failed(self, error: DiscoveryError) -> None:
        if self.problem is None:
            log.warning("kubernetes: %s; what was known of pods stands, trying again", error)
        self.up, self.problem = False, str(error)

    async def _wait(self) -> None:
        """Wait ever longer, and at random: a cluster's nodes must not come back all at once."""
        await asyncio.sleep(self._retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)

    # ------------------------------------------------------------------------------------------ guessing

    async def _guess(self) -> None:
        while True:
            await asyncio.sleep(GUESS_SECONDS)
            await self._ask_guesses()

    async def _ask_guesses(self) -> None:
        now = self._clock()
        due = [guess for guess in self._guesses.values() if not guess.is_server and guess.due_seconds <= now]
        await asyncio.gather(*(self._ask(guess) for guess in due))

    def _ask_soon(self, pod: Mapping[str, Any]) -> None:
        """A pod that has changed may have become ready."""
        for name, guess in self._guesses.items():
            if not guess.is_server and guess.server.pod is not None and guess.server.pod.uid == uid_of(pod):
                self._guesses[name] = _Guess(guess.server)

    async def _ask(self, guess: _Guess) -> None:
        """Find out whether it is a server; if not, ask again, ever more rarely."""
        try:
            recognise((await self._pages.get(guess.server.url, guess.server)).body)
        except (PageError, ServerUnreachableError):
            guess.due_seconds = self._clock() + guess.wait_seconds
            guess.wait_seconds = min(2 * guess.wait_seconds, LAST_GUESS_SECONDS)
            return
        guess.is_server = True
