"""Joules per finished request in the books: with their window, once, and never more than the model's own."""

import math
from dataclasses import replace

import pytest

from joulemeter.accounts import Terms
from joulemeter.histogram import HistogramValue
from joulemeter.model import Length, LengthReading, Observation, Phase, User
from tests.nodes import Node, Server, imbalance


def node(*, answers: tuple[int, ...] | None = (), tokens: bool = True) -> tuple[Node, Server]:
    one = Node(terms=Terms(zero_hold_seconds=0, give_up_seconds=30.0, series_ttl_seconds=100.0))
    server = one.serve("a", 0, tokens=tokens)
    server.answers = answers
    one.watts[0] = 500.0
    return one, server


def histogram(one: Node) -> HistogramValue:
    return one.books.requests.histograms[User("a", "model-a")].value()


def active_joules(one: Node) -> float:
    user, model = User("a", "model-a"), one.books.ledger.model
    return math.fsum(model[user, phase].energy_joules for phase in (Phase.PREFILL, Phase.DECODE))


def test_a_model_is_published_at_0_before_its_first_request():
    one, _ = node()
    one.run(1)
    assert histogram(one).counts[-1] == histogram(one).sum == 0


def test_requests_are_counted_with_the_energy_of_their_window():
    one, server = node()
    one.run(15, generation=100.0)
    server.answers = (400, 200)
    one.run(2, generation=100.0)
    assert histogram(one).counts[-1] == 0  # their window is open
    one.run(13, generation=100.0)
    value = histogram(one)
    assert value.counts[-1] == 2
    assert value.sum == pytest.approx(
        598 * 5.0, rel=5e-3
    )  # 500 W at 100 tokens a second; first tokens are free
    one.run(30, generation=100.0)
    assert histogram(one) == value


def test_the_sum_stays_below_what_the_model_used():
    one, server = node()
    for turn in range(40):
        one.run(3, generation=100.0)
        server.answers = (server.answers or ()) + (900,) * (turn % 3)
    value = histogram(one)
    assert value.counts[-1] > 10
    assert active_joules(one) * 0.9 < value.sum <= active_joules(one)
    assert imbalance(one.books) < 1e-9


def test_it_survives_a_restart():
    one, server = node()
    one.run(15, generation=100.0)
    server.answers = (400,)
    one.run(15, generation=100.0)
    before = histogram(one)
    server.restart()
    server.answers = (200,)
    one.run(30, generation=100.0)
    assert (before.counts[-1], histogram(one).counts[-1]) == (1, 2)


def test_requests_that_finish_unseen_are_counted_when_the_server_answers_again():
    one, server = node()
    one.run(15, generation=100.0)
    server.up = False
    server.answers = (400, 400)
    one.run(50, generation=100.0)
    server.up = True
    one.run(1, generation=100.0)
    server.answers = (400, 400, 100)
    one.run(30, generation=100.0)
    assert histogram(one).counts[-1] == 3
    assert histogram(one).sum <= active_joules(one)
    assert one.unattributed_joules("server_unreachable") > 0


def test_there_is_none_where_the_server_tells_no_lengths():
    one, _ = node(answers=None)
    one.run(30, generation=100.0)
    assert one.books.requests.histograms == {}


def test_there_is_none_of_a_model_that_only_the_lengths_name():
    """Counters and histograms that disagree on the model: such a name is never loaded, so it would never be retired."""
    one, server = node()
    reading = LengthReading(Length.GENERATION, "another", "", (), (0,), 0)
    page = replace(server.page(), lengths=(reading,))
    one.books.observe(Observation("a", one.now_seconds, page), has_phases=True)
    assert one.books.requests.histograms == {}
    one.run(1)
    assert set(one.books.requests.histograms) == {User("a", "model-a")}


def test_there_is_none_where_tokens_count_elsewhere():
    one, _ = node(tokens=False)
    one.run(30, generation=100.0)
    assert one.books.requests.histograms == {}


def test_a_long_gone_model_is_retired():
    one, server = node()
    one.run(15, generation=100.0)
    server.up = False
    one.run(120)
    assert one.books.requests.histograms == {}
