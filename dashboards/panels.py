"""Panels by way of grafanalib: what Grafana 10.4 and later draw without migrating anything. `tables` has more shapes.

This module and `page` are the only ones that import grafanalib. Version 0.7.1 still writes what Grafana 6 to 9 read;
`current` takes that out, and what grafanalib has no argument for goes through its `extraJson`, which is merged last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

from grafanalib import core

from dashboards.current import coloured, thresholds, value_texts
from dashboards.words import GREY

PLUGIN_VERSION: Final = "11.0.0"
"""Without it Grafana takes a stat or a bar gauge for one of version 6 and changes its options."""
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
PALETTE: Final = "palette-classic-by-name"
"""A model has one colour in all panels; by its place in the answer it would change from panel to panel."""
SHORTEST_STEP: Final = "2m"
"""Between points. The energy of models advances once per window of the exporter, about every ten seconds, so a rate
is only right over whole windows. A step of two minutes makes `$__rate_interval` at least two minutes and a scrape
interval, whatever the scrape interval is.
"""
DASHES: Final[list[dict[str, Any]]] = [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 6]}}]
WIDE: Final = 12
"""From this width on there is room for three figures in a legend."""


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are drawn.

    Args:
        expr: the expression.
        legend: with labels as `{{label}}`; empty: Grafana's own choice.
        right: the label of an axis of its own on the right, for what has another unit.
        right_unit: the unit on it; ticks are read more easily without one.
        right_decimals: places after the point on it, where Grafana's choice differs from tick to tick.
        dashed: for what is only to be compared with; it is grey and never stacked, and a line even among bars.
    """

    expr: str
    legend: str = ""
    right: str = ""
    right_unit: str = "short"
    right_decimals: int | None = None
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel that has no place yet; `width` is in 24ths of the page, `height` in units of some 30 pixels."""

    drawn: Any
    width: int
    height: int


def stat(
    title: str,
    *,
    means: str,
    unit: str,
    query: str,
    no_data: str,
    steps: Mapping[float, str] | None = None,
    texts: Mapping[str | tuple[float, float], str] | None = None,
    decimals: int | None = None,
    width: int = 4,
    height: int = 4,
) -> Panel:
    """Draw one number, as of the end of the range.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        query: an expression with one series.
        no_data: what stands there when no series answers.
        steps: the colour from a value on; below the first, and without data, it is that of text.
        texts: a text in place of a value, or of all values from one to another.
        decimals: places after the point, where Grafana's choice says too little.
        width: in 24ths of the page.
        height: in rows of some 30 pixels.
    """
    options = {
        "textMode": "value",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
    }
    defaults = {
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": thresholds(steps or {})},
        "mappings": value_texts(texts or {}),
        "decimals": decimals,
    }
    drawn = drawn_as(
        "stat",
        title,
        [Query(query)],
        means=means,
        unit=unit,
        no_data=no_data,
        defaults=defaults,
        options={**LAST, **options},
    )
    return Panel(drawn, width=width, height=height)


def bargauge(
    title: str,
    *,
    means: str,
    unit: str,
    queries: Sequence[Query],
    no_data: str,
    colours: Mapping[str, str] | None = None,
    width: int = 12,
    height: int = 10,
) -> Panel:
    """Draw one bar per series, as of the end of the range.

    Bars have a limited height: Grafana would fill the panel with three of them, in letters so large that names of
    models are cut off.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        queries: instant queries.
        no_data: what stands there when no series answers.
        colours: colours by a regular expression for the legend; the others are green.
        width: in 24ths of the page.
        height: in rows of some 30 pixels.
    """
    options = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "manual",
        "minVizHeight": 16,
        "maxVizHeight": 34,
        "text": {"titleSize": 13, "valueSize": 14},
    }
    defaults = {
        "color": {"mode": "fixed", "fixedColor": "green"},
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": thresholds({})},
    }
    drawn = drawn_as(
        "bargauge",
        title,
        queries,
        means=means,
        unit=unit,
        no_data=no_data,
        defaults=defaults,
        options={**LAST, **options},
        overrides=coloured(colours or {}),
    )
    return Panel(drawn, width=width, height=height)


def timeseries(
    title: str,
    *,
    means: str,
    unit: str,
    queries: Sequence[Query],
    no_data: str,
    stacked: bool = False,
    bars: bool = False,
    ratio: bool = False,
    logarithmic: bool = False,
    from_zero: bool = True,
    band: tuple[float, float] | None = None,
    limit: float | None = None,
    many: bool = False,
    decimals: int | None = None,
    colours: Mapping[str, str] | None = None,
    step: str = SHORTEST_STEP,
    last: str | None = None,
    width: int = 12,
    height: int = 10,
) -> Panel:
    """Draw series over time.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        queries: range queries.
        no_data: what stands there when no series answers.
        stacked: whether the height of all is the sum.
        bars: for what is counted per step, such as per day; a bar begins at its point.
        ratio: whether it is one amount over another. Its legend has no mean: the mean of ratios is not the ratio of
            the whole range, which tables and stats show.
        logarithmic: for ratios that a quiet hour would otherwise blow up until nothing else is seen.
        from_zero: whether a linear axis shows 0, so that a small change looks small.
        band: from where to where values are as they should be; shaded, and the axis shows twice as much.
        limit: above it something is wrong; a line.
        many: for one series per GPU: the legend is a list, for of a table only the first rows would be seen.
        decimals: places after the point, where Grafana's choice differs from tick to tick.
        colours: colours by a regular expression for the legend; the others have one by their name.
        step: the least distance of two points.
        last: a range of its own, up to the end of the dashboard's, such as 14d.
        width: in 24ths of the page.
        height: in rows of some 30 pixels.
    """
    drawn = core.TimeSeries(
        title=title,
        description=means,
        dataSource=DATASOURCE,
        targets=_targets(queries, instant=False),
        unit=unit,
        interval=step,
        timeFrom=last,
        colorMode=PALETTE,
        drawStyle="bars" if bars else "line",
        lineInterpolation="stepAfter" if bars else "linear",
        barAlignment=1 if bars else 0,
        valueMin=0 if stacked else None,
        valueDecimals=decimals,
        fillOpacity=80 if bars else 40 if stacked else 0,
        showPoints="never",
        stacking={"mode": "normal" if stacked else "none", "group": "A"},
        scaleDistributionType="log" if logarithmic else "linear",
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="list" if many else "table",
        legendCalcs=[] if many else _legend(ratio=ratio or logarithmic, width=width),
        overrides=[*_told_apart(queries), *coloured(colours or {})],
        extraJson={
            "pluginVersion": PLUGIN_VERSION,
            "fieldConfig": {
                "defaults": {
                    "noValue": no_data,
                    "thresholds": {"mode": "absolute", "steps": _marked(band, limit)},
                    "custom": {
                        "scaleDistribution": {"log": 10 if logarithmic else None},
                        "thresholdsStyle": {"mode": "area" if band else "line" if limit else "off"},
                        **_shown(from_zero=from_zero and not logarithmic, band=band, limit=limit),
                    },
                }
            },
            "options": {"legend": {"showLegend": True, "sortBy": "Last *", "sortDesc": True}},
        },
    )
    return Panel(drawn, width=width, height=height)


def _legend(*, ratio: bool, width: int) -> list[str]:
    """Return the figures that a legend has room for."""
    figures = ["min", "max", "lastNotNull"] if ratio else ["mean", "max", "lastNotNull"]
    return figures if width >= WIDE else ([figures[1]] if ratio else [figures[0]]) + figures[2:]


def _marked(band: tuple[float, float] | None, limit: float | None) -> list[dict[str, Any]]:
    """Return the thresholds that are drawn; the colour of the lowest is that of all below it."""
    if band is not None:
        low, high = band
        clear = {"color": "transparent", "value": None}
        return [clear, *thresholds({low: "green", high: "transparent"})[1:]]
    return thresholds({} if limit is None else {limit: "red"})


def _shown(*, from_zero: bool, band: tuple[float, float] | None, limit: float | None) -> dict[str, float]:
    """Return what an axis shows in any case."""
    if band is not None:
        low, high = band
        return {"axisSoftMin": low - (high - low) / 2, "axisSoftMax": high + (high - low) / 2}
    return ({"axisSoftMin": 0} if from_zero else {}) | ({"axisSoftMax": limit} if limit else {})


LAST: Final = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}


def drawn_as(
    kind: str,
    title: str,
    queries: Sequence[Query],
    *,
    means: str,
    unit: str,
    no_data: str,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    instant: bool = True,
    overrides: Sequence[Mapping[str, Any]] = (),
    transformations: Sequence[Mapping[str, Any]] = (),
    format_: str = "time_series",
) -> Any:
    """Return a panel of any kind from grafanalib's Stat: its other classes write the options of Grafana 6 to 8."""
    stats_own = dict.fromkeys(("textMode", "colorMode", "graphMode", "justifyMode", "orientation"))
    return core.Stat(
        title=title,
        description=means,
        dataSource=DATASOURCE,
        targets=_targets(queries, instant=instant, format_=format_),
        interval=SHORTEST_STEP,
        format=unit,
        noValue=no_data,
        overrides=list(overrides),
        transformations=list(transformations),
        extraJson={
            "type": kind,
            "pluginVersion": PLUGIN_VERSION,
            "options": {**stats_own, **options},
            "fieldConfig": {"defaults": {"mappings": [], "color": None, **defaults}},
        },
    )


def _told_apart(queries: Sequence[Query]) -> list[dict[str, Any]]:
    """Overrides for the series of queries that are dashed or have an axis of their own."""
    overrides = []
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        properties = list(DASHES) if query.dashed or query.right else []
        if query.dashed:
            properties += [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": GREY}},
                {"id": "custom.drawStyle", "value": "line"},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
            ]
        if query.right:
            properties += [
                {"id": "unit", "value": query.right_unit},
                {"id": "custom.axisPlacement", "value": "right"},
                {"id": "custom.axisLabel", "value": query.right},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
                {"id": "custom.scaleDistribution", "value": {"type": "linear"}},
                {"id": "min", "value": 0},
            ]
            if query.right_decimals is not None:
                properties.append({"id": "decimals", "value": query.right_decimals})
        if properties:
            overrides.append({"matcher": {"id": "byFrameRefID", "options": letter}, "properties": properties})
    return overrides


def _targets(queries: Sequence[Query], *, instant: bool, format_: str = "time_series") -> list[core.Target]:
    """Letters as Grafana gives them; the legend "" is Grafana's own choice."""
    return [
        core.Target(
            expr=query.expr,
            legendFormat=query.legend or "__auto",
            refId=letter,
            datasource=DATASOURCE,
            instant=instant,
            format=format_,
        )
        for query, letter in zip(queries, ascii_uppercase, strict=False)
    ]
