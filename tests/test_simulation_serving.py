"""The page of a virtual server against a recorded one, and its work on a fake clock."""

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from joulemeter.dialects import by_name, read_page
from joulemeter.model import Role
from joulemeter.simulation.completions import asked
from joulemeter.simulation.engine import Engine, Request
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.serving import AHEAD_SECONDS, WAKE_SECONDS, Serving
from joulemeter.simulation.state import NvmlState, VirtualGpu
from joulemeter.simulation.vllm_page import VllmPage
from joulemeter.simulation.workload import Arrival, PrefixCache, Traffic, arrivals

RECORDED = Path(__file__).parent / "fixtures" / "simulation" / "vllm-0.32.0.prom"
LLAMA = MODELS["meta-llama/Llama-3.1-8B-Instruct"].coefficients
IDLE_WATTS = 200.0  # two GPUs


def new_page() -> tuple[VllmPage, CollectorRegistry]:
    registry = CollectorRegistry()
    return VllmPage("tiny", registry, max_model_tokens=4096, cache_tokens=100_000), registry


def shape(page: str) -> list[str]:
    """The vLLM lines without values; of the information series, the names of the labels only."""
    lines = [line for line in page.splitlines() if re.match(r"(# \w+ )?vllm:", line)]
    texts = [line if line.startswith("#") else line.rpartition(" ")[0] for line in lines]
    return [re.sub(r'"[^"]*"', "", text) if text.startswith("vllm:cache_config") else text for text in texts]


def test_page_has_the_shape_of_a_recorded_one():
    _, registry = new_page()
    assert shape(generate_latest(registry).decode()) == shape(RECORDED.read_text())


@pytest.fixture
def node(tmp_path: Path) -> NvmlState:
    return NvmlState.create(tmp_path / "state", [VirtualGpu(idle_watts=100.0)] * 2)


class Clock:
    """Drives a `Serving`, and reads its page."""

    def __init__(self, node: NvmlState, traffic: Iterable[Arrival] = (), sharers: int = 1) -> None:
        page, self._registry = new_page()
        self.now = time.monotonic()
        self.slots = [node.slot(0, 1), node.slot(1, 1)]
        self.serving = Serving(
            Engine(LLAMA),
            page,
            self.slots,
            idle_watts=lambda: IDLE_WATTS,
            traffic=iter(traffic),
            sharers=sharers,
            start_seconds=self.now,
        )

    def run(self, seconds: float, seen: Callable[[], object] = lambda: None) -> None:
        until = self.now + seconds
        while self.now < until:
            wait = self.serving.advance(self.now)
            assert 0 <= wait <= 0.5
            seen()
            self.now += max(wait, 0.001)

    def page(self) -> str:
        return generate_latest(self._registry).decode()

    def value(self, name: str, **labels: str) -> float:
        found = self._registry.get_sample_value(name, {"model_name": "tiny", "engine": "0", **labels})
        assert found is not None
        return found


def test_counters_move_as_vllms_do(node):
    clock = Clock(node)
    clock.serving.submit(Request(0, 3900, 20, cached_tokens=0), clock.now)
    seen: list[tuple[float, ...]] = []
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")

    def look() -> None:
        success = clock.value(names[2], finished_reason="length")
        row = (clock.value(names[0]), clock.value(names[1]), success)
        if not seen or seen[-1] != row:
            seen.append(row)

    clock.run(1.0, look)
    prompts = [prompt for prompt, _, _ in seen]
    assert sorted(set(prompts)) == [0, 3900]  # once, not with each chunk
    assert len({generated for _, generated, _ in seen}) > 3  # with the steps
    assert [row for row in seen if row[2]] == [(3900, 20, 1)]
    assert clock.value("vllm:iteration_tokens_total_sum") == 3900 + 20
    assert clock.value("vllm:iteration_tokens_total_count") == 20  # the first chunk alone is not in it
    assert clock.value("vllm:inter_token_latency_seconds_count") == 19
    assert clock.value("vllm:time_to_first_token_seconds_count") == 1


def test_page_is_read_with_first_tokens_and_context(node):
    clock = Clock(node)
    clock.serving.submit(Request(0, 600, 200, cached_tokens=0), clock.now)
    seen: list[dict[Role, float]] = []

    def look() -> None:
        page = read_page(clock.page(), by_name("vllm"))
        seen.append({reading.role: reading.value for reading in page.readings})

    clock.run(10.0, look)
    decoding = [roles for roles in seen if roles[Role.RUNNING]]
    assert {roles[Role.FIRST_TOKENS] for roles in decoding if roles[Role.GENERATION]} == {1}
    for roles in decoding:
        if roles[Role.GENERATION]:
            assert roles[Role.CONTEXT] == pytest.approx(600 + roles[Role.GENERATION], abs=2)
    assert len(decoding) > 20
    assert (seen[-1][Role.RUNNING], seen[-1][Role.CONTEXT], seen[-1][Role.FIRST_TOKENS]) == (0, 0, 1)


def test_cached_tokens_are_counted_apart(node):
    clock = Clock(node)
    clock.serving.submit(Request(0, 600, 3, cached_tokens=384), clock.now)
    clock.run(1.0)
    assert clock.value("vllm:prompt_tokens_total") == 600
    assert clock.value("vllm:prompt_tokens_cached_total") == 384
    assert clock.value("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 384
    assert clock.value("vllm:prompt_tokens_by_source_total", source="local_compute") == 216
    assert clock.value("vllm:prefix_cache_hits_total") == 384
    assert clock.value("vllm:request_prefill_kv_computed_tokens_sum") == 216


def test_slots_draw_exactly_what_the_truth_says(node):
    clock = Clock(node, arrivals(Traffic(5.0), seed=4))
    clock.run(20.0)
    truth = clock.serving.truth
    assert truth.requests > 50
    assert truth.drawn_joules == pytest.approx(
        truth.prefill_joules + truth.decode_joules - IDLE_WATTS * truth.busy_seconds, rel=1e-12
    )
    drawn = sum(slot.energy_joules(clock.now) for slot in clock.slots)
    in_flight = (
        LLAMA.busy_watts * 2 * (AHEAD_SECONDS + WAKE_SECONDS)
    )  # steps that have not ended are not counted
    assert truth.drawn_joules == pytest.approx(drawn, abs=in_flight)
    assert clock.slots[0].energy_joules(clock.now) == clock.slots[1].energy_joules(clock.now)
    assert clock.value("vllm:generation_tokens_total") == truth.generation_tokens
    assert clock.value("vllm:prompt_tokens_total") == truth.prompt_tokens
    assert clock.value("vllm:prompt_tokens_cached_total") == truth.cached_prompt_tokens
    assert clock.value("vllm:request_success_total", finished_reason="length") == truth.requests


def test_when_all_is_done_the_sums_are_exact(node):
    clock = Clock(node)
    for number in range(30):
        clock.serving.submit(Request(number, 100 + number, 10 + number), clock.now)
    clock.run(2.0)
    drawn = sum(slot.energy_joules(clock.now) for slot in clock.slots)
    assert clock.serving.truth.requests == 30
    assert clock.serving.truth.generation_tokens == sum(10 + number for number in range(30))
    assert drawn == pytest.approx(clock.serving.truth.drawn_joules, rel=1e-12)
    assert clock.value("vllm:num_requests_running") == 0
    assert clock.value("vllm:kv_cache_usage_perc") == 0


def test_a_stall_of_the_machine_is_idle_time_and_loses_nothing(node):
    clock = Clock(node)
    clock.serving.submit(Request(0, 10, 100), clock.now)
    clock.run(0.2)
    clock.now += 3.0
    before = clock.slots[0].energy_joules(clock.now)
    assert before == clock.slots[0].energy_joules(clock.now - 2.0)  # what was written ahead has ended
    clock.run(2.0)
    drawn = sum(slot.energy_joules(clock.now) for slot in clock.slots)
    assert clock.serving.truth.generation_tokens == 100
    assert drawn == pytest.approx(clock.serving.truth.drawn_joules, rel=1e-12)


def test_power_of_a_moment_is_final_once_it_has_passed(node):
    clock = Clock(node, arrivals(Traffic(3.0), seed=9))
    seen: list[tuple[float, float]] = []
    clock.run(1.0, lambda: seen.append((clock.now, clock.slots[0].energy_joules(clock.now))))
    assert all(clock.slots[0].energy_joules(at) == joules for at, joules in seen)


def test_shared_gpus_take_longer_at_less_power_for_the_same_energy(node):
    alone = Clock(node)
    alone.serving.submit(Request(0, 1000, 100), alone.now)
    alone.run(3.0)
    before = alone.slots[0].energy_joules(alone.now)
    shared = Clock(node, sharers=2)
    shared.now = alone.now
    shared.serving.submit(Request(0, 1000, 100), shared.now)
    shared.run(3.0)
    drawn = 2 * (shared.slots[0].energy_joules(shared.now) - before)
    assert drawn == pytest.approx(shared.serving.truth.drawn_joules, rel=1e-9)
    assert shared.serving.truth == alone.serving.truth
    seconds = [clock.value("vllm:inter_token_latency_seconds_sum") for clock in (alone, shared)]
    assert seconds[1] == pytest.approx(2 * seconds[0])


def test_finished_requests_are_told(node):
    clock = Clock(node)
    told = []
    clock.serving.submit(Request(7, 50, 5), clock.now, told.append)
    clock.run(1.0)
    (served,) = told
    assert served.request.output_tokens == 5
    assert served.arrived_seconds <= served.started_seconds < served.first_token_seconds
    assert served.finished_seconds - served.first_token_seconds == pytest.approx(
        4 * (LLAMA.step_seconds + LLAMA.sequence_seconds) + (51 + 52 + 53 + 54) * LLAMA.context_token_seconds
    )


def test_prefix_cache_knows_whole_blocks_and_leaves_a_token_to_compute():
    cache = PrefixCache()
    assert [cache.take(range(length)) for length in (40, 40, 48, 48, 16, 15)] == [0, 32, 32, 32, 0, 0]
    assert cache.take([99, *range(1, 40)]) == 0


BAD = {
    "body: expected JSON": b"{",
    "body: expected an object": b"[]",
    "stream, n": b'{"prompt": "a", "stream": true}',
    "prompt: expected words": b'{"prompt": ""}',
    "prompt: expected words or a list of token ids, at least one, got 'None'": b"{}",
    "max_tokens: expected a whole number from 1 to 9": b'{"prompt": "a", "max_tokens": 10}',
    "got '5'": b'{"prompt": "a", "max_tokens": "5"}',
}


@pytest.mark.parametrize("message", BAD)
def test_bad_request_is_refused_by_field(message):
    with pytest.raises(ValueError, match=message):
        asked(BAD[message], PrefixCache(), max_model_tokens=10)
