"""Who shares GPUs with whom: connected components of servers and the GPUs they use."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnerGroup:
    """Servers and GPUs (uuids) among which energy is split; both sorted, neither empty."""

    servers: tuple[str, ...]
    gpus: tuple[str, ...]


def owner_groups(uses: Mapping[str, frozenset[str]]) -> tuple[OwnerGroup, ...]:
    """Group servers that share GPUs, directly or through others.

    Args:
        uses: the GPUs that each server uses; a server that uses none is in no group.

    Returns:
        Groups in the order of their first server; every used GPU, and every server that uses one, is in
        exactly one of them.
    """
    groups: list[tuple[frozenset[str], frozenset[str]]] = []
    for server in sorted(server for server, gpus in uses.items() if gpus):
        servers, gpus = frozenset({server}), uses[server]
        apart = []
        for group in groups:
            if group[1].isdisjoint(uses[server]):
                apart.append(group)
            else:
                servers, gpus = servers | group[0], gpus | group[1]
        groups = [*apart, (servers, gpus)]
    built = (OwnerGroup(tuple(sorted(servers)), tuple(sorted(gpus))) for servers, gpus in groups)
    return tuple(sorted(built, key=lambda group: group.servers))
