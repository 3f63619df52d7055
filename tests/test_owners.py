"""Which GPUs a server uses: named in the configuration, or found behind its port."""

import logging
import time
from collections.abc import Mapping

import pytest
from fake_meter import FakeMeter
from nodes import gpu

from joulemeter.errors import DiscoveryError
from joulemeter.runtime.owners import OwnerFinder
from joulemeter.server_config import ServerConfig

URL = "http://127.0.0.1:8000/metrics"


class Node:
    """Three GPUs, and what a look behind each port finds."""

    def __init__(self, *servers: ServerConfig) -> None:
        self.meter = FakeMeter(time.monotonic, known={f"GPU-{index}": gpu(index) for index in range(3)})
        self.meter.processes = {f"GPU-{index}": frozenset({100 + index}) for index in range(3)}
        self.behind: dict[int, frozenset[str] | DiscoveryError] = {}
        self.asked: list[tuple[int, str]] = []
        self.finder = OwnerFinder(lambda: servers, self.meter, gpus_of=self._gpus_of)

    def _gpus_of(
        self, port: int, host: str, processes: Mapping[str, frozenset[int]]
    ) -> Mapping[str, frozenset[int]]:
        self.asked.append((port, host))
        found = self.behind[port]
        if isinstance(found, DiscoveryError):
            raise found
        return {uuid: processes[uuid] for uuid in found & processes.keys()}  # a lost GPU lists none


@pytest.mark.parametrize(
    ("configured", "found"),
    [((0, 2), {"GPU-0", "GPU-2"}), (("GPU-1",), {"GPU-1"}), ((1, "GPU-2"), {"GPU-1", "GPU-2"})],
)
def test_configured_gpus_are_taken_by_index_and_by_uuid(configured: tuple[int | str, ...], found: set[str]):
    node = Node(ServerConfig(URL, "chat", gpus=configured))
    assert node.finder.find() == {"chat": found}
    assert node.asked == []


@pytest.mark.parametrize("missing", [7, "GPU-7"])
def test_gpu_that_the_node_does_not_have_is_named_with_those_it_has(missing: int | str, caplog):
    node = Node(ServerConfig(URL, "chat", gpus=(0, missing)), ServerConfig(URL, "code", gpus=(1,)))
    assert node.finder.find() == {"chat": None, "code": {"GPU-1"}}
    message = f"server chat: gpus: {missing} not found; this node has 0 (GPU-0), 1 (GPU-1), 2 (GPU-2)"
    assert node.finder.problems == {"chat": message}
    node.finder.find()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [f"server chat: its GPUs are not known: {message}"]


def test_gpu_that_comes_later_ends_the_problem(caplog):
    caplog.set_level(logging.INFO)
    node = Node(ServerConfig(URL, "chat", gpus=(1, 7)))
    node.finder.find()
    node.meter.known["GPU-7"] = gpu(7)
    assert node.finder.find() == {"chat": {"GPU-1", "GPU-7"}}
    assert node.finder.problems == {}
    assert [record.getMessage() for record in caplog.records][1:] == ["server chat: uses GPU 1, 7"]


def test_nothing_is_said_before_the_first_gpu(caplog):
    node = Node(ServerConfig(URL, "chat", gpus=(0,)))
    node.meter.known.clear()
    assert node.finder.find() == {}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (URL, (8000, "127.0.0.1")),
        ("http://[::1]:9000/metrics", (9000, "::1")),
        ("http://localhost/metrics", (80, "localhost")),
        ("https://gpu-node/metrics", (443, "gpu-node")),
    ],
)
def test_gpus_are_looked_for_behind_the_servers_own_port(url: str, asked: tuple[int, str]):
    node = Node(ServerConfig(url, "chat"))
    node.behind[asked[0]] = frozenset({"GPU-1"})
    assert node.finder.find() == {"chat": {"GPU-1"}}
    assert node.asked == [asked]


def test_lost_gpu_keeps_its_owner_and_any_other_can_be_given_up():
    node = Node(ServerConfig(URL, "chat"))
    node.behind[8000] = frozenset({"GPU-0", "GPU-1"})
    assert node.finder.find() == {"chat": {"GPU-0", "GPU-1"}}
    del node.meter.processes["GPU-1"]  # lost: it lists nothing
    assert node.finder.find() == {"chat": {"GPU-0", "GPU-1"}}
    node.meter.processes["GPU-1"] = frozenset({101})
    node.behind[8000] = frozenset({"GPU-0"})  # the server was started again, on one GPU
    assert node.finder.find() == {"chat": {"GPU-0"}}


def test_processes_are_told_of_servers_that_were_looked_for():
    servers = (ServerConfig(URL, "chat"), ServerConfig("http://127.0.0.1:8001/metrics", "code", gpus=(1,)))
    node = Node(*servers)
    node.behind[8000] = frozenset({"GPU-0", "GPU-1"})
    node.finder.find()
    assert node.finder.processes == {"chat": {"GPU-0": {100}, "GPU-1": {101}}}
    del node.meter.processes["GPU-1"]
    node.finder.find()
    assert node.finder.processes == {"chat": {"GPU-0": {100}}}
    node.behind[8000] = DiscoveryError("127.0.0.1:8000: nobody listens")
    node.finder.find()
    assert node.finder.processes == {}


def test_server_whose_only_gpu_is_lost_keeps_it():
    node = Node(ServerConfig(URL, "chat"))
    node.behind[8000] = frozenset({"GPU-0"})
    node.finder.find()
    node.meter.processes.clear()
    assert node.finder.find() == {"chat": {"GPU-0"}}


@pytest.mark.parametrize(
    ("behind", "message"),
    [
        (
            frozenset[str](),
            "server chat: the process on port 8000 and its children use no GPU that NVML lists: run",
        ),
        (DiscoveryError("127.0.0.1:8000: nobody listens"), "127.0.0.1:8000: nobody listens"),
    ],
)
def test_server_whose_gpus_cannot_be_found_is_told_once_a_change(
    behind: frozenset[str] | DiscoveryError, message: str, caplog
):
    caplog.set_level(logging.INFO)
    node = Node(ServerConfig(URL, "chat"))
    for found in (behind, behind, frozenset({"GPU-2"}), behind):
        node.behind[8000] = found
        answer = node.finder.find()["chat"]
        assert answer == (found if found and not isinstance(found, DiscoveryError) else None)
    assert node.finder.problems["chat"].startswith(message)
    first, second, third = [record.getMessage() for record in caplog.records]
    assert first == third
    assert first.startswith(f"server chat: its GPUs are not known: {message}")
    assert second == "server chat: uses GPU 2"
