"""The client against servers that misbehave, each a real one on loopback."""

import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from joulemeter.errors import JoulemeterError, PageError, ServerUnreachableError
from joulemeter.runtime.http import Answer, PageClient
from joulemeter.server_config import ServerConfig

Reply = Callable[[str, asyncio.StreamWriter], Awaitable[None]]

PAGE = "# TYPE up gauge\nup 1\n"
MIB = 1024**2


def answer(body: bytes | str, status: str = "200 OK", **headers: object) -> bytes:
    """Write a whole HTTP answer."""
    data = body.encode() if isinstance(body, str) else body
    lines = {"Content-Length": len(data), "Content-Type": "text/plain"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + data


def always(data: bytes) -> Reply:
    async def reply(_request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return reply


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[ServerConfig]:
    """Answer each connection's first request with `reply`, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reply((await reader.readuntil(b"\r\n\r\n")).decode(), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client cut us off, as it should
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        scheme = "https" if tls else "http"
        yield ServerConfig(f"{scheme}://127.0.0.1:{port}/metrics", name="chat")


async def ask(server: ServerConfig, timeout_seconds: float = 5.0, **get: object) -> Answer:
    async with PageClient(timeout_seconds) as client:
        return await client.get(server.url, server, **get)


async def failure(reply: Reply, timeout_seconds: float = 5.0) -> JoulemeterError:
    async with serving(reply) as server:
        with pytest.raises(JoulemeterError) as caught:
            await ask(server, timeout_seconds)
    assert str(caught.value).startswith(f"chat ({server.url}): ")
    return caught.value


async def refusal(reply: Reply) -> tuple[str, str]:
    error = await failure(reply)
    assert isinstance(error, PageError)
    return error.reason, str(error).partition("): ")[2]


async def unreachable(reply: Reply, timeout_seconds: float = 5.0) -> str:
    error = await failure(reply, timeout_seconds)
    assert isinstance(error, ServerUnreachableError)
    return str(error).partition("): ")[2]


# ---------------------------------------------------------------------------------------------- good answers


async def test_page_is_asked_for_politely():
    """T2: text is asked for, and never OpenMetrics; no compression, for that costs the server more."""
    requests = []

    async def reply(request: str, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(answer(PAGE))

    async with serving(reply) as server:
        got = await ask(server)
    assert got.body == PAGE
    assert got.asked_at_seconds <= got.at_seconds <= got.answered_at_seconds
    line, *headers = requests[0].strip().split("\r\n")
    sent = {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}
    assert line == "GET /metrics HTTP/1.1"
    assert sent["accept"] == "text/plain;version=0.0.4"
    assert sent["accept-encoding"] == "identity"
    assert sent["user-agent"].startswith("joulemeter/")
    assert "cookie" not in sent
    assert "authorization" not in sent


async def test_times_are_those_of_the_first_byte():
    """The page is rendered before its head is sent; a body that trickles does not move its moment."""
    ticks = iter([100.0, 100.5])
    async with serving(always(answer(PAGE))) as server, PageClient(5, clock=lambda: next(ticks)) as client:
        got = await client.get(server.url, server)
    assert (got.at_seconds, got.duration_seconds) == (100.25, 0.5)


@pytest.mark.parametrize(
    ("query", "added", "line"),
    [
        ("", (), "/metrics"),
        ("?a=1&a=2", (("name[]", "vllm:x"),), "/metrics?a=1&a=2&name%5B%5D=vllm:x"),
        ("?model=b", (), "/metrics?model=b&autoload=false"),
        ("?model=b&autoload=true", (), "/metrics?model=b&autoload=true"),
    ],
)
async def test_router_is_not_made_to_load_a_model(query: str, added: tuple[tuple[str, str], ...], line: str):
    """T12: a llama.cpp router loads the model it is asked about, unless told not to."""
    lines = []

    async def reply(request: str, writer: asyncio.StreamWriter) -> None:
        lines.append(request.split(" ")[1])
        writer.write(answer(PAGE))

    async with serving(reply) as server, PageClient(5) as client:
        await client.get(server.url + query, server, query=added)
    assert lines == [line]


async def test_html_is_returned_for_the_dialect_to_refuse():
    async with serving(always(answer("<html>hi</html>"))) as server:
        assert (await ask(server)).body == "<html>hi</html>"


async def test_bytes_that_are_no_text_are_replaced():
    async with serving(always(answer(b"up 1\n\xff\xfe\n"))) as server:
        assert (await ask(server)).body == "up 1\n\ufffd\ufffd\n"


@pytest.mark.parametrize(
    "packed", [gzip.compress(PAGE.encode()), zlib.compress(PAGE.encode())], ids=["gzip", "zlib"]
)
async def test_compressed_body_is_understood_although_not_asked_for(packed: bytes):
    async with serving(always(answer(packed, Content_Encoding="gzip"))) as server:
        assert (await ask(server)).body == PAGE


async def test_connection_is_kept():
    peers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(PAGE))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener, PageClient(5) as client:
        server = ServerConfig(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/metrics", name="chat")
        for _ in range(3):
            await client.get(server.url, server)
    assert len(peers) == 1


# ---------------------------------------------------------------------------------------------- sizes


async def test_hundred_megabytes_are_refused_unread():
    sent = 0

    async def reply(_request: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * MIB)
            await writer.drain()
            sent += 1

    assert await refusal(reply) == (
        "too_large",
        "body of more than 16 MiB; is this the URL of a metrics page?",
    )
    assert sent < 50


async def test_endless_body_is_cut():
    async def reply(_request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * MIB)
            await writer.drain()

    assert (await refusal(reply))[0] == "too_large"


async def test_gzip_bomb_is_cut():
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(100)) + packer.flush()
    assert len(bomb) < MIB // 4
    assert (await refusal(always(answer(bomb, Content_Encoding="gzip"))))[0] == "too_large"


async def test_bytes_behind_a_compressed_body_count_too():
    async def reply(_request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"up 1\n"))
        for _ in range(100):
            writer.write(b"x" * MIB)
            await writer.drain()

    assert (await refusal(reply))[0] == "too_large"


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_body_in_another_encoding_than_it_says(encoding: str):
    reason, message = await refusal(always(answer(PAGE, Content_Encoding=encoding)))
    assert reason == "not_metrics"
    assert encoding in message


# ---------------------------------------------------------------------------------------------- time


async def test_one_byte_a_second_is_cut():
    async def reply(_request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(PAGE)[: -len(PAGE)])
        for letter in PAGE:
            writer.write(letter.encode())
            await writer.drain()
            await asyncio.sleep(0.1)

    message = (
        "no whole answer within 0.3 s; if the server is well but slow, raise observation.timeout_seconds"
    )
    assert await unreachable(reply, timeout_seconds=0.3) == message


async def test_nothing_is_cut():
    async def reply(_request: str, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    assert (await unreachable(reply, timeout_seconds=0.2)).startswith("no whole answer within 0.2 s")


# ---------------------------------------------------------------------------------------------- broken


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        answer(PAGE)[:-5],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nup 1\n",
        answer(gzip.compress(PAGE.encode())[:-9], Content_Encoding="gzip"),
    ],
    ids=["at once", "in the head", "in the body", "in a chunk", "in the compression"],
)
async def test_closing_early_is_no_answer(data: bytes):
    assert (await unreachable(always(data))).startswith("the connection broke before the answer was whole")


async def test_other_protocols_are_refused():
    reason, message = await refusal(always(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))
    assert (reason, message) == ("not_metrics", "the answer is not HTTP; is the port right?")


async def test_nobody_listens():
    async with serving(always(b"")) as server:
        pass
    with pytest.raises(
        ServerUnreachableError, match=r"cannot connect: .*; does the server run, and listen there\?"
    ):
        await ask(server)


async def test_host_name_that_does_not_exist():
    server = ServerConfig("http://gpu1.invalid:8000/metrics", name="chat")
    with pytest.raises(ServerUnreachableError, match="cannot connect"):
        await ask(server)


# ---------------------------------------------------------------------------------------------- statuses


async def test_redirect_is_named_and_not_followed():
    """LiteLLM answers /metrics with a 307 to /metrics/; the query may hold a secret and is not shown."""
    reply = always(answer("", "307 Temporary Redirect", Location="http://127.0.0.1:1/metrics/?key=secret"))
    assert await refusal(reply) == (
        "redirect",
        "redirects to 'http://127.0.0.1:1/metrics/', not followed; set the server's url to it",
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("401 Unauthorized", "HTTP 401; set authorization.credentials_file to a file with the server's key"),
        ("403 Forbidden", "HTTP 403; check the key in authorization.credentials_file"),
        (
            "404 Not Found",
            "HTTP 404; check the URL's path; some servers need a flag to serve metrics"
            " (--metrics, --enable-metrics)",
        ),
        ("503 Service Unavailable", "HTTP 503; look into the server's log"),
        ("599 Odd", "HTTP 599; look into the server's log"),
    ],
)
async def test_status_has_a_remedy(status: str, message: str):
    assert await refusal(always(answer("<html>no</html>", status))) == ("http_status", message)


@pytest.mark.parametrize(
    "body", ["", "null", "[1]", '{"error": 3}', '{"error": {"message": null}}', "[" * 100_000]
)
async def test_errors_that_are_no_known_json(body: str):
    assert (await refusal(always(answer(body, "503 Service Unavailable"))))[0] == "http_status"


async def test_loading_is_down_and_no_error():
    """A llama.cpp server answers 503 while it loads its model."""
    body = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    message = await unreachable(always(answer(json.dumps(body), "503 Service Unavailable")))
    assert message == "still loading its model; it will answer when it is ready"


async def test_model_that_the_router_has_not_loaded_is_down_and_no_error():
    """T12: with autoload=false a llama.cpp router answers 400 for a model that is not loaded."""
    body = {"error": {"code": 400, "message": "model is not loaded", "type": "invalid_request_error"}}
    message = await unreachable(always(answer(json.dumps(body), "400 Bad Request")))
    assert message == "the router has not loaded this model; nothing to mend"


# ---------------------------------------------------------------------------------------------- credentials


async def test_token_is_read_at_each_use(tmp_path: Path):
    seen = []

    async def reply(request: str, writer: asyncio.StreamWriter) -> None:
        seen.extend(line for line in request.split("\r\n") if line.startswith("Authorization"))
        writer.write(answer(PAGE))

    key = tmp_path / "key"
    async with serving(reply) as open_server, PageClient(5) as client:
        server = ServerConfig(open_server.url, name="chat", credentials_file=key)
        for token in ("first\n", "second"):
            key.write_text(token)
            await client.get(server.url, server)
    assert seen == ["Authorization: Bearer first", "Authorization: Bearer second"]


async def test_token_goes_to_its_own_server_only(tmp_path: Path):
    requests = []

    async def reply(request: str, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        writer.write(answer(PAGE))

    (tmp_path / "key").write_text("secret")
    async with serving(reply) as other, PageClient(5) as client:
        server = ServerConfig("http://127.0.0.1:1/metrics", name="chat", credentials_file=tmp_path / "key")
        await client.get(other.url, server)
    assert "secret" not in requests[0]


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two secrets", b"two\nsecret", b"secret\xff", b"secret\x00"]
)
async def test_unusable_token_is_not_shown(tmp_path: Path, content: bytes):
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(ServerUnreachableError, match="must hold one token") as caught:
        await ask(ServerConfig("http://127.0.0.1:1/metrics", name="chat", credentials_file=key))
    assert "secret" not in str(caught.value)


async def test_missing_token_file_is_named(tmp_path: Path):
    key = tmp_path / "key"
    with pytest.raises(ServerUnreachableError) as caught:
        await ask(ServerConfig("http://127.0.0.1:1/metrics", name="chat", credentials_file=key))
    assert str(caught.value) == (
        f"chat (http://127.0.0.1:1/metrics): authorization.credentials_file {str(key)!r} cannot be read:"
        " No such file or directory; make it readable"
    )


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority's certificate, and one that it issued for 127.0.0.1 with its key."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder


async def test_tls_trusts_the_given_authority_only(certificates: Path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem")
    async with serving(always(answer(PAGE)), tls=context) as server:
        trusting = ServerConfig(server.url, name="chat", ca_file=certificates / "authority.pem")
        careless = ServerConfig(server.url, name="chat", insecure_skip_verify=True)
        assert (await ask(trusting)).body == PAGE
        assert (await ask(careless)).body == PAGE
        with pytest.raises(
            ServerUnreachableError, match=r"TLS failed: .*certificate.*; set tls_config.ca_file"
        ):
            await ask(server)


async def test_plain_server_asked_over_tls():
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("", "400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ServerUnreachableError, match="TLS failed"):
            await ask(ServerConfig(f"https://127.0.0.1:{port}/metrics", name="chat"))


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_unusable_authority_file(tmp_path: Path, content: str | None):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ServerUnreachableError, match=r"ca\.pem' cannot be used: .*; give a readable PEM file"
    ):
        await ask(ServerConfig("https://127.0.0.1:1/metrics", name="chat", ca_file=path))
