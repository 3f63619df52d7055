"""Who may ask our listener, and how: a web configuration file and the files it names, read anew when they change."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from joulemeter.errors import ConfigError
from joulemeter.runtime.passwords import Passwords, Verdict
from joulemeter.runtime.threads import in_daemon_thread
from joulemeter.runtime.tls import ReplaceableContext, replaceable, server_context
from joulemeter.tls_config import same_name
from joulemeter.web_config import WebConfig, load

log = logging.getLogger(__name__)

CHALLENGE: Final[dict[str, str]] = {hdrs.WWW_AUTHENTICATE: 'Basic realm="metrics", charset="UTF-8"'}
LOOK_SECONDS: Final = 1.0
"""Between two looks at the files. A change counts once two looks saw the same: it may be half written before."""
GRACE_SECONDS: Final = 0.5
"""For a request that is being answered when its connection is to end."""

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A web configuration whose files could be used, and what they were when they were read."""

    config: WebConfig
    context: ssl.SSLContext | None
    stamps: Mapping[Path, Stamp | None]


class WebAccess:
    """The web configuration in use.

    Args:
        path: the file; paths in it are relative to its folder.
        look_seconds: how long between two looks for a change.

    Attributes:
        tls: the listener's context, which follows the files; None for plain HTTP.

    Raises:
        ConfigError: (from the constructor, which blocks) every problem of the file and of those it names.
    """

    def __init__(self, path: Path, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._path = path
        self._look_seconds = look_seconds
        loaded = self._load()
        self._config = loaded.config
        self._taken = self._last = loaded.stamps
        self.tls: ReplaceableContext | None = replaceable(loaded.context) if loaded.context else None
        self._passwords = Passwords()

    @property
    def notes(self) -> Sequence[str]:
        """See `WebConfig.notes`."""
        return self._config.notes

    def look(self) -> bool:
        """Take the files if they changed, and say whether they did; blocking. What cannot be used is logged once."""
        now = {path: _stamp(path) for path in self._taken}
        settled, self._last = now == self._last, now
        if not settled or now == self._taken:
            return False
        self._taken = now
        try:
            loaded = self._load()
            self._refuse_less(loaded)
        except ConfigError as error:
            for problem in error.problems:
                log.error("%s; what was read before stays in use", problem)  # noqa: TRY400 - not our bug
            return False
        self._config, self._taken, self._last = loaded.config, loaded.stamps, loaded.stamps
        log.info("web_config_file %s: taken anew", self._path)
        if self.tls is not None and loaded.context is not None:
            self.tls.in_use = loaded.context
        return True

    def _load(self) -> Loaded:
        place = f"web_config_file {self._path}"
        stamps = {self._path: _stamp(self._path)}
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError([f"{place}: cannot be read: {reason}; mend it, or leave it out"]) from None
        config = load(text, source=place, folder=self._path.parent)
        if config.tls is None:
            return Loaded(config, None, stamps)
        stamps |= {path: _stamp(path) for path in config.tls.files}
        self._taken = stamps  # even if they cannot be used: they may be mended
        try:
            return Loaded(config, server_context(config.tls), stamps)
        except ConfigError as error:
            raise ConfigError([f"{place}: {problem}" for problem in error.problems]) from None

    def _refuse_less(self, loaded: Loaded) -> None:
        """A file that is cut off may look like one that asks for less."""
        place = f"web_config_file {self._path}"
        lost = _asks(self._config) - _asks(loaded.config)
        problems = [f"{place}: {key} was taken out; restart joulemeter for that" for key in sorted(lost)]
        if loaded.context is not None and self.tls is None:
            problems.append(f"{place}: tls_server_config was added; restart joulemeter for that")
        if problems:
            raise ConfigError(problems)

    def protect(self, app: web.Application) -> None:
        """Guard every path of an application, also those that it does not have."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = await self._refusal(request)
            return await handler(request) if refusal is None else refusal

        async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
            response.headers.popall(hdrs.SERVER, None)  # it names versions
            response.headers.update(self._config.headers)

        app.middlewares.append(guard)
        app.on_response_prepare.append(add_headers)

    async def follow(self, runner: web.AppRunner, stop: asyncio.Event) -> None:
        """Look at the files until `stop`, and end the connections that were made under other rules."""
        for note in self.notes:
            log.warning("web_config_file %s: %s", self._path, note)
        while not stop.is_set():
            await in_daemon_thread(self.look)
            connections = runner.server.connections if runner.server is not None else ()
            outdated = [one for one in connections if self._is_outdated(one.transport)]
            await asyncio.gather(*(one.shutdown(GRACE_SECONDS) for one in outdated))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await stop.wait()

    def _is_outdated(self, transport: asyncio.BaseTransport | None) -> bool:
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        return self.tls is not None and connection is not None and connection.context is not self.tls.in_use

    async def _refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request that must not be served; it says nothing about what is here."""
        config = self._config
        if config.tls is not None and config.tls.client_allowed_sans:
            names = _names(request.get_extra_info("peercert"))
            if names.isdisjoint(config.tls.client_allowed_sans):
                return _answer(HTTPStatus.FORBIDDEN)
        if not config.users:
            return None
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        verdict = await self._passwords.admit(config.users, authorization)
        if verdict is Verdict.BUSY:
            return _answer(HTTPStatus.TOO_MANY_REQUESTS)
        return None if verdict is Verdict.RIGHT else _answer(HTTPStatus.UNAUTHORIZED, CHALLENGE)


def _asks(config: WebConfig) -> set[str]:
    """Return the keys that keep somebody out."""
    tls = config.tls
    keys = {
        "basic_auth_users": bool(config.users),
        "tls_server_config": tls is not None,
        "tls_server_config.client_auth_type": tls is not None and tls.client_must,
        "tls_server_config.client_allowed_sans": tls is not None and bool(tls.client_allowed_sans),
    }
    return {key for key, asks in keys.items() if asks}


def _stamp(path: Path) -> Stamp | None:
    """Tell one content of a file from another without reading it; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _names(certificate: Mapping[str, Sequence[tuple[str, str]]] | None) -> set[str]:
    """Return the names in a client's certificate."""
    return {same_name(value) for _, value in (certificate or {}).get("subjectAltName", ())}


def _answer(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{status.phrase}\n", headers=headers)
