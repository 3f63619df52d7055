"""A dashboard from rows of panels: its variables, its links to the others, and its JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from dashboards.current import SCHEMA_VERSION, current
from dashboards.panels import DATASOURCE, Panel
from dashboards.queries import TARGETS, node
from joulemeter import catalog

GRID_WIDTH: Final = 24
HEADING_HEIGHT: Final = 1
ALL: Final = {"selected": True, "text": ["All"], "value": ["$__all"]}
ON_TIME_RANGE_CHANGE: Final = 2
SHARED_CROSSHAIR: Final = 1
TAG: Final = "joulemeter"
ALERTS: Final = 'alertname=~"Joulemeter.+", alertstate="firing"'


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, laid out from left to right and wrapped; those of a line are equally high."""

    title: str
    panels: Sequence[Panel]


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


def number(name: str, label: str, default: str) -> Any:
    """Return a variable that one types a number into."""
    drawn = core.Template(name=name, label=label, query=default, type="textbox")
    drawn._current = {"selected": True, "text": default, "value": default}
    return drawn


def currency() -> Any:
    """Return the one currency that money is shown in: sums of two would mean nothing, so there is no All."""
    drawn = core.Template(
        name="currency",
        label="Currency",
        query=f"label_values({node(catalog.GPU_COST)}, currency)",
        dataSource=DATASOURCE,
        refresh=ON_TIME_RANGE_CHANGE,
    )
    drawn._current = {}
    return drawn


def node_variables() -> list[Any]:
    """Return the variables that choose the data source and the exporters."""
    metric = catalog.GPU_ENERGY.name
    return [
        core.Template(
            name="datasource", label="Data source", type="datasource", query="prometheus", default="default"
        ),
        variable("cluster", "Cluster", f"label_values({metric}, cluster)", all_value=".*"),
        variable("job", "Job", f'label_values({metric}{{cluster=~"$cluster"}}, job)', all_value=".+"),
        variable(
            "instance",
            "Instance",
            f'label_values({metric}{{cluster=~"$cluster", job=~"$job"}}, instance)',
            all_value=".+",
        ),
    ]


def model_variables() -> list[Any]:
    """Return those, and the ones that choose models."""
    metric = catalog.MODEL_ENERGY.name
    here = f'{metric}{{{TARGETS}, namespace=~"$namespace"}}'
    return [
        *node_variables(),
        variable("namespace", "Namespace", f"label_values({metric}{{{TARGETS}}}, namespace)", all_value=".*"),
        variable("model", "Model", f"label_values({here}, model)", all_value=".*"),
    ]


def dashboard(uid: str, title: str, *, means: str, variables: Sequence[Any], rows: Sequence[Row]) -> str:
    """Return the JSON of a dashboard; the same on every run."""
    drawn = core.Dashboard(
        title=title,
        uid=uid,
        description=means,
        tags=[TAG],
        timezone="browser",
        refresh="1m",
        editable=False,
        graphTooltip=SHARED_CROSSHAIR,
        schemaVersion=SCHEMA_VERSION,
        annotations=core.Annotations(list=_annotations()),
        links=[
            core.DashboardLink(
                title="Joulemeter", tags=[TAG], asDropdown=True, includeVars=True, keepTime=True
            )
        ],
        time=core.Time("now-24h", "now"),
        templating=core.Templating(list=list(variables)),
        panels=_placed(rows),
    ).auto_panel_ids()
    tree = json.loads(json.dumps(drawn.to_json_data(), cls=DashboardEncoder))
    return json.dumps(current(tree), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _annotations() -> list[dict[str, Any]]:
    """What may explain a step in a curve, or ask for a look at it; resets of counters only if one wants them."""
    versions, servers = "count by (version)", node(catalog.SERVER_INFO)
    began = f"{versions} ({servers}) unless {versions} ({servers} offset 5m)"
    resets = f"sum by (instance, gpu) (increase({node(catalog.METER_RESETS)}[5m])) > 0"
    fired = f'ALERTS{{{ALERTS}, severity=~"critical|warning"}}'
    return [
        _annotation("Firing alerts", "red", fired, "{{alertname}} {{model}} {{instance}}"),
        _annotation("New version of a server", "blue", began, "{{version}}"),
        _annotation("Energy counter restarted", "orange", resets, "{{instance}} GPU {{gpu}}", enable=False),
    ]


def _annotation(name: str, colour: str, expr: str, title: str, *, enable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "iconColor": colour,
        "expr": expr,
        "titleFormat": title,
        "enable": enable,
        "datasource": DATASOURCE,
        "step": "5m",
    }


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
