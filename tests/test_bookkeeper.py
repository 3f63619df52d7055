"""The books of a node through everything that happens to it; law 1 at every turn."""

import pytest
from nodes import Node, gpu, imbalance

from joulemeter import catalog
from joulemeter.accounts import Terms
from joulemeter.model import EnergyReading, Phase, User


def phases(node: Node, name: str) -> dict[Phase, float]:
    ledger = node.books.ledger.model
    return {phase: amount.energy_joules for (user, phase), amount in ledger.items() if user.server == name}


def measured(node: Node) -> float:
    return sum(account.measured.energy_joules for account in node.books.gpus.values())


def test_a_served_gpu_is_attributed_in_windows_of_ten_seconds():
    node = Node()
    node.serve("a", 0)
    node.watts[0] = 500
    node.run(65, prompt=100, generation=200)
    assert imbalance(node.books) < 1e-9
    assert node.books.gpus["GPU-0"].pending.energy_joules <= 500 * 11
    assert node.attributed_joules("a") == pytest.approx(500 * 60, rel=0.02)
    assert phases(node, "a")[Phase.DECODE] > phases(node, "a")[Phase.PREFILL] > 0


def test_tokens_advance_with_the_energy_of_their_window():
    node = Node()
    node.serve("a", 0)
    node.watts[0] = 500
    node.run(45, generation=200)
    windows = node.attributed_joules("a") / 5000
    assert node.tokens("a", "generation") == pytest.approx(200 * 10 * windows, rel=0.03)


def test_a_gpu_without_server_is_no_servers():
    node = Node(gpus=2)
    node.serve("a", 0)
    node.run(40)
    assert node.unattributed_joules("no_server") == pytest.approx(200 * 40, rel=0.01)
    assert imbalance(node.books) < 1e-9


def test_energy_before_ownership_is_known_waits_for_it():
    node = Node()
    node.serve("a")
    node.run(30, generation=10)
    assert measured(node) == pytest.approx(node.books.gpus["GPU-0"].pending.energy_joules)
    node.books.own("a", frozenset({"GPU-0"}), node.now_seconds)
    node.run(11, generation=10)
    assert node.unattributed_joules("no_server") == 0
    assert node.attributed_joules("a") == pytest.approx(200 * 40, rel=0.05)


def test_beyond_the_limit_it_is_no_servers_and_so_are_the_tokens():
    node = Node()
    node.serve("a")
    node.run(70, generation=10)
    assert node.unattributed_joules("no_server") == pytest.approx(200 * 70, rel=0.05)
    assert node.lost_tokens("a", "generation") == pytest.approx(10 * 70, rel=0.05)


def test_series_are_born_at_zero_and_their_first_energy_is_held():
    node = Node(terms=Terms(zero_hold_seconds=30))
    node.serve("a", 0)
    node.run(20, generation=10)
    assert set(phases(node, "a").values()) == {0.0}
    assert node.books.ledger.unattributed["GPU-0", "no_server"].energy_joules == 0
    node.run(25, generation=10)
    assert node.attributed_joules("a") > 200 * 30
    assert imbalance(node.books) < 1e-9


def test_ever_new_models_do_not_hold_energy_for_ever():
    """Adapters that are labelled as models: each is to be born at 0, and its GPU's energy must go on."""
    terms = Terms(zero_hold_seconds=30, give_up_seconds=60)
    node = Node(terms=terms)
    server = node.serve("a", 0)
    for number in range(30):
        server.model = f"adapter-{number}"
        node.run(10, generation=10)
        assert node.books.gpus["GPU-0"].pending.energy_joules <= 200 * (terms.hold_most_seconds + 20)
    assert node.attributed_joules("a") > 200 * 150
    assert imbalance(node.books) < 1e-9


def test_lost_tokens_are_born_at_zero_whatever_their_reason():
    node = Node()
    node.serve("a")
    node.run(5, generation=10)
    reasons = {reason for _, _, reason in node.books.ledger.lost_tokens}
    assert reasons == set(catalog.LOST_TOKEN_REASONS)
    assert set(node.books.ledger.lost_tokens.values()) == {0.0}
    node.run(70, generation=10)
    assert {reason for _, _, reason in node.books.ledger.lost_tokens} == reasons
    assert node.lost_tokens("a", "generation") > 0


def test_a_server_that_does_not_answer_is_given_up_after_the_limit():
    node = Node()
    server = node.serve("a", 0)
    node.run(30, generation=10)
    server.up = False
    node.run(50, generation=10)
    assert node.unattributed_joules("server_unreachable") == 0
    node.run(30, generation=10)
    left = measured(node) - node.attributed_joules("a")
    assert node.unattributed_joules("server_unreachable") == pytest.approx(left, rel=0.01)
    server.up = True
    node.run(30, generation=10)
    counted = node.tokens("a", "generation") + node.lost_tokens("a", "generation")
    assert counted == pytest.approx(
        10 * 140 - 10, abs=10 * 11
    )  # the first page is the baseline; a window is pending
    assert node.lost_tokens("a", "generation") == pytest.approx(10 * 80, rel=0.2)
    assert imbalance(node.books) < 1e-9


def test_a_server_that_is_gone_for_good_gives_way_to_its_neighbour():
    node = Node()
    a = node.serve("a", 0)
    node.serve("b", 0)
    node.run(30, generation=10)
    a.up = False
    node.books.own("a", frozenset(), node.now_seconds)  # it may be restarting
    node.run(70, generation=10)
    assert node.unattributed_joules("server_unreachable") > 0
    node.books.own("a", frozenset(), node.now_seconds)
    before, given_up = node.attributed_joules("b"), node.unattributed_joules("server_unreachable")
    node.run(60, generation=10)
    assert node.attributed_joules("b") > before + 200 * 45
    assert node.unattributed_joules("server_unreachable") <= given_up + 200
    assert imbalance(node.books) < 1e-9


def test_a_short_silence_loses_nothing():
    node = Node()
    server = node.serve("a", 0)
    node.run(30, generation=10)
    server.up = False
    node.run(40, generation=10)
    server.up = True
    node.run(20, generation=10)
    assert node.unattributed_joules("server_unreachable") == 0
    assert node.lost_tokens("a", "generation") == 0


def test_a_restart_counts_from_zero_and_loses_no_joule():
    node = Node()
    server = node.serve("a", 0)
    node.run(25, generation=10)
    server.restart()
    node.run(40, generation=10)
    assert node.tokens("a", "generation") >= 10 * 50
    assert node.unattributed_joules("server_unreachable") == 0
    assert imbalance(node.books) < 1e-9


def test_two_servers_share_a_gpu_by_their_work():
    node = Node()
    node.serve("a", 0)
    b = node.serve("b", 0)
    node.watts[0] = 600
    for _ in range(60):
        b.generation += 90
        node.run(1, generation=10)
    assert node.attributed_joules("b") > 4 * node.attributed_joules("a") > 0
    assert imbalance(node.books) < 1e-9


def test_if_one_of_two_is_silent_the_gpu_is_nobodys():
    node = Node()
    node.serve("a", 0)
    b = node.serve("b", 0)
    node.run(30, generation=10)
    b.up = False
    node.run(100, generation=10)
    assert node.unattributed_joules("server_unreachable") > 200 * 70
    assert node.lost_tokens("a", "generation") > 10 * 70
    assert imbalance(node.books) < 1e-9


def test_a_server_on_two_gpus_gets_both():
    node = Node(gpus=2)
    node.serve("a", 0, 1)
    node.run(41, generation=10)
    assert node.attributed_joules("a") == pytest.approx(400 * 40, rel=0.05)


def test_a_reset_of_the_counter_is_counted_and_loses_no_energy():
    node = Node()
    node.serve("a", 0)
    node.run(20)
    node.counted[0] = 0.0
    node.run(20)
    account = node.books.gpus["GPU-0"]
    assert account.resets == 1
    assert measured(node) == pytest.approx(200 * 40, rel=0.01)


def test_a_lost_gpu_stands_still_and_its_gap_is_named():
    node = Node(gpus=2)
    node.serve("a", 0, 1)
    node.run(20, generation=10)
    node.lost.add(1)
    node.run(30, generation=10)
    node.lost.clear()
    node.run(30, generation=10)
    assert node.unattributed_joules("meter_gap") == pytest.approx(200 * 30, rel=0.05)
    assert measured(node) == pytest.approx(400 * 80, rel=0.01)
    assert imbalance(node.books) < 1e-9


def test_a_gpu_lost_for_good_keeps_nobody_waiting():
    node = Node(gpus=2)
    node.serve("a", 0, 1)
    node.run(20, generation=10)
    node.lost.add(1)
    node.run(100, generation=10)
    assert node.books.gpus["GPU-0"].pending.energy_joules < 200 * 12
    assert imbalance(node.books) < 1e-9


def test_idle_can_be_left_unattributed():
    node = Node(terms=Terms(zero_hold_seconds=0, idle="unattributed"))
    node.serve("a", 0)
    node.run(40)
    assert node.unattributed_joules("idle") == pytest.approx(200 * 40, rel=0.3)
    assert node.attributed_joules("a") == 0


def test_a_vanished_models_series_are_retired_and_start_at_zero_again():
    node = Node(terms=Terms(zero_hold_seconds=0, series_ttl_seconds=120))
    server = node.serve("a", 0)
    node.run(40, generation=10)
    spent = node.attributed_joules("a")
    server.model = "other"
    node.run(150, generation=10)
    old = User("a", "model-a")
    assert old not in node.books.ledger.users()
    assert node.books.ledger.retired.energy_joules >= spent
    assert imbalance(node.books) < 1e-9
    server.restart()
    server.model = "model-a"
    node.run(30, generation=10)
    assert 200 <= node.books.ledger.tokens[old, "generation"] <= 300
    assert imbalance(node.books) < 1e-9


def test_tokens_of_a_server_that_is_counted_elsewhere_are_not_published():
    node = Node()
    node.serve("a", 0, tokens=False)
    node.run(40, generation=10)
    assert node.attributed_joules("a") > 0
    assert not node.books.ledger.tokens


def test_an_impossible_jump_is_not_energy():
    node = Node()
    node.serve("a", 0)
    node.run(10)
    node.books.meter(gpu(0), [EnergyReading("GPU-0", 1e15, node.now_seconds + 0.01)])
    assert measured(node) < 200 * 11
    assert node.books.gpus["GPU-0"].resets == 1


# ---------------------------------------------------------------------------------------------- servers that go


def test_last_window_of_a_server_that_goes_is_its_own():
    node = Node(gpus=2)
    node.serve("a", 0)
    node.serve("b", 1)
    node.run(34, generation=50)  # a window ended at 30
    node.gone("a")
    node.run(1)
    assert node.attributed_joules("a") == pytest.approx(200 * 34, rel=0.01)
    assert node.tokens("a", "generation") == 33 * 50  # the first page is where counting begins
    assert node.books.is_free("a")
    node.run(20, generation=50)
    assert node.attributed_joules("a") == pytest.approx(200 * 34, rel=0.01)
    assert node.books.ledger.unattributed["GPU-0", "no_server"].energy_joules == pytest.approx(
        200 * 21, rel=0.02
    )
    assert node.attributed_joules("b") == pytest.approx(200 * 50, rel=0.01)
    assert imbalance(node.books) < 1e-9


def test_gpu_of_a_server_that_went_is_the_next_ones():
    node = Node()
    node.serve("old", 0)
    node.run(33, generation=50)
    node.gone("old")
    node.run(2)
    node.serve("new", 0)
    node.run(30, generation=50)
    assert node.attributed_joules("old") == pytest.approx(200 * 33, rel=0.01)
    assert node.attributed_joules("new") == pytest.approx(200 * 20, rel=0.01)  # the rest is pending
    assert imbalance(node.books) < 1e-9


def test_who_shares_with_a_server_that_goes_keeps_its_own_share():
    node = Node()
    node.serve("a", 0)
    node.serve("b", 0)
    node.run(34, generation=50)
    node.gone("a")
    node.run(30, generation=50)
    assert node.attributed_joules("a") == pytest.approx(200 * 34 / 2, rel=0.02)
    assert node.attributed_joules("b") == pytest.approx(200 * 34 / 2 + 200 * 20, rel=0.01)
    assert node.unattributed_joules("no_server") == node.unattributed_joules("server_unreachable") == 0


def test_server_that_goes_while_its_series_are_held_at_zero_is_settled_after():
    node = Node(terms=Terms(zero_hold_seconds=20))
    node.serve("a", 0)
    node.run(5, generation=50)
    node.gone("a")
    node.run(10)
    assert (node.attributed_joules("a"), node.books.is_free("a")) == (0, False)
    node.run(12)
    assert node.attributed_joules("a") == pytest.approx(200 * 5, rel=0.05)
    assert node.books.is_free("a")


def test_server_that_goes_without_an_answer_or_a_gpu_holds_nothing_back():
    node = Node()
    node.serve("silent", 0).up = False
    node.serve("homeless")
    node.run(5, generation=50)
    for name in ("silent", "homeless"):
        node.gone(name)
    node.run(1)
    assert node.books.is_free("silent")
    assert node.books.is_free("homeless")
    assert node.lost_tokens("homeless", "generation") == 4 * 50
    node.run(5)
    assert node.unattributed_joules("no_server") == pytest.approx(200 * 11, rel=0.05)


def test_server_that_goes_with_a_gpu_that_is_lost_is_given_up_in_time():
    node = Node(gpus=2, terms=Terms(zero_hold_seconds=0, give_up_seconds=20))
    node.serve("a", 0, 1)
    node.run(15, generation=50)
    node.lost.add(1)
    node.run(2, generation=50)
    node.gone("a")
    node.run(30)
    assert node.books.is_free("a")
    assert imbalance(node.books) < 1e-9
    node.lost.clear()
    node.run(5)
    assert imbalance(node.books) < 1e-9


def test_name_that_is_taken_over_goes_on_with_its_totals():
    node = Node()
    node.serve("pod-0", 0)
    node.run(33, generation=50)
    before = node.gone("pod-0")
    node.run(2)
    again = node.serve("pod-0", 0)
    again.model = before.model
    node.run(31, generation=50)
    assert node.attributed_joules("pod-0") == pytest.approx(200 * 63, rel=0.05)
    assert node.tokens("pod-0", "generation") > 33 * 50 + 20 * 50


def test_server_that_went_is_forgotten_when_its_series_are():
    node = Node(terms=Terms(zero_hold_seconds=0, series_ttl_seconds=60))
    node.serve("a", 0)
    node.run(25, generation=50)
    node.gone("a")
    node.run(40)
    assert User("a", "model-a") in node.books.ledger.users()
    total = node.attributed_joules("a")
    node.run(30)
    assert node.books.servers == {}
    assert node.books.ledger.users() == frozenset()
    assert node.books.ledger.retired.energy_joules == pytest.approx(total)
    assert imbalance(node.books) < 1e-9
