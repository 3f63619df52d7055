"""Which GPUs a server on this host uses: listening socket, process, descendants, NVML's compute processes.

Reads /proc itself. psutil 7.2 would name one holder of a socket that several processes share
(_pslinux.py, process_inet), reads one /proc for the whole program, and costs 0.9 MiB where this costs 0.7.
Everything here blocks, about 0.2 ms for each process on the node: call it in a thread, and not often.
"""

import ipaddress
import re
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
REMEDY: Final = "set `gpus: [...]` for this server"


def gpus_of(
    port: int, host: str, compute_processes: Mapping[str, frozenset[int]], proc: Path = PROC
) -> frozenset[str]:
    """Find the GPUs on which a server's processes compute.

    Args:
        port: where the server listens.
        host: its name or address; it must be this host's.
        compute_processes: NVML's compute processes by GPU uuid.
        proc: the proc file system of this host's process ids.

    Returns:
        UUIDs; empty while none of the server's processes uses a GPU.

    Raises:
        DiscoveryError: the server runs elsewhere or out of sight; the message says how to go on.
    """
    servers = listeners(port, host, proc)
    launchers = frozenset(parent for pid in servers for parent in _launcher(pid, proc))
    family = servers | descendants(servers | launchers, proc)
    everyone = frozenset[int]().union(*compute_processes.values())
    if everyone and not any((proc / str(pid)).exists() for pid in everyone):
        raise DiscoveryError(
            f"{host}:{port}: none of the processes that NVML names is visible here (such as {min(everyone)}):"
            f" run joulemeter in the host's process namespace (hostPID: true, --pid=host), or {REMEDY}"
        )
    return frozenset(uuid for uuid, pids in compute_processes.items() if pids & family)


def listeners(port: int, host: str, proc: Path = PROC) -> frozenset[int]:
    """Return the processes that hold the TCP socket which answers at host:port.

    Usually one; several if a server's workers share the socket.

    Raises:
        DiscoveryError: the host is not this one, nobody listens, or whoever does is out of sight.
    """
    inodes = _listening_inodes(port, _local_addresses(host), proc)
    if not inodes:
        raise NobodyListensError(
            f"{host}:{port}: no process of this network namespace listens there; start the server,"
            f" run joulemeter in the host's network (hostNetwork: true), or {REMEDY}"
        )
    holders = frozenset(pid for pid in _pids(proc) if not inodes.isdisjoint(_sockets(proc / str(pid))))
    if not holders:
        raise DiscoveryError(
            f"{host}:{port}: the process that listens there is not visible: it belongs to another user or"
            f" process namespace; run joulemeter as root and with hostPID: true, or {REMEDY}"
        )
    for pid in sorted(holders):
        name = _name(pid, proc)
        if name in FORWARDERS:
            raise DiscoveryError(
                f"{host}:{port}: {name} (process {pid}) forwards this port into a container and hides the"
                f" server; run the server in the host's network, or {REMEDY}"
            )
    return holders


def descendants(pids: Iterable[int], proc: Path = PROC) -> frozenset[int]:
    """Return children, their children and so on of some processes, without these."""
    children = defaultdict(set)
    for pid in _pids(proc):
        children[_parent(pid, proc)].add(pid)
    asked = frozenset(pids)
    found: set[int] = set()
    left = set(asked)
    while left:
        left = {child for pid in left for child in children[pid]} - found
        found |= left
    return frozenset(found - asked)


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


def _listening_inodes(port: int, addresses: frozenset[Address], proc: Path) -> frozenset[int]:
    """Return the sockets that a connection to one of the addresses reaches.

    As in the kernel, a socket bound to the very address goes before one bound to all, and one of the same IP
    version before one that takes both.
    """
    versions = {address.version for address in addresses}
    ranked: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    for table in ("tcp", "tcp6"):
        for address, inode in _listening(port, proc / "net" / table):
            if address in addresses:
                ranked[0].add(inode)
            elif address.is_unspecified:
                ranked[1 if address.version in versions else 2].add(inode)
    return frozenset(next(filter(None, ranked), ()))


def _listening(port: int, table: Path) -> Iterator[tuple[Address, int]]:
    """Yield address and inode of the sockets that listen on a port (man 5 proc_pid_net_tcp)."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return
    for line in lines:
        _, local, _, state, *rest = line.split()
        address, _, local_port = local.partition(":")
        if state == TCP_LISTEN and int(local_port, 16) == port:
            yield _address(address), int(rest[5])


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
    try:
        for entry in (process / "fd").iterdir():
            match = SOCKET_LINK.fullmatch(str(entry.readlink()))
            if match:
                yield int(match[1])
    except OSError:
        return


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
