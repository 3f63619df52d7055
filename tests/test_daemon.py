"""The daemon end to end, as a process: real NVML binding, servers as processes of their own, real HTTP.

One simulated node is served for about 40 seconds while every page is kept; the tests then read the recording.
"""

import gzip
import itertools
import json
import random
import re
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from daemons import Daemon, Page, Response, clean, command, falls, get, until

from joulemeter.simulation.library import LIBRARY_VARIABLE, virtual_library
from joulemeter.simulation.node import RunningServer, Scenario, ScenarioServer, VirtualNode
from joulemeter.simulation.state import VirtualGpu

BIG, LLAMA, QWEN = "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B"
GPUS = {"big": (0, 1), "llama": (2,), "qwen": (2,)}
SCENARIO = Scenario(
    (VirtualGpu(idle_watts=0.0),) * 4,
    (ScenarioServer(BIG, (0, 1)), ScenarioServer(LLAMA, (2,)), ScenarioServer(QWEN, (2,))),
)
"""One server on GPUs 0 and 1, two sharing GPU 2, nobody on GPU 3; only what is posted is served.

The GPUs draw nothing until the daemon has seen them, so that what it has measured is all that was ever drawn.
"""
IDLE_WATTS = 110.0
LOADED_SECONDS = 18.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@dataclass(frozen=True)
class Recording:
    """What was seen of one daemon, from its start to its end."""

    pages: list[Page]
    openmetrics: Response
    compressed: Response
    other: dict[str, Response]
    usage: dict[str, dict[str, int]]
    """Sums of what the servers told their clients."""
    truth: dict[str, dict[str, float]]
    used_joules: list[float]
    log: str
    probe: subprocess.CompletedProcess[str]
    exit_status: int
    exit_seconds: float

    @property
    def last(self) -> Page:
        return self.pages[-1]


class Scraper(threading.Thread):
    """Keeps every page, until it is told to stop."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._url = f"{daemon.url}/metrics"
        self._stop_asked = threading.Event()
        self.texts: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.wait(0.25):
            self.texts.append(get(self._url).text)

    def stop(self) -> list[Page]:
        self._stop_asked.set()
        self.join(10)
        return [Page(text) for text in self.texts]


class Client:
    """Sends requests to one server, with prompts that begin alike, and sums up its answers' `usage`."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self._url = f"{server.url}/v1/completions"
        self._model = server.plan.model
        self._random = random.Random(seed)
        self._prefix = [self._random.randrange(50_000) for _ in range(320)]
        self.usage = {"requests": 0, "prompt": 0, "cached_prompt": 0, "generation": 0}

    def work(self, until_seconds: float) -> None:
        while time.monotonic() < until_seconds:
            self.send()
            time.sleep(self._random.uniform(0.0, 0.3))

    def send(self) -> None:
        own = [self._random.randrange(50_000) for _ in range(self._random.randrange(1, 400))]
        body = {
            "model": self._model,
            "prompt": (self._prefix if self._random.random() < 0.5 else []) + own,
            "max_tokens": self._random.randrange(1, 60),
        }
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            usage = json.load(answer)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.usage["requests"] += 1
        self.usage["prompt"] += usage["prompt_tokens"] - cached
        self.usage["cached_prompt"] += cached
        self.usage["generation"] += usage["completion_tokens"]


def tokens(page: Page, server: str) -> dict[str, float]:
    """What the page says was served, in the words of `Client.usage`."""
    kinds = {
        kind: page.total("model_tokens_total", server=server, kind=kind)
        for kind in ("prompt", "cached_prompt", "generation")
    }
    return {"requests": page.total("model_requests_total", server=server), **kinds}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {LIBRARY_VARIABLE: str(virtual_library())}


@pytest.fixture(scope="module")
def recording(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("daemon")
    with VirtualNode(SCENARIO) as node:
        environment = environment | dict(node.environment)
        servers = dict(zip(GPUS, node.servers, strict=True))
        config = {
            "listen": "127.0.0.1:0",
            "zero_hold_seconds": 2,
            "pue": 1.2,
            "grid": {"zone": "FR", "sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": 500}},
            "servers": [{"url": server.url, "name": name} for name, server in servers.items()],
        }
        path = folder / "joulemeter.yaml"
        path.write_text(yaml.safe_dump(config))
        with Daemon(folder, "serve", "--config", str(path), environment=environment) as daemon:
            return record(daemon, node, servers, path, environment)


def record(
    daemon: Daemon,
    node: VirtualNode,
    servers: dict[str, RunningServer],
    config: Path,
    environment: dict[str, str],
) -> Recording:
    """Tell the story: start, load, rest, end."""
    daemon.becomes_ready()
    scraper = Scraper(daemon)
    scraper.start()
    until(lambda: len(daemon.page().labels("server_gpu_info", "server", "gpu")) == 4)
    for gpu in range(4):
        node.state.set_idle_watts(gpu, IDLE_WATTS)
    clients = {name: Client(server, seed) for seed, (name, server) in enumerate(servers.items())}
    with ThreadPoolExecutor(4) as pool:
        end = time.monotonic() + LOADED_SECONDS
        work = [pool.submit(client.work, end) for client in clients.values()]
        probing = pool.submit(run_probe, config, environment)
        openmetrics = daemon.get("/metrics", Accept=OPENMETRICS)
        compressed = daemon.get("/metrics", Accept_Encoding="gzip")
        other = {path: daemon.get(path) for path in ("/", "/healthz", "/readyz", "/nothing")}
        for one in work:
            one.result()
    usage = {name: client.usage for name, client in clients.items()}
    until(lambda: all(tokens(daemon.page(), name) == usage[name] for name in usage))
    for gpu in range(4):
        node.state.set_idle_watts(gpu, 0.0)
    used_joules = [node.state.energy_joules(gpu) for gpu in range(4)]
    until(lambda: abs(daemon.page().total("gpu_energy_joules_total") - sum(used_joules)) < 0.1)
    truth = {name: json.loads(get(f"{server.url}/simulation/truth").body) for name, server in servers.items()}
    time.sleep(1.5)
    pages = scraper.stop()
    status, seconds = daemon.terminate()
    return Recording(
        pages,
        openmetrics,
        compressed,
        other,
        usage,
        truth,
        used_joules,
        daemon.log,
        probing.result(),
        status,
        seconds,
    )


def run_probe(config: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("probe", "--config", str(config)),
        env=clean(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# ---------------------------------------------------------------------------------------------- it adds up


def test_every_page_adds_up(recording):
    """Law 1, for joules and for grams."""
    assert len(recording.pages) > 60
    assert max(page.imbalance() for page in recording.pages) <= 1e-9
    assert recording.last.total("gpu_energy_joules_total") > 5000
    assert recording.last.total("gpu_co2e_grams_total") == pytest.approx(
        recording.last.total("gpu_energy_joules_total") / 3.6e6 * 500 * 1.2
    )


def test_no_counter_ever_falls_or_goes(recording):
    assert falls(recording.pages) == []


def test_energy_is_what_each_gpu_used(recording):
    """The counter has whole millijoules, and so has the sum of its increases."""
    measured = [recording.last.value("gpu_energy_joules_total", gpu=str(gpu)) for gpu in range(4)]
    assert measured == pytest.approx(recording.used_joules, abs=0.002)


def test_tokens_are_those_that_the_clients_were_told(recording):
    for server, usage in recording.usage.items():
        assert usage["requests"] > 5
        assert usage["cached_prompt"] > 0
        assert tokens(recording.last, server) == usage


def test_tokens_are_those_that_the_servers_made(recording):
    for server, truth in recording.truth.items():
        counted = tokens(recording.last, server)
        assert counted["requests"] == truth["requests"]
        assert (
            counted["prompt"]
            == truth["prefill_tokens"]
            == truth["prompt_tokens"] - truth["cached_prompt_tokens"]
        )
        assert counted["cached_prompt"] == truth["cached_prompt_tokens"]
        assert counted["generation"] == truth["generation_tokens"]
    assert recording.last.total("unattributed_tokens_total") == 0


def test_energy_and_tokens_of_a_window_come_together(recording):
    """A page with new tokens of a server has new energy of it: ratios are never out of phase."""
    for server in recording.usage:
        seen = [
            (
                page.total("model_tokens_total", server=server),
                page.total("model_energy_joules_total", server=server),
            )
            for page in recording.pages
        ]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(seen)]
        assert all(joules > 0 for new_tokens, joules in steps if new_tokens > 0)
        assert 2 <= sum(new_tokens > 0 for new_tokens, _ in steps) < 8  # windows of about ten seconds


def test_series_are_born_at_zero(recording):
    """`increase()` sees nothing of a series whose first sample has a value already."""
    born = {}
    for page in recording.pages:
        for key, value in page.samples.items():
            born.setdefault(key, value)
    names = (
        "model_energy_joules_total",
        "model_tokens_total",
        "model_requests_total",
        "unattributed_energy_joules_total",
    )
    first = {key: value for key, value in born.items() if key[0] in names}
    assert len(first) > 30
    assert set(first.values()) == {0.0}


# ---------------------------------------------------------------------------------------------- who, how


def test_gpus_are_found_from_the_servers_processes(recording):
    page = recording.last
    wanted = {(server, str(gpu)) for server, gpus in GPUS.items() for gpu in gpus}
    assert page.labels("server_gpu_info", "server", "gpu") == wanted
    assert page.labels("server_info", "server", "model", "method", "dialect") == {
        ("big", BIG, "exclusive", "vllm"),
        ("llama", LLAMA, "shared", "vllm"),
        ("qwen", QWEN, "shared", "vllm"),
    }


def test_energy_is_with_those_who_used_it(recording):
    page = recording.last
    for gpu in "012":
        assert page.total("unattributed_energy_joules_total", gpu=gpu) == 0
    nobodys = page.value("unattributed_energy_joules_total", gpu="3", reason="no_server")
    assert nobodys + page.value("pending_energy_joules", gpu="3") == pytest.approx(
        recording.used_joules[3], abs=0.01
    )
    assert nobodys > 0
    for servers, gpus in ((("big",), "01"), (("llama", "qwen"), "2")):
        attributed = sum(page.total("model_energy_joules_total", server=server) for server in servers)
        pending = sum(page.value("pending_energy_joules", gpu=gpu) for gpu in gpus)
        assert attributed + pending == pytest.approx(
            sum(recording.used_joules[int(gpu)] for gpu in gpus), abs=0.01
        )
        for server in servers:
            assert all(
                page.value("model_energy_joules_total", server=server, phase=phase) > 0
                for phase in ("prefill", "decode", "idle")
            )


def test_all_sources_are_up_and_nothing_is_simulated(recording):
    page = recording.last
    assert set(page.values("source_up")) == {1.0}
    assert {
        kind: len(page.values("source_up", kind=kind)) for kind in ("meter", "gpu", "server", "grid")
    } == {
        "meter": 1,
        "gpu": 4,
        "server": 3,
        "grid": 1,
    }
    assert page.value("simulated") == 0
    assert abs(page.value("last_tick_timestamp_seconds") - time.time()) < 600


def test_log_has_a_line_for_each_change_and_none_for_each_tick(recording):
    lines = recording.log.splitlines()
    assert all(" INFO " in line or " WARNING " in line for line in lines), recording.log
    assert len(lines) < 25
    for words in ("server big: answers, vllm 0.32.0", "server big: uses GPU 0, 1", "server qwen: uses GPU 2"):
        assert sum(words in line for line in lines) == 1


# ---------------------------------------------------------------------------------------------- the page


def test_promtool_has_nothing_to_say(recording, promtool):
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=recording.last.text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_openmetrics_and_gzip_are_negotiated(recording):
    assert recording.openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert recording.openmetrics.text.endswith("# EOF\n")
    assert recording.compressed.headers["Content-Encoding"] == "gzip"
    assert recording.compressed.headers["Content-Type"].startswith("text/plain")
    plain = Page(gzip.decompress(recording.compressed.body).decode())
    assert plain.imbalance() <= 1e-9


def test_other_paths(recording):
    assert {path: answer.status for path, answer in recording.other.items()} == {
        "/": 200,
        "/healthz": 200,
        "/readyz": 200,
        "/nothing": 404,
    }
    assert recording.other["/healthz"].text == "ok\n"
    assert 'href="/metrics"' in recording.other["/"].text


def test_use_of_a_shared_gpu_is_told_by_server(recording):
    pages = [page for page in recording.pages if page.values("server_gpu_utilization_ratio")]
    assert {
        pair for page in pages for pair in page.labels("server_gpu_utilization_ratio", "server", "gpu")
    } == {
        ("llama", "2"),
        ("qwen", "2"),
    }
    for name in ("llama", "qwen"):
        used = [page.value("server_gpu_utilization_ratio", server=name) for page in pages]
        assert 0.02 < max(used) <= 0.55  # each has the GPU half of the time at most
    together = max(page.total("server_gpu_utilization_ratio") for page in pages)
    assert together <= 1.0
    assert recording.pages[-1].total("server_gpu_utilization_ratio") < together  # it rests


# ---------------------------------------------------------------------------------------------- probe, end


def test_probe_tells_what_there_is(recording):
    assert (recording.probe.returncode, recording.probe.stderr.count("ERROR")) == (0, 0)
    report = recording.probe.stdout
    assert "  0 NVIDIA H100 80GB HBM3 GPU-00000000-0000-4000-8000-000000000000: " in report
    assert report.count(" W from counter, moves every ") == 4
    used = r" \(its kernels run [0-9]+% of the time\)"
    assert re.search(f"  big: vllm 0.32.0 serving {BIG}; GPUs 0{used}, 1{used}; answers in ", report)
    assert re.search(f"  qwen: vllm 0.32.0 serving {QWEN}; GPUs 2{used}; answers in ", report)
    assert "  FR: 500 gCO2e/kWh" in report
    assert report.endswith("To mend\n  nothing\n")


def test_sigterm_ends_it(recording):
    assert recording.exit_status == 0
    assert recording.exit_seconds < 2
    assert recording.log.endswith("stopped\n")
