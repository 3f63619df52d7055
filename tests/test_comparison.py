"""The books and their baselines: which windows are compared, and which are not."""

import pytest
from test_baseline import learned

from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.baseline import BaselineKey
from joulemeter.baselines import BIRTH_SECONDS, Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import (
    EnergyReading,
    EnergySource,
    Gpu,
    Moves,
    Observation,
    PageReading,
    Role,
    RoleReading,
    User,
)

GPU = Gpu(0, "GPU-0", "H100", "580", EnergySource.COUNTER, 700.0)
USER = User("chat", "llama")
WATTS = 300.0
WINDOW_JOULES = 10 * WATTS


class Node:
    """One GPU at a steady draw, one server at a steady pace; told when to be silent."""

    def __init__(self, *, counts_tokens: bool = True, uses: frozenset[str] = frozenset({GPU.uuid})) -> None:
        self.baselines = Baselines(604_800.0, lambda: 1e6)
        baseline = learned(800)
        baseline.key = BaselineKey("llama", "H100", 1)
        self.baselines.adopt([baseline], replace=True)
        self.books = Bookkeeper(
            Terms(),
            price=unpriced,
            attributor=Attributor(),
            baselines=self.baselines,
        )
        self.books.expect_server("chat", "llama", 0.0, counts_tokens=counts_tokens)
        self.books.own("chat", uses, 0.0)

    def run(self, begin: int, end: int, *, meter: bool = True, server: bool = True) -> "Node":
        for second in range(begin, end):
            if meter:
                self.books.meter(GPU, [EnergyReading(GPU.uuid, WATTS * second, float(second))])
            if server:
                counted = (
                    (Role.GENERATION, 600.0 * second),
                    (Role.PROMPT, 300.0 * second),
                    (Role.STEPS, 60.0 * second),
                    (Role.FIRST_TOKENS, 2.0 * second),
                )
                page = PageReading(
                    "vllm",
                    (
                        *(RoleReading(role, "llama", role, value, Moves.STEP) for role, value in counted),
                        RoleReading(Role.RUNNING, "llama", "running", 10.0, None),
                    ),
                )
                self.books.observe(Observation("chat", second + 0.5, page), has_phases=True)
            self.books.settle(second + 0.5)
        return self

    @property
    def compared_joules(self) -> float:
        return sum(one.compared_joules for one in self.baselines.comparisons.values())

    @property
    def attributed_joules(self) -> float:
        return sum(amount.energy_joules for amount in self.books.ledger.model.values())


def test_every_window_is_compared_once_the_birth_was_seen():
    node = Node().run(0, 300)
    left_out = node.attributed_joules - node.compared_joules
    assert node.compared_joules > 150 * WATTS
    assert BIRTH_SECONDS * WATTS <= left_out <= (BIRTH_SECONDS + 25) * WATTS


def test_a_window_given_up_is_neither_compared_nor_expected():
    node = Node().run(0, 200)
    before = node.compared_joules
    node.run(200, 300, server=False)
    silent = node.compared_joules
    assert silent - before <= WINDOW_JOULES
    node.run(300, 400)
    lost = node.books.ledger.unattributed[GPU.uuid, "server_unreachable"].energy_joules
    assert lost > 60 * WATTS
    left_out = node.attributed_joules - node.compared_joules
    assert left_out <= (BIRTH_SECONDS + 25) * WATTS, "what was lost is in neither"
    assert node.compared_joules > silent


def test_a_window_that_the_meter_missed_is_not_compared():
    whole = Node().run(0, 300).compared_joules
    gap = Node().run(0, 200).run(200, 230, meter=False).run(230, 300)
    assert gap.books.ledger.unattributed[GPU.uuid, "meter_gap"].energy_joules == pytest.approx(
        31 * WATTS, rel=0.1
    )
    missing = whole - gap.compared_joules
    assert missing >= 31 * WATTS
    assert missing <= 31 * WATTS + 2.5 * WINDOW_JOULES
    ratio = {
        basis: gap.compared_joules / joules
        for comparison in gap.baselines.comparisons.values()
        for basis, joules in comparison.expected_joules.items()
    }
    full = Node().run(0, 300).baselines.comparisons.values()
    for comparison in full:
        for basis, joules in comparison.expected_joules.items():
            assert ratio[basis] == pytest.approx(comparison.compared_joules / joules, rel=0.01)


def test_a_server_whose_tokens_count_elsewhere_is_not_compared():
    node = Node(counts_tokens=False).run(0, 200)
    assert node.attributed_joules > 0
    assert node.baselines.comparisons == {}


def test_a_server_with_a_gpu_that_is_not_measured_is_not_compared():
    node = Node(uses=frozenset({GPU.uuid, "GPU-1"})).run(0, 200)
    assert node.attributed_joules > 0
    assert node.baselines.comparisons == {}
