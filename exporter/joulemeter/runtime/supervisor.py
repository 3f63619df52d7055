"""Runs the daemon's parts together: one stop event, structured concurrency, the first failure ends all."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from joulemeter.errors import ServiceEndedError

log = logging.getLogger(__name__)


class Service(Protocol):
    """A part of the daemon that runs until it is asked to stop."""

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set."""


async def supervise(services: Sequence[Service], stop: asyncio.Event, *, grace_seconds: float = 1.5) -> None:
    """Run all until `stop`; a failure stops the rest and is raised (ExceptionGroup).

    Raises:
        ServiceEndedError: a service returned without being asked to.
    """

    async def guard(service: Service) -> None:
        await service.run(stop)
        if not stop.is_set():
            raise ServiceEndedError(f"{service.name} returned without being asked to stop")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(guard(service), name=service.name) for service in services]
        await stop.wait()
        _, late = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in late:
            log.warning("%s did not stop within %.1f s; cancelled", task.get_name(), grace_seconds)
            task.cancel()
