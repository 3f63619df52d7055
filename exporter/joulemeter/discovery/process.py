"""Which GPUs a server on this host uses: listening socket, process, descendants, NVML's compute processes.

Reads /proc itself. psutil 7.2 would name one holder of a socket that several processes share
(_pslinux.py, process_inet), reads one /proc for the whole program, and costs 0.9 MiB where this costs 0.7.
Everything here blocks, for some 15 ms with eight servers and 0.2 ms more for each process on the node where all must
be searched: call it in a thread, and not often.
"""

import contextlib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from joulemeter.errors import DiscoveryError, NobodyListensError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PROC: Final = Path("/proc")
TCP_LISTEN: Final = "0A"
"""State 10 of include/net/tcp_states.h, in the hexadecimal of /proc/net/tcp."""
LOOPBACK: Final[Mapping[int, Address]] = {
    4: ipaddress.IPv4Address("127.0.0.1"),
    6: ipaddress.IPv6Address("::1"),
}
SOCKET_LINK: Final = re.compile(r"socket:\[([0-9]+)\]")
FORWARDERS: Final = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "pasta.avx2"})
"""Programs that listen for a container's published port; the server is not among their descendants."""
LAUNCHERS: Final = frozenset({"text-generation"})
"""Programs that start listener and GPU workers side by side: TGI's launcher (the kernel keeps 15 letters)."""
REMEDY: Final = "set `gpus: [...]` for this server (not in a configuration that several nodes share)"


class Look:
    """The proc file system while servers are looked for in it: what is slow to read is read once for all."""

    def __init__(self, proc: Path = PROC) -> None:
        self.proc = proc
        self._ancestry: dict[int, frozenset[int]] = {}
        self._sockets: dict[int, frozenset[int]] = {}

    @cached_property
    def listening(self) -> tuple[tuple[Address, int, int], ...]:
        """Address, port and inode of the sockets that listen; the kernel takes milliseconds for each table."""
        return tuple(found for table in ("tcp", "tcp6") for found in _listening(self.proc / "net" / table))

    def ancestry(self, pid: int) -> frozenset[int]:
        """Return a process, its parent and so on, up to one that has ended."""
        if pid not in self._ancestry:
            self._ancestry[pid] = frozenset(_ancestry(pid, self.proc))
        return self._ancestry[pid]

    def sockets(self, pid: int) -> frozenset[int]:
        """Return the inodes of a process's sockets."""
        if pid not in self._sockets:
            self._sockets[pid] = frozenset(_sockets(self.proc / str(pid)))
        return self._sockets[pid]

    def holders(self, inodes: frozenset[int], pids: Iterable[int]) -> frozenset[int]:
        """Return those of some processes that hold one of the sockets."""
        return frozenset(pid for pid in pids if not inodes.isdisjoint(self.sockets(pid)))


def gpus_of(
    port: int, host: str, compute_processes: Mapping[str, frozenset[int]], look: Look | None = None
) -> dict[str, frozenset[int]]:
    """Find the GPUs on which a server's processes compute.

    Who listens is looked for among the processes that compute and their ancestors, and only then among all: a
    node has thousands, and the search was the largest part of what the daemon cost.

    Args:
        port: where the server listens.
        host: its name or address; it must be this host's.
        compute_processes: NVML's compute processes by GPU uuid.
        look: shared by servers that are looked for together; by default a new one at this host.

    Returns:
        The server's pids by UUID of the GPU; empty while none of its processes uses one.

    Raises:
        DiscoveryError: the server runs elsewhere or out of sight; the message says how to go on.
    """
    look = look or Look()
    proc = look.proc
    everyone = frozenset[int]().union(*compute_processes.values())
    ancestry = {pid: look.ancestry(pid) for pid in everyone}
    servers = look.holders(_inodes(port, host, look), frozenset[int]().union(*ancestry.values()))
    if not servers:  # a listener that is no ancestor of any of them, or out of sight: search everybody
        servers = listeners(port, host, look)
        servers |= frozenset(parent for pid in servers for parent in _launcher(pid, proc))
    if everyone and not any((proc / str(pid)).exists() for pid in everyone):
        raise DiscoveryError(
            f"{host}:{port}: none of the processes that NVML names is visible here (such as {min(everyone)}):"
            f" run joulemeter in the host's process namespace (hostPID: true, --pid=host), or {REMEDY}"
        )
    users = frozenset(pid for pid in everyone if not servers.isdisjoint(ancestry[pid]))
    return {uuid: pids & users for uuid, pids in compute_processes.items() if pids & users}


def listeners(port: int, host: str, look: Look | None = None) -> frozenset[int]:
    """Return the processes that hold the TCP socket which answers at host:port.

    Usually one; several if a server's workers share the socket.

    Raises:
        DiscoveryError: the host is not this one, nobody listens, or whoever does is out of sight.
    """
    look = look or Look()
    proc = look.proc
    holders = look.holders(_inodes(port, host, look), _pids(proc))
    if not holders:
        raise DiscoveryError(
            f"{host}:{port}: the process that listens there is not visible: it belongs to another user or"
            " process namespace; run joulemeter as root, or with the capabilities DAC_READ_SEARCH and SYS_PTRACE, in"
            f" the host's process namespace (hostPID: true), or {REMEDY}"
        )
    for pid in sorted(holders):
        name = _name(pid, proc)
        if name in FORWARDERS:
            raise DiscoveryError(
                f"{host}:{port}: {name} (process {pid}) forwards this port into a container and hides the"
                f" server; run the server in the host's network, or {REMEDY}"
            )
    return holders


# ---------------------------------------------------------------------------------------------- addresses


def _local_addresses(host: str) -> frozenset[Address]:
    """Resolve a host to addresses of this one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DiscoveryError(f"{host}: cannot be resolved ({error}); correct the server's url") from error
    addresses = (ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found)
    local = frozenset(_reached(address) for address in addresses if _is_local(address))
    if not local:
        raise DiscoveryError(
            f"{host} is not an address of this host, so its processes cannot be seen from here; {REMEDY},"
            " or let the joulemeter of its own node observe it"
        )
    return local


def _reached(address: Address) -> Address:
    """Return where a connection goes: Linux takes 0.0.0.0 and :: for this host's loopback."""
    return LOOPBACK[address.version] if address.is_unspecified else address


def _is_local(address: Address) -> bool:
    """Say whether an address is ours: only these can be bound to (asking the kernel needs no privilege)."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IP versions
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _inodes(port: int, host: str, look: Look) -> frozenset[int]:
    """Return the sockets that answer at host:port. Raises NobodyListensError if there is none."""
    inodes = _listening_inodes(port, _local_addresses(host), look)
    if not inodes:
        raise NobodyListensError(
            f"{host}:{port}: no process of this network namespace listens there; start the server,"
            f" run joulemeter in the host's network (hostNetwork: true), or {REMEDY}"
        )
    return inodes


def _listening_inodes(port: int, addresses: frozenset[Address], look: Look) -> frozenset[int]:
    """Return the sockets that a connection to one of the addresses reaches.

    As in the kernel, a socket bound to the very address goes before one bound to all, and one of the same IP
    version before one that takes both.
    """
    versions = {address.version for address in addresses}
    ranked: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    for address, listening_port, inode in look.listening:
        if listening_port != port:
            continue
        if address in addresses:
            ranked[0].add(inode)
        elif address.is_unspecified:
            ranked[1 if address.version in versions else 2].add(inode)
    return frozenset(next(filter(None, ranked), ()))


def _listening(table: Path) -> Iterator[tuple[Address, int, int]]:
    """Yield address, port and inode of the sockets that listen (man 5 proc_pid_net_tcp)."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return
    for line in lines:
        _, local, _, state, *rest = line.split()
        if state == TCP_LISTEN:
            address, _, port = local.partition(":")
            yield _address(address), int(port, 16), int(rest[5])


def _address(written: str) -> Address:
    """Read an address written as 32-bit words in the machine's byte order."""
    words = [
        int(written[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(written), 8)
    ]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


# ---------------------------------------------------------------------------------------------- processes


def _pids(proc: Path) -> Iterator[int]:
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _sockets(process: Path) -> Iterator[int]:
    """Yield the inodes of a process's sockets; none if it has ended or is not ours to look into."""
    folder = f"{process}/fd"  # a Path per file takes longer than what is asked of it
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            match = SOCKET_LINK.fullmatch(os.readlink(f"{folder}/{name}"))  # noqa: PTH115
            if match:
                yield int(match[1])


def _ancestry(pid: int, proc: Path) -> Iterator[int]:
    """Yield a process, its parent and so on; nothing beyond one that has ended."""
    while pid > 0:
        yield pid
        pid = _parent(pid, proc)


def _parent(pid: int, proc: Path) -> int:
    """Return a process's parent, 0 if it has none or has ended."""
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # the name before it may hold blanks and parentheses


def _name(pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _launcher(pid: int, proc: Path) -> Iterator[int]:
    parent = _parent(pid, proc)
    if _name(parent, proc) in LAUNCHERS:
        yield parent
