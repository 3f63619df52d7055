"""More panel shapes: tables, bands of states, and heatmaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

from dashboards.current import thresholds, value_texts
from dashboards.panels import Panel, Query, drawn_as

NARROW: Final = 90
"""Pixels of a column of numbers."""
LABEL_WIDTHS: Final = {"namespace": 120, "pod": 160, "server": 130, "gpu": 60, "baseline": 100}
"""Pixels of a column of labels that are short; what is left is for the others."""
FOLLOWED: Final = {
    "model": ("joulemeter-model", ("cluster", "job", "instance", "namespace", "currency")),
    "instance": ("joulemeter-gpu", ("cluster", "job")),
}
"""Where a click on a label leads: to the dashboard on it alone, at the same time, with what is chosen otherwise.

What is chosen, not the row's own namespace: outside Kubernetes answers have no such column, and Grafana leaves
`${__data.fields.Namespace}` as it stands where there is no column of that name (`@grafana/data` 11.6,
`getFieldDisplayValuesProxy`).
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: one instant query by the table's labels.

    Args:
        title: its heading.
        expr: the query.
        unit: one of Grafana's units.
        steps: the colour of the text from a value on.
        texts: a text in place of a value.
        width: in pixels.
        decimals: places after the point, where Grafana's choice is too long.
        shown: the heading as it is shown, for those with a variable in it; `title` then only names the column.
    """

    title: str
    expr: str
    unit: str = "short"
    steps: Mapping[float, str] | None = None
    texts: Mapping[str | tuple[float, float], str] | None = None
    width: int = NARROW
    decimals: int | None = None
    shown: str = ""


def table(
    title: str,
    *,
    means: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    no_data: str,
    sort_by: str = "",
    width: int = 24,
    height: int = 8,
) -> Panel:
    """Draw a row for each set of labels, as of the end of the range.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        labels: the headings of the labels by which every column's query is grouped, in order.
        columns: the figures.
        no_data: what stands there when no series answers.
        sort_by: the heading that it is sorted by, the largest first.
        width: in 24ths of the page.
        height: in rows of some 30 pixels.
    """
    values = {
        f"Value #{letter}": column.title for letter, column in zip(ascii_uppercase, columns, strict=False)
    }
    if len(columns) == 1:
        values = {"Value": columns[0].title}  # Grafana numbers them only if there are several
    order = [*labels, *values]
    organized = {
        "excludeByName": {"Time": True},
        "includeByName": {},
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {**labels, **values},
    }
    overrides: list[dict[str, Any]] = [
        {"matcher": {"id": "byName", "options": column.title}, "properties": _column(column)}
        for column in columns
    ]
    overrides += [
        {"matcher": {"id": "byName", "options": heading}, "properties": _label(label)}
        for label, heading in labels.items()
    ]
    drawn = drawn_as(
        "table",
        title,
        [Query(column.expr) for column in columns],
        means=means,
        unit="short",
        no_data=no_data,
        defaults={
            "custom": {"align": "auto", "inspect": False, "filterable": False},
            "thresholds": {"mode": "absolute", "steps": thresholds({})},
        },
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "countRows": False},
            "sortBy": [{"displayName": sort_by, "desc": True}] if sort_by else [],
        },
        overrides=overrides,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organized}],
        format_="table",
    )
    return Panel(drawn, width=width, height=height)


def state_timeline(
    title: str,
    *,
    means: str,
    unit: str,
    queries: Sequence[Query],
    no_data: str,
    steps: Mapping[float, str],
    texts: Mapping[str | tuple[float, float], str] | None = None,
    width: int = 12,
    height: int = 6,
) -> Panel:
    """Draw one band per series, coloured by value.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        queries: range queries.
        no_data: what stands there when no series answers.
        steps: the colour from a value on.
        texts: a text in place of a value, or of all values from one to another.
        width: in 24ths of the page.
        height: in rows of some 30 pixels.
    """
    drawn = drawn_as(
        "state-timeline",
        title,
        queries,
        means=means,
        unit=unit,
        no_data=no_data,
        instant=False,
        defaults={
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 80, "lineWidth": 0},
            "mappings": value_texts(texts or {}),
            "thresholds": {"mode": "absolute", "steps": thresholds(steps)},
        },
        options={
            "showValue": "never",
            "rowHeight": 0.8,
            "mergeValues": True,
            "alignValue": "left",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )
    return Panel(drawn, width=width, height=height)


def heatmap(title: str, *, means: str, unit: str, query: str, no_data: str) -> Panel:
    """Draw a histogram's buckets over time; the query is by (le).

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: of the buckets' limits, one of Grafana's units.
        query: the increase of each bucket.
        no_data: what stands there when no series answers.
    """
    drawn = drawn_as(
        "heatmap",
        title,
        [Query(query, "{{le}}")],
        means=means,
        unit=unit,
        no_data=no_data,
        instant=False,
        defaults={"thresholds": {"mode": "absolute", "steps": thresholds({})}},
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Blues",
                "fill": "blue",
                "exponent": 0.5,
                "reverse": False,
                "steps": 32,
                "scale": "exponential",
            },
            "filterValues": {"le": 1e-9},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
        },
        format_="heatmap",
    )
    return Panel(drawn, width=12, height=10)


def _column(column: Column) -> list[dict[str, Any]]:
    properties: list[dict[str, Any]] = [
        {"id": "unit", "value": column.unit},
        {"id": "custom.width", "value": column.width},
        {"id": "custom.align", "value": "right"},
    ]
    if column.steps:
        properties += [
            {"id": "color", "value": {"mode": "thresholds"}},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            {"id": "thresholds", "value": {"mode": "absolute", "steps": thresholds(column.steps)}},
        ]
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.shown:  # of a column's settings this one alone takes variables
        properties.append({"id": "displayName", "value": column.shown})
    if column.texts:
        properties.append({"id": "mappings", "value": value_texts(column.texts)})
    return properties


def _label(label: str) -> list[dict[str, Any]]:
    """Empty labels, such as namespaces outside Kubernetes, are no missing data."""
    properties: list[dict[str, Any]] = [{"id": "noValue", "value": "–"}]
    if label in LABEL_WIDTHS:
        properties.append({"id": "custom.width", "value": LABEL_WIDTHS[label]})
    if label in FOLLOWED:
        uid, kept = FOLLOWED[label]
        chosen = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", *kept))
        url = f"/d/{uid}?var-{label}=${{__value.raw:percentencode}}&{chosen}&${{__url_time_range}}"
        properties.append({"id": "links", "value": [{"title": "Look at it alone", "url": url}]})
    return properties
