"""A pod as the API server describes it -> the inference servers in it. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from joulemeter.errors import DiscoveryError
from joulemeter.model import Pod
from joulemeter.server_config import DIALECTS, MAX_PORT, METRICS_PATH, ServerConfig, page_url
from joulemeter.settings import shown, suggestion

OURS: Final = "joulemeter.io/"
PROMETHEUS: Final = "prometheus.io/"
ANNOTATIONS: Final = ("scrape", "port", "path", "scheme", "dialect", "model")
"""What follows `joulemeter.io/`."""
DIALECTS_BY_NAME: Final = tuple(dialect for dialect in DIALECTS if dialect != "generic")
"""A generic server needs names, which take a configuration."""
USUAL_PORTS: Final = {
    "aphrodite": 2242,
    "llama-cpp": 8080,
    "llama.cpp": 8080,
    "llm-d": 8000,
    "sglang": 30000,
    "text-generation-inference": 80,
    "vllm": 8000,
}
"""Ports of the servers we know by what is in the path of their image: vllm/vllm-openai, lmsysorg/sglang, ..."""
PORT: Final = re.compile("[0-9]{1,5}")
PORT_ARGUMENT: Final = re.compile(r"--port[ =]+([0-9]{1,5})\b")
MAX_MODEL_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Served:
    """The servers of one pod.

    `servers` are there because an annotation of ours says so. `guesses` look like servers, and are asked whether
    they are. `problems` say which annotation cannot be used, and what it may hold.
    """

    servers: tuple[ServerConfig, ...] = ()
    guesses: tuple[ServerConfig, ...] = ()
    problems: tuple[str, ...] = ()


NOTHING: Final = Served()


def uid_of(pod: Mapping[str, Any]) -> str:
    """Return what tells a pod from all others. Raises DiscoveryError if this is no pod."""
    return _identity(pod).uid


def served(pod: Mapping[str, Any]) -> Served:
    """Find the servers of a pod; none before it has an address, and none once it has ended.

    Args:
        pod: a v1 Pod, as JSON.

    Raises:
        DiscoveryError: this is no pod.
    """
    identity = _identity(pod)
    status = _mapping(pod, "status")
    annotations = {str(key): str(value) for key, value in _mapping(pod, "metadata", "annotations").items()}
    host = status.get("podIP")
    if status.get("phase") != "Running" or not isinstance(host, str) or not host:
        return NOTHING
    view = _View(identity, host, annotations, tuple(_containers(pod)))
    asked = annotations.get(f"{OURS}scrape")
    if asked not in {None, "true", "false"}:
        view.problem(f"{OURS}scrape", f"expected 'true' or 'false', got {shown(asked)}")
    view.check_names()
    if asked == "true":
        return Served(servers=tuple(view.annotated(OURS)), problems=tuple(view.problems))
    guesses = [] if asked == "false" else list(view.guesses())
    return Served(guesses=tuple(guesses), problems=tuple(view.problems))


# ---------------------------------------------------------------------------------------------- containers


@dataclass(frozen=True, slots=True)
class Container:
    """What a container tells of a server in it."""

    name: str
    declared_ports: tuple[int, ...]
    usual_port: int | None
    argued_port: int | None
    has_gpu: bool

    @property
    def port(self) -> int | None:
        """The port of its server: told on its command line, or declared, or usual for its image."""
        if self.argued_port is not None:
            return self.argued_port
        return self.declared_ports[0] if len(self.declared_ports) == 1 else self.usual_port


def _containers(pod: Mapping[str, Any]) -> Iterator[Container]:
    for raw in map(_mapping, _items(_mapping(pod, "spec"), "containers")):
        words = [*_items(raw, "command"), *_items(raw, "args")]
        argued = PORT_ARGUMENT.search(" ".join(word for word in words if isinstance(word, str)))
        ports = [_mapping(port).get("containerPort") for port in _items(raw, "ports")]
        yield Container(
            name=str(raw.get("name", "")),
            declared_ports=tuple(port for port in ports if isinstance(port, int)),
            usual_port=usual_port(str(raw.get("image", ""))),
            argued_port=_port(argued[1]) if argued else None,
            has_gpu=_has_gpu(_mapping(raw, "resources")),
        )


def usual_port(image: str) -> int | None:
    """Return the port on which servers of an image listen by themselves; None if it is of no kind we know."""
    path = image.partition("@")[0].lower()
    registry, slash, rest = path.partition("/")
    if slash and ("." in registry or ":" in registry or registry == "localhost"):
        path = rest
    return next((port for name, port in USUAL_PORTS.items() if name in path.partition(":")[0]), None)


def _has_gpu(resources: Mapping[str, Any]) -> bool:
    """Say whether a container asks for a GPU: of NVIDIA's device plugin, or by a claim."""
    asked = [*_mapping(resources, "limits"), *_mapping(resources, "requests")]
    return bool(_items(resources, "claims")) or any(str(name).startswith("nvidia.com/") for name in asked)


# ---------------------------------------------------------------------------------------------- one pod


@dataclass(frozen=True, slots=True)
class _View:
    """A running pod while its servers are looked for."""

    pod: Pod
    host: str
    annotations: Mapping[str, str]
    containers: Sequence[Container]
    problems: list[str] = field(default_factory=list)

    def problem(self, annotation: str, message: str) -> None:
        """Note what is wrong with an annotation."""
        self.problems.append(f"pod {self.pod.namespace}/{self.pod.name}: annotation {annotation}: {message}")

    def check_names(self) -> None:
        """An annotation of ours that we do not know is a typo."""
        for key in self.annotations:
            name = key.removeprefix(OURS)
            if key.startswith(OURS) and name not in ANNOTATIONS:
                self.problem(key, f"unknown; {suggestion(name, ANNOTATIONS)}")

    def guesses(self) -> Iterator[ServerConfig]:
        """Yield what looks like a server; each port once."""
        candidates: list[ServerConfig] = []
        is_likely = any(one.has_gpu or one.usual_port is not None for one in self.containers)
        if is_likely and self.annotations.get(f"{PROMETHEUS}scrape") == "true":
            candidates += self.annotated(PROMETHEUS)
        for container in self.containers:
            if container.usual_port is not None and container.port is not None:
                candidates += self._server(container.port, METRICS_PATH, "http", container.name)
        seen: set[str] = set()
        for candidate in candidates:
            if candidate.name not in seen:
                seen.add(candidate.name)
                yield candidate

    def annotated(self, prefix: str) -> Iterator[ServerConfig]:
        """Yield the server that annotations with this prefix describe, if they can be used."""
        written = self.annotations.get(f"{prefix}port")
        port = self._only_port() if written is None else _port(written)
        if port is None:
            expected = "no container of a known server tells its port; give it"
            if written is not None:
                expected = f"expected a port from 1 to {MAX_PORT}, got {shown(written)}"
            self.problem(f"{prefix}port", expected)
            return
        declaring = [one.name for one in self.containers if port in one.declared_ports]
        serving = [one.name for one in self.containers if one.port == port]
        path = self.annotations.get(f"{prefix}path", METRICS_PATH)
        scheme = self.annotations.get(f"{prefix}scheme", "http")
        container = next(iter([*declaring, *serving]), None)
        yield from self._server(port, path, scheme, container, prefix)

    def _only_port(self) -> int | None:
        ports = {one.port for one in self.containers if one.port is not None}
        known = {one.port for one in self.containers if one.usual_port is not None}
        (port,) = known or ports if len(known or ports) == 1 else (None,)
        return port

    def _server(
        self, port: int, path: str, scheme: str, container: str | None, prefix: str = ""
    ) -> Iterator[ServerConfig]:
        host = f"[{self.host}]" if ":" in self.host else self.host
        if scheme not in {"http", "https"}:
            self.problem(f"{prefix}scheme", f"expected 'http' or 'https', got {shown(scheme)}")
            return
        try:
            url, _ = page_url(f"{scheme}://{host}:{port}/{path.removeprefix('/')}")
        except ValueError as error:
            self.problem(f"{prefix}path", str(error))
            return
        yield ServerConfig(
            url=url,
            name=f"{self.pod.namespace}/{self.pod.name}:{port}",
            dialect=self._dialect(),
            model=self._model(),
            pod=self.pod,
            container=container,
        )

    def _dialect(self) -> str:
        dialect = self.annotations.get(f"{OURS}dialect", "auto")
        if dialect not in DIALECTS_BY_NAME:
            problem = f"unknown value {shown(dialect)}; {suggestion(dialect, DIALECTS_BY_NAME)}"
            self.problem(f"{OURS}dialect", problem)
            return "auto"
        return dialect

    def _model(self) -> str | None:
        model = self.annotations.get(f"{OURS}model")
        if model is None:
            return None
        if not model.isprintable() or not 0 < len(model.strip()) <= MAX_MODEL_CHARACTERS:
            self.problem(f"{OURS}model", f"expected printable text, got {shown(model)}")
            return None
        return model.strip()


# ---------------------------------------------------------------------------------------------- JSON


def _identity(pod: Mapping[str, Any]) -> Pod:
    metadata = _mapping(pod, "metadata")
    found = [metadata.get(key) for key in ("namespace", "name", "uid")]
    if not all(isinstance(one, str) and one for one in found):
        raise DiscoveryError(f"not a pod: {shown(pod)}; is this address the API server's?")
    return Pod(*map(str, found))


def _mapping(raw: object, *keys: str) -> Mapping[str, Any]:
    """Return the mapping at a place, an empty one if there is none."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}


def _items(raw: object, key: str) -> Sequence[Any]:
    """Return the list at a key, an empty one if there is none."""
    found = raw.get(key) if isinstance(raw, Mapping) else None
    return found if isinstance(found, list) else ()


def _port(text: str) -> int | None:
    """Read a port; None if it is none."""
    match = PORT.fullmatch(text.strip())
    return int(text) if match and 0 < int(text) <= MAX_PORT else None
