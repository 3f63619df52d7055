"""Worked examples: what a node's power and throughput mean for a query, a kWh and a bill."""

import pytest

from joulemeter import formulas


def test_node_of_eight_gpus_at_5600_w_and_2500_tokens_per_second():
    joules = formulas.joules_per_token(5600, 2500)
    assert joules == 2.24
    query = 500 * joules
    assert formulas.watt_hours(query) == pytest.approx(0.31, abs=0.005)
    assert formulas.per_kwh(query) == pytest.approx(3.2e3, rel=0.01)


def test_1000_w_at_3000_tokens_per_second():
    assert formulas.tokens_per_joule(1000, 3000) == 3
    assert formulas.per_kwh(formulas.joules_per_token(1000, 3000)) == pytest.approx(10.8e6)


def test_54_joules():
    assert formulas.kwh(54) == 0.000015


def test_savings():
    assert formulas.savings_ratio(0.14, 2.34) == pytest.approx(0.94, abs=0.0005)
    assert formulas.savings_ratio(3.0, 2.0) == -0.5


def test_charges():
    assert formulas.charge_by_token(250_000, 2.34) == pytest.approx(0.585)
    assert formulas.charge_by_energy(1.8e6, 0.28) == pytest.approx(0.14)
    assert formulas.per_mtok(0.585, 250_000) == pytest.approx(2.34)


@pytest.mark.parametrize(
    "unknown",
    [
        formulas.joules_per_token(100, 0),
        formulas.tokens_per_joule(0, 100),
        formulas.watt_hours(None),
        formulas.per_kwh(None),
        formulas.per_kwh(0.0),
        formulas.per_mtok(1.0, 0.0),
        formulas.savings_ratio(1.0, 0.0),
        formulas.savings_ratio(None, 1.0),
        formulas.ratio(None, 2.0),
    ],
)
def test_nothing_to_divide_by_is_unknown_not_zero(unknown: float | None):
    assert unknown is None
