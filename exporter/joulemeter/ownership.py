"""Who shares GPUs with whom: connected components of servers and the GPUs they use."""

from collections import Counter
from collections.abc import Iterable, Mapping
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


def shared_gpus(uses: Iterable[frozenset[str]]) -> frozenset[str]:
    """Return the GPUs that more than one server uses."""
    users = Counter(uuid for gpus in uses for uuid in gpus)
    return frozenset(uuid for uuid, count in users.items() if count > 1)


def use_by_server(
    processes: Mapping[str, Mapping[str, frozenset[int]]], use: Mapping[str, Mapping[int, float]]
) -> dict[tuple[str, str], float]:
    """Add up what a server's processes use of each GPU.

    Args:
        processes: pids by GPU by server.
        use: share of a GPU used, 0 to 1, by pid by GPU; a pid that is not there used nothing, and of a GPU that is
            not there nothing is known.

    Returns:
        Shares, 0 to 1, by server and GPU. Several of a server's processes that ran at once count as often, up to 1.
        A GPU whose users are all strangers is left out: within a container, NVML's two lists may number the same
        processes differently, and a busy server would then seem idle.
    """
    shares: dict[tuple[str, str], float] = {}
    for uuid, by_pid in use.items():
        users = {server: pids[uuid] for server, pids in processes.items() if uuid in pids}
        if by_pid and by_pid.keys().isdisjoint(frozenset[int]().union(*users.values())):
            continue
        for server, pids in users.items():
            shares[server, uuid] = min(1.0, sum(by_pid.get(pid, 0.0) for pid in pids))
    return shares
