"""The pods of one node as events tell of them -> the servers that are there now. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from joulemeter.discovery.pods import Served, served, uid_of
from joulemeter.errors import DiscoveryError, ExpiredError
from joulemeter.server_config import ServerConfig
from joulemeter.settings import shown

CHANGES: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
BOOKMARK: Final = "BOOKMARK"
ERROR: Final = "ERROR"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch. A bookmark is only a version, without a pod: all before it has been told."""

    kind: str
    pod: Mapping[str, Any]
    version: str


def read_event(line: bytes) -> Event:
    """Read a line of a watch.

    Raises:
        ExpiredError: the version that the watch began at is too old; list anew.
        DiscoveryError: the API server reports another error, or this is no event.
    """
    raw = _json(line)
    kind, told = raw.get("type"), raw.get("object")
    if not isinstance(told, Mapping):
        raise DiscoveryError(f"not an event of a watch: {shown(raw)}; is this address the API server's?")
    if kind == ERROR:
        message = f"the watch ended: {told.get('message', 'no reason given')}"
        raise ExpiredError(message) if told.get("code") == HTTPStatus.GONE else DiscoveryError(message)
    return Event(str(kind), {} if kind == BOOKMARK else told, _version(told))


def read_list(body: bytes) -> tuple[list[Mapping[str, Any]], str]:
    """Read a list of pods and the version it is of. Raises DiscoveryError if this is none."""
    raw = _json(body)
    items = raw.get("items")
    if not isinstance(items, list):
        if raw.get("kind") == "PodList":
            items = []  # Go's nil slice is null
        else:
            raise DiscoveryError(f"not a list of pods: {shown(raw)}; is this address the API server's?")
    return items, _version(raw)


def _json(text: bytes) -> Mapping[str, Any]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DiscoveryError(f"not JSON: {text[:60]!r}; is this address the API server's?") from error
    if not isinstance(raw, Mapping):
        raise DiscoveryError(f"not an object: {text[:60]!r}; is this address the API server's?")
    return raw


def _version(raw: Mapping[str, Any]) -> str:
    metadata = raw.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    if not isinstance(version, str) or not version:
        raise DiscoveryError("an answer without metadata.resourceVersion; is this address the API server's?")
    return version


class PodTable:
    """What is served on the node."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}

    @property
    def pods(self) -> int:
        """How many there are, serving or not."""
        return len(self._served)

    @property
    def servers(self) -> dict[str, ServerConfig]:
        """By name, those that an annotation of ours names."""
        return {server.name: server for found in self._served.values() for server in found.servers}

    @property
    def guesses(self) -> dict[str, ServerConfig]:
        """By name, those that look like servers."""
        return {server.name: server for found in self._served.values() for server in found.guesses}

    @property
    def problems(self) -> tuple[str, ...]:
        """What cannot be used of what pods say."""
        return tuple(problem for found in self._served.values() for problem in found.problems)

    def replace(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """Take in a list: who is not in it is gone."""
        self._served = {}
        for pod in pods:
            self._put(pod)

    def apply(self, event: Event) -> None:
        """Take in an event; one of a kind we do not know says nothing."""
        if event.kind == "DELETED":
            self._served.pop(uid_of(event.pod), None)
        elif event.kind in CHANGES:
            self._put(event.pod)

    def _put(self, pod: Mapping[str, Any]) -> None:
        self._served[uid_of(pod)] = served(pod)
