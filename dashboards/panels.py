"""The panel shapes, and the bridge from grafanalib to the JSON that current Grafana loads unmigrated.

The only module that imports grafanalib. Version 0.7.1 still writes what Grafana 6 to 9 read: schema version
12, 100 points per series, query hints that no longer exist, a null for all that is unset. `current`
takes those out; what grafanalib has no argument for goes through its `extraJson`, which is merged last.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from dashboards.current import SCHEMA_VERSION, coloured, current, thresholds, value_texts

PLUGIN_VERSION: Final = "11.0.0"
"""Without it Grafana takes a stat or a bar gauge for one of version 6 and changes its options."""
GRID_WIDTH: Final = 24
HEADING_HEIGHT: Final = 1
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
ALL: Final = {"selected": True, "text": ["All"], "value": ["$__all"]}
PALETTE: Final = "palette-classic-by-name"
"""A model has one colour in all panels; by its place in the answer it would change from panel to panel."""
SHORTEST_STEP: Final = "1m"
"""Between points. The energy of models advances once per window of the exporter, about every ten seconds, so a rate
is only right over whole windows. A minute's step makes `$__rate_interval` a minute and a scrape interval (or four of
these): its samples then lie a multiple of ten seconds apart at every usual scrape interval. Over the 20 s that follow
from a scrape interval of 5 s alone, the models' power swung by half and was a quarter too low.
"""
ON_TIME_RANGE_CHANGE: Final = 2
SHARED_CROSSHAIR: Final = 1


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel that has no place yet; `width` is in 24ths of the page, `height` in units of some 30 pixels."""

    drawn: Any
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, laid out from left to right and wrapped; those of a line are equally high."""

    title: str
    panels: Sequence[Panel]


def stat(
    title: str,
    *,
    means: str,
    unit: str,
    query: str,
    no_data: str,
    steps: Mapping[float, str] | None = None,
    texts: Mapping[str | tuple[float, float], str] | None = None,
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
    """
    drawn = core.Stat(
        title=title,
        description=means,
        dataSource=DATASOURCE,
        targets=_targets([Query(query)], instant=True),
        format=unit,
        noValue=no_data,
        reduceCalc="lastNotNull",
        graphMode="none",
        textMode="value",
        mappings=value_texts(texts or {}),
        thresholds=thresholds(steps or {}),
        extraJson={
            "pluginVersion": PLUGIN_VERSION,
            "fieldConfig": {"defaults": {"color": {"mode": "thresholds"}}},
        },
    )
    return Panel(drawn, width=4, height=4)


def bargauge(
    title: str,
    *,
    means: str,
    unit: str,
    queries: Sequence[Query],
    no_data: str,
    colours: Mapping[str, str] | None = None,
) -> Panel:
    """Draw one bar per series, as of the end of the range.

    It is built from grafanalib's Stat: its own BarGauge writes the options of Grafana 6. Bars have a limited
    height: Grafana would fill the panel with three of them, in letters so large that names of models are cut off.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        queries: instant queries.
        no_data: what stands there when no series answers.
        colours: colours by a regular expression for the legend; the others are green.
    """
    options = {
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "manual",
        "minVizHeight": 16,
        "maxVizHeight": 34,
        "text": {"valueSize": 14},
    }
    drawn = core.Stat(
        title=title,
        description=means,
        dataSource=DATASOURCE,
        targets=_targets(queries, instant=True),
        format=unit,
        noValue=no_data,
        reduceCalc="lastNotNull",
        orientation="horizontal",
        overrides=coloured(colours or {}),
        thresholds=thresholds({}),
        extraJson={
            "type": "bargauge",
            "pluginVersion": PLUGIN_VERSION,
            "options": options
            | {"textMode": None, "colorMode": None, "graphMode": None, "justifyMode": None},
            "fieldConfig": {"defaults": {"color": {"mode": "fixed", "fixedColor": "green"}, "min": 0}},
        },
    )
    return Panel(drawn, width=12, height=10)


def timeseries(
    title: str,
    *,
    means: str,
    unit: str,
    queries: Sequence[Query],
    no_data: str,
    stacked: bool = False,
    logarithmic: bool = False,
    colours: Mapping[str, str] | None = None,
) -> Panel:
    """Draw series over time.

    Args:
        title: what it shows.
        means: the description: what is in it and what is not.
        unit: one of Grafana's units.
        queries: range queries.
        no_data: what stands there when no series answers.
        stacked: whether the height of all is the sum.
        logarithmic: for ratios, which a quiet hour would otherwise blow up until nothing else is seen.
        colours: colours by a regular expression for the legend; the others have one by their name.
    """
    drawn = core.TimeSeries(
        title=title,
        description=means,
        dataSource=DATASOURCE,
        targets=_targets(queries, instant=False),
        unit=unit,
        interval=SHORTEST_STEP,
        colorMode=PALETTE,
        valueMin=0 if stacked else None,
        fillOpacity=40 if stacked else 0,
        showPoints="never",
        stacking={"mode": "normal" if stacked else "none", "group": "A"},
        scaleDistributionType="log" if logarithmic else "linear",
        thresholds=thresholds({}),
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="table",
        legendCalcs=["mean", "max", "lastNotNull"],
        overrides=coloured(colours or {}),
        extraJson={
            "pluginVersion": PLUGIN_VERSION,
            "fieldConfig": {
                "defaults": {
                    "noValue": no_data,
                    "custom": {"scaleDistribution": {"log": 10 if logarithmic else None}},
                }
            },
            "options": {"legend": {"showLegend": True, "sortBy": "Last *", "sortDesc": True}},
        },
    )
    return Panel(drawn, width=12, height=10)


def datasource() -> Any:
    """Return the variable that chooses the Prometheus."""
    return core.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default="default"
    )


def variable(name: str, label: str, query: str, *, all_value: str) -> Any:
    """Return a variable of several label values; `all_value` is the regular expression for All of them."""
    drawn = core.Template(
        name=name,
        label=label,
        query=query,
        dataSource=DATASOURCE,
        allValue=all_value,
        includeAll=True,
        multi=True,
        refresh=ON_TIME_RANGE_CHANGE,
    )
    drawn._current = ALL  # grafanalib writes nulls there and has no argument for it
    return drawn


def dashboard(uid: str, title: str, *, means: str, variables: Sequence[Any], rows: Sequence[Row]) -> str:
    """Return the JSON of a dashboard; the same on every run."""
    drawn = core.Dashboard(
        title=title,
        uid=uid,
        description=means,
        tags=["joulemeter"],
        timezone="browser",
        refresh="30s",
        graphTooltip=SHARED_CROSSHAIR,
        schemaVersion=SCHEMA_VERSION,
        templating=core.Templating(list=list(variables)),
        panels=_placed(rows),
    ).auto_panel_ids()
    tree = json.loads(json.dumps(drawn.to_json_data(), cls=DashboardEncoder))
    return json.dumps(current(tree), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _targets(queries: Sequence[Query], *, instant: bool) -> list[core.Target]:
    """Letters as Grafana gives them; the legend "" is Grafana's own choice."""
    return [
        core.Target(
            expr=query.expr,
            legendFormat=query.legend or "__auto",
            refId=letter,
            datasource=DATASOURCE,
            instant=instant,
        )
        for query, letter in zip(queries, ascii_uppercase, strict=False)
    ]


def _placed(rows: Sequence[Row]) -> list[Any]:
    """Give every panel its place; a panel that does not fit beside the others starts a new line."""
    placed = []
    y = 0
    for row in rows:
        placed.append(
            core.RowPanel(title=row.title, gridPos=core.GridPos(h=HEADING_HEIGHT, w=GRID_WIDTH, x=0, y=y))
        )
        y += HEADING_HEIGHT
        x = line_height = 0
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y, line_height = 0, y + line_height, 0
            panel.drawn.gridPos = core.GridPos(h=panel.height, w=panel.width, x=x, y=y)
            placed.append(panel.drawn)
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height
    return placed
