"""A way to the server that can be shut, so that it is away for joulemeter while we still reach it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from vllm_server import free_port


@dataclass
class Gate:
    """Passes bytes on between its port and the server's, as long as it is open."""

    server_port: int
    port: int = field(default_factory=free_port)
    _listener: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it lets through."""
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Let through from now on."""
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Refuse connections from now on, and cut those there are."""
        if self._listener is not None:
            self._listener.close()
            for writer in self._writers:
                writer.close()
            await self._listener.wait_closed()
            self._listener = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:  # the server is not there
            writer.close()
            return
        both = {writer, onward_writer}
        self._writers |= both
        await asyncio.gather(_pump(reader, onward_writer), _pump(onward_reader, writer))
        self._writers -= both


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()
