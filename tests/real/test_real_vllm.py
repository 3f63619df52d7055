"""joulemeter beside a real vLLM: every token and every joule once, through aborts and a restart."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import loadgen
import pytest
from daemon import IDLE_WATTS, SERVER, Daemon, VirtualNode, Watcher, counted_tokens
from gate import Gate
from loadgen import Outcome, Request, Tokens
from pages import Page
from vllm_server import MODEL, VllmServer

from joulemeter.dialects import read_page
from joulemeter.dialects.vllm import PLUGIN
from joulemeter.model import RoleReading

pytestmark = pytest.mark.timeout(900)

Summary = list[tuple[str, str]]

QUERY: Final = "&".join(f"name[]={name}" for name in PLUGIN.filter_names)
FILTERED: Final = f"{PLUGIN.filter_path}?{QUERY}"
SHARED_TOKENS: Final = 512
"""A multiple of the CPU build's cache block of 128 tokens: all of it can be a hit."""
PHASES: Final = ("prefill", "decode", "idle")
WINDOW_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 60.0
"""Several windows: by then the one with the last tokens has closed, on a busy machine too."""
AGE_SECONDS: Final = 2.5
"""How old measured energy on a page may be: interval + 0.5 s, and a busy machine's second."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, summary: Summary) -> Iterator[VllmServer]:
    server = VllmServer(log=tmp_path_factory.mktemp("vllm") / "vllm.log")
    try:
        server.start()
        summary.append(
            ("vLLM ready after", f"{server.start_seconds:.0f} s, {server.memory_bytes() / 2**30:.1f} GiB")
        )
        yield server
    finally:
        server.stop()


def prompt(chance: random.Random, length: int) -> list[int]:
    """Return token ids; 0 to 2 are special."""
    return chance.choices(range(3, 1000), k=length)


def mixed_requests(seed: int) -> list[Request]:
    """Return requests of many lengths, half of them streamed; nothing in common."""
    chance = random.Random(seed)
    sizes = [(5, 150), (40, 600), (300, 750), (900, 450), (1500, 600), (3000, 300), (127, 750), (129, 1)]
    return [
        Request(prompt(chance, length), count, stream=i % 2 == 0) for i, (length, count) in enumerate(sizes)
    ]


def sharing_requests(seed: int) -> tuple[Request, list[Request]]:
    """Return one request, and six that begin with the same tokens."""
    chance = random.Random(seed)
    shared = prompt(chance, SHARED_TOKENS)
    first, *others = (Request(shared + prompt(chance, 90), 120, stream=i % 2 == 0) for i in range(7))
    return first, others


def hanging_up_requests(seed: int) -> list[Request]:
    """Return streams whose clients go away long before the end."""
    chance = random.Random(seed)
    return [
        Request(prompt(chance, 200), 3000, stream=True, hang_up_after=after) for after in (1, 40, 90, 150)
    ]


async def known_load(url: str, seed: int) -> list[Outcome]:
    """Run requests that all come to their end."""
    first, others = sharing_requests(seed)
    outcomes = await loadgen.run(url, MODEL, [first])
    outcomes += await loadgen.run(url, MODEL, others)
    return outcomes + await loadgen.run(url, MODEL, mixed_requests(seed + 1))


def total(outcomes: Sequence[Outcome]) -> Tokens:
    return Tokens.sum(outcome.tokens for outcome in outcomes)


def understood(text: str) -> set[RoleReading]:
    return set(read_page(text, PLUGIN).readings)


async def test_the_path_with_a_slash_gives_what_joulemeter_needs_and_little_else(
    vllm: VllmServer, summary: Summary
) -> None:
    whole, unfiltered, filtered = (vllm.text(path) for path in ("/metrics", f"/metrics?{QUERY}", FILTERED))
    assert Page.parse(unfiltered).names() == Page.parse(whole).names()
    assert understood(filtered) == understood(whole)
    assert read_page(filtered, PLUGIN).start_time_seconds is not None
    assert len(filtered) < len(whole) / 10
    for path in ("/metrics", FILTERED):
        size, median, lowest = await answer_times(vllm.url, path)
        answer = f"{size} bytes in {median:.1f} ms (median of 20, lowest {lowest:.1f} ms)"
        summary.append((f"vLLM answers {path.partition('=')[0]}", answer))


async def answer_times(url: str, path: str) -> tuple[int, float, float]:
    """Return the size of an answer, and the median and lowest milliseconds of 20."""
    took = []
    async with aiohttp.ClientSession(url) as client:
        for _ in range(20):
            began = time.perf_counter()
            async with client.get(path) as answer:
                size = len(await answer.read())
            took.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.1)
    return size, statistics.median(took), min(took)


async def test_usage_is_what_the_server_counts(vllm: VllmServer) -> None:
    before = vllm.quiet_counters()
    outcomes = await known_load(vllm.url, seed=1)
    after = vllm.quiet_counters()
    assert after.tokens - before.tokens == total(outcomes)
    assert after.finished_requests - before.finished_requests == len(outcomes)
    assert [outcome.tokens.cached_prompt for outcome in outcomes[:7]] == [0] + [SHARED_TOKENS] * 6

    seen = await loadgen.run(vllm.url, MODEL, hanging_up_requests(seed=2))
    aborted = vllm.quiet_counters()
    assert aborted.finished_requests == after.finished_requests, (
        "vLLM counts no request whose client went away"
    )
    assert_between(total(seen), aborted.tokens - after.tokens)


def assert_between(seen: Tokens, counted: Tokens) -> None:
    """Aborted streams: all their prompts were computed, and at least what the clients saw was generated."""
    assert (counted.prompt, counted.cached_prompt) == (seen.prompt, 0)
    assert seen.generation <= counted.generation < 4 * 3000


@asynccontextmanager
async def watched(daemon: Daemon) -> AsyncIterator[Watcher]:
    """Watch the daemon's pages as long as the block runs; what was wrong with one is raised at its end."""
    watcher, stop = Watcher(daemon), asyncio.Event()
    watching = asyncio.create_task(watcher.run(stop))
    try:
        yield watcher
        watcher.check()
    finally:
        stop.set()
        await watching


def is_up(page: Page) -> bool:
    return page.total("joulemeter_source_up", kind="server") == 1


def observations(page: Page) -> float:
    return page.total("joulemeter_observation_duration_seconds_count")


def given_up(page: Page) -> tuple[float, Tokens]:
    return page.total("joulemeter_unattributed_energy_joules_total"), counted_tokens(
        page, "joulemeter_unattributed_tokens_total"
    )


@dataclass
class Bench:
    """What is tested together; joulemeter reaches the server through the gate, the load does not."""

    vllm: VllmServer
    gate: Gate
    node: VirtualNode
    watcher: Watcher

    async def load(self, seed: int) -> list[Outcome]:
        """Run requests that come to their end, on a busy GPU."""
        return await self._busy(known_load(self.vllm.url, seed))

    async def load_that_hangs_up(self, seed: int) -> list[Outcome]:
        """Run streams that their clients leave, on a busy GPU."""
        return await self._busy(loadgen.run(self.vllm.url, MODEL, hanging_up_requests(seed)))

    async def counted_by_server(self) -> Tokens:
        """Return what the server has counted, once it is quiet."""
        return (await asyncio.to_thread(self.vllm.quiet_counters)).tokens

    async def observed(self, times: int) -> Page:
        """Wait until joulemeter has asked the server that many times more."""
        wanted = observations(self.watcher.latest) + times
        return await self.watcher.until(
            lambda page: is_up(page) and observations(page) >= wanted, 30, f"{times} observations of vLLM"
        )

    async def settled(self, expected: Tokens) -> Page:
        """Wait until joulemeter shows exactly these tokens."""
        return await self.watcher.until(
            lambda page: are_same(counted_tokens(page), expected), SETTLE_SECONDS, f"{expected} on the page"
        )

    async def restart_server_unseen(self) -> None:
        """Kill the server and start it again, and let joulemeter see only that it is gone."""
        await asyncio.to_thread(self.vllm.kill)
        await self.watcher.until(lambda page: not is_up(page), 30, "source_up 0 after the server was killed")
        await self.gate.shut()
        await asyncio.to_thread(self.vllm.start)

    async def show_server(self) -> None:
        """Let joulemeter find the server again."""
        await self.gate.open()
        await self.watcher.until(is_up, 30, "source_up 1 after the server came back")

    async def _busy(self, load: Awaitable[list[Outcome]]) -> list[Outcome]:
        self.node.set_busy(True)
        try:
            return await load
        finally:
            self.node.set_busy(False)


def are_same(one: Tokens, other: Tokens) -> bool:
    """Compare to a millionth of a token: window edges fall between observations, and sums round."""
    gap = one - other
    return max(map(abs, (gap.prompt, gap.cached_prompt, gap.generation))) < 1e-6


@asynccontextmanager
async def running(vllm: VllmServer, folder: Path) -> AsyncIterator[Bench]:
    """Run `joulemeter serve` beside the server."""
    gate, node = Gate(vllm.port), VirtualNode(folder)
    daemon = Daemon(folder, gate.url)
    await gate.open()
    daemon.start(node.environment())
    try:
        async with watched(daemon) as watcher:
            yield Bench(vllm, gate, node, watcher)
    finally:
        status = daemon.stop()
        await gate.shut()
    assert status == 0, f"joulemeter ended with status {status} when asked to stop"


async def test_joulemeter_counts_every_token_and_every_joule_once(
    vllm: VllmServer, tmp_path: Path, summary: Summary
) -> None:
    before = vllm.quiet_counters().tokens  # counted before joulemeter came: not its business
    async with running(vllm, tmp_path) as bench:
        first_page, first_joules = await bench.observed(2), bench.node.energy_joules()
        began = time.monotonic()

        finished = await bench.load(seed=10)
        await bench.settled(total(finished))
        page = await bench.observed(1)
        nothing_more_given_up = given_up(page)
        interval = (time.monotonic() - began) / (observations(page) - observations(first_page))

        left = await bench.load_that_hangs_up(seed=20)
        counted = await bench.counted_by_server() - before
        assert_between(total(left), counted - total(finished))
        await bench.settled(counted)

        finished += await bench.load(seed=30)
        first_life = await bench.counted_by_server() - before
        page = await bench.observed(2)
        unsettled = first_life - counted_tokens(page)
        killed = time.monotonic()
        await bench.restart_server_unseen()
        later = await bench.load(seed=40)  # joulemeter's first page of the new process counts these already
        await bench.show_server()
        away_seconds = time.monotonic() - killed
        later += await bench.load(seed=50)
        second_life = await bench.counted_by_server()
        assert second_life == total(later)
        await bench.settled(first_life + second_life)
        await asyncio.sleep(WINDOW_SECONDS + 2)  # one more window closes, with nothing in it
        page = await bench.settled(first_life + second_life)
        finished += later

        drawn_joules = bench.node.energy_joules() - first_joules
        measured_joules = measured(page) - measured(first_page)
        assert measured_joules == pytest.approx(drawn_joules, abs=AGE_SECONDS * IDLE_WATTS)
        assert given_up(page) == nothing_more_given_up
        assert page.total("joulemeter_model_requests_total", server=SERVER) == len(finished)
        assert all(phase_joules(page, phase) > 0 for phase in PHASES)

    summary += [
        ("requests", f"{len(finished)} finished, {len(left)} left by their clients"),
        ("usage, finished", shown(total(finished))),
        ("usage, left", f"{shown(total(left))} (as far as the clients saw)"),
        ("vLLM counted", shown(first_life + second_life)),
        ("joulemeter counted", shown(counted_tokens(page))),
        ("restart", f"{away_seconds:.0f} s; not yet on the page when killed: {shown(unsettled)}"),
        ("energy", f"{measured_joules:.0f} J measured, {drawn_joules:.0f} J drawn by the virtual GPU"),
        *((f"energy, {phase}", f"{phase_joules(page, phase):.0f} J") for phase in PHASES),
        ("energy, unattributed", f"{given_up(page)[0]:.0f} J"),
        ("energy, pending", f"{page.total('joulemeter_pending_energy_joules'):.0f} J"),
        (
            "prefill",
            f"{phase_joules(page, 'prefill') / counted_tokens(page).prompt:.3f} J per computed prompt token",
        ),
        (
            "decode",
            f"{phase_joules(page, 'decode') / counted_tokens(page).generation:.3f} J per generated token",
        ),
        (
            "adds up",
            f"on {bench.watcher.pages} pages, off by at most {bench.watcher.worst_imbalance_ratio:.1g}",
        ),
        (
            "joulemeter answers",
            "median {:.1f} ms, highest {:.1f} ms".format(*bench.watcher.answer_milliseconds()),
        ),
        (
            "joulemeter asks vLLM",
            f"every {interval:.2f} s, answered through the gate in {mean_answer_milliseconds(page):.1f} ms",
        ),
    ]


def measured(page: Page) -> float:
    return page.total("joulemeter_gpu_energy_joules_total")


def phase_joules(page: Page, phase: str) -> float:
    return page.total("joulemeter_model_energy_joules_total", server=SERVER, model=MODEL, phase=phase)


def mean_answer_milliseconds(page: Page) -> float:
    return page.total("joulemeter_observation_duration_seconds_sum") / observations(page) * 1e3


def shown(tokens: Tokens) -> str:
    return (
        f"{tokens.prompt:.0f} prompt + {tokens.cached_prompt:.0f} cached, {tokens.generation:.0f} generated"
    )
