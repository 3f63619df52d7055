"""Servers that nobody configured, looked for on ports of the loopback interface over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from joulemeter.runtime.http import PageClient
from joulemeter.runtime.usual import UsualPorts

VLLM = 'vllm:generation_tokens_total{engine="0",model_name="llama"} 7.0\n'


@asynccontextmanager
async def answering(body: str, port: int = 0) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        yield server.sockets[0].getsockname()[1]


async def test_who_answers_with_a_page_we_know_is_found_once():
    async with PageClient(timeout_seconds=5) as client, answering(VLLM) as vllm, answering("<html>") as web:
        async with answering(VLLM) as later:
            pass  # a port on which nobody listens yet
        usual = UsualPorts(client, ports=(web, vllm, later))
        (found,) = await usual.look()
        assert (found.url, found.name) == (f"http://127.0.0.1:{vllm}/metrics", f"127.0.0.1:{vllm}")
        assert found.gpus is None
        assert await usual.look() == []
        async with answering(VLLM, later):
            assert [server.name for server in await usual.look()] == [f"127.0.0.1:{later}"]
