"""Picking our lines out of a page, and everything a page can be instead."""

import gc
import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from joulemeter.dialects import NAMES, by_name, read_page, recognise
from joulemeter.dialects.pages import (
    MAX_LINE_CHARACTERS,
    MAX_SERIES,
    REMEMBERED_BYTES,
    Seen,
    Series,
    fold,
    names,
    pick,
    series_key,
)
from joulemeter.errors import PageError

TOKENS = frozenset({"x_tokens_total"})
PAGES = [
    page
    for page in (Path(__file__).parent / "fixtures/dialects").glob("*/*.prom")
    if page.parent.name in NAMES
]


def test_picks_what_parsing_the_whole_page_finds():
    for page in PAGES:
        body = page.read_text()
        wanted = by_name(page.parent.name).families
        everything = text_string_to_metric_families(re.sub("(?m)^#.*\n", "", body))  # TYPE lines rename
        expected = [
            (fold(sample.name), sample.labels, sample.value)
            for family in everything
            for sample in family.samples
            if fold(sample.name) in wanted
        ]
        assert [(s.series.name, s.series.labels, s.value) for s in pick(body, wanted)] == expected


@pytest.mark.parametrize(
    "line",
    [
        "x:tokens_total 5",
        "x_tokens_total 5.0",
        "  \tx:tokens_total\t5 ",
        "x:tokens_total{} 5",
        "x:tokens_total 5 1700000000000",
        'x_tokens_total 5 1700000000.5 # {trace_id="a 1 } b"} 1.0 1700000000.1',
        'x_tokens_total{} 5.0 # {trace_id="a"} 1.0',
        "x:tokens_total 5e0\r",
    ],
)
def test_spellings_of_one_sample(line: str):
    (sample,) = pick(f"# HELP x:tokens a\n# TYPE x:tokens counter\n{line}\n# EOF\n", TOKENS)
    assert (sample.series.name, dict(sample.series.labels), sample.value) == ("x_tokens_total", {}, 5.0)


def test_labels_are_unescaped_and_names_are_matched_whole():
    body = 'x_tokens_total{m="a\\"b\\\\c, {d} # e"} 5\nx_tokens_total_count 7\nmy_x_tokens_total 8\n'
    (sample,) = pick(body, TOKENS)
    assert (dict(sample.series.labels), sample.value) == ({"m": 'a"b\\c, {d} # e'}, 5.0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x:tokens_total NaN", "finite number"),
        ("x:tokens_total +Inf", "finite number"),
        ("x:tokens_total -1", "finite number"),
        ("x:tokens_total 1e300", "finite number"),
        ("x:tokens_total 1" + "0" * 400, "finite number"),
        ("x:tokens_total", "does not parse"),
        ("x:tokens_total many", "does not parse"),
        ("x:tokens_total 1_0", "does not parse"),
        ('x:tokens_total{m="a} 5', "does not parse"),
        ('x:tokens_total{m="a",m="b"} 5', "does not parse"),
        ('x:tokens_total{m="a", ="b"} 5', "does not parse"),
        (f'x:tokens_total{{m="{"a" * MAX_LINE_CHARACTERS}"}} 5', "characters"),
        ("x:tokens_total 1\nx_tokens_total 2", "the same series was 1 further up"),
    ],
)
def test_a_line_we_need_that_is_wrong_is_named(line: str, problem: str):
    with pytest.raises(PageError, match=rf"(?s)^line [34]: 'x.tokens_total.*{problem}.*curl") as refusal:
        pick(f"# TYPE x:tokens counter\nunrelated NaN\n{line}\n", TOKENS)
    assert refusal.value.reason == "bad_value"
    assert len(str(refusal.value)) < 500


def test_a_page_cut_off_inside_a_number_is_refused():
    whole = "x_tokens_total 4800\n"
    assert pick(whole, TOKENS)[0].value == 4800
    for end in range(len("x_tokens_total"), len(whole)):
        with pytest.raises(PageError, match="cut off here"):
            pick(whole[:end], TOKENS)


def test_a_line_that_comes_twice_counts_once():
    assert len(pick("x_tokens_total 5\nx_tokens_total 5\n", TOKENS)) == 1


def test_a_page_of_many_series_is_read_and_too_many_of_ours_are_refused():
    foreign = "".join(f'y_total{{i="{i}"}} {i}\n' for i in range(50_000))
    assert pick(foreign + "x_tokens_total 5\n", TOKENS)[0].value == 5
    ours = "".join(f'x_tokens_total{{i="{i}"}} {i}\n' for i in range(MAX_SERIES))
    assert len(pick(ours, TOKENS)) == MAX_SERIES
    with pytest.raises(PageError, match="point the URL at one server") as refusal:
        pick(ours + "x_tokens_total 5\n", TOKENS)
    assert refusal.value.reason == "too_many_series"


def test_a_page_of_very_long_lines_is_refused_before_it_takes_seconds():
    labels = ",".join(f'l{i}="{i}"' for i in range(700))
    page = "".join(f'x_tokens_total{{i="{i}",{labels}}} {i}\n' for i in range(MAX_SERIES))
    with pytest.raises(PageError, match="characters of them, like x_tokens_total") as refusal:
        pick(page, TOKENS)
    assert refusal.value.reason == "too_many_series"


def test_names_are_folded_and_without_comments():
    assert names('# TYPE a:b counter\na:b_total{c="d"} 1\n\ne 2\n') == {"a_b_total", "e"}


NAMES_ON_PAGES = st.sampled_from(
    sorted({name for dialect in NAMES for name in by_name(dialect).filter_names})
)
LINES = st.builds("{}{}".format, NAMES_ON_PAGES, st.text(alphabet='{}="\\, #_:a1.-+eENnIi\t\r', max_size=30))


def refusal(read: Callable[[], object]) -> str | None:
    try:
        read()
    except PageError as error:
        return error.reason
    return None


@given(st.lists(st.one_of(LINES, st.text()), max_size=8).map("\n".join))
def test_no_text_raises_anything_but_page_error(body: str):
    assert refusal(lambda: recognise(body)) in {None, "not_metrics"}
    for name in NAMES:
        read = partial(read_page, body, by_name(name))
        assert refusal(read) in {None, "not_metrics", "bad_value", "too_many_series"}


@given(st.data())
def test_a_page_cut_anywhere_is_refused_or_gives_true_samples(data: st.DataObject):
    """A cut between lines cannot be told from a shorter page; a cut inside a line of ours is refused."""
    page = data.draw(st.sampled_from(PAGES))
    body, families = page.read_text(), by_name(page.parent.name).families
    cut = body[: data.draw(st.integers(0, len(body)))]
    if refusal(partial(pick, cut, families)) is None:
        got = pick(cut, families)
        assert got == pick(body, families)[: len(got)]
    else:
        assert not cut.endswith("\n")


SCRIBBLE = st.text(alphabet='ab{}="\\ ,#01.e+-n', max_size=20)


@given(
    SCRIBBLE | SCRIBBLE.map('{{a="{}"}}'.format),
    st.sampled_from(["5", "5.0", "1_0", "1e3", "5 1700000000", "1e", "0"]),
)
def test_a_series_seen_before_is_read_as_the_parser_reads_it(labels: str, value: str):
    """Series are remembered by how they are written, so that only their value is left to parse."""
    line = f"x_tokens_total{labels} {value}"
    try:
        (sample,) = next(iter(text_string_to_metric_families(line))).samples
        expected = (fold(sample.name), sample.labels, sample.value)
    except (ValueError, IndexError, StopIteration):
        expected = None
    for _ in range(2):
        try:
            read = [(s.series.name, s.series.labels, s.value) for s in pick(f"{line}\n", TOKENS)]
        except PageError:
            continue
        assert read in ([], [expected])


# ------------------------------------------------------------------------------------ what is remembered

EVIL = """vllm:generation_tokens_total{"engine='0',model_name"="m"} 5\n"""
HONEST = 'vllm:generation_tokens_total{engine="0",model_name="m"} 7\n'


def test_a_label_with_a_name_like_several_labels_is_another_series():
    evil, honest = (read_page(body, by_name("vllm")).readings[0] for body in (EVIL, HONEST))
    assert (evil.model, honest.model) == ("", "m")
    assert evil.series != honest.series


LABELS = st.dictionaries(
    st.text(alphabet="ab='\",", max_size=6), st.text(alphabet="ab='\",", max_size=6), max_size=3
)


@given(LABELS, LABELS)
@example({"a='b',c": "d"}, {"a": "b", "c": "d"})
def test_no_two_series_have_one_key(one: dict[str, str], other: dict[str, str]):
    assert (series_key("x", one) == series_key("x", other)) == (one == other)


def held_bytes(work: Callable[[], object]) -> int:
    """What is still held after some work."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_pages_of_long_lines_are_not_held():
    def read() -> None:
        for i in range(500):
            pick(f'x_tokens_total{{m="{i}_{"x" * 8000}"}} 5\n', TOKENS)

    assert held_bytes(read) < REMEMBERED_BYTES


@pytest.mark.parametrize(
    "labels",
    [
        ",".join(f'l{i}="ab"' for i in range(100)),
        f'm="{"x" * 1000}"',
        'm="' + "\U0001f600\U000e0001" * 500 + '"',
        'm="x"',
    ],
    ids=["many labels", "a long one", "wide characters", "short"],
)
def test_series_take_no_more_than_they_may(labels: str):
    seen = Seen(300_000)

    def read() -> None:
        for i in range(400):
            series = seen.read(f'x_tokens_total{{{labels},i="{i}"}}')
            assert series is not None
            series.told(lambda one: one.key + "other ranks")
            series.told(lambda one: one.key + "other bounds")

    assert held_bytes(read) < 300_000 + 50_000  # and what holds them
    assert seen.get(f'x_tokens_total{{{labels},i="399"}}') is not None
    assert seen.get(f'x_tokens_total{{{labels},i="0"}}') is None


def test_a_series_is_asked_once():
    asked = []
    (sample,) = pick('x_tokens_total{m="asked once"} 5\n', TOKENS)
    (again,) = pick('x_tokens_total{m="asked once"} 6\n', TOKENS)

    def name(series: Series) -> str:
        asked.append(series.key)
        return series.labels["m"]

    assert [one.series.told(name) for one in (sample, again)] == ["asked once"] * 2
    assert asked == ["x_tokens_total{m='asked once'}"]
