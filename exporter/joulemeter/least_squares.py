"""Small dense least squares on normal equations, 4 to 32 unknowns. Pure, and without numpy: it runs in the daemon.

Normal equations of rows (features f, value y, weight w) are A = sum w f f' and b = sum w f y. All functions work on
the matrix scaled to a diagonal of ones, so that joules per step and joules per token need not be of one size.
"""

import math
from collections.abc import Sequence
from operator import mul
from typing import Final

Matrix = Sequence[Sequence[float]]
Vector = Sequence[float]

DEPENDENT: Final = 1e-13
"""A pivot below this, of a matrix with ones on its diagonal, is rounding: the column is a sum of the others."""
_SETTLED: Final = 1e-12
"""A gradient below this part of the largest is rounding."""


def solve(matrix: Matrix, right: Vector) -> list[float]:
    """Return x with matrix x = right.

    Raises:
        ValueError: the matrix is not positive definite (add a ridge), or a value is not finite.
    """
    scales = _scales(matrix, right)
    if 0.0 in scales:
        raise ValueError(f"the matrix is not positive definite: unknown {scales.index(0.0)} is in no row")
    scaled, scaled_right = _scaled(matrix, right, scales)
    factor = _factor(scaled)
    return [value * scale for value, scale in zip(_solved(factor, scaled_right), scales, strict=True)]


def variances(matrix: Matrix, sums: Sequence[Vector]) -> list[float]:
    """Return v' inverse(matrix) v for each v: the variance of a sum of the unknowns, in units of the rows' variance.

    Raises:
        ValueError: as `solve`.
    """
    scales = _scales(matrix, [0.0] * len(matrix))
    if 0.0 in scales:
        raise ValueError(f"the matrix is not positive definite: unknown {scales.index(0.0)} is in no row")
    factor = _factor(_scaled(matrix, [0.0] * len(matrix), scales)[0])
    found = []
    for vector in sums:
        forward = _forward(factor, list(map(mul, vector, scales)))
        found.append(sum(value * value for value in forward))
    return found


def nonnegative(normal: Matrix, right: Vector) -> list[float]:
    """Return the x >= 0 that minimises x' normal x / 2 - right' x.

    The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23) on normal
    equations: exact but for rounding, and every iterate is feasible. An unknown that is in no row (its diagonal
    is 0), or that is a sum of unknowns already in use, stays 0.

    Args:
        normal: symmetric, positive semidefinite.
        right: a combination of its columns, as normal equations always have it.

    Raises:
        ValueError: a value is not finite, or a diagonal is negative.
    """
    scales = _scales(normal, right)
    matrix, vector = _scaled(normal, right, scales)
    size = len(vector)
    x = [0.0] * size
    free: list[int] = []
    tried: set[int] = set()
    tolerance = _SETTLED * max(map(abs, vector), default=0.0)
    for _ in range(4 * size):  # it takes about one round for each unknown; a bound, for the sake of rounding
        gradient = [b - sum(map(mul, row, x)) for b, row in zip(vector, matrix, strict=True)]
        waiting = [i for i in range(size) if i not in free and i not in tried and gradient[i] > tolerance]
        if not waiting:
            break
        entering = max(waiting, key=gradient.__getitem__)
        moved = _entered(matrix, vector, x, [*free, entering])
        if moved is None:
            tried.add(entering)
            continue
        tried.clear()
        x, free = moved
    return [value * scale for value, scale in zip(x, scales, strict=True)]


def _entered(
    matrix: Matrix, vector: Vector, x: list[float], free: list[int]
) -> tuple[list[float], list[int]] | None:
    """Move to the best point with these unknowns free, on the way dropping those that would become negative.

    None if the last of them, which is entering, cannot rise: a sum of the others, or rounding.
    """
    entering = free[-1]
    while True:
        try:
            factor = _factor([[matrix[i][j] for j in free] for i in free])
        except ValueError:
            return None
        best = dict(zip(free, _solved(factor, [vector[i] for i in free]), strict=True))
        if best.get(entering, 0.0) <= 0.0:
            return None
        blocking = [i for i in free if best[i] <= 0.0]
        if not blocking:
            return [best.get(i, 0.0) for i in range(len(x))], free
        out = {i for i in blocking if x[i] == 0.0}  # of several that reached 0 at once
        if not out:
            ratio, first = min((x[i] / (x[i] - best[i]), i) for i in blocking)
            x = [
                max(0.0, value + ratio * (best[i] - value)) if i in best else 0.0 for i, value in enumerate(x)
            ]
            x[first] = 0.0
            out = {first}
        free = [i for i in free if i not in out]


def _scales(matrix: Matrix, right: Vector) -> list[float]:
    """Return one over the roots of the diagonal, 0 for 0."""
    if not all(math.isfinite(value) for row in (*matrix, right) for value in row):
        raise ValueError("a value is not finite")
    if any(matrix[i][i] < 0.0 for i in range(len(right))):
        raise ValueError("a diagonal is negative")
    return [1.0 / math.sqrt(matrix[i][i]) if matrix[i][i] > 0.0 else 0.0 for i in range(len(right))]


def _scaled(matrix: Matrix, right: Vector, scales: Vector) -> tuple[list[list[float]], list[float]]:
    scaled = [
        [value * scale * other for value, other in zip(row, scales, strict=True)]
        for row, scale in zip(matrix, scales, strict=True)
    ]
    return scaled, [value * scale for value, scale in zip(right, scales, strict=True)]


def _factor(matrix: Matrix) -> list[list[float]]:
    """Return the lower Cholesky factor of a matrix with ones on its diagonal."""
    rows: list[list[float]] = []
    for i, given in enumerate(matrix):
        row: list[float] = []
        for j, above in enumerate(rows):
            row.append((given[j] - sum(map(mul, row, above))) / above[j])
        pivot = given[i] - sum(value * value for value in row)
        if not pivot > DEPENDENT:
            raise ValueError(f"the matrix is not positive definite: unknown {i} is a sum of those before it")
        row.append(math.sqrt(pivot))
        rows.append(row)
    return rows


def _solved(factor: Matrix, right: Vector) -> list[float]:
    size = len(right)
    forward = _forward(factor, right)
    x = [0.0] * size
    for i in reversed(range(size)):
        x[i] = (forward[i] - sum(factor[j][i] * x[j] for j in range(i + 1, size))) / factor[i][i]
    return x


def _forward(factor: Matrix, right: Vector) -> list[float]:
    forward: list[float] = []
    for row, value in zip(factor, right, strict=True):
        forward.append((value - sum(map(mul, row, forward))) / row[-1])
    return forward
