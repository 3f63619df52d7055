"""PromQL as a tree, for questions about queries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

VARIABLES = {
    "$__rate_interval": "4m3s",
    "$__range_s": "4447",
    "$__range": "1h14m7s",
    "$attempts": "1",
    "$side_tokens": "0",
    "$side_price": "0",
    "$change": "10",
    "$clean": "200",
}
"""Values that occur nowhere else, so that a tree still says where they stood."""
RATE_INTERVAL_SECONDS = 243.0
RANGE_SECONDS = 4447.0


def filled(expr: str, variables: dict[str, str]) -> str:
    """The query with values for variables, the longest names first."""
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(name, variables[name])
    return expr


@dataclass(frozen=True)
class Selector:
    """Series that a query reads."""

    name: str
    matchers: frozenset[tuple[str, str, str]]
    function: str
    """What is applied to it: rate, count, ...; empty where nothing is."""
    window_seconds: float | None

    @property
    def labels(self) -> set[str]:
        return {label for label, _, _ in self.matchers}


def parsed(expr: str) -> Any:
    """The tree of a query as it stands in a dashboard."""
    return promql_parser.parse(filled(expr, VARIABLES))


def walk(node: Any, function: str = "") -> Iterator[tuple[Any, str]]:
    """Every part of a tree, with the function that it is an argument of."""
    yield node, function
    inner = function
    if isinstance(node, promql_parser.Call):
        inner = node.func.name
    elif isinstance(node, promql_parser.AggregateExpr):
        inner = str(node.op)
    for key in ("lhs", "rhs", "expr", "args", "param"):
        found = getattr(node, key, None)
        for child in found if isinstance(found, list) else [found]:
            if type(child).__module__.startswith("promql_parser") or hasattr(child, "prettify"):
                yield from walk(child, inner)


def selectors(expr: str) -> Iterator[Selector]:
    """Everything that a query reads."""
    for node, function in walk(parsed(expr)):
        matrix = isinstance(node, promql_parser.MatrixSelector)
        if not matrix and not isinstance(node, promql_parser.VectorSelector):
            continue
        selector = node.vector_selector if matrix else node
        matchers = frozenset((m.name, str(m.op), m.value) for m in selector.matchers.matchers)
        yield Selector(
            selector.name or "", matchers, function, node.range.total_seconds() if matrix else None
        )


def groupings(expr: str) -> set[str]:
    """Every label that a query groups, joins or matches by."""
    found: set[str] = set()
    for node, _ in walk(parsed(expr)):
        modifier = getattr(node, "modifier", None)
        if modifier is not None:
            text = str(modifier)
            for part in text.split("(")[1:]:
                found |= {label.strip() for label in part.partition(")")[0].split(",") if label.strip()}
    return found
