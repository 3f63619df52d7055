"""What is written for people: nothing is missing from it, and nothing in it is gone."""

import re
from pathlib import Path

import pytest

from dashboards import generate, keys, reference
from joulemeter import catalog, cli, grids
from joulemeter.config import Config, parse
from joulemeter.dialects import NAMES
from joulemeter.errors import ConfigError
from joulemeter.runtime.exposition import PATHS
from joulemeter.server_config import DIALECTS

ROOT = generate.ROOT
REFERENCE = reference.build()
SETTINGS = keys.settings()
SERIES = re.compile(r"`((?:joulemeter|process)_\w+)`")


def raw(key: str, value: object) -> dict[str, object]:
    """A configuration with one key set."""
    top, _, rest = key.partition(".")
    if top == "servers[]":
        server = {"url": "http://a", "dialect": "generic", "metrics": {"generation": "x"}}
        return {"servers": [server | raw(rest, value)]}
    if top == "grid" and rest.partition(".")[0] in grids.names():
        return {"grid": {"sources": [rest.partition(".")[0]], **raw(rest, value)}}
    return {top: raw(rest, value) if rest else value}


def problems(configuration: dict[str, object]) -> tuple[str, ...]:
    try:
        parse(configuration)
    except ConfigError as error:
        return error.problems
    return ()


# ---------------------------------------------------------------------------------------------- the reference


def test_reference_is_one_of_the_generated_files(tmp_path: Path):
    """That it is current, test_dashboards.py says for all of them."""
    wanted = {generate.REFERENCE: generate.outputs()[generate.REFERENCE]}
    assert wanted == {generate.REFERENCE: REFERENCE}
    assert generate.write(tmp_path, wanted) == [generate.REFERENCE]
    assert generate.stale(tmp_path, wanted) == []
    (tmp_path / generate.REFERENCE).write_text("edited")
    assert generate.stale(tmp_path, wanted) == [generate.REFERENCE]


@pytest.mark.parametrize("metric", catalog.ALL, ids=lambda metric: metric.name)
def test_series_is_described(metric: catalog.Metric):
    (row,) = (line for line in REFERENCE.splitlines() if line.startswith(f"| `{metric.name}` |"))
    assert f"| {metric.kind} |" in row
    assert metric.help in row
    assert all(f"`{label}`" in row for label in metric.labels)


def test_every_key_is_described_and_every_described_key_exists():
    (unknown,) = problems({"zzzzzz": 1})
    known = set(unknown.partition("known: ")[2].split(", "))
    assert known == {re.split(r"[.\[]", key)[0] for key in SETTINGS}
    for key in SETTINGS:
        assert f"| `{key}` |" in REFERENCE
        assert not any("unknown key" in problem for problem in problems(raw(key, None)))


@pytest.mark.parametrize("key", [key for key, one in SETTINGS.items() if one.takes.startswith("number")])
def test_numbers_are_refused_outside_their_range(key: str):
    low, high = (float(number) for number in re.findall(r"-?[0-9.]+", SETTINGS[key].takes))
    place = key.replace("[]", "[0]")
    for value in (low - 0.001, high + 0.001):
        assert any(text.startswith(f"{place}: expected a number") for text in problems(raw(key, value)))
    for value in (low, high):
        assert not any(text.startswith(f"{place}: expected a number") for text in problems(raw(key, value)))


def test_defaults_are_those_of_an_empty_configuration():
    assert parse({}) == Config()
    shown = {key: setting.default for key, setting in SETTINGS.items()}
    assert shown["pue"] == f"{Config().pue:g}"
    assert shown["listen"] == f"{Config().listen_host}:{Config().listen_port}"
    assert shown["sampling.interval_seconds"] == f"{Config().sampling.interval_seconds:g}"
    assert shown["grid.sources"] == f"[{', '.join(source.name for source in Config().grid.sources)}]"


def test_a_key_without_a_meaning_is_an_error():
    with pytest.raises(LookupError, match=r"observation\.patience_seconds: write what it means"):
        keys.meaning("observation.patience_seconds")
    assert keys.meaning("servers[].metrics.cached_prompt") == "Counter of prompt tokens that a cache saved."


def test_commands_are_described_as_help_does(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    said = capsys.readouterr().out.split()
    assert " ".join(said) in " ".join(REFERENCE.split())
    for command in ("serve", "demo", "probe", "check-config"):
        assert f"### `joulemeter {command}`" in REFERENCE


def test_the_rest_is_there():
    for part in (*(f"### `{name}`" for name in NAMES), *(f"| `{path}` |" for path in PATHS)):
        assert part in REFERENCE
    for status in (cli.EXIT_OK, cli.EXIT_FAILED, cli.EXIT_USAGE):
        assert re.search(rf"^\| {status} \| \w", REFERENCE, re.MULTILINE)


def test_every_grid_source_is_described_in_one_line():
    for name in grids.names():
        (row,) = (line for line in REFERENCE.splitlines() if re.match(rf"\| `{name}` \| [A-Z]", line))
        assert row.endswith(". |")


def test_the_configuration_knows_every_dialect():
    assert set(DIALECTS) == {"auto", "generic", *NAMES}


# ---------------------------------------------------------------------------------------------- other pages


def test_changelog_names_every_series():
    named = SERIES.findall((ROOT / "CHANGELOG.md").read_text())
    assert {metric.name for metric in catalog.ALL} <= set(named), "say under Metrics what was added"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_a_page_names_exist(page: str):
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:exporter|tests|docs|dashboards|tools|deploy)/[\w./-]*)`", text)
    named += [
        f"tests/{name}" for name in re.findall(r"`(test_\w+\.py)`", text) if name != "test_meters_foo.py"
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_targets_exist_and_say_what_they_do():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(described) == sorted(phony.split())
    used = re.findall(r"`?make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert set(used) <= set(described)
