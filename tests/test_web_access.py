"""The listener with a web configuration, over real connections: who gets in, who does not, and what changes mean."""

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import snapshots
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from test_exposition import bound

from joulemeter.config import Config
from joulemeter.errors import ConfigError, GridError
from joulemeter.grid_codec import encode
from joulemeter.grids import Place
from joulemeter.grids.relay import PLUGIN, Relay
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality
from joulemeter.runtime import web_access
from joulemeter.runtime.exposition import PATHS, Exposition, is_our_fault
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.web_access import WebAccess
from joulemeter.settings import Secret, Section
from tests.web_files import WebFiles, hashed

EVERY_PATH = ["/", *PATHS, "/nowhere", "/metrics/../healthz", "//"]
MUST = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients.pem"
MAY = ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: clients.pem"
LOOK_SECONDS = 0.02
REFUSED = r"^$|(?i:reset|version|handshake)"
"""asyncio ends a failed handshake without saying why, so what a client sees is up to the network."""
ALICE = {"alice": "s3cret"}


@pytest.fixture
def files(tmp_path: Path) -> WebFiles:
    return WebFiles(tmp_path)


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@dataclass
class Asked:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Listener:
    """A listener, and a client that makes a new connection for each question."""

    port: int
    access: WebAccess
    scheme: str

    async def get(
        self,
        path: str = "/metrics",
        *,
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
        method: str = "GET",
        scheme: str | None = None,
        **headers: str,
    ) -> Asked:
        if user is not None:
            headers["Authorization"] = basic(":".join(user).encode())
        connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True, force_close=True)
        url = f"{scheme or self.scheme}://127.0.0.1:{self.port}{path}"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, url, headers=headers) as answer,
        ):
            return Asked(answer.status, dict(answer.headers), await answer.read())

    async def certificate(self, tls: ssl.SSLContext) -> bytes:
        """What it shows to a new connection."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        assert isinstance(shown, bytes)
        return shown


@asynccontextmanager
async def listening(path: Path, grid: Callable[[], str] = str) -> AsyncIterator[Listener]:
    stop = asyncio.Event()
    access = WebAccess(path, look_seconds=LOOK_SECONDS)
    listener = Exposition(
        "127.0.0.1", 0, latest=snapshots.empty, problem=lambda: None, grid=grid, access=access
    )
    task = asyncio.create_task(listener.run(stop))
    try:
        port = int((await bound(listener, task)).rpartition(":")[2])
        yield Listener(port, access, "https" if access.tls else "http")
    finally:
        stop.set()
        await task


async def becomes(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a log line tells nobody
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------- passwords


@pytest.mark.parametrize("path", EVERY_PATH)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_who_names_nobody_learns_nothing(files: WebFiles, path: str, method: str):
    async with listening(files.write(users=ALICE)) as listener:
        answer = await listener.get(path, method=method)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert answer.body == (b"" if method == "HEAD" else b"Unauthorized\n")
    said = set(answer.headers) - {"Date", "Connection"}
    assert said == {"WWW-Authenticate", "Content-Type", "Content-Length"}, "no version of anything"


@pytest.mark.parametrize("path", ["/", *PATHS])
async def test_the_right_password_opens_every_path(files: WebFiles, path: str):
    async with listening(files.write(users=ALICE | {"bob": "pä: ss"})) as listener:
        assert (await listener.get(path, user=("alice", "s3cret"))).status == 200
        assert (await listener.get(path, user=("bob", "pä: ss"))).status == 200
        assert (await listener.get("/nowhere", user=("alice", "s3cret"))).status == 404


@pytest.mark.parametrize(
    "authorization",
    [
        *("", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U", "Bearer s3cret", "s3cret", "Basic é"),
        *map(basic, (b"alice", b"alice:", b"alice:s3cre", b"alice:s3cret ", b"Alice:s3cret", b"bob:s3cret")),
        *map(
            basic,
            (b":s3cret", b":", b"alice:s3cret\0", b"\xff:s3cret", b"alice:\xff", b"alice:" + b"x" * 5000),
        ),
    ],
)
async def test_anything_else_does_not(files: WebFiles, authorization: str):
    async with listening(files.write(users=ALICE)) as listener:
        assert (await listener.get(Authorization=authorization)).status == 401
        assert (await listener.get(Authorization=basic(b"alice:s3cret"))).status == 200
        assert (await listener.get(Authorization="bAsIc  " + basic(b"alice:s3cret")[6:])).status == 200


async def test_what_bcrypt_ignores_of_a_long_password_is_ignored(files: WebFiles):
    async with listening(files.write(users={"alice": "x" * 72})) as listener:
        assert (await listener.get(user=("alice", "x" * 72 + "more"))).status == 200
        assert (await listener.get(user=("alice", "x" * 71))).status == 401


async def test_a_flood_of_wrong_passwords_is_answered_and_scraping_goes_on(files: WebFiles):
    path = files.write(users={"alice": "s3cret"}, more=f"  bob: {hashed('b', 10)}")
    async with listening(path) as listener:
        assert (await listener.get(user=("alice", "s3cret"))).status == 200
        flood = [asyncio.create_task(listener.get(user=("bob", f"{one}"))) for one in range(60)]
        await asyncio.sleep(0.2)
        for _ in range(3):
            async with asyncio.timeout(2):
                assert (await listener.get(user=("alice", "s3cret"))).status == 200
        statuses = [answer.status for answer in await asyncio.gather(*flood)]
    assert set(statuses) == {401, 429}


@pytest.mark.parametrize(
    "request_text",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization : Basic s3cret\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " + b"s3cret" * 2000 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_not_logged(
    files: WebFiles, caplog: pytest.LogCaptureFixture, request_text: bytes
):
    async with listening(files.write(tls="", users=ALICE)) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=files.context())
        writer.write(request_text)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 400 Bad Request")
        writer.close()
    assert caplog.text == ""


def test_our_own_failures_are_logged():
    bug = (ValueError, ValueError(), None)
    failed = logging.LogRecord("a", logging.ERROR, "b", 1, "Error handling request", None, bug)
    assert is_our_fault(failed)
    assert is_our_fault(logging.LogRecord("a", logging.ERROR, "b", 1, "words", None, None))


# ---------------------------------------------------------------------------------------------- TLS


async def test_tls_for_every_path_and_nothing_else(files: WebFiles, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with listening(files.write(tls="")) as listener:
        for path in ["/", *PATHS]:
            assert (await listener.get(path, tls=files.context())).status == 200
        with pytest.raises(aiohttp.ClientError):
            await listener.get(scheme="http")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await listener.get(tls=ssl.create_default_context())
    assert "listening on https://127.0.0.1:" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING], "strangers fill no log"


async def version(listener: Listener, tls: ssl.SSLContext) -> tuple[str, str]:
    """The version of TLS and the cipher of a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=tls)
    connection = writer.get_extra_info("ssl_object")
    found = (connection.version(), connection.cipher()[0])
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return found


def only(files: WebFiles, oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> ssl.SSLContext:
    context = files.context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would not offer the old ones
    context.minimum_version, context.maximum_version = oldest, newest
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_old_versions_are_refused(files: WebFiles):
    v10, v11, v12, v13 = (getattr(ssl.TLSVersion, f"TLSv1{minor}") for minor in ("", "_1", "_2", "_3"))
    async with listening(files.write(tls="")) as listener:
        with pytest.raises(OSError, match=REFUSED):
            await version(listener, only(files, v10, v11))
        assert (await version(listener, only(files, v10, v12)))[0] == "TLSv1.2"
        assert (await version(listener, files.context()))[0] == "TLSv1.3"
    async with listening(files.write(tls=", min_version: TLS13")) as listener:
        with pytest.raises(OSError, match=REFUSED):
            await version(listener, only(files, v12, v12))
        assert (await version(listener, only(files, v12, v13)))[0] == "TLSv1.3"
    async with listening(files.write(tls=", max_version: TLS12")) as listener:
        assert (await version(listener, files.context()))[0] == "TLSv1.2"


async def test_ciphers_and_whose_order_counts(files: WebFiles):
    suites = "cipher_suites: [TLS_ECDHE_{0}_WITH_AES_256_GCM_SHA384, TLS_ECDHE_{0}_WITH_AES_128_GCM_SHA256]"
    client = only(files, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    key = "ECDSA" if b"BEGIN EC" in (files.folder / "tls.key").read_bytes() else "RSA"
    client.set_ciphers(
        f"ECDHE-{key}-CHACHA20-POLY1305:ECDHE-{key}-AES128-GCM-SHA256:ECDHE-{key}-AES256-GCM-SHA384"
    )
    ours, theirs = f"ECDHE-{key}-AES256-GCM-SHA384", f"ECDHE-{key}-AES128-GCM-SHA256"
    for prefer, chosen in (("true", ours), ("false", theirs)):
        keys = f", {suites.format(key)}, prefer_server_cipher_suites: {prefer}"
        async with listening(files.write(tls=keys)) as listener:
            assert await version(listener, client) == ("TLSv1.2", chosen)
    client.set_ciphers(f"ECDHE-{key}-CHACHA20-POLY1305")
    async with listening(files.write(tls=f", {suites.format(key)}")) as listener:
        with pytest.raises(OSError, match=REFUSED):
            await version(listener, client)


async def test_a_curve(files: WebFiles):
    async with listening(files.write(tls=", curve_preferences: [CurveP384]")) as listener:
        client = files.context()
        client.set_ecdh_curve("secp384r1")
        await version(listener, client)
        client.set_ecdh_curve("prime256v1")
        with pytest.raises(OSError, match=REFUSED):
            await version(listener, client)


# ---------------------------------------------------------------------------------------------- client certificates


async def refused(listener: Listener, tls: ssl.SSLContext) -> bool:
    try:
        return (await listener.get(tls=tls)).status != 200
    except aiohttp.ClientError:
        return True


async def test_only_clients_with_a_certificate_of_our_authority(files: WebFiles):
    friend, stranger = files.client("prometheus"), files.client("mallory", files.authority)
    async with listening(files.write(tls=MUST)) as listener:
        assert (await listener.get(tls=files.context(friend))).status == 200
        assert await refused(listener, files.context())
        assert await refused(listener, files.context(stranger))
    async with listening(files.write(tls=MAY)) as listener:
        assert (await listener.get(tls=files.context(friend))).status == 200
        assert (await listener.get(tls=files.context())).status == 200
        assert await refused(listener, files.context(stranger))


async def test_only_clients_with_one_of_the_names(files: WebFiles):
    friend, other, address, mail = map(
        files.client, ("prometheus", "grafana", "2001:db8::7", "a@example.org")
    )
    names = ", client_allowed_sans: [prometheus, '2001:DB8:0::7', a@example.org]"
    async with listening(files.write(tls=MUST + names)) as listener:
        for client in (friend, address, mail):
            assert (await listener.get(tls=files.context(client))).status == 200
        for path in EVERY_PATH:
            answer = await listener.get(path, tls=files.context(other))
            assert (answer.status, answer.body) == (403, b"Forbidden\n")
        assert await refused(listener, files.context())


async def test_a_certificate_does_not_replace_a_password(files: WebFiles):
    friend = files.context(files.client("prometheus"))
    async with listening(files.write(tls=MUST, users=ALICE)) as listener:
        assert (await listener.get(tls=friend)).status == 401
        assert (await listener.get(tls=friend, user=("alice", "s3cret"))).status == 200
        assert await refused(listener, files.context())


# ---------------------------------------------------------------------------------------------- headers


async def test_headers_are_on_every_answer(files: WebFiles):
    more = "http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: \"default-src 'none'\"}}"
    async with listening(files.write(users=ALICE, more=more)) as listener:
        for path, user in (
            ("/metrics", ("alice", "s3cret")),
            ("/metrics", None),
            ("/nowhere", ("alice", "s3cret")),
        ):
            headers = (await listener.get(path, user=user)).headers
            assert headers["X-Frame-Options"] == "deny"
            assert headers["Content-Security-Policy"] == "default-src 'none'"
            assert "Server" not in headers


# ---------------------------------------------------------------------------------------------- changes


async def test_users_change_without_a_restart(files: WebFiles, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with listening(files.write(users=ALICE)) as listener:
        assert (await listener.get(user=("alice", "s3cret"))).status == 200
        files.write(users={"alice": "other", "bob": "b"})
        await becomes(lambda: "taken anew" in caplog.text)
        assert (await listener.get(user=("alice", "s3cret"))).status == 401
        assert (await listener.get(user=("alice", "other"))).status == 200
        assert (await listener.get(user=("bob", "b"))).status == 200
    assert caplog.text.count("taken anew") == 1
    assert "without tls_server_config the network sees every password" in caplog.text


async def test_new_connections_see_the_new_certificate(files: WebFiles, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with listening(files.write(tls="")) as listener:
        before = await listener.certificate(files.context())
        assert await listener.certificate(files.context()) == before
        files.issue()
        await becomes(lambda: "taken anew" in caplog.text)
        after = await listener.certificate(files.context())
        assert after != before
        assert after == ssl.PEM_cert_to_DER_cert((files.folder / "tls.crt").read_text())
        assert (await listener.get(tls=files.context())).status == 200


async def test_who_is_turned_away_by_a_change_keeps_no_connection(files: WebFiles):
    """The callback for server names could not do this: it replaces certificates only."""
    async with listening(files.write(tls="")) as listener:
        connector = aiohttp.TCPConnector(ssl=files.context())
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"https://127.0.0.1:{listener.port}/metrics"
            async with session.get(url) as answer:
                assert answer.status == 200
                await answer.read()
            files.write(tls=MUST + ", min_version: TLS13")

            async def turned_away() -> bool:
                try:
                    async with session.get(url) as answer:
                        await answer.read()
                        return False
                except aiohttp.ClientError:
                    return True

            async with asyncio.timeout(10):
                while not await turned_away():  # noqa: ASYNC110 - the listener tells nobody
                    await asyncio.sleep(0.05)
        friend = files.context(files.client("prometheus"))
        assert (await version(listener, friend))[0] == "TLSv1.3"
        assert (await listener.get(tls=friend)).status == 200
        friend.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await refused(listener, friend)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_broken_file_keeps_the_old_one_and_is_told_once(
    files: WebFiles, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with listening(files.write(tls="", users=ALICE)) as listener:
        before = await listener.certificate(files.context())
        good = files.path.read_text()
        files.path.write_text(good.replace("tls_server_config", "tls_server_confg"))
        await becomes(lambda: errors(caplog))
        await asyncio.sleep(10 * LOOK_SECONDS)
        (said,) = errors(caplog)
        assert said == (
            f"web_config_file {files.path}: tls_server_confg: unknown key; did you mean 'tls_server_config'?;"
            " what was read before stays in use"
        )
        assert (await listener.get(tls=files.context(), user=("alice", "s3cret"))).status == 200
        assert (await listener.get(tls=files.context())).status == 401
        assert await listener.certificate(files.context()) == before
        files.write(tls="", users={"alice": "new"})
        await becomes(lambda: "taken anew" in caplog.text)
        assert (await listener.get(tls=files.context(), user=("alice", "new"))).status == 200


async def test_a_broken_certificate_keeps_the_old_one_until_it_is_mended(
    files: WebFiles, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with listening(files.write(tls="")) as listener:
        before = await listener.certificate(files.context())
        (files.folder / "tls.key").write_text("rubbish")
        await becomes(lambda: errors(caplog))
        assert await listener.certificate(files.context()) == before
        (files.folder / "tls.key").unlink()
        await becomes(lambda: len(errors(caplog)) > 1)
        assert await listener.certificate(files.context()) == before
        files.issue()
        await becomes(lambda: "taken anew" in caplog.text)
        assert await listener.certificate(files.context()) != before


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("", "give at least one of them"),
        (
            "http_server_config: {http2: false}",
            "tls_server_config was taken out; restart joulemeter for that",
        ),
        (
            f"basic_auth_users: {{a: {hashed('a')}}}",
            "tls_server_config was taken out; restart joulemeter for that",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.key}",
            "basic_auth_users was taken out; restart joulemeter for that",
        ),
    ],
    ids=["everything", "both", "tls", "users"],
)
async def test_a_file_that_is_cut_off_opens_nothing(
    files: WebFiles, caplog: pytest.LogCaptureFixture, then: str, words: str
):
    async with listening(files.write(tls="", users=ALICE)) as listener:
        files.path.write_text(then)
        await becomes(lambda: errors(caplog))
        assert words in "".join(errors(caplog))
        assert (await listener.get(tls=files.context())).status == 401
        assert (await listener.get(tls=files.context(), user=("alice", "s3cret"))).status == 200


async def test_a_file_that_lost_its_client_authentication_opens_nothing(
    files: WebFiles, caplog: pytest.LogCaptureFixture
):
    friend = files.context(files.client("prometheus"))
    async with listening(files.write(tls=MUST + ", client_allowed_sans: [prometheus]")) as listener:
        files.write(tls=MAY)
        await becomes(lambda: len(errors(caplog)) == 2)
        assert [one.split(": ")[1].partition(";")[0] for one in errors(caplog)] == [
            "tls_server_config.client_allowed_sans was taken out",
            "tls_server_config.client_auth_type was taken out",
        ]
        assert await refused(listener, files.context())
        assert (await listener.get(tls=friend)).status == 200
        files.write(tls=MUST)
        await becomes(lambda: len(errors(caplog)) == 3)


async def test_tls_is_not_added_to_a_listener_without_it(files: WebFiles, caplog: pytest.LogCaptureFixture):
    async with listening(files.write(users=ALICE)) as listener:
        files.write(users=ALICE, tls="")
        await becomes(lambda: errors(caplog))
        assert "tls_server_config was added; restart joulemeter for that" in errors(caplog)[0]
        assert (await listener.get(user=("alice", "s3cret"))).status == 200


async def test_a_file_replaced_by_way_of_a_link_is_seen(files: WebFiles, caplog: pytest.LogCaptureFixture):
    """As Kubernetes renews what it mounts of a Secret."""
    caplog.set_level(logging.INFO)
    folder = files.folder
    for number, word in ((1, "one"), (2, "two")):
        (folder / f"..{number}").mkdir()
        files.write(users={"alice": word}).rename(folder / f"..{number}/web.yaml")
    (folder / "..data").symlink_to("..1")
    (folder / "web.yaml").symlink_to("..data/web.yaml")
    async with listening(folder / "web.yaml") as listener:
        assert (await listener.get(user=("alice", "one"))).status == 200
        (folder / "..new").symlink_to("..2")
        (folder / "..new").rename(folder / "..data")
        await becomes(lambda: "taken anew" in caplog.text)
        assert (await listener.get(user=("alice", "two"))).status == 200
        assert (await listener.get(user=("alice", "one"))).status == 401


def test_a_change_counts_once_it_has_settled(files: WebFiles):
    access = WebAccess(files.write(tls="", users=ALICE))
    assert not access.look()
    files.issue()
    assert not access.look(), "it may be half written"
    files.issue()
    assert not access.look()
    assert access.look()
    assert not access.look()


# ---------------------------------------------------------------------------------- files that cannot be used


def spoiled(files: WebFiles) -> dict[str, str]:
    """Text of the file named first -> what is said of it."""
    key = load_pem_private_key((files.folder / "tls.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")).decode()
    other = files.authority.issue_cert("x").private_key_pem.bytes().decode()
    certificate = (files.folder / "tls.crt").read_text()
    cut = certificate[:200]
    return {
        "tls.crt": {
            "": "holds no certificate in PEM; give a file with one",
            cut: "cannot be used",
            other: "holds no",
        },
        "tls.key": {
            certificate: "holds no key in PEM; give a file with one",
            locked: "is encrypted, and nobody is there to type its password; store it decrypted",
            other: f"is not the key of the certificate in {files.folder}/tls.crt; give that key",
        },
        "clients.pem": {other: "holds no certificate in PEM", cut: "cannot be used"},
    }  # type: ignore[return-value]


def test_the_daemon_does_not_begin_with_files_that_cannot_be_used(files: WebFiles):
    files.write(tls=MUST)
    for name, cases in spoiled(files).items():
        good = (files.folder / name).read_bytes()
        for text, words in cases.items():  # type: ignore[attr-defined]
            (files.folder / name).write_text(text)
            with pytest.raises(ConfigError) as caught:
                WebAccess(files.path)
            (message,) = caught.value.problems
            assert message.startswith(f"web_config_file {files.path}: tls_server_config.")
            assert f"{files.folder}/{name}" in message
            assert words in message
            assert "BEGIN" not in message
        (files.folder / name).write_bytes(good)
    WebAccess(files.path)


def test_every_file_that_is_not_there_is_named_at_once(files: WebFiles):
    files.write(tls=MUST)
    for name in ("tls.crt", "tls.key", "clients.pem"):
        (files.folder / name).unlink()
    with pytest.raises(ConfigError) as caught:
        WebAccess(files.path)
    assert [one.split(": ")[1:4] for one in caught.value.problems] == [
        [f"tls_server_config.{key}", f"{files.folder}/{name}", "cannot be read"]
        for key, name in (
            ("cert_file", "tls.crt"),
            ("key_file", "tls.key"),
            ("client_ca_file", "clients.pem"),
        )
    ]


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff")]
)
def test_a_file_that_is_none(tmp_path: Path, make: Callable[[Path], object]):
    make(tmp_path / "web.yaml")
    with pytest.raises(ConfigError, match=r"web\.yaml: cannot be read: .*; mend it, or leave it out"):
        WebAccess(tmp_path / "web.yaml")


def test_without_it_everything_is_as_before():
    assert Config().web_config_file is None
    assert web_access.LOOK_SECONDS == 1.0


# ---------------------------------------------------------------------------------------------- grid of another node


async def test_the_relay_reads_a_head_behind_tls_and_a_password(files: WebFiles):
    origin = GridOrigin("electricitymaps", "lifecycle", "consumption", "hourly", "FR")
    known = GridAnswer((GridInterval(0.0, 3600.0, 41.5, GridQuality.MEASURED, origin),))
    (files.folder / "password").write_text("s3cret\n")

    def relay(port: int, word: str = "password", ca: str = "authority.pem") -> Relay:
        secret = Secret(files.folder / word)
        return Relay(Place("FR"), f"https://127.0.0.1:{port}/grid.json", "alice", secret, files.folder / ca)

    path = files.write(tls="", users=ALICE)
    async with (
        listening(path, lambda: encode("FR", {"electricitymaps": known})) as head,
        GridClient() as client,
    ):
        answer, _ = await client.converse(relay(head.port), 60.0)
        assert answer.intervals == known.intervals
        (files.folder / "wrong").write_text("guess\n")
        with pytest.raises(GridError) as refused:
            await client.converse(relay(head.port, word="wrong"), 60.0)
        assert refused.value.outcome == "auth"
        assert "guess" not in str(refused.value)
        with pytest.raises(GridError, match="certificate verify failed"):
            await client.converse(relay(head.port, ca="clients.pem"), 60.0)


async def test_the_relay_shows_a_certificate_to_a_head_that_asks_for_one(files: WebFiles):
    origin = GridOrigin("electricitymaps", "lifecycle", "consumption", "hourly", "FR")
    known = GridAnswer((GridInterval(0.0, 3600.0, 41.5, GridQuality.MEASURED, origin),))
    config = {"url": "", "ca_file": str(files.folder / "authority.pem")}

    def relay(port: int, **more: str) -> Relay:
        problems: list[str] = []
        section = Section(config | {"url": f"https://127.0.0.1:{port}"} | more, "grid.relay", problems)
        configured = PLUGIN.configured(section, Place("FR"))
        assert problems == []
        return configured

    certificate, key = map(str, files.client("node-2"))
    path = files.write(tls=MUST)
    async with (
        listening(path, lambda: encode("FR", {"electricitymaps": known})) as head,
        GridClient() as client,
    ):
        answer, _ = await client.converse(relay(head.port, cert_file=certificate, key_file=key), 60.0)
        assert answer.intervals == known.intervals
        with pytest.raises(GridError):
            await client.converse(relay(head.port), 60.0)
        with pytest.raises(
            GridError, match=r"a file of .*authority\.pem, .*node-2\.crt, nokey cannot be used: "
        ):
            await client.converse(relay(head.port, cert_file=certificate, key_file="nokey"), 60.0)


def test_half_a_certificate_of_a_relay_is_a_problem():
    problems: list[str] = []
    PLUGIN.configured(Section({"url": "https://a", "cert_file": "x"}, "grid.relay", problems), Place("FR"))
    assert problems == ["grid.relay.cert_file: cert_file and key_file go together; give both or none"]
