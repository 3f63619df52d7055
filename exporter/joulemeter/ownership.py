"""Which servers use which GPUs -> owner groups. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnerGroup:
    """Servers and GPUs (UUIDs) that belong together: all splitting happens inside one group."""

    servers: tuple[str, ...]
    gpus: tuple[str, ...]


def owner_groups(uses: Mapping[str, frozenset[str]]) -> tuple[OwnerGroup, ...]:
    """Connected components of servers and the GPUs they use; a server without GPUs is in none."""
    groups: list[tuple[set[str], set[str]]] = []
    for server in sorted(uses):
        if not uses[server]:
            continue
        servers, gpus = {server}, set(uses[server])
        apart = []
        for other_servers, other_gpus in groups:
            if other_gpus & gpus:
                servers |= other_servers
                gpus |= other_gpus
            else:
                apart.append((other_servers, other_gpus))
        groups = [*apart, (servers, gpus)]
    return tuple(
        sorted(
            (OwnerGroup(tuple(sorted(servers)), tuple(sorted(gpus))) for servers, gpus in groups),
            key=lambda group: group.servers,
        )
    )
