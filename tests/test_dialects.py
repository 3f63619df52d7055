"""Pages on file, the requests they were recorded with, and recognition."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from joulemeter.dialects import NAMES, by_name, read_page, recognise
from joulemeter.dialects.generic import GenericNames, generic
from joulemeter.errors import PageError
from joulemeter.model import GAUGES, Moves, PageReading, Role

FIXTURES = Path(__file__).parent / "fixtures" / "dialects"
REFUSED = sorted((FIXTURES / "refused").glob("*.prom"))
PAGES = sorted(path for path in FIXTURES.glob("*/*.prom") if path not in REFUSED)


def body(page: str) -> str:
    return (FIXTURES / f"{page}.prom").read_text()


def read(page: str) -> PageReading:
    return read_page(body(page), recognise(body(page)))


def increase(before: PageReading, after: PageReading) -> Counter[Role]:
    """Tokens by role between two pages, per series first; a series that was not there counts from 0."""
    was = {reading.series: reading.value for reading in before.readings}
    grown: Counter[Role] = Counter()
    for reading in after.readings:
        if reading.role not in GAUGES:
            grown[reading.role] += reading.value - was.get(reading.series, 0)
    return grown


def gauges(page: PageReading) -> dict[Role, float]:
    return {reading.role: reading.value for reading in page.readings if reading.role in GAUGES}


# ------------------------------------------------------------------------------------ pages on file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_page_reads_as_expected(page: Path):
    got = json.loads(json.dumps(asdict(read_page(page.read_text(), by_name(page.parent.name)))))
    del got["lengths"]  # tests/test_lengths.py
    expected = page.with_suffix(".json")
    if not expected.exists():
        expected.write_text(json.dumps(got, indent=1) + "\n")
        pytest.fail(f"wrote {expected}: read it line by line, then run again")
    assert got == json.loads(expected.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_page_is_recognised_and_its_series_are_told_apart(page: Path):
    assert recognise(page.read_text()).name == page.parent.name
    series = [reading.series for reading in read(f"{page.parent.name}/{page.stem}").readings]
    assert len(series) == len(set(series))


@pytest.mark.parametrize("name", NAMES)
def test_dialect_has_a_page_and_refuses_those_of_others(name: str):
    assert list((FIXTURES / name).glob("*.prom")), f"record one into {FIXTURES / name}"
    for page in [*PAGES, *REFUSED]:
        if page.parent.name != name:
            remedy = (
                "dialect: generic" if page in REFUSED else f"one of {page.parent.name}; set .dialect: auto"
            )
            with pytest.raises(PageError, match=f"series of {name} on the page: .*{remedy}") as refusal:
                read_page(page.read_text(), by_name(name))
            assert refusal.value.reason == "not_metrics"


# --------------------------------------------------------------------------- what the requests cost


def usage(recording: str) -> Counter[str]:
    """Sum the requests of a recording as the server's own `usage` has them."""
    total: Counter[str] = Counter()
    for line in (FIXTURES / f"{recording}.requests.jsonl").read_text().splitlines():
        row = json.loads(line)
        total.update({"requests": 1, "prompt": row["prompt_tokens"], "generation": row["completion_tokens"]})
        total["cached"] += row["cached_tokens"] or 0
    return total


def test_vllm_counts_what_the_requests_cost():
    spent = usage("vllm/0.32.0-burst")
    grown = increase(read("vllm/0.32.0-burst-idle"), read("vllm/0.32.0-burst-after"))
    assert (spent["prompt"], spent["cached"], spent["generation"]) == (4800, 2688, 2400)
    assert grown[Role.PROMPT] == spent["prompt"] - spent["cached"]
    assert grown[Role.CACHED_PROMPT] == spent["cached"]
    assert grown[Role.GENERATION] == spent["generation"]
    assert grown[Role.REQUESTS] == spent["requests"]
    assert 600 <= grown[Role.STEPS] <= 610  # two rounds of 300 tokens, four requests at a time
    assert Role.PROMPT_WITH_CACHED not in grown


def test_sglang_counts_what_the_requests_cost():
    spent = usage("sglang/0.5.23-burst")
    grown = increase(read("sglang/0.5.23-burst-idle"), read("sglang/0.5.23-burst-after"))
    assert (spent["prompt"], spent["generation"]) == (4800, 2400)
    assert grown[Role.PROMPT] == 3200
    assert grown[Role.CACHED_PROMPT] == 1600  # four requests reuse 400 tokens; usage does not tell here
    assert grown[Role.PROMPT] + grown[Role.CACHED_PROMPT] == spent["prompt"]
    assert grown[Role.GENERATION] == spent["generation"]
    assert grown[Role.REQUESTS] == spent["requests"]
    assert Role.PROMPT_WITH_CACHED not in grown


def test_llamacpp_counts_what_the_requests_cost():
    spent = usage("llamacpp/2026-10-burst")
    grown = increase(read("llamacpp/2026-10-burst-idle"), read("llamacpp/2026-10-burst-after"))
    assert (spent["prompt"], spent["cached"], spent["generation"]) == (7200, 3201, 7200)
    assert grown[Role.PROMPT] == spent["prompt"] - spent["cached"]
    assert grown[Role.CACHED_PROMPT] == spent["cached"]
    assert grown[Role.GENERATION] == spent["generation"]
    assert grown[Role.LIVE_GENERATION] == pytest.approx(spent["generation"], rel=1e-5)


def test_vllm_tells_first_tokens_and_context():
    idle, middle, after = (read(f"vllm/0.32.0-burst-{when}") for when in ("idle", "middle", "after"))
    assert increase(idle, middle)[Role.FIRST_TOKENS] == 4
    assert increase(idle, after)[Role.FIRST_TOKENS] == 8  # as many as requests
    # Four requests of 600 + 277 tokens take 7 blocks of 128 each, of which 3 are the same in all: 19 blocks.
    # The share that the page tells is of one block less than the capacity in its labels, of 4096.
    assert gauges(middle)[Role.CONTEXT] == pytest.approx(19 * 128 * 4096 / 4095)
    assert gauges(idle)[Role.CONTEXT] == gauges(after)[Role.CONTEXT] == 0
    aborted = increase(read("vllm/0.32.0-abort-idle"), read("vllm/0.32.0-abort-after"))
    assert (aborted[Role.FIRST_TOKENS], aborted[Role.REQUESTS]) == (4, 0)
    assert Role.INTER_TOKEN_SECONDS not in aborted  # steps are counted


def test_sglang_tells_first_tokens_time_between_tokens_and_context():
    idle, middle, after = (read(f"sglang/0.5.23-burst-{when}") for when in ("idle", "middle", "after"))
    assert (increase(idle, middle)[Role.FIRST_TOKENS], increase(idle, after)[Role.FIRST_TOKENS]) == (4, 8)
    rows = (FIXTURES / "sglang/0.5.23-burst.requests.jsonl").read_text().splitlines()
    streams = [row for row in map(json.loads, rows) if row["streaming"]]
    seconds = sum(row["end"] - row["first_token"] for row in streams)
    # Four streams of 299 intervals, and as many requests that do not stream, of which 250 are seen.
    assert len(streams) == 4
    assert increase(idle, after)[Role.INTER_TOKEN_SECONDS] == pytest.approx(
        seconds * (1 + 250 / 299), rel=0.05
    )
    # 400 tokens that all share, 200 of each one's own, and 154 generated by each when last looked at.
    assert gauges(middle)[Role.CONTEXT] == 400 + 4 * (200 + 154)
    assert gauges(after)[Role.CONTEXT] == 0


def test_llamacpp_tells_context_beside_its_metrics():
    side_page = by_name("llamacpp").side_page
    assert side_page is not None
    (reading,) = side_page.read((FIXTURES / "llamacpp/2026-10-written.slots.json").read_text())
    # A prompt of 1042 tokens and all but the last of 36 generated ones, and 512 of a prompt so far; the
    # 2541 tokens that an idle slot keeps are read by nobody.
    assert (reading.role, reading.value, reading.moves) == (Role.CONTEXT, 1042 + 35 + 512, None)


@pytest.mark.parametrize("tokens", ['"7"', "null", "-1", "1.5", "true", "NaN", str(10**30)])
def test_llamacpp_slots_that_tell_no_count_give_no_context(tokens: str):
    side_page = by_name("llamacpp").side_page
    assert side_page is not None
    assert side_page.read(f'[{{"is_processing": true, "n_prompt_tokens": {tokens}}}]') == ()
    assert side_page.read('[{"is_processing": true, "n_past": 7}]') == ()  # a build of early 2025


# ------------------------------------------------------------------------------- when counters move


def test_counters_move_when_their_rule_says():
    vllm = increase(read("vllm/0.32.0-burst-idle"), read("vllm/0.32.0-burst-middle"))
    assert vllm[Role.GENERATION] == 1109  # every step, while no request has ended
    assert vllm[Role.REQUESTS] == 0
    sglang = increase(read("sglang/0.5.23-burst-idle"), read("sglang/0.5.23-burst-middle"))
    assert (sglang[Role.GENERATION], sglang[Role.LIVE_GENERATION], sglang[Role.PROMPT]) == (0, 752, 2400)
    llamacpp = increase(read("llamacpp/2026-10-burst-idle"), read("llamacpp/2026-10-burst-middle"))
    assert (llamacpp[Role.GENERATION], llamacpp[Role.PROMPT], llamacpp[Role.REQUESTS]) == (0, 2400, 0)
    assert llamacpp[Role.LIVE_GENERATION] == pytest.approx(273 * 3.98901)


def test_a_chunked_prompt_moves_at_its_first_token_except_in_sglang():
    for page in ("vllm/0.32.0-longprompt-prefill", "llamacpp/2026-10-longprompt-prefill"):
        (prompt,) = [reading for reading in read(page).readings if reading.role is Role.PROMPT]
        assert (prompt.value, prompt.moves, gauges(read(page))[Role.RUNNING]) == (0, Moves.FIRST_TOKEN, 1)
    chunked = read("sglang/0.5.23-longprompt-prefill").readings
    (prompt,) = [reading for reading in chunked if reading.role is Role.PROMPT]
    assert (prompt.value, prompt.moves) == (2835, Moves.STEP)


# -------------------------------------------------------------------------------------- recognition


@pytest.mark.parametrize(
    ("page", "remedy"),
    [
        ("", "is empty"),
        ("<!DOCTYPE html><html>", "this the metrics URL"),
        ('{"error": {"code": 503, "message": "Loading model"}}', "this is JSON"),
        ("[]", "this is JSON"),
        ("\x00\x01\xff\n" * 9, "dialect: generic"),
        ('node_cpu_seconds_total{cpu="0",mode="idle"} 1\nnode_load1 0.4\n', "node_load1.*dialect: generic"),
        ("vllm_mlx_prompt_tokens_total 5\n", "dialect: generic"),
        ("ray_node_cpu_count 4\n", "after the first request"),
        (body("refused/lmdeploy-0.18.0-generated"), "dialect: generic"),
        (body("refused/vllm-0.32.0-disable-log-stats"), "started with --disable-log-stats"),
    ],
    ids=["empty", "html", "json", "list", "junk", "node", "mlx", "ray", "lmdeploy", "no stats"],
)
def test_a_page_of_nobody_we_know_is_refused_with_a_remedy(page: str, remedy: str):
    with pytest.raises(PageError, match=f"(?s){remedy}") as refusal:
        recognise(page)
    assert refusal.value.reason == "not_metrics"


def test_unknown_dialect_names_the_known_ones():
    with pytest.raises(ValueError, match="'vlm' is no dialect; known: vllm, sglang, llamacpp, tgi"):
        by_name("vlm")


# ------------------------------------------------------------------------------------------ generic


def test_generic_reads_configured_names():
    lmdeploy = generic(
        GenericNames(
            generation="lmdeploy:generation_tokens_total",
            generation_moves=Moves.STEP,
            prompt="lmdeploy:prompt_tokens_total",
            prompt_includes_cached=True,
            prompt_moves=Moves.FIRST_TOKEN,
            first_tokens="lmdeploy:time_to_first_token_seconds_count",
            running="lmdeploy:num_requests_running",
            model_label="model_name",
        )
    )
    got = read_page(body("refused/lmdeploy-0.18.0-generated"), lmdeploy)
    assert {(r.role, r.model, r.value, r.moves) for r in got.readings} >= {
        (Role.GENERATION, "Qwen/Qwen3-0.6B", 9.0, Moves.STEP),
        (Role.PROMPT_WITH_CACHED, "Qwen/Qwen3-0.6B", 1000.0, Moves.FIRST_TOKEN),
        (Role.FIRST_TOKENS, "Qwen/Qwen3-0.6B", 1.0, Moves.FIRST_TOKEN),
    }
    assert got.dialect == "generic"
    assert lmdeploy.has_phases


def test_generic_reads_steps_and_time_between_tokens():
    names = GenericNames("tokens", steps="batches_total", inter_token_seconds="itl_seconds_sum")
    page = read_page(
        "tokens 900\nbatches_total 30\nitl_seconds_sum 17.5\nitl_seconds_count 870\n", generic(names)
    )
    assert [(reading.role, reading.value, reading.moves) for reading in page.readings[1:]] == [
        (Role.STEPS, 30, Moves.STEP),
        (Role.INTER_TOKEN_SECONDS, 17.5, Moves.STEP),
    ]


def test_generic_names_what_it_misses():
    with pytest.raises(PageError, match=r"no my_tokens or other series of generic .*some_tokens"):
        read_page("some_tokens 5\n", generic(GenericNames(generation="my_tokens")))


def test_generic_without_a_prompt_counter_has_no_phases():
    tokens = generic(GenericNames(generation="my_tokens"))
    assert not tokens.has_phases
    (reading,) = read_page("my_tokens 5\n", tokens).readings
    assert (reading.role, reading.model, reading.value, reading.moves) == (
        Role.GENERATION,
        "",
        5,
        Moves.FINISH,
    )
