"""What grafanalib 0.7.1 writes, brought to the schema that current Grafana reads without migrating it."""

from collections.abc import Mapping
from typing import Any, Final

SCHEMA_VERSION: Final = 39
"""What Grafana 10.4 and 11 write; later ones read it as it is."""

OBSOLETE: Final = {
    "dashboard": {
        "__inputs",
        "gnetId",
        "hideControls",
        "id",
        "rows",
        "sharedCrosshair",
        "style",
        "timepicker",
        "version",
    },
    "panel": {
        "cacheTimeout",
        "editable",
        "error",
        "height",
        "hideTimeOverride",
        "maxDataPoints",
        "minSpan",
        "span",
    },
    "row": {"datasource", "description", "fieldConfig", "links", "targets", "transformations", "transparent"},
    "target": {"intervalFactor", "metric", "query", "step", "target"},
    "variable": {"auto", "auto_count", "auto_min", "tagValuesQuery", "tagsQuery", "useTags"},
}


def thresholds(steps: Mapping[float, str]) -> list[dict[str, Any]]:
    """Plain records: grafanalib's Threshold writes the text "null" for the lowest step."""
    return [
        {"color": "green" if steps else "text", "value": None},
        *({"color": color, "value": value} for value, color in sorted(steps.items())),
    ]


def value_texts(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The value mapping of a panel: a text in place of a value."""
    options = {value: {"text": text, "index": index} for index, (value, text) in enumerate(texts.items())}
    return [{"type": "value", "options": options}] if texts else []


def in_grey(legend: str) -> dict[str, Any]:
    """The rest is no model: it takes no colour from the palette."""
    fixed = {"mode": "fixed", "fixedColor": "#8e8e8e"}
    return {"matcher": {"id": "byName", "options": legend}, "properties": [{"id": "color", "value": fixed}]}


def current(tree: dict[str, Any]) -> dict[str, Any]:
    """Turn grafanalib's output into what schema version 39 means."""
    _drop(tree, "dashboard")
    for panel in tree["panels"]:
        _drop(panel, "panel")
        if panel["type"] == "row":
            _drop(panel, "row")
        for target in panel.get("targets", ()):
            _drop(target, "target")
            target["range"] = not target["instant"]
    for item in tree["templating"]["list"]:
        _drop(item, "variable")
        item["current"].pop("tags", None)
    pruned: dict[str, Any] = _without_nulls(tree)
    return pruned


def _drop(record: dict[str, Any], kind: str) -> None:
    for key in OBSOLETE[kind]:
        record.pop(key, None)


def _without_nulls(tree: Any) -> Any:
    """Leave out what is unset; only the lowest threshold has a null that means something."""
    if isinstance(tree, dict):
        return {
            key: _without_nulls(value)
            for key, value in tree.items()
            if value is not None or (key == "value" and "color" in tree)
        }
    if isinstance(tree, list):
        return [_without_nulls(item) for item in tree]
    return tree
