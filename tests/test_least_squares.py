"""Small least squares: exact where the answer is known, and the conditions of a minimum where it is not."""

import itertools
import math
from operator import mul

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joulemeter.least_squares import nonnegative, solve, variances

numbers = st.integers(-160, 160).map(lambda sixteenths: sixteenths / 16)
"""Columns of these are alike or clearly not; of nearly alike ones rounding decides, and not to seven digits."""


@st.composite
def systems(draw: st.DrawFn, *, most: int = 6) -> tuple[list[list[float]], list[float]]:
    """Normal equations of random rows, some columns of which may be alike, empty, or far larger than others."""
    size = draw(st.integers(1, most))
    rows = draw(st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1, max_size=12))
    sizes = draw(st.lists(st.sampled_from([0.0, 1e-5, 1.0, 1e6]), min_size=size, max_size=size))
    values = draw(st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    rows = [[value * factor for value, factor in zip(row, sizes, strict=True)] for row in rows]
    normal = [[math.fsum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    right = [math.fsum(row[i] * value for row, value in zip(rows, values, strict=True)) for i in range(size)]
    return normal, right


def cost(normal: list[list[float]], right: list[float], x: list[float]) -> float:
    quadratic = math.fsum(x[i] * normal[i][j] * x[j] for i in range(len(right)) for j in range(len(right)))
    return quadratic / 2 - math.fsum(b * one for b, one in zip(right, x, strict=True))


def best_by_trying(normal: list[list[float]], right: list[float]) -> float:
    """The least cost over all sets of unknowns that are not 0."""
    size = len(right)
    found = 0.0
    for count in range(1, size + 1):
        for free in itertools.combinations(range(size), count):
            try:
                part = solve([[normal[i][j] for j in free] for i in free], [right[i] for i in free])
            except ValueError:
                continue
            if min(part) >= 0:
                x = [0.0] * size
                for i, value in zip(free, part, strict=True):
                    x[i] = value
                found = min(found, cost(normal, right, x))
    return found


@given(systems())
@settings(max_examples=400, deadline=None)
def test_it_is_the_best_of_all_sets(system: tuple[list[list[float]], list[float]]):
    normal, right = system
    x = nonnegative(normal, right)
    assert min(x) >= 0
    best = best_by_trying(normal, right)
    assert cost(normal, right, x) <= best + 1e-7 * max(1.0, abs(best))


@st.composite
def tied(draw: st.DrawFn) -> tuple[list[list[float]], list[float]]:
    """Normal equations of small whole numbers: several unknowns become 0 at the very same point."""
    size = draw(st.integers(2, 5))
    row = st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=size, max_size=size)
    rows = draw(st.lists(row, min_size=2, max_size=6))
    values = draw(st.lists(st.integers(-1, 3), min_size=len(rows), max_size=len(rows)))
    return whole(rows, values)


def whole(rows: list[list[int]], values: list[int]) -> tuple[list[list[float]], list[float]]:
    columns = list(zip(*rows, strict=True))
    normal = [[float(sum(map(mul, one, other))) for other in columns] for one in columns]
    return normal, [float(sum(map(mul, one, values))) for one in columns]


@given(tied())
@example(whole([[-1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 2, -1], [0, 1, 1, 1]], [1, 1, 2, 2]))
@settings(max_examples=400, deadline=None)
def test_unknowns_that_reach_0_together_are_dropped_together(system: tuple[list[list[float]], list[float]]):
    normal, right = system
    x = nonnegative(normal, right)
    assert min(x) >= 0
    best = best_by_trying(normal, right)
    assert cost(normal, right, x) <= best + 1e-9 * max(1.0, abs(best))


@given(systems(most=16))
@settings(max_examples=200, deadline=None)
def test_no_unknown_can_be_moved_for_the_better(system: tuple[list[list[float]], list[float]]):
    normal, right = system
    x = nonnegative(normal, right)
    for i, value in enumerate(x):
        if normal[i][i] == 0:
            assert value == 0
            continue
        scale = math.sqrt(normal[i][i])
        slope = (right[i] - math.fsum(a * b for a, b in zip(normal[i], x, strict=True))) / scale
        rounding = 1e-6 * max(
            1.0, *(abs(b) / math.sqrt(normal[j][j]) for j, b in enumerate(right) if normal[j][j])
        )
        assert slope <= rounding
        if value > 0:
            assert slope >= -rounding


def test_coefficients_are_found_again():
    wanted = [7.0, 0.0, 0.02, 3e-5]
    rows = [[1.0, step % 7, (step * 37) % 101, (step * step * 1009) % 90_001] for step in range(50)]
    values = [math.fsum(a * b for a, b in zip(row, wanted, strict=True)) for row in rows]
    normal = [[math.fsum(row[i] * row[j] for row in rows) for j in range(4)] for i in range(4)]
    right = [math.fsum(row[i] * y for row, y in zip(rows, values, strict=True)) for i in range(4)]
    assert nonnegative(normal, right) == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert solve(normal, right) == pytest.approx(wanted, rel=1e-8, abs=1e-8)


def test_a_column_that_is_a_sum_of_others_is_left_out():
    normal = [[2.0, 2.0, 4.0], [2.0, 2.0, 4.0], [4.0, 4.0, 8.0]]
    x = nonnegative(normal, [2.0, 2.0, 4.0])
    assert x[0] + x[1] + 2 * x[2] == pytest.approx(1.0)


def test_the_inverse_has_the_variances():
    matrix = [[4e6, 1e3, 0.0], [1e3, 3.0, 0.5], [0.0, 0.5, 2.0]]
    units = [[float(i == j) for j in range(3)] for i in range(3)]
    for i, value in enumerate(variances(matrix, units)):
        assert value == pytest.approx(solve(matrix, units[i])[i], rel=1e-12)
    (both,) = variances(matrix, [[1.0, 2.0, 0.0]])
    solved = solve(matrix, [1.0, 2.0, 0.0])
    assert both == pytest.approx(solved[0] + 2.0 * solved[1], rel=1e-12)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]]
)
def test_a_matrix_without_an_inverse_is_refused(matrix: list[list[float]]):
    with pytest.raises(ValueError, match="not positive definite"):
        solve(matrix, [1.0, 1.0])
    with pytest.raises(ValueError, match="not positive definite"):
        variances(matrix, [[1.0, 0.0]])


@pytest.mark.parametrize("call", [solve, nonnegative])
def test_what_is_no_number_is_refused(call):
    with pytest.raises(ValueError, match="not finite"):
        call([[math.nan]], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        call([[1.0]], [math.inf])
    with pytest.raises(ValueError, match="negative"):
        call([[-1.0]], [1.0])


def test_nothing_is_nothing():
    assert nonnegative([], []) == []
    assert nonnegative([[0.0]], [0.0]) == [0.0]
    assert nonnegative([[2.0]], [-1.0]) == [0.0]
