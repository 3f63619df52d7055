"""Energy shared among requests: by hand, and adding up where it is said to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemeter.shares import TickWeights, TickWork, pool_ratio, weighted_tick

WEIGHTS = TickWeights(
    step_joules=3.0,
    generated_token_joules=0.06,
    context_token_joules=0.00003,
    computed_token_joules=0.03,
)


def test_a_pool_ratio_by_hand():
    """A sample that an energy-priced provider returned: 698.72 J of the server, the only request on it."""
    assert pool_ratio(698.72, 1200, 1200) == 698.72
    assert pool_ratio(698.72, 1200, 1200, cap_ratio=0.07) == pytest.approx(48.91, abs=0.01)
    assert pool_ratio(698.72, 300, 1200) == pytest.approx(174.68)
    assert pool_ratio(698.72, 0, 0) == 0.0


def test_pool_ratios_do_not_add_up():
    """100 W for 20 s; one request is there for the first ten seconds, another for the last fifteen."""
    billed = [pool_ratio(1000.0, 100, 150), pool_ratio(1500.0, 100, 150)]
    assert sum(billed) == pytest.approx(1666.67, abs=0.01)  # of 2000 J
    assert sum(pool_ratio(1000.0, 100, 200, cap_ratio=0.25) for _ in range(2)) == 500.0


def test_a_weighted_tick_by_hand():
    """One request computes its prompt while another generates 50 tokens beside it."""
    chat = TickWork(generated_tokens=50.0, running_requests=2.0, context_tokens=50 * 500.0)
    search = TickWork(running_requests=2.0, computed_tokens=3000.0)
    # 50 x 1.5 + 50 x 0.06 + 25,000 x 0.00003 = 78.75 against 3000 x 0.03 = 90
    tick = weighted_tick(337.5, {"chat": chat, "search": search}, WEIGHTS)
    assert tick.joules == pytest.approx({"chat": 157.5, "search": 180.0})
    assert tick.carried_joules == 0.0


def test_what_nobody_explains_is_carried_to_the_next_tick():
    waiting, generating = TickWork(), TickWork(generated_tokens=1.0)
    tick = weighted_tick(100.0, {"a": waiting}, WEIGHTS)
    assert (dict(tick.joules), tick.carried_joules) == ({"a": 0.0}, 100.0)
    assert weighted_tick(50.0, {}, WEIGHTS, carried_joules=100.0).carried_joules == 150.0
    tick = weighted_tick(50.0, {"a": waiting, "b": generating}, WEIGHTS, carried_joules=100.0)
    assert (dict(tick.joules), tick.carried_joules) == ({"a": 0.0, "b": 150.0}, 0.0)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("server_joules=-1", lambda: pool_ratio(-1, 1, 1)),
        ("server_joules=nan", lambda: pool_ratio(math.nan, 1, 1)),
        ("pool_tokens=inf", lambda: pool_ratio(1, 1, math.inf)),
        ("pool_tokens=1: less than the request's own 2", lambda: pool_ratio(1, 2, 1)),
        ("cap_ratio=0", lambda: pool_ratio(1, 1, 1, cap_ratio=0)),
        ("cap_ratio=25", lambda: pool_ratio(1, 1, 1, cap_ratio=25)),
        ("active_joules=-0.5", lambda: weighted_tick(-0.5, {}, WEIGHTS)),
        ("carried_joules=inf", lambda: weighted_tick(1, {}, WEIGHTS, carried_joules=math.inf)),
        ("weight of 'a'=-", lambda: weighted_tick(1, {"a": TickWork(computed_tokens=-1)}, WEIGHTS)),
    ],
)
def test_what_is_no_number_is_refused(message: str, call):
    with pytest.raises(ValueError, match=message):
        call()


joules = st.integers(0, 10**10).map(lambda mj: mj / 1000)
tokens = st.integers(0, 10**7).map(float)
work = st.builds(TickWork, tokens, st.integers(0, 3000).map(lambda n: n / 7), tokens, tokens)


@given(st.lists(st.tuples(joules, st.dictionaries(st.integers(0, 9), work)), max_size=20))
def test_ticks_conserve_energy(ticks):
    shared, carried_joules = [], 0.0
    for active_joules, of_requests in ticks:
        tick = weighted_tick(active_joules, of_requests, WEIGHTS, carried_joules=carried_joules)
        assert tick.joules.keys() == of_requests.keys()
        shared += tick.joules.values()
        carried_joules = tick.carried_joules
        assert min([carried_joules, *shared]) >= 0
    measured = math.fsum(active_joules for active_joules, _ in ticks)
    assert math.fsum([carried_joules, *shared]) == pytest.approx(measured, rel=1e-9)


@given(joules, tokens, tokens, st.floats(0.01, 1.0))
def test_a_pool_ratio_is_at_most_its_cap(server_joules, own, others, cap_ratio):
    billed = pool_ratio(server_joules, own, own + others, cap_ratio=cap_ratio)
    assert 0 <= billed <= server_joules * cap_ratio * (1 + 1e-12)
    assert billed <= pool_ratio(server_joules, own, own + others)
