"""Observations to work: per model, interpolated, and with late counters laid over the time they belong to."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.history import ServerHistory
from joulemeter.model import Moves, Observation, PageReading, Role, RoleReading
from joulemeter.work import Work


@dataclass
class Page:
    """Builds observations of one server."""

    readings: list[RoleReading] = field(default_factory=list)

    def add(
        self, role: Role, value: float, moves: Moves | None = Moves.STEP, model: str = "m", series: str = ""
    ) -> "Page":
        self.readings.append(RoleReading(role, model, series or f"{role}/{model}", value, moves))
        return self

    def at(self, at_seconds: float) -> Observation:
        return Observation("s", at_seconds, PageReading("test", tuple(self.readings)))


def history() -> ServerHistory:
    return ServerHistory(keep_seconds=600)


def test_work_counts_from_the_first_page_and_is_interpolated():
    server = history()
    server.observe(Page().add(Role.GENERATION, 1000).at(10), default_model="?")
    server.observe(Page().add(Role.GENERATION, 1100).at(11), default_model="?")
    assert server.at(10)["m"].generation_tokens == 0
    assert server.at(10.25)["m"].generation_tokens == pytest.approx(25)
    assert server.at(99)["m"].generation_tokens == 100


def test_requests_that_ran_are_those_of_the_page_before():
    server = history()
    assert server.running_at(10.0, "m") == 0
    for at, running in ((10, 3), (11, 5)):
        server.observe(Page().add(Role.RUNNING, running, None).at(at), default_model="?")
    assert [server.running_at(at, "m") for at in (9.0, 10.0, 10.5, 11.0, 20.0)] == [0, 3, 3, 5, 5]
    assert server.running_at(11.0, "another") == 0


def test_t6_cached_tokens_are_taken_out_of_a_prompt_counter_that_includes_them():
    server = history()
    for at, prompt, cached in ((0, 100, 40), (1, 1100, 680)):
        page = Page().add(Role.PROMPT_WITH_CACHED, prompt, Moves.FIRST_TOKEN)
        server.observe(page.add(Role.CACHED_PROMPT, cached, Moves.ADMISSION).at(at), default_model="?")
    work = server.at(1)["m"]
    assert (work.prompt_tokens, work.cached_prompt_tokens) == (360, 640)


def test_cache_hits_counted_at_admission_never_make_computed_tokens_fall():
    server, computed = history(), []
    for at, prompt, cached in ((0, 0, 0), (1, 1000, 0), (2, 1000, 800), (3, 2000, 800)):
        page = Page().add(Role.PROMPT_WITH_CACHED, prompt, Moves.FIRST_TOKEN)
        server.observe(page.add(Role.CACHED_PROMPT, cached, Moves.ADMISSION).at(at), default_model="?")
        computed.append(server.at(at)["m"].prompt_tokens)
    assert computed == [0, 1000, 1000, 1200]


def with_cached(prompts: float, hits: float) -> Page:
    """A server whose prompts counter holds cache hits."""
    page = Page().add(Role.PROMPT_WITH_CACHED, prompts, Moves.FIRST_TOKEN, series="prompts")
    return page.add(Role.CACHED_PROMPT, hits, Moves.ADMISSION, series="hits")


def computed(prompts: float, hits: float) -> Page:
    """The release after it, with a counter of its own for what was computed."""
    page = Page().add(Role.PROMPT, prompts - hits, Moves.FIRST_TOKEN, series="computed")
    return page.add(Role.CACHED_PROMPT, hits, Moves.FIRST_TOKEN, series="cached")


def rollout(ways: list[Callable[[float, float], Page]], *, tells_start: bool) -> list[float]:
    """Computed prompt tokens published while one process after another counts ten seconds of 1,000, 600 from the cache.

    A request is always admitted and not yet computed: its hits are counted a page before its prompt.
    """
    server, published = history(), []
    for number, way in enumerate(ways):
        for second in range(11):
            page = way(1000 * second, 600 * (second + 1) if way is with_cached else 600 * second)
            seen = page.at(100 * number + second)
            if tells_start:
                seen = replace(seen, page=replace(seen.page, start_time_seconds=float(number)))
            server.observe(seen, default_model="?")
            published.append(server.at(1e9)["m"].prompt_tokens)
    assert published == sorted(published)
    return published[10::11]


@pytest.mark.parametrize("tells_start", [True, False])
@pytest.mark.parametrize(
    "ways",
    [
        [with_cached, computed, computed],
        [computed, with_cached, with_cached],
        [with_cached, computed, with_cached],
        [with_cached] * 3,
    ],
    ids=["upgrade", "downgrade", "there and back", "restarts"],
)
def test_another_process_behind_the_url_owes_nothing_for_cache_hits_of_the_last_one(ways, tells_start):
    """Each process has computed 4,000 tokens; one prompt of it, admitted and not computed, hides 600 of them."""
    after = rollout(ways, tells_start=tells_start)
    grown = [second - first for first, second in pairwise([0.0, *after])]
    assert grown == [pytest.approx(4000, abs=600)] * 3


@pytest.mark.parametrize("tells_start", [True, False])
@pytest.mark.parametrize("way", [with_cached, computed])
def test_hits_whose_prompts_died_with_the_process_are_not_taken_out_of_the_next_ones(way, tells_start):
    """5,000 hits were admitted and never computed; the next process counts 900 tokens, 500 of them hits."""
    server = history()
    pages = [with_cached(0, 0), with_cached(0, 5000), way(0, 0), way(900, 500)]
    for at, page in enumerate(pages):
        seen = page.at(at)
        if tells_start:
            seen = replace(seen, page=replace(seen.page, start_time_seconds=float(at // 2)))
        server.observe(seen, default_model="?")
    assert server.at(9)["m"].prompt_tokens == 400


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(0, 2)), min_size=1))
def test_over_a_process_computed_tokens_are_prompts_less_hits_however_late_either_is_counted(
    requests: list[tuple[int, int, int]],
):
    server, prompts, hits, pages = history(), 0, 0, [(0, 0)]
    for fresh, cached, order in requests:
        if order != 1:  # 0: hits first; 1: prompts first; 2: at once
            hits += cached
        if order != 0:
            prompts += fresh + cached
        pages.append((prompts, hits))
        prompts += fresh + cached if order == 0 else 0
        hits += cached if order == 1 else 0
        pages.append((prompts, hits))
    published = []
    for at, (prompts, hits) in enumerate(pages):
        server.observe(with_cached(prompts, hits).at(at), default_model="?")
        published.append(server.at(at)["m"].prompt_tokens)
    assert published == sorted(published)
    assert published[-1] == max(prompts - hits for prompts, hits in pages)


def test_steps_are_known_from_the_first_window_on():
    assert (Work(steps=5.0) - Work()).steps == 5
    assert Work().interpolated(Work(steps=4.0), 0.5).steps == 2
    assert Work(steps=4.0).scaled(0.5).steps == 2
    assert (Work() - Work()).steps is None


def finishing(live: bool) -> list[float]:
    """A request of 1,000 tokens that runs from 1 s to 21 s, on a server that counts at the end."""
    server, totals = history(), []
    for second in range(24):
        running = 1 if 1 <= second < 21 else 0
        page = (
            Page()
            .add(Role.GENERATION, 1000 if second >= 21 else 0, Moves.FINISH)
            .add(Role.RUNNING, running, None)
        )
        if live:
            page.add(Role.LIVE_GENERATION, min(max(0, second - 1), 20) * 50)
        server.observe(page.at(second), default_model="?")
        totals.append(server.at(second)["m"].generation_tokens)
    return totals


def test_a_counter_that_moves_at_the_end_is_laid_over_the_request_by_the_live_count():
    totals = finishing(live=True)
    assert totals[11] == pytest.approx(500)
    assert totals[-1] == 1000
    assert max(b - a for a, b in pairwise(totals)) <= 60


def test_without_a_live_count_running_requests_carry_the_estimate():
    totals = finishing(live=False)
    assert totals[0] == 0
    assert totals[20] == pytest.approx(30 * 19.5)  # the prior: 30 tokens a second and running request
    assert totals[-1] == 1000


def test_steps_times_running_requests_are_a_live_count():
    server, totals = history(), []
    for second in range(22):
        running = 4 if 0 < second < 21 else 0
        page = Page().add(Role.GENERATION, 4000 if second >= 21 else 0, Moves.FINISH)
        page.add(Role.STEPS, min(second, 20) * 50).add(Role.RUNNING, running, None)
        server.observe(page.at(second), default_model="?")
        totals.append(server.at(second)["m"].generation_tokens)
    assert totals[10] == pytest.approx(2000, rel=0.1)
    assert totals[-1] == 4000


@pytest.mark.parametrize("role", [Role.GENERATION, Role.PROMPT])
def test_another_kind_of_server_behind_the_url_never_makes_a_total_fall(role):
    """Its counter moves with the work, then at a request's end by a live count, then by none, then with the work."""
    server, published = history(), []
    for at in range(40):
        kind, tokens = at // 10, 1000 * (at % 10)
        page = Page().add(role, tokens, Moves.STEP if kind in (0, 3) else Moves.FINISH, series=f"of {kind}")
        if kind == 1:
            page.add(Role.LIVE_GENERATION, tokens)
        server.observe(page.add(Role.RUNNING, 1 if at % 10 < 9 else 0, None).at(at), default_model="?")
        work = server.at(at)["m"]
        published.append(work.generation_tokens + work.prompt_tokens)
    assert published == sorted(published)
    assert published[9::10] == [pytest.approx(9000 * kind) for kind in (1, 2, 3, 4)]


def test_a_live_count_is_held_against_the_requests_that_run_on_pages_without_an_idle_one():
    """Ten requests of 100 tokens end every second, and 5 % more are counted live, for three hours without a pause."""
    server = history()
    for at in range(3 * 3600):
        page = Page().add(Role.GENERATION, 1000 * at, Moves.FINISH).add(Role.LIVE_GENERATION, 1050 * at)
        page.add(Role.REQUESTS, 10 * at, Moves.FINISH).add(Role.RUNNING, 20, None)
        server.observe(page.at(at), default_model="?")
        assert 1000 * at <= server.at(at)["m"].generation_tokens <= 1000 * at + 20 * 100 * 2


def test_a_server_without_models_on_its_page_serves_the_default_model():
    server = history()
    server.observe(Page().at(0), default_model="named")
    assert server.loaded == {"named"}


def test_a_model_swap_ends_one_model_and_begins_another():
    server = history()
    server.observe(
        Page().add(Role.GENERATION, 5, model="old").add(Role.RUNNING, 2, None, model="old").at(0),
        default_model="?",
    )
    server.observe(Page().add(Role.GENERATION, 3, model="new").at(1), default_model="?")
    assert server.loaded == {"new"}
    assert server.running("old") is None
    assert server.at(1)["new"].generation_tokens == 3
    server.forget("old")
    assert "old" not in server.at(1)


def test_an_observation_that_is_not_younger_says_nothing():
    server = history()
    server.observe(Page().add(Role.GENERATION, 5).at(1), default_model="?")
    server.observe(Page().add(Role.GENERATION, 50).at(1), default_model="?")
    assert server.at(2)["m"].generation_tokens == 0


def timed_pages(rows: list[tuple[float, float, float, float]]) -> ServerHistory:
    """Pages of a server that times its tokens: at, running, tokens so far, seconds between them so far."""
    server = history()
    for at, running, tokens, between in rows:
        page = Page().add(Role.GENERATION, tokens).add(Role.INTER_TOKEN_SECONDS, between)
        page.add(Role.FIRST_TOKENS, 0.0, Moves.FIRST_TOKEN).add(Role.REQUESTS, 0.0, Moves.FINISH)
        server.observe(page.add(Role.RUNNING, running, None).at(at), default_model="?")
    return server


def test_steps_are_told_page_by_page_so_that_stalls_with_large_batches_do_not_count_for_more():
    """A second of 100 steps for 4 sequences, then a stalled one of 10 steps for 8: 110 steps.

    Means over both say 2 s / (12 s / 480 tokens) = 80.
    """
    server = timed_pages([(0, 4, 0, 0), (1, 4, 400, 4), (2, 8, 480, 12)])
    work = server.at(2)["m"]
    assert work.timed_steps == pytest.approx(110)


def test_replies_that_are_not_streamed_tell_no_steps():
    """Eight requests run, two of them are timed."""
    work = timed_pages([(at, 8, 800 * at, 2 * at) for at in range(10)]).at(9)["m"]
    assert work.timed_steps == 0
    assert work.covered_seconds == pytest.approx(9)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=30))
def test_requests_never_cover_more_time_than_there_is(gauge_and_ended: list[tuple[int, int]]):
    server, requests = history(), 0.0
    for at, (running, ended) in enumerate(gauge_and_ended):
        requests += ended
        page = Page().add(Role.GENERATION, 10 * requests, Moves.FINISH).add(Role.RUNNING, running, None)
        server.observe(page.add(Role.REQUESTS, requests, Moves.FINISH).at(at), default_model="?")
        work = server.at(at)["m"]
        assert 0 <= work.covered_seconds <= min(at, work.running_seconds) + 1e-9
