"""The table of values in the chart's README, from the comments in its values.yaml."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

CHART: Final = Path("deploy/helm/joulemeter")
README: Final = CHART / "README.md"
BEGIN: Final = "<!-- generated from values.yaml: python -m dashboards.generate -->\n"
END: Final = "<!-- end of what is generated -->\n"


def readme(root: Path) -> str:
    """Return the README with its table as it should be.

    Raises:
        ValueError: a value has no comment, or the README no place for the table.
    """
    before, begin, rest = (root / README).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"{README}: the lines {BEGIN!r} and {END!r} are missing; the table goes between them"
        )
    return f"{before}{BEGIN}{table((root / CHART / 'values.yaml').read_text(encoding='utf-8'))}{END}{after}"


def table(values: str) -> str:
    """Return a Markdown table: a row per value, in the order of values.yaml."""
    escaped = ((path, default, says.replace("|", r"\|")) for path, default, says in rows(values))
    lines = [
        f"| `{path}` | {f'`{default}`' if default else ''} | {says} |\n" for path, default, says in escaped
    ]
    return "".join(["| value | default | |\n|---|---|---|\n", *lines])


def rows(values: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, default and meaning; the default is empty for what introduces a group.

    Raises:
        ValueError: a value has no comment right above it.
    """
    root = yaml.compose(values, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _rows(root, values.splitlines(), "")


def _rows(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        path, says = f"{prefix}{key.value}", _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and _is_group(value, lines):
            if says:
                yield path, "", says
            yield from _rows(value, lines, f"{path}.")
        elif says:
            yield path, _flow(value), says
        else:
            raise ValueError(
                f"values.yaml:{key.start_mark.line + 1}: {path}: say in a comment above what it is for"
            )


def _is_group(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Tell values that are explained one by one from a mapping that is one value."""
    return not node.flow_style and any(
        _comment(lines, key.start_mark.line)
        or (isinstance(value, yaml.MappingNode) and _is_group(value, lines))
        for key, value in node.value
    )


def _comment(lines: list[str], line: int) -> str:
    """Return the comment right above a line."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("# "))
    return " ".join(found)


def _flow(node: yaml.Node) -> str:
    """Return a value as JSON, which is YAML on one line."""
    return json.dumps(yaml.SafeLoader("").construct_document(node), ensure_ascii=False)
