"""Virtual servers as processes: what they answer, what they draw, and that they end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pynvml
import pytest
from prometheus_client.parser import text_string_to_metric_families

from joulemeter.errors import JoulemeterError
from joulemeter.simulation import library
from joulemeter.simulation.node import DEMO, Scenario, ScenarioServer, VirtualNode
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.server import parse
from joulemeter.simulation.state import VirtualGpu

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
GPU = VirtualGpu(idle_watts=100.0)
PAIR = Scenario(
    (GPU, GPU), (ScenarioServer(LLAMA, (0,), served_model_name="llama"), ScenarioServer(LLAMA, (1,)))
)


@pytest.fixture(scope="module")
def node() -> Iterator[VirtualNode]:
    with VirtualNode(PAIR) as running:
        yield running


def values(page: str) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, s.labels.get("source", s.labels.get("finished_reason", ""))): s.value for s in samples}


async def text(url: str, **keywords: object) -> str:
    async with aiohttp.ClientSession() as session, session.get(url, **keywords) as response:  # type: ignore[arg-type]
        assert response.status == 200
        return await response.text()


async def test_posted_requests_are_in_the_counters_and_in_the_energy(node):
    server = node.servers[0]
    prompt = list(range(700))
    before_joules = node.state.slot(0, 0).energy_joules()
    async with aiohttp.ClientSession() as session:

        async def complete(prompt: list[int], tokens: int) -> dict[str, int]:
            body = {"model": "llama", "prompt": prompt, "max_tokens": tokens}
            async with session.post(f"{server.url}/v1/completions", json=body) as response:
                assert response.status == 200
                usage: dict[str, int] = (await response.json())["usage"]
                return usage

        usages = [await complete(prompt, 3)]
        usages += await asyncio.gather(*(complete(prompt[: 600 + i], 10 + i) for i in range(8)))
        async with session.get(f"{server.url}/simulation/truth") as response:
            truth = await response.json()
    page = values(await text(f"{server.url}/metrics"))
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    prompts = sum(usage["prompt_tokens"] for usage in usages)
    assert cached > 8 * 500
    assert page["vllm:prompt_tokens_total", ""] == truth["prompt_tokens"] == prompts
    assert page["vllm:prompt_tokens_by_source_total", "local_cache_hit"] == cached
    assert page["vllm:prompt_tokens_by_source_total", "local_compute"] == prompts - cached
    assert page["vllm:generation_tokens_total", ""] == sum(usage["completion_tokens"] for usage in usages)
    assert page["vllm:request_success_total", "length"] == truth["requests"] == 9
    drawn = node.state.slot(0, 0).energy_joules() - before_joules
    assert drawn == pytest.approx(truth["drawn_joules"], rel=1e-9)
    assert drawn + 100.0 * truth["busy_seconds"] == pytest.approx(
        truth["prefill_joules"] + truth["decode_joules"], rel=1e-9
    )


async def test_both_metrics_paths_answer_as_vllms_do(node):
    url = node.servers[0].url
    wanted = {"name[]": "vllm:generation_tokens_total"}
    whole = await text(f"{url}/metrics", params=wanted, headers={"Accept": "application/openmetrics-text"})
    assert (
        'vllm:num_requests_running{engine="0",model_name="llama"}' in whole
    )  # T3: ignores name[] and Accept
    assert "# EOF" not in whole
    assert "process_start_time_seconds" in whole
    part = await text(f"{url}/metrics/", params=wanted)
    assert {family.name for family in text_string_to_metric_families(part)} == {"vllm:generation_tokens"}
    openmetrics = await text(f"{url}/metrics/", headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.endswith("# EOF\n")


async def test_identity_and_health(node):
    url = node.servers[0].url
    assert '"id": "llama"' in await text(f"{url}/v1/models")
    assert await text(f"{url}/version") == '{"version": "0.32.0"}'
    assert await text(f"{url}/health") == ""


async def test_bad_request_is_answered_with_400(node):
    url = f"{node.servers[0].url}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
        assert response.status == 400
        assert "prompt: expected" in (await response.json())["error"]["message"]


def test_nvml_lists_the_servers_processes(node, nvml_library, monkeypatch):
    for name, value in node.environment.items():
        monkeypatch.setenv(name, value)
    pynvml.nvmlInit()
    try:
        for index, server in enumerate(node.servers):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            listed = [(p.pid, p.usedGpuMemory) for p in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
            assert listed == [(server.pid, MODELS[LLAMA].gpu_memory_bytes)]
    finally:
        pynvml.nvmlShutdown()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_demo_is_what_it_says_and_ends_with_its_block():
    with VirtualNode(DEMO) as node:
        time.sleep(1.5)
        used = [node.state.energy_joules(gpu) for gpu in range(4)]
        pids = [server.pid for server in node.servers]
        slots = [node.state.slot(2, 1), node.state.slot(2, 2)]
    assert [server.plan.gpus for server in node.servers] == [(0, 1), (2,), (2,)]
    assert len({server.plan.model for server in node.servers}) == 3
    assert used[0] == pytest.approx(
        used[1], rel=0.01
    )  # idle drifts by the microseconds between two creations
    assert min(used) == used[3]
    assert all(map(gone, pids))
    now = time.monotonic()
    assert [slot.energy_joules(now) for slot in slots] == [slot.energy_joules(now + 10) for slot in slots]


def test_killed_server_leaves_nothing_behind():
    with VirtualNode(Scenario((GPU,), (ScenarioServer(LLAMA, (0,), requests_per_second=50.0),))) as node:
        time.sleep(0.5)
        os.kill(node.servers[0].pid, signal.SIGKILL)
        time.sleep(0.3)
        drawn = node.state.slot(0, 0).energy_joules()
        assert drawn > 0
        time.sleep(0.1)
        assert node.state.slot(0, 0).energy_joules() == drawn  # nothing draws on
    assert node.state.slot(0, 0).energy_joules() == drawn


def test_servers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import time\n"
        "from joulemeter.simulation.node import *\n"
        "from joulemeter.simulation.state import VirtualGpu\n"
        f"with VirtualNode(Scenario((VirtualGpu(),), (ScenarioServer({LLAMA!r}, (0,)),))) as node:\n"
        "    print(node.servers[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed process does not clean up
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pid)


def test_server_that_cannot_start_says_why():
    scenario = Scenario((VirtualGpu(idle_watts=500.0),), (ScenarioServer(LLAMA, (0,)),))
    with pytest.raises(JoulemeterError, match=r"ended with 1: .*lower the virtual GPUs' idle_watts"):
        VirtualNode(scenario).__enter__()


@pytest.mark.parametrize("server", [ScenarioServer(LLAMA, (1,)), ScenarioServer("gpt-2", (0,))])
def test_impossible_scenario_is_refused(server):
    with pytest.raises(ValueError, match=r"servers\[0\]: .* the node has 1; models: "):
        Scenario((GPU,), (server,))


def test_time_limit(tmp_path: Path):
    with VirtualNode(Scenario((GPU,))) as node:
        command = [sys.executable, "-m", "joulemeter.simulation.server", "--model", LLAMA, "--gpus", "0"]
        environment = {**os.environ, **node.environment}
        done = subprocess.run(
            [*command, "--max-seconds", "0.1"], env=environment, check=False, timeout=20, capture_output=True
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--state: name the state file"),
        (["--state", "x", "--gpus", "0,1"], "runs on 1, got 2"),
    ],
)
def test_command_line_mistakes(arguments, message, monkeypatch, capsys):
    monkeypatch.delenv(library.STATE_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="2"):
        parse(["--model", LLAMA, "--gpus", "0", *arguments])
    assert message in capsys.readouterr().err
