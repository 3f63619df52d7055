"""The page that a server has beside its metrics page: asked for while it answers, and missed by nobody if not."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from joulemeter.dialects import SidePage
from joulemeter.errors import PageError, ServerUnreachableError
from joulemeter.model import RoleReading
from joulemeter.runtime.http import Answer

TRIES: Final = 3
"""A page that stays away so often in a row is not asked for again: each time it delayed the metrics page."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a side page told, and how long the server took for it."""

    readings: tuple[RoleReading, ...]
    duration_seconds: float


class Beside:
    """Asks one server process for its side page, if its dialect has one.

    It is asked for after the metrics page. A server that refuses it is not asked again.
    """

    def __init__(self, page: SidePage | None) -> None:
        self._page = page
        self._tries_left = TRIES if page else 0

    async def ask(self, get: Callable[[str], Awaitable[Answer]]) -> Told | None:
        """Return what the page tells, None where it is not to be had; `get` asks for a path of the server."""
        if self._page is None or not self._tries_left:
            return None
        try:
            answer = await get(self._page.path)
            told = Told(self._page.read(answer.body), answer.duration_seconds)
        except PageError:
            self._tries_left = 0
            return None
        except ServerUnreachableError:
            self._tries_left -= 1
            return None
        self._tries_left = TRIES
        return told
