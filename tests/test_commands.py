"""The commands as processes: what ends them, with which status and words, and nodes that are not as they should be."""

import asyncio
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from ctypes.util import find_library
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from daemons import Daemon, Page, falls, run, until
from test_baseline import learned

from joulemeter.baseline_file import decode, encode
from joulemeter.grid_codec import encode as encode_grid
from joulemeter.model import GridAnswer, GridInterval, GridOrigin, GridQuality
from joulemeter.simulation.library import LIBRARY_VARIABLE, virtual_library
from joulemeter.simulation.node import Scenario, VirtualNode
from joulemeter.simulation.state import VirtualGpu

NO_LIBRARY = {LIBRARY_VARIABLE: "/nonexistent/libnvidia-ml.so.1"}
VLLM = """\
vllm:prompt_tokens_total{{engine="0",model_name="{name}"}} 40
vllm:generation_tokens_total{{engine="0",model_name="{name}"}} 70
vllm:request_success_total{{engine="0",finished_reason="stop",model_name="{name}"}} 3
vllm:request_success_total{{engine="0",finished_reason="abort",model_name="{name}"}} 1
vllm:num_requests_running{{engine="0",model_name="{name}"}} 2
vllm:iteration_tokens_total_count{{engine="0",model_name="{name}"}} 30
"""


# ---------------------------------------------------------------------------------------------- no GPU


def test_node_without_nvml_is_served_and_ends_at_once(tmp_path):
    with Daemon(tmp_path, "serve", "--listen", "127.0.0.1:0", environment=NO_LIBRARY) as daemon:
        page = daemon.becomes_ready().page()
        assert page.value("source_up", kind="meter") == 0
        assert page.values("gpu_energy_joules_total") == []
        assert page.values("retired_energy_joules") == []
        assert page.value("simulated") == 0
        assert daemon.get("/healthz").status == 200
        status, seconds = daemon.terminate()
    assert status == 0
    assert seconds < 2
    warnings = [line for line in daemon.log.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "name an NVML library, or unset it to use the driver's; trying again" in warnings[0]


@pytest.mark.skipif(find_library("nvidia-ml") is not None, reason="this machine has an NVML library")
def test_machine_without_a_driver_says_what_to_install():
    done = run("probe")
    assert done.returncode == 1
    assert "GPUs\n  none\nServers\n" in done.stdout
    assert "To mend\n  nvml: NVML Shared Library Not Found: install the NVIDIA driver" in done.stdout


def test_probe_fails_when_nothing_could_be_attributed():
    done = run("probe", "--server", f"http://127.0.0.1:{free_port()}", environment=NO_LIBRARY)
    assert (done.returncode, done.stderr) == (1, "")
    assert "does not answer as a server that we know" in done.stdout
    assert "cannot connect" in done.stdout
    assert LIBRARY_VARIABLE in done.stdout


def test_probe_says_what_the_grid_and_the_price_are(tmp_path):
    """What another joulemeter knows is told in place of asking a provider."""
    now = time.time()
    origin = GridOrigin("electricitymaps", "lifecycle", "consumption", "hourly", "FR")
    known = GridInterval(now // 3600 * 3600, 3600.0, 41.5, GridQuality.MEASURED, origin)
    told = encode_grid("FR", {"electricitymaps": GridAnswer((known,))}).encode()

    class Head(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/grid.json" else 404)
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    config = tmp_path / "joulemeter.yaml"
    with ThreadingHTTPServer(("127.0.0.1", 0), Head) as head:
        threading.Thread(target=head.serve_forever, daemon=True).start()
        config.write_text(
            f"grid: {{zone: FR, sources: [relay], relay: {{url: 'http://127.0.0.1:{head.server_port}'}}}}\n"
            "time_zone: Europe/Paris\n"
            "price: {per_kwh: 0.2, currency: EUR, time_of_use: [{per_kwh: 0.1}]}\n"
        )
        done = run("probe", "--config", str(config), environment=NO_LIBRARY)
        config.write_text(
            f"grid: {{zone: FR, sources: [relay], relay: {{url: 'http://127.0.0.1:{free_port()}'}}}}\n"
        )
        gone = run("probe", "--config", str(config), environment=NO_LIBRARY)
        head.shutdown()
    assert re.search(
        r"FR: 41\.5 gCO2e/kWh, measured, valid from [0-9: -]+Z, \d+ min old, from electricitymaps",
        done.stdout,
    )
    assert "  relay: answers\n" in done.stdout
    assert "  EUR: electricity 0.1 a kWh now, compute none" in done.stdout
    assert re.search(r"FR: [0-9.]+ gCO2e/kWh, static, .* from static \(", gone.stdout)
    assert "  relay: error\n" in gone.stdout
    assert "can this node reach it?" in gone.stdout.partition("To mend")[2]


# ---------------------------------------------------------------------------------------------- mistakes


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_address_in_use_names_the_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--listen", address, environment=NO_LIBRARY)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"joulemeter: listen: {address}: ")
    assert last.endswith(": stop what listens there, or choose another with --listen HOST:PORT")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command_line", [["serve", "--config"], ["probe", "--config"], ["check-config"]])
def test_configuration_errors_are_told_all_at_once(tmp_path, command_line):
    path = tmp_path / "joulemeter.yaml"
    path.write_text("listen: nowhere\nsevers: []\nservers: [{url: localhost:8000}]\npue: 0.5\n")
    done = run(*command_line, str(path))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert {line.split(": ")[1] for line in lines} == {"listen", "servers[0].url", "pue", "severs"}
    assert any(line.endswith("severs: unknown key; did you mean 'servers'?") for line in lines)


def test_flags_are_checked_like_the_file():
    done = run("serve", "--listen", "nowhere", "--server", "localhost:8000")
    assert done.returncode == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["--server", "--listen"]


def test_file_that_is_not_there(tmp_path):
    done = run("serve", "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"joulemeter: {tmp_path}/none.yaml: cannot be read")


def test_usage_is_worth_reading():
    done = run("--help")
    assert done.returncode == 0
    for words in ("serve", "demo", "probe", "check-config", "exit status: 0 done", LIBRARY_VARIABLE):
        assert words in done.stdout
    assert run().returncode == 2


# ---------------------------------------------------------------------------------------------- a node of eight


class Servers:
    """Any number of servers, all behind one port, each with a page of its own that never changes."""

    def __enter__(self) -> "Servers":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = started.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        name, _, rest = path.removeprefix("/").partition("/")
        body = VLLM.format(name=f"model-{name}") if rest == "metrics" else ""
        status = "200 OK" if body else "404 Not Found"
        writer.write(
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        writer.close()
        await writer.wait_closed()


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, VirtualNode]]:
    """The daemon on eight GPUs with a server on each; all has a price, and the grid's source never answers."""
    folder = tmp_path_factory.mktemp("eight")
    with (
        Servers() as servers,
        socket.create_server(("127.0.0.1", 0)) as hangs,
        VirtualNode(Scenario((VirtualGpu(),) * 8)) as node,
    ):
        config = folder / "joulemeter.yaml"
        lines = [
            f"- {{url: 'http://127.0.0.1:{servers.port}/s{number}/metrics', name: s{number}, gpus: [{number}]}}\n"
            for number in range(8)
        ]
        config.write_text(
            f"listen: 127.0.0.1:0\nzero_hold_seconds: 0\nservers:\n{''.join(lines)}"
            f"grid: {{zone: FR, sources: [relay], relay: {{url: 'http://127.0.0.1:{hangs.getsockname()[1]}'}}}}\n"
            "pue: 1.2\nprice: {per_kwh: 0.2, currency: EUR, gpu_hour: 3}\n"
        )
        environment = {LIBRARY_VARIABLE: str(virtual_library()), **node.environment}
        with Daemon(folder, "serve", "--config", str(config), environment=environment) as daemon:
            until(lambda: daemon.get("/readyz").status == 200)
            until(lambda: len(daemon.page().labels("server_gpu_info", "server")) == 8)
            until(lambda: len(daemon.page().labels("gpu_power_watts", "gpu")) == 8)
            yield daemon, node


def test_page_of_eight_gpus_and_eight_servers_stays_below_900_series(eight):
    page = eight[0].page()
    assert len(page.labels("model_energy_joules_total", "server", "phase")) == 24
    assert 400 < len(page.samples) < 900


def test_grid_source_that_hangs_keeps_nobody_and_the_shipped_factor_is_priced_with(eight):
    daemon = eight[0]
    until(lambda: daemon.page().values("source_up", kind="grid", source="relay") == [0.0])
    pages = [daemon.page()]
    assert pages[0].value("grid_fetches_total", source="relay", outcome="error") == 1
    assert pages[0].value("grid_quality", quality="static") == 1
    until(lambda: daemon.page().total("gpu_energy_joules_total") > pages[0].total("gpu_energy_joules_total"))
    pages.append(daemon.page())
    joules = pages[-1].total("gpu_energy_joules_total")
    intensity = pages[-1].value("grid_carbon_intensity_grams_per_kwh", signal="average")
    grams, cost = joules / 3.6e6 * 1.2 * intensity, joules / 3.6e6 * 1.2 * 0.2
    assert pages[-1].total("gpu_co2e_grams_total") == pytest.approx(grams, rel=1e-9)
    assert pages[-1].total("gpu_cost_total", component="electricity") == pytest.approx(cost, rel=1e-9)
    assert pages[-1].total("gpu_cost_total", component="compute") > 0
    assert falls(pages) == []
    assert max(page.imbalance() for page in pages) <= 1e-9
    assert daemon.get("/grid.json").text == '{"version": 1, "zone": "FR", "sources": {}}'


def test_promtool_has_nothing_to_say(eight, promtool):
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=eight[0].page().text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lost_gpus_gauges_disappear_and_its_counter_stands_still(eight):
    daemon, node = eight
    pages = [daemon.page()]
    node.state.lose(5)
    until(lambda: daemon.page().value("source_up", kind="gpu", source=node.state.uuid(5)) == 0)
    pages.append(daemon.page())
    for gauge in ("gpu_power_watts", "gpu_temperature_celsius", "gpu_memory_used_bytes"):
        assert len(pages[-1].labels(gauge, "gpu")) == 7
    joules = pages[-1].value("gpu_energy_joules_total", gpu="5")
    time.sleep(1.5)
    pages.append(daemon.page())
    assert pages[-1].value("gpu_energy_joules_total", gpu="5") == joules
    node.state.restore(5)
    until(lambda: daemon.page().value("source_up", kind="gpu", source=node.state.uuid(5)) == 1)
    pages.append(daemon.page())
    assert pages[-1].value("gpu_energy_joules_total", gpu="5") > joules
    assert falls(pages) == []
    assert max(page.imbalance() for page in pages) <= 1e-9


def test_driver_that_is_loaded_again_loses_no_counter(eight):
    daemon, node = eight
    pages = [daemon.page()]
    node.state.unload_driver()
    until(lambda: daemon.page().value("source_up", kind="meter") == 0)
    pages.append(daemon.page())
    assert pages[-1].values("gpu_power_watts") == []
    assert len(pages[-1].values("gpu_energy_joules_total")) == 8
    assert set(pages[-1].values("source_up", kind="gpu")) == {0.0}
    assert daemon.get("/healthz").status == 200
    node.state.load_driver()
    until(lambda: set(daemon.page().values("source_up", kind="gpu")) == {1.0})
    until(lambda: set(daemon.page().values("energy_meter_resets_total")) == {1.0})
    before = daemon.page()
    until(
        lambda: (
            daemon.page().value("gpu_energy_joules_total", gpu="0")
            > before.value("gpu_energy_joules_total", gpu="0")
        )
    )
    pages += [before, daemon.page()]
    assert falls(pages) == []
    assert max(page.imbalance() for page in pages) <= 1e-9
    assert "meter: nvml: Driver Not Loaded: load the NVIDIA kernel module" in daemon.log
    assert daemon.log.count("meter: reached") == 1


def test_call_that_hangs_in_the_driver_does_not_keep_the_daemon(eight):
    """The last test of this daemon: a call in the driver can take for ever, and cannot be ended."""
    daemon, node = eight
    for hanging in ("DeviceGetUtilizationRates", "DeviceGetTotalEnergyConsumption"):
        node.state.set_latency(0, hanging, 60.0)
        before = node.state.call_counts(0)[hanging]
        until(lambda call=hanging, count=before: node.state.call_counts(0)[call] > count)
    assert daemon.page().imbalance() <= 1e-9
    status, seconds = daemon.terminate()
    assert status == 0
    assert seconds < 5  # a second for the energy thread, on a machine that has time


# ---------------------------------------------------------------------------------------------- demo


def test_demo_is_marked_as_simulated_and_ends_when_interrupted(tmp_path):
    with Daemon(tmp_path, "demo", "--listen", "127.0.0.1:0") as daemon:
        until(lambda: daemon.get("/readyz").status == 200)
        until(lambda: len(daemon.page().labels("server_gpu_info", "server", "gpu")) == 4)
        page: Page = daemon.page()
        assert page.value("simulated") == 1
        assert len(page.values("gpu_energy_joules_total")) == 4
        assert len(page.labels("model_energy_joules_total", "model")) == 3
        assert page.imbalance() <= 1e-9
        pairs = {("llama-3.1-8b-instruct", "2"), ("qwen3-8b", "2")}
        until(lambda: daemon.page().labels("server_gpu_utilization_ratio", "server", "gpu") == pairs)
        assert 0 <= daemon.page().total("server_gpu_utilization_ratio") <= 1
        until(lambda: "SIMULATED node" in daemon.output)
        assert f"Metrics: {daemon.url}/metrics" in daemon.output
        daemon.send(signal.SIGINT)
        assert daemon.wait() == 0
    assert "Traceback" not in daemon.log


# ---------------------------------------------------------------------------------------------- baselines


def test_baselines_of_a_running_daemon_are_changed_by_the_daemon(tmp_path):
    state = tmp_path / "state"
    (tmp_path / "brought.json").write_text(encode([learned(800)], 1e9))
    settings = tmp_path / "joulemeter.yaml"
    settings.write_text(
        f"listen: 127.0.0.1:0\nstate_dir: {state}\nbaseline: {{file: {tmp_path}/brought.json}}\n"
    )
    one = learned(1).id
    with Daemon(tmp_path, "serve", "--config", str(settings), environment=NO_LIBRARY) as daemon:
        second = run("serve", "--config", str(settings), environment=NO_LIBRARY)
        assert second.returncode == 1
        assert "in use by another joulemeter; stop it, or give this one another directory" in second.stderr
        done = run("baseline", "accept", "nobody", "--config", str(settings))
        assert (done.returncode, done.stdout) == (1, "")
        assert "no baseline 'nobody'; `joulemeter baseline list` shows them" in done.stderr
        done = run("baseline", "accept", one, "--config", str(settings))
        assert (done.returncode, done.stdout) == (0, "done by the running daemon\n")
        listed = run("baseline", "list", "--state-dir", str(state)).stdout
        assert one not in listed
        assert "llama on 1 x H100: learning, 0.0 of 7 days, not usable yet" in listed
        done = run("baseline", "import", str(tmp_path / "brought.json"), "--state-dir", str(state))
        assert done.stdout == "done by the running daemon\n"
        assert daemon.terminate()[0] == 0
    exported = run("baseline", "export", "--state-dir", str(state))
    assert [one.id for one in decode(exported.stdout, source="x")] == [one]


def test_daemon_that_was_killed_leaves_its_state_to_the_next(tmp_path):
    state = tmp_path / "state"
    settings = tmp_path / "joulemeter.yaml"
    settings.write_text(f"listen: 127.0.0.1:0\nstate_dir: {state}\n")
    (tmp_path / "brought.json").write_text(encode([learned(402)], 1e9))
    with Daemon(tmp_path, "serve", "--config", str(settings), environment=NO_LIBRARY) as daemon:
        daemon.becomes_ready()
        assert (
            run("baseline", "import", str(tmp_path / "brought.json"), "--config", str(settings)).returncode
            == 0
        )
        daemon.send(signal.SIGKILL)
        daemon.wait()
    with Daemon(tmp_path, "serve", "--config", str(settings), environment=NO_LIBRARY) as daemon:
        daemon.becomes_ready()
        daemon.terminate()
    assert learned(1).id in run("baseline", "list", "--config", str(settings)).stdout
    (state / "baselines.json").write_text("{")
    with Daemon(tmp_path, "serve", "--config", str(settings), environment=NO_LIBRARY) as daemon:
        daemon.becomes_ready()
        daemon.terminate()
        assert "and every baseline is learned anew" in daemon.log


def test_baseline_command_says_what_is_missing(tmp_path):
    done = run("baseline", "accept", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert "see `joulemeter baseline --help`" in done.stderr
    settings = tmp_path / "joulemeter.yaml"
    settings.write_text("pue: 1.1\n")
    done = run("baseline", "list", "--config", str(settings))
    assert done.returncode == 2
    assert "no state_dir, so nothing is kept; set it, or give --state-dir" in done.stderr
