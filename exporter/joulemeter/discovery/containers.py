"""What the containers of a pod tell of the servers in them. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joulemeter.server_config import MAX_PORT

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
PASS_ON: Final = ("gateway", "proxy", "router", "routing", "scheduler", "sidecar")
"""Words in the names of images that pass requests on, some of them /metrics too (llm-d/llm-d-routing-sidecar,
internal/proxy/proxy.go, 0eeb28b): their page is another server's, whose tokens would be counted twice."""
PORT: Final = re.compile("[0-9]{1,5}")
PORT_ARGUMENT: Final = re.compile(r"--port[ =]+([0-9]{1,5})\b")


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


def containers(pod: Mapping[str, Any]) -> Iterator[Container]:
    """Yield those that run as long as the pod does.

    Args:
        pod: a v1 Pod, as JSON.
    """
    for raw in _container_specs(mapping(pod, "spec")):
        words = [*items(raw, "command"), *items(raw, "args")]
        argued = PORT_ARGUMENT.search(" ".join(word for word in words if isinstance(word, str)))
        ports = [mapping(port).get("containerPort") for port in items(raw, "ports")]
        yield Container(
            name=str(raw.get("name", "")),
            declared_ports=tuple(port for port in ports if isinstance(port, int)),
            usual_port=usual_port(str(raw.get("image", ""))),
            argued_port=port_number(argued[1]) if argued else None,
            has_gpu=_has_gpu(mapping(raw, "resources")),
        )


def _container_specs(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the containers, and the native sidecars, which stand among the init containers."""
    yield from map(mapping, items(spec, "containers"))
    for raw in map(mapping, items(spec, "initContainers")):
        if raw.get("restartPolicy") == "Always":
            yield raw


def usual_port(image: str) -> int | None:
    """Return the port on which servers of an image listen by themselves; None if it is of no kind we know."""
    path = image.partition("@")[0].lower()
    registry, slash, rest = path.partition("/")
    if slash and ("." in registry or ":" in registry or registry == "localhost"):
        path = rest
    path = path.partition(":")[0]
    if any(word in path.rpartition("/")[2] for word in PASS_ON):
        return None
    return next((port for name, port in USUAL_PORTS.items() if name in path), None)


def _has_gpu(resources: Mapping[str, Any]) -> bool:
    """Say whether a container asks for a GPU: of NVIDIA's device plugin, or by a claim."""
    asked = [*mapping(resources, "limits"), *mapping(resources, "requests")]
    return bool(items(resources, "claims")) or any(str(name).startswith("nvidia.com/") for name in asked)


def mapping(raw: object, *keys: str) -> Mapping[str, Any]:
    """Return the mapping at a place, an empty one if there is none."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw if isinstance(raw, Mapping) else {}


def items(raw: object, key: str) -> Sequence[Any]:
    """Return the list at a key, an empty one if there is none."""
    found = raw.get(key) if isinstance(raw, Mapping) else None
    return found if isinstance(found, list) else ()


def port_number(text: str) -> int | None:
    """Read a port; None if it is none."""
    match = PORT.fullmatch(text.strip())
    return int(text) if match and 0 < int(text) <= MAX_PORT else None
