"""From a port to GPUs: real processes on loopback, and made-up /proc trees."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemeter.discovery.process import Look, gpus_of, listeners
from joulemeter.errors import DiscoveryError

SERVER = """\
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
wait = "import sys; sys.stdin.read()"
spawn = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid, flush=True)"
child = subprocess.Popen([sys.executable, "-c", spawn + "; sys.stdin.read()", wait], stdout=subprocess.PIPE)
grandchild = int(child.stdout.readline())
print(listener.getsockname()[1], child.pid, grandchild, flush=True)
sys.stdin.read()
"""


# ---------------------------------------------------------------------------------------------- real ones


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, int, int, int]]:
    """A listener with a child and a grandchild: port and pids. All end when the pipe closes."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, child, grandchild = map(int, process.stdout.readline().split())
        yield port, process.pid, child, grandchild
        process.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_listener_is_found(server: tuple[int, int, int, int], host: str):
    port, pid, _, _ = server
    assert listeners(port, host) == {pid}


def test_gpus_of_the_server_and_its_descendants(server: tuple[int, int, int, int]):
    port, pid, _, grandchild = server
    mine = frozenset({os.getpid()})
    processes = {"GPU-a": frozenset({grandchild}), "GPU-b": mine, "GPU-c": mine | {pid}, "GPU-d": frozenset()}
    assert gpus_of(port, "127.0.0.1", processes) == {"GPU-a": {grandchild}, "GPU-c": {pid}}


def test_server_without_gpu_uses_none(server: tuple[int, int, int, int]):
    port, *_ = server
    assert gpus_of(port, "127.0.0.1", {}) == {}
    assert gpus_of(port, "127.0.0.1", {"GPU-a": frozenset({os.getpid()})}) == {}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", r"192\.0\.2\.1 is not an address of this host, .* `gpus: \[\.\.\.\]`"),
        ("gpu1.invalid", r"gpu1\.invalid: cannot be resolved \(.*\); correct the server's url"),
    ],
)
def test_other_hosts_are_refused(host: str, message: str):
    with pytest.raises(DiscoveryError, match=message):
        listeners(8000, host)


# ---------------------------------------------------------------------------------------------- made-up ones


class Proc:
    """A proc file system with what we read of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "net").mkdir()
        (root / "self").mkdir()  # entries that are no processes
        for table in ("tcp", "tcp6"):
            (root / "net" / table).write_text("  sl  local_address rem_address   st ...\n")

    def socket(self, local: str, inode: int, *, state: str = "0A") -> None:
        """Add a line as Linux writes it."""
        table = self.root / "net" / ("tcp" if len(local) == 13 else "tcp6")
        remote = re.sub("[0-9A-F]", "0", local)
        queues = "00000000:00000000 00:00000000 00000000"
        line = f"   0: {local} {remote} {state} {queues}  1000        0 {inode} 1 0\n"
        with table.open("a") as file:
            file.write(line)

    def process(self, pid: int, parent: int, *inodes: int, name: str = "python3") -> None:
        """Add a process that holds sockets, and an ordinary file."""
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "fd" / "0").symlink_to("/dev/null")
        for number, inode in enumerate(inodes, start=3):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (folder / "stat").write_text(f"{pid} (odd) name (x) S {parent} 1 1 0 -1 4194560\n")
        (folder / "comm").write_text(f"{name}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


LOOPBACK = "0100007F:1F40"  # 127.0.0.1:8000
OTHER = "0200007F:1F40"  # 127.0.0.2:8000
ANY = "00000000:1F40"
ANY6 = "0" * 32 + ":1F40"
LOOPBACK6 = "0" * 24 + "01000000:1F40"
MAPPED = "0000000000000000FFFF00000100007F:1F40"  # ::ffff:127.0.0.1


@pytest.mark.skipif(sys.byteorder == "big", reason="addresses are written for little-endian machines")
@pytest.mark.parametrize(
    ("host", "sockets", "expected"),
    [
        ("127.0.0.1", [LOOPBACK], {100}),
        ("127.0.0.1", [ANY], {100}),
        ("127.0.0.1", [ANY6], {100}),
        ("127.0.0.1", [MAPPED], {100}),
        ("127.0.0.1", [ANY, LOOPBACK], {101}),  # the kernel prefers the very address
        ("127.0.0.1", [ANY6, ANY], {101}),  # and the same IP version
        ("127.0.0.1", [OTHER, LOOPBACK], {101}),
        ("127.0.0.1", ["0100007F:1F41", LOOPBACK], {101}),
        ("127.0.0.1", [ANY, ANY], {100, 101}),  # SO_REUSEPORT
        ("0.0.0.0", [ANY, LOOPBACK], {101}),
    ],
)
def test_socket_that_answers(proc: Proc, host: str, sockets: list[str], expected: set[int]):
    for index, local in enumerate(sockets):
        proc.socket(local, 500 + index)
        proc.process(100 + index, 1, 500 + index)
    assert listeners(8000, host, Look(proc.root)) == expected


def test_ipv6_listener(proc: Proc):
    try:
        proc.socket(LOOPBACK6, 500)
        proc.process(100, 1, 500)
        assert listeners(8000, "::1", Look(proc.root)) == {100}
    except DiscoveryError as error:
        if "not an address of this host" not in str(error):
            raise
        pytest.skip("this machine has no IPv6 loopback")


def test_several_processes_may_share_a_socket(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500)
    proc.process(101, 100, 400, 500)
    proc.process(102, 100, 400)
    assert listeners(8000, "127.0.0.1", Look(proc.root)) == {100, 101}
    assert gpus_of(8000, "127.0.0.1", {"GPU-a": frozenset({102})}, Look(proc.root)) == {"GPU-a": {102}}


def test_servers_of_one_look_share_what_is_slow_to_read(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500)
    look = Look(proc.root)
    assert listeners(8000, "127.0.0.1", look) == {100}
    (proc.root / "net" / "tcp").unlink()
    assert listeners(8000, "127.0.0.1", look) == {100}


def test_tgi_launcher_is_parent_of_router_and_shards(proc: Proc):
    """text-generation-router listens; the shards that use the GPUs are its siblings."""
    proc.socket(LOOPBACK, 500)
    proc.process(90, 1, name="bash")
    proc.process(100, 90, name="text-generation")
    proc.process(101, 100, 500, name="text-generation")
    proc.process(102, 100, name="python3")
    proc.process(103, 90, name="python3")  # somebody else's, from the same shell
    processes = {"GPU-a": frozenset({102}), "GPU-b": frozenset({103})}
    assert gpus_of(8000, "127.0.0.1", processes, Look(proc.root)).keys() == {"GPU-a"}


@pytest.mark.parametrize("state", [None, "01"])
def test_nobody_listens(proc: Proc, state: str | None):
    if state:
        proc.socket(LOOPBACK, 500, state=state)  # an open connection is no listener
    proc.process(100, 1, 500)
    with pytest.raises(DiscoveryError) as caught:
        listeners(8000, "127.0.0.1", Look(proc.root))
    assert str(caught.value) == (
        "127.0.0.1:8000: no process of this network namespace listens there; start the server, run joulemeter"
        " in the host's network (hostNetwork: true), or set `gpus: [...]` for this server"
        " (not in a configuration that several nodes share)"
    )


def test_no_ipv6_at_all(proc: Proc):
    (proc.root / "net" / "tcp6").unlink()
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500)
    assert listeners(8000, "127.0.0.1", Look(proc.root)) == {100}


def test_listener_of_another_user_or_namespace(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1)
    with pytest.raises(
        DiscoveryError,
        match=r"not visible: .* DAC_READ_SEARCH and SYS_PTRACE, .*hostPID: true\), or set `gpus:",
    ):
        listeners(8000, "127.0.0.1", Look(proc.root))


def test_published_port_of_a_container(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500, name="docker-proxy")
    with pytest.raises(DiscoveryError, match=r"docker-proxy \(process 100\) forwards this port into"):
        gpus_of(8000, "127.0.0.1", {}, Look(proc.root))


def test_processes_that_nvml_names_in_another_namespace(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500)
    with pytest.raises(
        DiscoveryError, match=r"none of the processes that NVML names is visible here .*41000.*hostPID"
    ):
        gpus_of(8000, "127.0.0.1", {"GPU-a": frozenset({41000, 41001})}, Look(proc.root))


def test_process_that_ends_while_we_look(proc: Proc):
    proc.socket(LOOPBACK, 500)
    proc.process(100, 1, 500)
    (proc.root / "101").mkdir()  # its files are gone already
    assert gpus_of(8000, "127.0.0.1", {"GPU-a": frozenset({100})}, Look(proc.root)) == {"GPU-a": {100}}
