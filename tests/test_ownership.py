"""Owner groups: who shares GPUs with whom."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.ownership import OwnerGroup, owner_groups


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
