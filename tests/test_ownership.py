"""Owner groups: who shares GPUs with whom."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.ownership import OwnerGroup, owner_groups, shared_gpus, use_by_server


def sets(**uses: str) -> Mapping[str, frozenset[str]]:
    return {server: frozenset(gpus) for server, gpus in uses.items()}


@pytest.mark.parametrize(
    ("uses", "groups"),
    [
        (sets(), ()),
        (sets(a=""), ()),
        (sets(a="21"), (OwnerGroup(("a",), ("1", "2")),)),
        (sets(b="1", a="1"), (OwnerGroup(("a", "b"), ("1",)),)),
        (sets(b="1", a="2"), (OwnerGroup(("a",), ("2",)), OwnerGroup(("b",), ("1",)))),
        # c joins what were two groups
        (
            sets(a="1", b="2", c="12", d="3"),
            (OwnerGroup(("a", "b", "c"), ("1", "2")), OwnerGroup(("d",), ("3",))),
        ),
    ],
)
def test_groups(uses: Mapping[str, frozenset[str]], groups: tuple[OwnerGroup, ...]):
    assert owner_groups(uses) == groups


uses_of_few = st.dictionaries(
    st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("12345678"), max_size=3)
)


@given(uses_of_few)
def test_groups_partition_servers_and_gpus(uses: Mapping[str, frozenset[str]]):
    groups = owner_groups(uses)
    servers = [server for group in groups for server in group.servers]
    gpus = [gpu for group in groups for gpu in group.gpus]
    assert sorted(servers) == sorted(server for server, used in uses.items() if used)
    assert sorted(gpus) == sorted(frozenset[str]().union(*uses.values()))
    for group in groups:
        assert all(uses[server] <= set(group.gpus) for server in group.servers)


@given(uses_of_few)
def test_groups_cannot_be_cut_further(uses: Mapping[str, frozenset[str]]):
    for group in owner_groups(uses):
        reached = set(uses[group.servers[0]])
        for _ in group.servers:
            reached |= {gpu for server in group.servers if uses[server] & reached for gpu in uses[server]}
        assert reached == set(group.gpus)


@given(uses_of_few, st.randoms())
def test_order_of_the_servers_does_not_matter(uses: Mapping[str, frozenset[str]], random):
    items = list(uses.items())
    random.shuffle(items)
    assert owner_groups(dict(items)) == owner_groups(uses)


def test_gpus_are_shared_by_servers_that_use_them():
    assert shared_gpus(sets(a="12", b="23", c="3", d="4", e="").values()) == {"2", "3"}
    assert shared_gpus([]) == frozenset()


CHAT, CODE, OTHER = frozenset({10, 11}), frozenset({20}), 99
PROCESSES = {"chat": {"1": CHAT, "2": CHAT}, "code": {"1": CODE}}


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ({}, {}),
        ({"1": {10: 0.25, 11: 0.25, 20: 0.125}}, {("chat", "1"): 0.5, ("code", "1"): 0.125}),
        ({"1": {20: 0.5, OTHER: 0.25}}, {("chat", "1"): 0.0, ("code", "1"): 0.5}),
        ({"1": {10: 0.75, 11: 0.75}}, {("chat", "1"): 1.0, ("code", "1"): 0.0}),
        ({"1": {}}, {("chat", "1"): 0.0, ("code", "1"): 0.0}),  # nobody used it
        ({"1": {OTHER: 0.5}}, {}),  # or these are the servers, numbered as outside of the container
        ({"3": {10: 0.5}}, {}),
    ],
)
def test_use_is_added_up_by_server(use: dict[str, dict[int, float]], told: dict[tuple[str, str], float]):
    assert use_by_server(PROCESSES, use) == told
