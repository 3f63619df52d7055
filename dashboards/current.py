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


REDUCED: Final = ("stat", "bargauge")
"""Kinds of panels that make one number of a series."""


def thresholds(steps: Mapping[float, str]) -> list[dict[str, Any]]:
    """Plain records: grafanalib's Threshold writes the text "null" for the lowest step.

    The lowest is no colour, for no data has it too, and nothing is fine or wrong about that.
    """
    return [
        {"color": "text", "value": None},
        *({"color": color, "value": value} for value, color in sorted(steps.items())),
    ]


def value_texts(texts: Mapping[str | tuple[float, float], str]) -> list[dict[str, Any]]:
    """The value mappings of a panel: a text in place of a value, or of all from one value to another."""
    mappings: list[dict[str, Any]] = []
    for index, (values, text) in enumerate(texts.items()):
        result = {"text": text, "index": index}
        if isinstance(values, str):
            mappings.append({"type": "value", "options": {values: result}})
        else:
            options = {"from": values[0], "to": values[1], "result": result}
            mappings.append({"type": "range", "options": options})
    return mappings


def coloured(colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Overrides: series whose legend matches a regular expression take no colour from the palette."""
    return [
        {
            "matcher": {"id": "byRegexp", "options": f"/{legend}/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for legend, colour in colours.items()
    ]


def current(tree: dict[str, Any]) -> dict[str, Any]:
    """Turn grafanalib's output into what schema version 39 means."""
    _drop(tree, "dashboard")
    for panel in tree["panels"]:
        _drop(panel, "panel")
        if panel["type"] == "row":
            _drop(panel, "row")
        elif panel["type"] not in REDUCED:
            panel["options"].pop("reduceOptions", None)  # of the Stat that it is made from
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
