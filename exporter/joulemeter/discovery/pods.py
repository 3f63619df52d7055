"""A pod as the API server describes it -> the inference servers in it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from joulemeter.discovery.containers import Container, containers, mapping, port_number
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
    status = mapping(pod, "status")
    annotations = {str(key): str(value) for key, value in mapping(pod, "metadata", "annotations").items()}
    host = status.get("podIP")
    if status.get("phase") != "Running" or not isinstance(host, str) or not host:
        return NOTHING
    view = _View(identity, host, annotations, tuple(containers(pod)))
    asked = annotations.get(f"{OURS}scrape")
    if asked not in {None, "true", "false"}:
        view.problem(f"{OURS}scrape", f"expected 'true' or 'false', got {shown(asked)}")
    view.check_names()
    if asked == "true":
        return Served(servers=tuple(view.annotated(OURS)), problems=tuple(view.problems))
    guesses = [] if asked == "false" else list(view.guesses())
    return Served(guesses=tuple(guesses), problems=tuple(view.problems))


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
        """Note what is wrong with an annotation, once for all servers that it describes."""
        text = f"pod {self.pod.namespace}/{self.pod.name}: annotation {annotation}: {message}"
        if text not in self.problems:
            self.problems.append(text)

    def check_names(self) -> None:
        """An annotation of ours that we do not know is a typo."""
        for key in self.annotations:
            name = key.removeprefix(OURS)
            if key.startswith(OURS) and name not in ANNOTATIONS:
                self.problem(key, f"unknown; {suggestion(name, ANNOTATIONS)}")

    def guesses(self) -> Iterator[ServerConfig]:
        """Yield what looks like a server: each port once, and each container of a known image once.

        Beside such a container, annotations for Prometheus count only where they are about it. A sidecar's page may
        repeat the server's series (Istio 1.23, metrics merging: port 15020), and all tokens would be counted twice.
        """
        known = [one for one in self.containers if one.usual_port is not None]
        names = {one.name for one in known}
        candidates: list[ServerConfig] = []
        is_likely = bool(known) or any(one.has_gpu for one in self.containers)
        if is_likely and self.annotations.get(f"{PROMETHEUS}scrape") == "true":
            found = self.annotated(PROMETHEUS)
            candidates += [one for one in found if not known or one.container in names]
        annotated = {one.container for one in candidates}
        for container in known:
            if container.port is not None and container.name not in annotated:
                candidates += self._server(container.port, METRICS_PATH, "http", container.name)
        seen: set[str] = set()
        for candidate in candidates:
            if candidate.name not in seen:
                seen.add(candidate.name)
                yield candidate

    def annotated(self, prefix: str) -> Iterator[ServerConfig]:
        """Yield the servers that annotations with this prefix describe, if they can be used."""
        path = self.annotations.get(f"{prefix}path", METRICS_PATH)
        scheme = self.annotations.get(f"{prefix}scheme", "http")
        for port in self._annotated_ports(prefix):
            yield from self._server(port, path, scheme, self._container_at(port), prefix)

    def _annotated_ports(self, prefix: str) -> Iterator[int]:
        """Yield each port once; ours may name several, for several servers in one pod."""
        written = self.annotations.get(f"{prefix}port")
        if written is None:
            port = self._only_port()
            if port is None:
                self.problem(f"{prefix}port", "no container of a known server tells its port; give it")
            else:
                yield port
            return
        parts = written.split(",") if prefix == OURS else [written]
        ports = {part: port_number(part) for part in parts}
        for part, port in ports.items():
            if port is None:
                self.problem(f"{prefix}port", f"expected a port from 1 to {MAX_PORT}, got {shown(part)}")
        yield from dict.fromkeys(port for port in ports.values() if port is not None)

    def _container_at(self, port: int) -> str | None:
        """Return the container that a port belongs to: one that declares it, or serves there, or is the only one."""
        declaring = [one for one in self.containers if port in one.declared_ports]
        serving = [one for one in self.containers if one.port == port]
        found = [*declaring, *serving] or (self.containers if len(self.containers) == 1 else ())
        known = [one for one in found if one.usual_port is not None]
        return next((one.name for one in [*known, *found]), None)

    def _only_port(self) -> int | None:
        """Return the port of the only container that may be meant: of a known image, else with a GPU, else any."""
        ports = {one.port for one in self.containers if one.port is not None}
        with_gpu = {one.port for one in self.containers if one.port is not None and one.has_gpu}
        known = {one.port for one in self.containers if one.usual_port is not None}
        (port,) = found if len(found := known or with_gpu or ports) == 1 else (None,)
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


def _identity(pod: Mapping[str, Any]) -> Pod:
    metadata = mapping(pod, "metadata")
    found = [metadata.get(key) for key in ("namespace", "name", "uid")]
    if not all(isinstance(one, str) and one for one in found):
        raise DiscoveryError(f"not a pod: {shown(pod)}; is this address the API server's?")
    return Pod(*map(str, found))
