"""Servers that nobody configured: whoever answers on this machine's usual ports with a page that we know."""

from collections.abc import Sequence
from typing import Final

from joulemeter.config import ServerConfig
from joulemeter.dialects import recognise
from joulemeter.errors import PageError, ServerUnreachableError
from joulemeter.runtime.watch import Pages

USUAL_PORTS: Final = {"vLLM": 8000, "SGLang": 30000, "llama.cpp": 8080, "TGI": 3000}
"""Default ports of the servers whose dialect we speak."""


class UsualPorts:
    """Looks on the usual ports of the loopback interface."""

    def __init__(self, client: Pages, *, ports: Sequence[int] = tuple(USUAL_PORTS.values())) -> None:
        self._client = client
        self._ports = ports
        self._found: set[int] = set()

    async def look(self) -> list[ServerConfig]:
        """Servers found since the last look; each is found once, and watched from then on."""
        found = []
        for port in self._ports:
            if port in self._found:
                continue
            server = ServerConfig(f"http://127.0.0.1:{port}/metrics", f"127.0.0.1:{port}")
            try:
                recognise((await self._client.get(server.url, server)).body)
            except (PageError, ServerUnreachableError):
                continue
            self._found.add(port)
            found.append(server)
        return found
