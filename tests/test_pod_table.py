"""Lists and events of pods, and the servers that are there after them."""

import json
from typing import Any

import pytest
from kubernetes_api import container, pod_json

from joulemeter.discovery.pod_table import Event, PodTable, read_event, read_list
from joulemeter.errors import DiscoveryError, ExpiredError

SERVES = {"joulemeter.io/scrape": "true", "joulemeter.io/port": "8000"}


def event(kind: str, told: Any) -> bytes:
    return json.dumps({"type": kind, "object": told}).encode()


def pod(name: str, **more: Any) -> dict[str, Any]:
    found = pod_json(name, **({"annotations": SERVES} | more))
    found["metadata"]["resourceVersion"] = "7"
    return found


def apply(table: PodTable, kind: str, told: Any) -> None:
    table.apply(read_event(event(kind, told)))


def test_pods_come_change_and_go():
    table = PodTable()
    table.replace([pod("a"), pod("b", annotations={})])
    assert (table.pods, table.servers.keys()) == (2, {"default/a:8000"})
    apply(table, "ADDED", pod("c", ip=""))
    assert table.servers.keys() == {"default/a:8000"}  # no address yet
    apply(table, "MODIFIED", pod("c", ip="10.0.0.3"))
    apply(table, "MODIFIED", pod("a", phase="Succeeded"))
    assert table.servers.keys() == {"default/c:8000"}
    apply(table, "DELETED", pod("c", ip="10.0.0.3"))
    assert (table.pods, table.servers) == (2, {})
    apply(table, "DELETED", pod("never-seen"))


def test_list_replaces_all_that_was_known():
    table = PodTable()
    table.replace([pod("a"), pod("b")])
    table.replace([pod("b"), pod("c")])
    assert table.servers.keys() == {"default/b:8000", "default/c:8000"}


def test_pod_of_the_same_name_is_another_server():
    table = PodTable()
    table.replace([pod("a", uid="one")])
    before = table.servers
    apply(table, "ADDED", pod("a", uid="two"))
    apply(table, "DELETED", pod("a", uid="one"))  # late, and of the other
    assert before.keys() == table.servers.keys()
    assert before != table.servers


def test_bookmark_and_kinds_to_come_change_nothing():
    table = PodTable()
    table.replace([pod("a")])
    said = {"metadata": {"resourceVersion": "9"}}
    for kind, pod_of in (("BOOKMARK", {}), ("RENAMED", said)):
        read = read_event(event(kind, said))
        assert read == Event(kind, pod_of, "9")
        table.apply(read)
    assert table.servers.keys() == {"default/a:8000"}


def test_problems_are_those_of_the_pods_there_are():
    table = PodTable()
    table.replace([pod("a", annotations=SERVES | {"joulemeter.io/dialect": "x"})])
    assert len(table.problems) == 1
    apply(table, "MODIFIED", pod("a"))
    assert table.problems == ()


def test_guesses_are_apart():
    table = PodTable()
    table.replace([pod_json("g", container(image="vllm/vllm-openai"))])
    assert (table.servers, table.guesses.keys()) == ({}, {"default/g:8000"})


def test_expired_version_is_told_apart_from_other_errors():
    with pytest.raises(ExpiredError, match="too old resource version"):
        read_event(event("ERROR", {"code": 410, "message": "too old resource version: 1 (2)"}))
    with pytest.raises(DiscoveryError, match="the watch ended: etcd is gone") as caught:
        read_event(event("ERROR", {"code": 500, "message": "etcd is gone"}))
    assert not isinstance(caught.value, ExpiredError)


@pytest.mark.parametrize("line", [b"<html>", b"[]", b"{}", b'{"type": "ADDED", "object": 1}', b"[" * 100_000])
def test_line_that_is_no_event_is_refused(line: bytes):
    with pytest.raises(DiscoveryError, match="is this address the API server's"):
        read_event(line)


def test_list_is_read_with_its_version():
    body = {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [pod("a")]}
    assert read_list(json.dumps(body).encode()) == ([pod("a")], "5")
    assert read_list(json.dumps(body | {"items": None}).encode()) == ([], "5")
    for bad in ({"kind": "Status"}, body | {"metadata": {}}):
        with pytest.raises(DiscoveryError, match="is this address the API server's"):
            read_list(json.dumps(bad).encode())
