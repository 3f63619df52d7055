"""A small real API server for one test: it lists and watches pods over HTTP, and misbehaves when told to."""

import copy
import json
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PodJson = dict[str, Any]
NODE = "node-a"


def container(name: str = "server", image: str = "acme/app:1", **more: Any) -> dict[str, Any]:
    """A container as the API has it: `ports`, `args`, `command`, `limits`, `claims`."""
    resources = {key: more.pop(key) for key in ("limits", "requests", "claims") if key in more}
    ports = [{"containerPort": port, "protocol": "TCP"} for port in more.pop("ports", ())]
    return {"name": name, "image": image, "ports": ports, "resources": resources, **more}


def pod_json(
    name: str,
    *containers: Mapping[str, Any],
    namespace: str = "default",
    uid: str = "",
    annotations: Mapping[str, str] | None = None,
    ip: str = "127.0.0.1",
    phase: str = "Running",
    node: str = NODE,
) -> PodJson:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": uid or f"uid-of-{namespace}-{name}",
            "annotations": dict(annotations or {}),
        },
        "spec": {"nodeName": node, "containers": list(containers) or [container()]},
        "status": {"phase": phase} | ({"podIP": ip} if ip else {}),
    }


@dataclass
class Asked:
    """A question as it came."""

    query: dict[str, str]
    headers: dict[str, str]

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "1"


@dataclass
class ApiPlayer:
    """Serves until the block ends. Change it while it runs.

    `status`: answer everything with it. `delay_seconds`: before each answer. `body`: send it instead of a list.
    """

    tls: ssl.SSLContext | None = None
    status: int = 200
    delay_seconds: float = 0.0
    body: bytes | None = None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._pods: dict[tuple[str, str], PodJson] = {}
        self._version = 1000
        self._oldest = 1000
        self._events: list[tuple[int, str, PodJson]] = []
        self._generation = 0
        self._over = False

    # ------------------------------------------------------------------------------------------ what happens

    def put(self, pod: PodJson) -> None:
        """Create or change a pod."""
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        with self._changed:
            self._tell("MODIFIED" if key in self._pods else "ADDED", copy.deepcopy(pod))
            self._pods[key] = self._events[-1][2]

    def delete(self, name: str, namespace: str = "default") -> None:
        with self._changed:
            self._tell("DELETED", copy.deepcopy(self._pods.pop((namespace, name))))

    def bookmark(self) -> None:
        with self._changed:
            self._tell("BOOKMARK", {"kind": "Pod", "metadata": {}, "spec": {"nodeName": NODE}})

    def say(self, kind: str, said: Mapping[str, Any]) -> None:
        """Send an event as it is."""
        with self._changed:
            self._version += 1
            self._events.append((self._version, kind, dict(said)))
            self._changed.notify_all()

    def expire(self) -> None:
        """Forget all versions before now: a watch that goes on from one of them is told 410."""
        with self._changed:
            self._version += 1
            self._oldest = self._version

    def drop(self) -> None:
        """Cut every watch off."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    @property
    def watches(self) -> list[Asked]:
        return [one for one in self.asked if one.is_watch]

    @property
    def lists(self) -> list[Asked]:
        return [one for one in self.asked if not one.is_watch]

    def _tell(self, kind: str, pod: PodJson) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, kind, pod))
        self._changed.notify_all()

    # ------------------------------------------------------------------------------------------ serving

    def __enter__(self) -> Self:
        player = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                player.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        asked = Asked(query, dict(request.headers))
        self.asked.append(asked)
        if self.delay_seconds:
            threading.Event().wait(self.delay_seconds)
        if url.path != "/api/v1/pods" or self.status != 200:
            _send(request, 404 if self.status == 200 else self.status, b'{"kind": "Status"}')
        elif asked.is_watch:
            self._watch(request, query)
        else:
            _send(request, 200, self.body or json.dumps(self._list(query)).encode())

    def _list(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        with self._changed:
            pods = [pod for pod in self._pods.values() if _selected(pod, query)]
            version = str(self._version)
        return {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": version},
            "items": pods,
        }

    def _watch(self, request: BaseHTTPRequestHandler, query: Mapping[str, str]) -> None:
        seen, generation = int(query["resourceVersion"]), self._generation
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        if seen < self._oldest:
            status = {"kind": "Status", "code": 410, "message": f"too old resource version: {seen}"}
            _chunk(request, [{"type": "ERROR", "object": status}])
            request.wfile.write(b"0\r\n\r\n")
            return
        while new := self._wait_for_events(seen, generation):
            events = [(kind, pod) for version, kind, pod in new if kind == "ERROR" or _selected(pod, query)]
            seen = max(version for version, _, _ in new)
            _chunk(request, [{"type": kind, "object": pod} for kind, pod in events])

        request.close_connection = True  # in the middle of the chunked body

    def _wait_for_events(self, seen: int, generation: int) -> list[tuple[int, str, PodJson]]:
        """Events after a version as soon as there are some; none once the watch is cut off."""

        def cut_off() -> bool:
            return self._over or generation != self._generation

        def new() -> list[tuple[int, str, PodJson]]:
            return [event for event in self._events if event[0] > seen]

        with self._changed:
            self._changed.wait_for(lambda: cut_off() or new(), timeout=30)
            return [] if cut_off() else new()


def _selected(pod: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    key, _, wanted = query.get("fieldSelector", "").partition("=")
    return key != "spec.nodeName" or pod.get("spec", {}).get("nodeName") == wanted


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _chunk(request: BaseHTTPRequestHandler, events: Sequence[Mapping[str, Any]]) -> None:
    """Write events in two parts, for nothing says that a read brings whole lines."""
    data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        if part:
            request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            request.wfile.flush()
