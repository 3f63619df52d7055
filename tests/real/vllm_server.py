"""A real vLLM on a free loopback port, in a process group of its own that can be killed and started again."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadgen import Tokens
from pages import Page

ROOT: Final = Path(__file__).parents[2]
VLLM: Final = ROOT / ".venv-vllm/bin/vllm"
MODEL_FOLDER: Final = ROOT / ".cache/real/tiny-llama"
MODEL: Final = "tiny"
START_SECONDS: Final = 240
"""Long: 25 s on two idle cores, minutes on a busy machine."""

FLAGS: Final = (
    *("--served-model-name", MODEL),
    *("--dtype", "float32"),
    "--enforce-eager",
    *("--max-model-len", "4096"),
    *("--max-num-seqs", "8"),
    "--enable-prefix-caching",
    "--enable-prompt-tokens-details",
    *("--host", "127.0.0.1"),
)
ENVIRONMENT: Final = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
}


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """What the server has counted since it started."""

    tokens: Tokens
    finished_requests: float
    busy_requests: float
    """Running or waiting now."""


@dataclass
class VllmServer:
    """The server; its output goes to `log`."""

    log: Path
    port: int = field(default_factory=free_port)
    start_seconds: float = 0.0
    """What the last start took until the server was ready."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it is ready."""
        began = time.monotonic()
        command = [str(VLLM), "serve", str(MODEL_FOLDER), *FLAGS, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() - began > START_SECONDS:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"vLLM did not start within {START_SECONDS} s:\n{tail}")
            time.sleep(0.5)
        self.start_seconds = time.monotonic() - began

    def kill(self) -> None:
        """End it and its engine processes at once; Python's own tidier of shared memory may go on."""
        if self._process is None:
            return
        for entry in self._group():
            if "resource_tracker" not in _text(entry / "cmdline"):
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Ask it to end, wait, and end what is left."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def memory_bytes(self) -> int:
        """Return the proportional memory (PSS) of its processes."""
        return sum(map(_pss_bytes, self._group()))

    def text(self, path: str = "/metrics") -> str:
        """Ask for its metrics."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def counters(self) -> ServerCounters:
        """Read what it has counted; computed and cached prompt tokens are told apart by the server itself."""
        page = Page.parse(self.text())
        source = "vllm:prompt_tokens_by_source_total"
        tokens = Tokens(
            prompt=page.total(source, source="local_compute"),
            cached_prompt=page.total(source, source="local_cache_hit"),
            generation=page.total("vllm:generation_tokens_total"),
        )
        if tokens.prompt + tokens.cached_prompt != page.total("vllm:prompt_tokens_total"):
            raise RuntimeError(f"the server's own prompt counters disagree: {tokens}")
        return ServerCounters(
            tokens=tokens,
            finished_requests=page.total("vllm:request_success_total"),
            busy_requests=page.total("vllm:num_requests_running") + page.total("vllm:num_requests_waiting"),
        )

    def quiet_counters(self) -> ServerCounters:
        """Wait until it has nothing to do and counts nothing more, and return what it has counted."""
        deadline = time.monotonic() + 30
        before = self.counters()
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.counters()
            if now == before and not now.busy_requests:
                return now
            before = now
        raise RuntimeError(f"the server is still busy: {before}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # URLError too
            return False

    def _group(self) -> list[Path]:
        """Return its processes, as folders of /proc."""
        if self._process is None:
            return []
        leader = self._process.pid
        return [entry for entry in Path("/proc").glob("[0-9]*") if _group_of(entry) == leader]


def _group_of(entry: Path) -> int:
    try:
        return os.getpgid(int(entry.name))
    except ProcessLookupError:
        return -1


def _pss_bytes(entry: Path) -> int:
    lines = _text(entry / "smaps_rollup").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process is gone
        return ""
