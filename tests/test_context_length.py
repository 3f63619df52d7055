"""How much context a decoded token reads, where pages see all requests, some of them, or none."""

from random import Random

import pytest

from joulemeter.context_length import ContextLength
from joulemeter.work import Work

WINDOW_SECONDS = 10.0
SECONDS_A_TOKEN = 0.01


def window(prompts: list[int], answers: list[int], page_seconds: float, random: Random) -> tuple[Work, float]:
    """Return what pages tell of requests that run somewhere in a window, and the mean context that they read."""
    reads = sum(
        answer * (prompt + answer / 2) for prompt, answer in zip(prompts, answers, strict=True)
    ) / sum(answers)
    running_seconds = context_token_seconds = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        seconds = answer * SECONDS_A_TOKEN
        begin = random.uniform(0.0, WINDOW_SECONDS - seconds)
        page = page_seconds / 2
        while page < WINDOW_SECONDS:
            if begin <= page < begin + seconds:
                running_seconds += page_seconds
                context_token_seconds += page_seconds * (prompt + (page - begin) / SECONDS_A_TOKEN)
            page += page_seconds
    count = len(prompts)
    return (
        Work(
            sum(prompts),
            generation_tokens=sum(answers) + count,
            requests=count,
            running_seconds=running_seconds,
            first_tokens=count,
            context_token_seconds=context_token_seconds,
        ),
        reads,
    )


def told(page_seconds: float, windows: int = 4000, seed: int = 0) -> tuple[list[float], list[float]]:
    """Return what is told of windows of chats, a few in each, and what was so."""
    random, length = Random(seed), ContextLength()
    found, true = [], []
    for _ in range(windows):
        count = random.randint(1, 8)
        prompts = [round(400 * random.lognormvariate(0.0, 0.6)) for _ in range(count)]
        answers = [1 + round(150 * min(random.lognormvariate(0.0, 0.6), 4.0)) for _ in range(count)]
        work, reads = window(prompts, answers, page_seconds, random)
        found.append(length.advance(work, WINDOW_SECONDS, page_seconds))
        true.append(reads)
    half = windows // 2
    return found[half:], true[half:]


def slope(x: list[float], y: list[float]) -> float:
    """Return by how much y differs where x differs by one, in the mean."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    both = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True))
    return both / sum((one - mean_x) ** 2 for one in x)


@pytest.mark.parametrize("page_seconds", [0.5, 1.0, 2.0, 5.0])
def test_what_is_told_differs_by_chance_no_more_than_by_what_is_so(page_seconds):
    """Else a regression on it finds too little: with the gauge alone 0.63 of a coefficient, at a page in 5 s."""
    found, true = told(page_seconds)
    assert slope(found, true) == pytest.approx(1.0, abs=0.15)
    assert sum(found) == pytest.approx(sum(true), rel=0.05)


def test_pages_a_second_apart_see_what_lengths_do_not_tell():
    found, true = told(0.5)
    error = sum(abs(one - other) for one, other in zip(found, true, strict=True)) / sum(true)
    assert error < 0.03


def test_lengths_are_taken_at_their_word_without_a_gauge():
    work = Work(400, 100, 201, first_tokens=1, running_seconds=1.4)
    assert ContextLength().advance(work, 10.0, 1.0) == 500 + 200 / 2


def test_a_gauge_without_lengths_is_taken_at_its_word():
    work = Work(generation_tokens=100, first_tokens=0, running_seconds=2.0, context_token_seconds=1400.0)
    assert ContextLength().advance(work, 10.0, 5.0) == 700


def test_requests_that_no_page_saw_have_their_lengths_in_proportion():
    """The gauge says that what is read is 1.2 times what lengths say, as long answers have more of the tokens."""
    length = ContextLength()
    seen = Work(
        4000, generation_tokens=2010, first_tokens=10, running_seconds=20.0, context_token_seconds=12_000.0
    )
    for _ in range(50):
        assert length.advance(seen, 10.0, 1.0) == pytest.approx(600)
    unseen = Work(9000, generation_tokens=2010, first_tokens=10)
    assert length.advance(unseen, 10.0, 1.0) == pytest.approx(1000 * 1.2)


def test_longer_requests_are_learned_within_the_hour():
    """Prompts become three times as long, and a page sees one request in four."""
    random, length = Random(1), ContextLength()
    for size, windows in ((400, 3000), (1200, 360)):
        last = []
        for _ in range(windows):
            prompts = [round(size * random.lognormvariate(0.0, 0.6)) for _ in range(6)]
            answers = [1 + round(120 * min(random.lognormvariate(0.0, 0.6), 4.0)) for _ in range(6)]
            work, reads = window(prompts, answers, 5.0, random)
            last.append((length.advance(work, 10.0, 5.0), reads))
    late = last[180:]
    assert sum(found for found, _ in late) == pytest.approx(sum(true for _, true in late), rel=0.04)


def test_what_was_not_decoded_read_nothing():
    assert (
        ContextLength().advance(Work(400, running_seconds=3.0, context_token_seconds=900.0), 10.0, 1.0) == 0
    )
