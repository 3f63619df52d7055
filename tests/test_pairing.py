"""Requests drawn from buckets: what was seen stays so, and what mostly went together goes together."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.dialects.pages import MAX_VALUE
from joulemeter.lengths import Bucket, Finished, Lengths
from joulemeter.model import Length
from joulemeter.pairing import MOST_PROPOSALS, Chance, Pairing, RequestTokens

BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def lengths(tokens: list[int]) -> Lengths:
    edges = [*pairwise((0, *BOUNDS)), (BOUNDS[-1], None)]
    counts = [
        sum(above < one <= (math.inf if most is None else most) for one in tokens) for above, most in edges
    ]
    buckets = [Bucket(n, above, most) for n, (above, most) in zip(counts, edges, strict=True) if n]
    return Lengths(tuple(buckets), sum(tokens))


def finished(*requests: tuple[int, int, int]) -> Finished:
    prompts, computed, answers = zip(*requests, strict=True)
    columns = {
        Length.PROMPT: prompts,
        Length.COMPUTED_PROMPT: computed,
        Length.GENERATION: answers,
    }
    return Finished(1.0, "m", {length: lengths(list(column)) for length, column in columns.items()})


def test_one_request_is_known():
    assert Pairing().requests(finished((6000, 1000, 80))) == [RequestTokens(6000, 1000, 80)]
    assert Pairing().requests(finished((60_000, 60_000, 1))) == [RequestTokens(60_000, 60_000, 1)]


def test_the_widest_bucket_of_a_page_is_drawn_from():
    widest = Lengths((Bucket(3000, 0, round(MAX_VALUE)),), 300_000)
    drawn = Pairing().requests(Finished(1.0, "m", {Length.GENERATION: widest}))
    assert math.fsum(one.generated_tokens for one in drawn) == pytest.approx(300_000, rel=1e-9)
    assert min(one.generated_tokens for one in drawn) >= 0


def test_what_is_not_told_is_not_made_up():
    answers = {Length.GENERATION: lengths([80])}
    assert Pairing().requests(Finished(1.0, "m", answers)) == [RequestTokens(0.0, None, 80)]


def test_a_length_that_was_counted_less_often_is_taken_at_its_mean():
    counted = {Length.GENERATION: lengths([80, 80]), Length.PROMPT: lengths([700])}
    assert [one.prompt_tokens for one in Pairing().requests(Finished(1.0, "m", counted))] == [700, 700]


request = st.tuples(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(1, 20_000))


@given(st.lists(request, min_size=1, max_size=30))
def test_buckets_and_sums_are_those_that_were_seen(requests: list[tuple[int, int, int]]):
    drawn = Pairing().requests(finished(*requests))
    assert len(drawn) == len(requests)
    for column, name in enumerate(("prompt_tokens", "computed_tokens", "generated_tokens")):
        seen = [one[column] for one in requests]
        values = sorted(getattr(one, name) for one in drawn)
        assert math.fsum(values) == pytest.approx(sum(seen), rel=1e-9)
        for value, true in zip(values, sorted(seen), strict=True):
            (bucket,) = lengths([true]).buckets
            assert bucket.above_tokens - 1e-6 <= value <= (bucket.at_most_tokens or math.inf) + 1e-6


def test_prompts_go_with_the_answers_that_they_mostly_went_with():
    """Chats have short prompts and long answers, searches long prompts and short answers."""
    pairing, chance = Pairing(), Chance()
    chat, search = (400, 400, 250), (6000, 6000, 30)
    right = Counter[bool]()
    for turn in range(600):
        page = [chat if chance.ratio() < 0.5 else search for _ in range(1 if turn % 20 == 0 else 6)]
        drawn = pairing.requests(finished(*page))
        if turn > 300:
            for one in drawn:
                kinds = (one.prompt_tokens > 1000, one.computed_tokens > 1000, one.generated_tokens < 100)
                right[len(set(kinds)) == 1] += 1
    assert right[True] / right.total() > 0.97


def test_the_same_pages_give_the_same_requests():
    pages = [finished((400, 400, 250), (6000, 100, 30), (60, 60, 8))] * 3
    first, second = Pairing(), Pairing()
    assert [first.requests(page) for page in pages] == [second.requests(page) for page in pages]


class Counted(Chance):
    """Counts how often it is asked."""

    asked = 0

    def ratio(self) -> float:
        self.asked += 1
        return super().ratio()


def test_the_engines_of_a_page_share_the_swaps():
    """One engine with 500 requests, or a tenth of a page's 5000: of the first ten times as many swaps are tried."""
    alone, among = (
        replace(finished(*[(400, 400, 250), (6000, 6000, 30)] * 250), share=share) for share in (1.0, 0.1)
    )
    tries = []
    for page in (alone, among):
        chance = Counted()
        assert len(Pairing(chance).requests(page)) == 500
        tries.append(chance.asked - 4 * 500)  # one for each length, and one for the order
    assert tries[0] > MOST_PROPOSALS
    assert tries[1] < MOST_PROPOSALS
