"""One inference server, watched over time: which dialect it speaks, how to ask it for less, who it is."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from joulemeter.dialects import Dialect, Identity, IdentityQuestion, by_name, read_page, recognise
from joulemeter.dialects.generic import generic
from joulemeter.errors import PageError, ServerUnreachableError
from joulemeter.model import Observation, PageReading, Role
from joulemeter.runtime.beside import Beside, Told
from joulemeter.runtime.http import Answer
from joulemeter.server_config import METRICS_PATH, ServerConfig

COST_SHARE: Final = 0.01
"""Of wall time, what a server may spend on answering us."""
MAX_INTERVAL_SECONDS: Final = 5.0
REMEMBERED_ANSWERS: Final = 60
MAX_NAME_CHARACTERS: Final = 256


class Pages(Protocol):
    """What a watch needs of a client; `PageClient` is one."""

    async def get(self, url: str, server: ServerConfig, *, query: Sequence[tuple[str, str]] = ()) -> Answer:
        """See `PageClient.get`."""


@dataclass(slots=True)
class _Process:
    """What was learned about one server process; forgotten when another may have taken its place."""

    dialect: Dialect
    start_time_seconds: float | None
    questions: tuple[IdentityQuestion, ...]
    """Those not answered yet."""
    beside: Beside
    observations: int = 0
    filter_works: bool | None = None
    """None until it was tried."""


class ServerWatch:
    """Observes one server, one call at a time.

    The first page of a process is read whole. If the server can render only the series that we need and what
    it then sends has all that the whole page had, it is asked that way until the process is replaced.

    Attributes:
        server: the server's configuration.
        dialect: the dialect of the last page that was understood; None before the first.
        version: what the server says its version is; None if it does not say.
        up: whether the last observation succeeded; None before the first.
        response_seconds: how long the last sixty answers took, newest last, all asked for in the same way.
    """

    def __init__(self, server: ServerConfig, client: Pages, *, base_interval_seconds: float = 1.0) -> None:
        self.server = server
        self.dialect: Dialect | None = None
        self.up: bool | None = None
        self.response_seconds: deque[float] = deque(maxlen=REMEMBERED_ANSWERS)
        self._client = client
        self._base_interval_seconds = base_interval_seconds
        self._configured = _configured_dialect(server)
        self._base = _base_path(server.url)
        self._given_model = server.model or _model_in_query(server.url)
        self._place = f"{server.name} ({urlsplit(server.url)._replace(query='').geturl()})"
        self._process: _Process | None = None
        self._identity = Identity()
        self._last_way = (False, False)
        self._refused = False

    @property
    def version(self) -> str | None:
        """See the class."""
        return self._identity.version

    def interval_seconds(self) -> float:
        """Return how long to wait from observation to observation, so that answering us costs at most 1 %.

        The cost is the lowest of the remembered response times: the others waited behind an engine step,
        which is not our doing. What a page cost that we refuse is not known (it may have been 100 MB), and it
        seldom mends itself within a second.
        """
        if self._refused:
            return MAX_INTERVAL_SECONDS
        cost_seconds = min(self.response_seconds, default=0.0)
        return min(max(cost_seconds / COST_SHARE, self._base_interval_seconds), MAX_INTERVAL_SECONDS)

    async def observe(self) -> Observation:
        """Ask for the page and read it.

        Raises:
            PageError: the answer is refused; the message names the server.
            ServerUnreachableError: there was none.
        """
        try:
            answer, page = await self._observe()
        except (PageError, ServerUnreachableError) as error:
            self.up, self._refused = False, isinstance(error, PageError)
            self._process = None
            raise
        self.up, self._refused = True, False
        return Observation(self.server.name, answer.at_seconds, self._with_model(page))

    async def _observe(self) -> tuple[Answer, PageReading]:
        process = self._process
        filtered = process is not None and process.filter_works is True
        answer = await (self._ask_filtered(process.dialect) if process and filtered else self._ask_whole())
        try:
            dialect = process.dialect if process else self._configured or recognise(answer.body)
            page = read_page(answer.body, dialect)
        except PageError as error:
            raise PageError(error.reason, f"{self._place}: {error}") from error
        beside = await self._ask_beside(process)
        seconds = answer.duration_seconds + (beside.duration_seconds if beside else 0.0)
        self._remember(seconds, filtered=filtered, beside=beside is not None)
        if process is None or process.start_time_seconds != page.start_time_seconds:
            questions = _worth_asking(dialect, page, self._given_model)
            process = self._process = _Process(
                dialect, page.start_time_seconds, questions, Beside(dialect.side_page)
            )
            self.dialect = dialect
        if process.filter_works is None and not filtered:
            await asyncio.gather(self._try_filter(process, answer, page), self._identify(process))
        else:
            await self._identify(process)
        return answer, replace(page, readings=(*page.readings, *(beside.readings if beside else ())))

    async def _ask_whole(self) -> Answer:
        return await self._client.get(self.server.url, self.server)

    async def _ask_filtered(self, dialect: Dialect) -> Answer:
        query = [("name[]", name) for name in dialect.filter_names]
        return await self._client.get(self._url(dialect.filter_path or ""), self.server, query=query)

    async def _ask_beside(self, process: _Process | None) -> Told | None:
        """Return what the side page tells, once the server's dialect is known."""
        if process is None or self._base is None:
            return None
        return await process.beside.ask(lambda path: self._client.get(self._url(path), self.server))

    async def _try_filter(self, process: _Process, whole: Answer, page: PageReading) -> None:
        """Find out whether the filtered page says the same in less than half the bytes.

        vLLM's /metrics/ does, but not with several API servers: from a multiprocess registry
        prometheus_client answers `name[]` with nothing.
        """
        process.filter_works = False
        if process.dialect.filter_path is None or self._base is None:
            return
        with contextlib.suppress(PageError, ServerUnreachableError):
            answer = await self._ask_filtered(process.dialect)
            part = read_page(answer.body, process.dialect)
            process.filter_works = (
                _series(part) >= _series(page)  # more: a series may have appeared between the two
                and part.start_time_seconds == page.start_time_seconds
                and len(answer.body) < len(whole.body) / 2
            )

    async def _identify(self, process: _Process) -> None:
        """Ask who the server is, at first and then, of what went unanswered, ever more rarely.

        What was known before stays until there is an answer: a label that comes and goes splits its series.
        """
        process.observations += 1
        is_power_of_two = process.observations & (process.observations - 1) == 0
        if not is_power_of_two or self._base is None:
            return
        answers = await asyncio.gather(*(self._ask(question) for question in process.questions))
        left = []
        for question, answer in zip(process.questions, answers, strict=True):
            if answer is None:
                left.append(question)
                continue
            if question.model_at:
                self._identity = replace(self._identity, model=_text_at(answer, question.model_at))
            if question.version_at:
                self._identity = replace(self._identity, version=_text_at(answer, question.version_at))
        process.questions = tuple(left)

    async def _ask(self, question: IdentityQuestion) -> str | None:
        """Return the answer's text, "" if the server refuses, None if it gave none this time."""
        try:
            return (await self._client.get(self._url(question.path), self.server)).body
        except PageError:
            return ""
        except ServerUnreachableError:
            return None

    def _remember(self, seconds: float, *, filtered: bool, beside: bool) -> None:
        if self._last_way != (filtered, beside):
            self.response_seconds.clear()
        self._last_way = (filtered, beside)
        self.response_seconds.append(seconds)

    def _with_model(self, page: PageReading) -> PageReading:
        """Name the model in readings that do not."""
        model = self._given_model or self._identity.model or self.server.name
        named = (reading if reading.model else replace(reading, model=model) for reading in page.readings)
        return replace(page, readings=tuple(named))

    def _url(self, path: str) -> str:
        """Return another URL of the same server; the query stays, for it may select the model."""
        return urlsplit(self.server.url)._replace(path=f"{self._base or ''}{path}").geturl()


def _configured_dialect(server: ServerConfig) -> Dialect | None:
    if server.metrics is not None:
        return generic(server.metrics)
    return None if server.dialect == "auto" else by_name(server.dialect)


def _base_path(url: str) -> str | None:
    """Return what precedes /metrics in a URL's path; None if we cannot know where else to ask."""
    path = urlsplit(url).path.rstrip("/")
    return path.removesuffix(METRICS_PATH) if path.endswith(METRICS_PATH) else None


def _model_in_query(url: str) -> str | None:
    """Return the model that a llama.cpp router is asked about: its page names none, /v1/models lists all."""
    return next(iter(parse_qs(urlsplit(url).query).get("model", [])), None)


def _worth_asking(
    dialect: Dialect, page: PageReading, given_model: str | None
) -> tuple[IdentityQuestion, ...]:
    """Leave out questions about a name that the page or the configuration gives."""
    nameless = given_model is None and any(not reading.model for reading in page.readings)
    return tuple(one for one in dialect.questions if one.version_at or (one.model_at and nameless))


def _series(page: PageReading) -> frozenset[tuple[Role, str, str]]:
    return frozenset((reading.role, reading.model, reading.series) for reading in page.readings)


def _text_at(body: str | None, path: Sequence[str | int]) -> str | None:
    """Return the text at a place of a JSON answer, None if there is no usable one.

    JSON can spell half a surrogate pair, which no metrics page can hold: only printable text is usable.
    """
    try:
        found = json.loads(body or "")
        for step in path:
            found = found[step]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if not isinstance(found, str) or not found.isprintable():
        return None
    return found if 0 < len(found) <= MAX_NAME_CHARACTERS else None
