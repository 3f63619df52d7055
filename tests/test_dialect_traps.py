"""The traps of these servers' pages, T1 to T21, each with a test that names it.

Not here, because they are not about reading a page: T4 (what a scrape costs the server) and the part of T12
that a request causes (autoload) belong to the HTTP client. T14 to T16 and T18 are of other servers.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from joulemeter.dialects import NAMES, by_name, read_page, recognise
from joulemeter.dialects.pages import fold
from joulemeter.model import GAUGES, Moves, PageReading, Role, RoleReading

FIXTURES = Path(__file__).parent / "fixtures" / "dialects"


def body(page: str) -> str:
    return (FIXTURES / f"{page}.prom").read_text()


def read(text: str) -> PageReading:
    return read_page(text, recognise(text))


def totals(page: PageReading) -> dict[Role, float]:
    """Sum counters by role."""
    found: dict[Role, float] = {}
    for reading in page.readings:
        if reading.role not in GAUGES:
            found[reading.role] = found.get(reading.role, 0) + reading.value
    return found


def without(text: str, *parts: str) -> str:
    """Return the page as a server prints it that does not have these series."""
    return "".join(line for line in text.splitlines(keepends=True) if not any(part in line for part in parts))


def anonymous(readings: Iterable[RoleReading]) -> set[RoleReading]:
    return {replace(reading, series="") for reading in readings}


VLLM = body("vllm/0.33.0-generated-text")


@pytest.mark.parametrize("prefix", ["vllm:", "vllm_", "aphrodite:", "ray_vllm_", "ray_vllm:"])
def test_t1_prefix_and_colon_do_not_matter(prefix: str):
    renamed = read(VLLM.replace("vllm:", prefix))
    assert renamed.dialect == "vllm"
    assert anonymous(renamed.readings) == anonymous(read(VLLM).readings)


def test_t2_samples_without_their_colon_are_the_same_series():
    openmetrics = body("vllm/0.33.0-generated-openmetrics")
    assert "# TYPE vllm:generation_tokens counter\nvllm_generation_tokens_total{" in openmetrics
    assert read(openmetrics).readings == read(VLLM).readings


def test_t3_filtered_page_gives_the_same_roles():
    vllm = by_name("vllm")
    assert vllm.filter_path == "/metrics/"
    for page in ("vllm/0.32.0-burst-middle", "vllm/0.33.0-generated-dp2"):
        full = body(page)
        filtered = "".join(
            line
            for line in full.splitlines(keepends=True)
            if line.split("{")[0].split(" ")[0]
            in vllm.filter_names  # exact names, as the server compares them
        )
        assert len(filtered) < len(full) / 6
        assert read_page(filtered, vllm) == read_page(full, vllm)


def test_t3_filter_names_are_what_prometheus_client_filters_by():
    registry = CollectorRegistry()
    Counter("vllm:generation_tokens", "g", ["model_name"], registry=registry).labels("m").inc(5)
    Histogram("vllm:iteration_tokens_total", "i", ["model_name"], registry=registry).labels("m").observe(5)
    Gauge("vllm:num_requests_running", "r", ["model_name"], registry=registry).labels("m").set(1)
    Gauge("vllm:kv_cache_usage_perc", "k", ["model_name"], registry=registry).labels("m").set(0.5)
    Gauge("vllm:cache_config_info", "c", ["kv_cache_size_tokens"], registry=registry).labels("800").set(1)
    Gauge("vllm:engine_sleep_state", "s", ["model_name"], registry=registry).labels("m").set(0)
    vllm = by_name("vllm")
    full = generate_latest(registry).decode()
    filtered = generate_latest(registry.restricted_registry(vllm.filter_names)).decode()
    assert "engine_sleep_state" not in filtered
    assert set(read_page(filtered, vllm).readings) == set(read_page(full, vllm).readings)
    assert {(r.role, r.value) for r in read_page(full, vllm).readings} == {
        (Role.GENERATION, 5),
        (Role.STEPS, 1),
        (Role.RUNNING, 1),
        (Role.CONTEXT, 400),
    }


def test_t3_every_http_family_twice_is_not_our_business():
    http = "".join(line for line in VLLM.splitlines(keepends=True) if line.startswith(("http_", "python_")))
    assert http
    assert read(VLLM + http + http.replace(" ", " 9", 1)) == read(VLLM)


def test_t5_histograms_and_high_water_marks_named_like_counters():
    steps = [reading for reading in read(VLLM).readings if reading.role is Role.STEPS]
    assert [reading.value for reading in steps] == [
        3
    ]  # the count of its steps, not the 369 tokens of its sum
    assert "vllm_iteration_tokens_total" not in by_name("vllm").families
    assert "llamacpp_n_tokens_max" not in by_name("llamacpp").families
    assert "tgi_request_success" in by_name("tgi").families  # a counter without _total


def test_t6_prompts_leave_cache_hits_out_or_say_that_they_do_not():
    assert totals(read(VLLM))[Role.PROMPT] == 360
    assert totals(read(VLLM))[Role.CACHED_PROMPT] == 640
    assert Role.PROMPT_WITH_CACHED not in totals(read(VLLM))
    older = read(without(VLLM, "by_source", "prompt_tokens_cached"))
    assert (totals(older)[Role.PROMPT_WITH_CACHED], Role.PROMPT in totals(older)) == (1000, False)
    (cached,) = [reading for reading in older.readings if reading.role is Role.CACHED_PROMPT]
    assert cached.series.startswith("vllm_prefix_cache_hits_total")
    assert cached.moves is Moves.ADMISSION
    llamacpp = totals(read(body("llamacpp/2026-10-burst-after")))
    assert (llamacpp[Role.PROMPT], llamacpp[Role.CACHED_PROMPT]) == (3999, 3201)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        # 0.18: a wholly cached prompt of 128 tokens, whose last token is computed again
        (
            """vllm:prompt_tokens_total{model_name="m"} 128
            vllm:prompt_tokens_by_source_total{model_name="m",source="local_compute"} 1
            vllm:prompt_tokens_by_source_total{model_name="m",source="local_cache_hit"} 128
            vllm:prompt_tokens_by_source_total{model_name="m",source="external_kv_transfer"} 0
            vllm:prompt_tokens_cached_total{model_name="m"} 127
            vllm:prompt_tokens_recomputed_total{model_name="m"} 1
            vllm:prefix_cache_hits_total{model_name="m"} 127
            """,
            {Role.PROMPT: 1, Role.CACHED_PROMPT: 127},
        ),
        # 0.10: the old spelling is kept beside the new one
        (
            """vllm:prompt_tokens_total{engine="0",model_name="m"} 1000
            vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 640
            vllm:prefix_cache_hits_total{engine="0",model_name="m"} 640
            """,
            {Role.PROMPT_WITH_CACHED: 1000, Role.CACHED_PROMPT: 640},
        ),
        # 0.9.1
        (
            """vllm:prompt_tokens_total{engine="0",model_name="m"} 1000
            vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 640
            """,
            {Role.PROMPT_WITH_CACHED: 1000, Role.CACHED_PROMPT: 640},
        ),
        # Triton's backend, V0 names
        (
            """vllm:prompt_tokens_total{model="m",version="1"} 1000
            vllm:generation_tokens_total{model="m",version="1"} 9
            """,
            {Role.PROMPT_WITH_CACHED: 1000, Role.GENERATION: 9},
        ),
    ],
    ids=["0.18", "0.10", "0.9.1", "triton"],
)
def test_t6_no_version_of_vllm_counts_a_prompt_in_two_ways(page: str, expected: dict[Role, float]):
    got = read(page)
    assert totals(got) == expected
    assert {reading.model for reading in got.readings} == {"m"}


def test_t7_aborted_requests_keep_their_tokens_and_are_no_finished_requests():
    before, after = (totals(read(body(f"vllm/0.32.0-abort-{when}"))) for when in ("idle", "after"))
    assert after[Role.GENERATION] - before[Role.GENERATION] == 1113
    assert after[Role.PROMPT] - before[Role.PROMPT] == 400
    assert after[Role.REQUESTS] == before[Role.REQUESTS] == 8
    before, after = (totals(read(body(f"llamacpp/2026-10-abort-{when}"))) for when in ("idle", "after"))
    assert after[Role.GENERATION] - before[Role.GENERATION] == 1226


def test_t8_sglangs_live_count_leaves_first_tokens_out():
    before, after = (totals(read(body(f"sglang/0.5.23-burst-{when}"))) for when in ("idle", "after"))
    requests = after[Role.REQUESTS] - before[Role.REQUESTS]
    live = after[Role.LIVE_GENERATION] - before[Role.LIVE_GENERATION]
    assert (requests, live, after[Role.GENERATION] - before[Role.GENERATION]) == (8, 2392, 2392 + requests)


def rank(tokens: int, **ranks: int) -> str:
    labels = "".join(f',{name}="{value}"' for name, value in ranks.items())
    return f'sglang:realtime_tokens_total{{mode="decode",model_name="m"{labels}}} {tokens}\n'


def test_t9_ranks_that_publish_the_same_tokens_count_once():
    page = "".join(
        rank(tokens, tp_rank=tp, pp_rank=pp, moe_ep_rank=tp, dp_rank=dp)
        for dp, tokens in ((0, 300), (1, 40))
        for tp in range(4)
        for pp in range(2)
    )
    assert totals(read(page)) == {Role.LIVE_GENERATION: 340}
    assert len(read(page).readings) == 2


def test_t9_a_rank_that_appears_late_is_neither_new_tokens_nor_a_restart():
    early = read(rank(300, tp_rank=1))
    late = read(rank(299, tp_rank=0) + rank(300, tp_rank=1))
    assert early.readings == late.readings


def test_t10_start_time_is_told_by_one_process_only():
    assert read(VLLM).start_time_seconds == pytest.approx(1795220415, abs=60)
    several = without(VLLM, "process_", "_created")
    assert read(several).start_time_seconds is None
    assert read(several).readings == read(VLLM).readings
    assert read(body("sglang/0.5.23-burst-after")).start_time_seconds is None


def test_t10_data_parallel_engines_keep_their_own_series():
    page = read(body("vllm/0.33.0-generated-dp2"))
    generated = [reading for reading in page.readings if reading.role is Role.GENERATION]
    assert [(reading.model, reading.value) for reading in generated] == [("Qwen/Qwen3-0.6B", 9)] * 2
    assert len({reading.series for reading in generated}) == 2


def test_t11_health_probes_are_prompt_tokens_of_no_request():
    idle = body("sglang/0.5.23-burst-idle")  # after a warm-up request of 18 tokens and four probes
    assert totals(read(idle))[Role.PROMPT] == 22
    assert totals(read(idle))[Role.REQUESTS] == 1


def test_t12_gauges_that_restart_with_every_scrape_are_not_read():
    rates = {"llamacpp_prompt_tokens_seconds", "llamacpp_predicted_tokens_seconds"}
    assert rates <= {fold(line.split(" ")[0]) for line in body("llamacpp/2026-10-burst-after").splitlines()}
    assert not rates & by_name("llamacpp").families


@pytest.mark.parametrize("name", NAMES)
def test_t13_nothing_is_read_that_is_not_a_count(name: str):
    """Milliseconds and megabytes stay where they are; a 0..1 `_perc` is only read times what it is a share of."""
    other_units = ("_seconds", "_ms", "_mb", "_perc", "_usage", "_duration", "_ratio")
    readings = (read(page.read_text()) for page in (FIXTURES / name).glob("*.prom"))
    all_readings = [reading for page in readings for reading in page.readings]
    counts = [reading for reading in all_readings if reading.role is not Role.INTER_TOKEN_SECONDS]
    series = {one.series.split("{")[0] for one in counts if not one.series.endswith("*cache_config_info")}
    assert not [one for one in series if one.endswith(other_units) or "_seconds_sum" in one]
    assert all(one.role is Role.CONTEXT for one in counts if "_perc" in one.series)


def test_t17_llamacpp_tells_no_start_time():
    assert read(body("llamacpp/2026-10-burst-after")).start_time_seconds is None


def test_t19_a_label_that_appears_late_makes_series_of_its_own():
    before = 'sglang:generation_tokens_total{model_name="m",is_streaming="false"} 8\n'
    after = before + 'sglang:generation_tokens_total{model_name="m",is_streaming="true"} 1200\n'
    assert read(before).readings == read(after).readings[:1]
    assert totals(read(after)) == {Role.GENERATION: 1208}
    older = 'sglang:generation_tokens_total{model_name="m"} 8\n'
    assert totals(read(older)) == {Role.GENERATION: 8}


def test_t19_sglang_without_realtime_counts_every_cache_source():
    page = """sglang:prompt_tokens_total{model_name="m"} 1000
    sglang:cached_tokens_total{model_name="m",cache_source="device"} 600
    sglang:cached_tokens_total{model_name="m",cache_source="storage_file"} 40
    sglang:cached_tokens_total{model_name="m",cache_source="total"} 7
    """
    assert totals(read(page)) == {Role.PROMPT_WITH_CACHED: 1000, Role.CACHED_PROMPT: 647}


def test_t19_ray_drops_zeros_so_series_come_with_their_first_use():
    first = 'ray_vllm_generation_tokens_total{WorkerId="a",model_name="m"} 1\n'
    assert totals(read(first)) == {Role.GENERATION: 1}
    prompts = (
        'ray_vllm_prompt_tokens_total{WorkerId="a",model_name="m"} 360\n'
        'ray_vllm_prompt_tokens_by_source_total{WorkerId="a",model_name="m",source="local_compute"} 360\n'
    )
    assert totals(read(first + prompts)) == {Role.GENERATION: 1, Role.PROMPT: 360}


def test_t20_openmetrics_with_timestamps_and_exemplars():
    page = (
        "# TYPE vllm:generation_tokens counter\n"
        "# UNIT vllm:generation_tokens tokens\n"
        'vllm:generation_tokens_total{engine="0",model_name="m"} 9 1795220415.5 # {id="a"} 1 1795220415.1\n'
        'vllm:generation_tokens_created{engine="0",model_name="m"} 1795220000.0\n'
        "# EOF\n"
    )
    assert totals(read(page)) == {Role.GENERATION: 9}


def test_t21_six_significant_digits():
    page = read(body("llamacpp/2026-10-bigcount"))
    assert totals(page)[Role.CACHED_PROMPT] == 1155710  # true: 1155711
    assert totals(page)[Role.PROMPT] == 4689


def test_t21_the_live_count_may_fall_a_little_while_its_exact_parts_do_not():
    """Calls with one busy slot, after half a million with four, as llama.cpp would print them."""
    calls, busy = 500_000, 2_000_000
    pages = []
    for _ in range(50):
        calls, busy = calls + 1, busy + 1
        page = f"llamacpp:n_decode_total {calls:g}\nllamacpp:n_busy_slots_per_decode {busy / calls:g}\n"
        pages.append(totals(read(page)))
        assert pages[-1][Role.LIVE_GENERATION] == pytest.approx(busy, rel=1e-5)
    live = [page[Role.LIVE_GENERATION] for page in pages]
    steps = [page[Role.STEPS] for page in pages]
    assert live != sorted(live)
    assert steps == sorted(steps)


def test_live_count_needs_both_its_parts():
    old = without(body("llamacpp/2026-10-burst-after"), "n_busy_slots_per_decode")
    assert Role.LIVE_GENERATION not in totals(read(old))
    assert totals(read(old))[Role.STEPS] == 1801


# ------------------------------------------------------------------------- factors that stand in labels


def kv_page(*infos: str, usage: str = 'kv_cache_usage_perc{engine="0",model_name="m"} 0.5') -> str:
    lines = [usage, *(f"cache_config_info{{{info}}} 1" for info in infos)]
    return "".join(f"vllm:{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("infos", "tokens"),
    [
        (['engine="0",kv_cache_size_tokens="1000",num_gpu_blocks="40",block_size="16"'], 500),
        (['engine="0",kv_cache_size_tokens="None",num_gpu_blocks="40",block_size="16"'], 320),
        (['engine="0",kv_cache_size_tokens="0",num_gpu_blocks="40",block_size="16"'], 320),
        (['num_gpu_blocks="40",block_size="16"'], 320),  # V0 names no engine
        (
            [
                'engine="0",num_gpu_blocks="40",block_size="16"',
                'engine="1",num_gpu_blocks="9",block_size="9"',
            ],
            320,
        ),
        (['engine="0",num_gpu_blocks="None",block_size="16"'], None),
        (['engine="0",num_gpu_blocks="0",block_size="16"'], None),
        (['engine="0",num_gpu_blocks="-40",block_size="-16"'], None),
        (['engine="0",num_gpu_blocks="1e999",block_size="16"'], None),
        (['engine="0",num_gpu_blocks="nan",block_size="16"'], None),
        (['engine="0",num_gpu_blocks="\\x00 many",block_size=""'], None),
        (['engine="0",block_size="16"'], None),
        (['engine="1",num_gpu_blocks="40",block_size="16"'], None),
        ([], None),
        # two replicas on one node's page that it does not tell apart
        (['ReplicaId="a",kv_cache_size_tokens="1000"', 'ReplicaId="b",kv_cache_size_tokens="2000"'], None),
        (['ReplicaId="a",kv_cache_size_tokens="1000"', 'ReplicaId="b",kv_cache_size_tokens="1000"'], 500),
    ],
)
def test_context_is_read_where_the_labels_tell_the_capacity(infos: list[str], tokens: float | None):
    page = read_page(kv_page(*infos), by_name("vllm"))
    assert [reading.value for reading in page.readings] == ([] if tokens is None else [tokens])


def test_context_is_read_once_from_pages_that_name_the_gauge_twice():
    """vLLM 0.9.2 to 0.11 has both names; before it has the older one."""
    info = 'engine="0",kv_cache_size_tokens="1000"'
    old = 'gpu_cache_usage_perc{engine="0",model_name="m"} 0.25'
    both = read(kv_page(info) + f"vllm:{old}\n")
    assert [reading.value for reading in both.readings] == [500]
    assert [reading.value for reading in read(kv_page(info, usage=old)).readings] == [250]


def test_context_of_data_parallel_engines_is_each_ones_share_of_its_own():
    info = ['engine="0",kv_cache_size_tokens="1000"', 'engine="1",kv_cache_size_tokens="3000"']
    second = 'vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5\n'
    page = read(kv_page(*info) + second)
    assert [reading.value for reading in page.readings] == [500, 1500]


def test_engines_that_time_their_steps_tell_the_phases_apart():
    """Written after the servers' sources: both need a setting or a version that no recording has."""
    tgi = read_page(
        "tgi_request_generated_tokens_sum 10\n"
        'tgi_batch_forward_duration_sum{method="prefill"} 1.5\n'
        'tgi_batch_forward_duration_sum{method="decode"} 12\n',
        by_name("tgi"),
    )
    sglang = read_page(
        'sglang:generation_tokens_total{model_name="m"} 10\n'
        'sglang:forward_execution_seconds_total{model_name="m",category="extend"} 1.5\n'
        'sglang:forward_execution_seconds_total{model_name="m",category="decode"} 11\n'
        'sglang:forward_execution_seconds_total{model_name="m",category="target_verify"} 1\n'
        'sglang:forward_execution_seconds_total{model_name="m",category="idle"} 7\n',
        by_name("sglang"),
    )
    for page in (tgi, sglang):
        seconds: dict[Role, float] = {}
        for reading in page.readings:
            seconds[reading.role] = seconds.get(reading.role, 0.0) + reading.value
        assert seconds[Role.PREFILL_SECONDS] == 1.5
        assert seconds[Role.DECODE_SECONDS] == 12
