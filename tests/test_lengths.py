"""Histograms of finished requests' lengths: read, and counted once, page by page."""

import json
from collections import Counter
from pathlib import Path

import pytest

from joulemeter.dialects import by_name, read_page
from joulemeter.errors import PageError
from joulemeter.history import ServerHistory
from joulemeter.lengths import MOST_REQUESTS, Bucket, Finished, FinishedRequests, Lengths
from joulemeter.model import Length, LengthReading, Observation, PageReading, Role

FIXTURES = Path(__file__).parent / "fixtures/dialects"
BURSTS = {"vllm": "vllm/0.32.0-burst", "sglang": "sglang/0.5.23-burst"}


def page(name: str) -> PageReading:
    return read_page((FIXTURES / f"{name}.prom").read_text(), by_name(name.partition("/")[0]))


def answers(counts: tuple[int, ...], tokens: int, series: str = "", model: str = "m") -> LengthReading:
    return LengthReading(Length.GENERATION, model, series, (10, 100), counts, tokens)


def observed(*lengths: tuple[LengthReading, ...], starts: tuple[float, ...] = ()) -> list[Finished]:
    """What finished on pages a second apart."""
    requests = FinishedRequests(keep_seconds=100.0)
    for second, of_page in enumerate(lengths):
        start = starts[second] if starts else 1.0
        reading = PageReading("test", (), start, of_page)
        requests.observe(Observation("s", float(second), reading), default_model="?")
    return requests.between(-1.0, float(len(lengths)))


# ------------------------------------------------------------------------------------ on the page


@pytest.mark.parametrize("name", BURSTS.values(), ids=BURSTS)
def test_a_burst_has_the_lengths_that_its_requests_were_told(name: str):
    pages = (page(f"{name}-idle"), page(f"{name}-after"))
    finished = observed(*(one.lengths for one in pages))
    told: Counter[Length] = Counter()
    requests = [json.loads(line) for line in (FIXTURES / f"{name}.requests.jsonl").read_text().splitlines()]
    for request in requests:
        usage = request["usage"]
        told[Length.PROMPT] += usage["prompt_tokens"]
        told[Length.GENERATION] += usage["completion_tokens"]
    assert len(finished) == 1
    lengths = finished[0].lengths
    assert {length: lengths[length].sum_tokens for length in told} == told
    assert {one.count for one in lengths.values()} == {len(requests)}
    assert lengths[Length.COMPUTED_PROMPT].sum_tokens == sum(grown(role, *pages) for role in (Role.PROMPT,))


def grown(role: Role, before: PageReading, after: PageReading) -> float:
    was = {reading.series: reading.value for reading in before.readings}
    return sum(one.value - was.get(one.series, 0.0) for one in after.readings if one.role is role)


def test_t7_aborted_requests_are_in_the_counters_and_in_no_histogram():
    before, after = page("vllm/0.32.0-abort-idle"), page("vllm/0.32.0-abort-after")
    assert grown(Role.GENERATION, before, after) > 100
    assert observed(before.lengths, after.lengths) == []


def test_engines_have_histograms_of_their_own():
    lengths = page("vllm/0.33.0-generated-dp2").lengths
    assert Counter(one.length for one in lengths) == dict.fromkeys(Length, 2)
    assert len({(one.length, one.series) for one in lengths}) == len(lengths)


@pytest.mark.parametrize("name", ["llamacpp/2026-10-burst-after", "tgi/3.3.6-written"])
def test_servers_without_them_have_none(name: str):
    assert page(name).lengths == ()


BODY = """vllm:request_generation_tokens_bucket{le="1.0",model_name="m"} 2
vllm:request_generation_tokens_bucket{le="+Inf",model_name="m"} 3
vllm:request_generation_tokens_sum{model_name="m"} 9
"""


def test_a_histogram_is_read_in_whatever_order_its_lines_come():
    lines = BODY.splitlines(keepends=True)
    expected = (LengthReading(Length.GENERATION, "m", "{model_name='m'}", (1,), (2, 3), 9),)
    for body in ("".join(lines), "".join(reversed(lines))):
        assert read_page(body, by_name("vllm")).lengths == expected


@pytest.mark.parametrize("missing", ["_sum", "+Inf"])
def test_half_a_histogram_is_none(missing: str):
    body = "".join(line for line in BODY.splitlines(keepends=True) if missing not in line)
    assert read_page(body, by_name("vllm")).lengths == ()


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ('le="1.0"', 'le="one"', "request_generation_tokens_bucket: le='one': expected a number"),
        ('le="1.0",', "", "request_generation_tokens_bucket: le='': expected a number"),
        ('le="1.0"', 'le="NaN"', "le='NaN': expected a number"),
        ('le="1.0"', 'le="1e308"', r"le='1e308': expected a number from 0 to 1e\+18, or \+Inf"),
        ('le="1.0"', 'le="-Inf"', "le='-Inf': expected a number"),
        ('"m"} 2', '"m"} 4', r"request_generation_tokens: counts \(4, 3\) fall from bucket to bucket"),
    ],
)
def test_garbage_is_refused(written: str, instead: str, says: str):
    with pytest.raises(PageError, match=says) as refusal:
        read_page(BODY.replace(written, instead), by_name("vllm"))
    assert refusal.value.reason == "bad_value"


# ------------------------------------------------------------------------------------ from page to page


def test_the_first_page_is_the_baseline_and_each_increase_is_counted_once():
    first, second = (answers((4, 5, 5), 80),), (answers((4, 7, 8), 480),)
    finished = observed(first, second, second)
    lengths = Lengths((Bucket(2, 10, 100), Bucket(1, 100, None)), 400)
    assert finished == [Finished(1.0, "m", {Length.GENERATION: lengths})]


def test_a_late_series_counts_from_0():
    (finished,) = observed((), (answers((1, 1, 1), 5),))
    assert finished.lengths[Length.GENERATION] == Lengths((Bucket(1, 0, 10),), 5)


@pytest.mark.parametrize("starts", [(1.0, 2.0), (1.0, 1.0)], ids=["told", "seen by what fell"])
def test_a_restart_counts_from_0(starts: tuple[float, float]):
    (finished,) = observed((answers((4, 5, 5), 80),), (answers((2, 2, 2), 9),), starts=starts)
    assert finished.lengths[Length.GENERATION] == Lengths((Bucket(2, 0, 10),), 9)


def test_a_restart_that_is_told_counts_even_what_did_not_fall():
    (finished,) = observed((answers((1, 1, 1), 5),), (answers((1, 2, 2), 55),), starts=(1.0, 2.0))
    assert finished.lengths[Length.GENERATION].count == 2


def test_other_bounds_are_another_server():
    other = LengthReading(Length.GENERATION, "m", "", (50,), (7, 7), 100)
    (finished,) = observed((answers((4, 5, 5), 80),), (other,))
    assert finished.lengths[Length.GENERATION] == Lengths((Bucket(7, 0, 50),), 100)


def test_engines_and_models_are_kept_apart():
    first = tuple(answers((0, 0, 0), 0, series, model) for series, model in (("a", "m"), ("b", "")))
    second = (answers((1, 1, 1), 3, "a", "m"), answers((0, 1, 1), 30, "b", ""))
    assert [(one.model, one.lengths[Length.GENERATION].sum_tokens) for one in observed(first, second)] == [
        ("m", 3),
        ("?", 30),
    ]


def test_a_histogram_that_was_long_absent_is_a_first_look_again():
    requests = FinishedRequests(keep_seconds=1000.0, forget_seconds=120.0)
    pages = [(answers((4, 5, 5), 80),), *[()] * 139, (answers((6, 7, 7), 90),), (answers((7, 8, 8), 95),)]
    for second, lengths in enumerate(pages):
        page = PageReading("test", (), None, lengths)
        requests.observe(Observation("s", float(second), page), default_model="m")
    (finished,) = requests.between(0.0, 1000.0)
    assert finished.lengths[Length.GENERATION] == Lengths((Bucket(1, 0, 10),), 5)


def engines(count: int, requests: int) -> tuple[LengthReading, ...]:
    return tuple(answers((requests,) * 3, 5 * requests, str(engine), "m") for engine in range(count))


def test_of_all_engines_together_no_more_requests_count_than_can_be():
    finished = observed(engines(330, 0), engines(330, 7000))
    assert [one.lengths[Length.GENERATION].count for one in finished] == [7000, 7000]
    assert observed(engines(1, 0), engines(1, MOST_REQUESTS + 1)) == []


def test_there_is_room_again_page_by_page():
    pages = [engines(1, turn * MOST_REQUESTS) for turn in range(12)]
    assert [one.at_seconds for one in observed(*pages)] == [1.0, 11.0]


def test_the_engines_of_a_page_know_their_share():
    second = (answers((3, 3, 3), 15, "a"), answers((1, 1, 1), 5, "b", "other"))
    finished = observed((answers((0, 0, 0), 0, "a"),), second)
    assert [(one.model, one.share) for one in finished] == [("m", 0.75), ("other", 0.25)]


def test_a_history_hands_each_page_out_to_one_window_and_forgets():
    history = ServerHistory(keep_seconds=10.0)
    for second in range(30):
        lengths = (answers((second, second, second), second),)
        history.observe(
            Observation("s", float(second), PageReading("test", (), 1.0, lengths)), default_model="m"
        )
    windows = [history.finished.between(after, after + 2.5) for after in (20.0, 22.5, 25.0, 27.5)]
    assert [one.at_seconds for window in windows for one in window] == [float(at) for at in range(21, 30)]
    assert history.finished.between(-1.0, 18.0) == []
    assert history.finished.models == {"m"}
