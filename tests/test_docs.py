"""The pages that people read: commands, configurations, queries, links and names in them are those of the code."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from promql import selectors

from dashboards import alert_records, keys, records
from dashboards.generate import ROOT
from joulemeter import baseline_file, catalog, cli, config, grid_codec
from joulemeter.dialects import pages
from joulemeter.discovery import api_server, pod_resources
from joulemeter.runtime import answers, baseline_keeper, grid_client, watch

CHART = ROOT / "deploy/helm/joulemeter"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), CHART / "README.md"]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/adr").glob("*.md"))]
FENCE = re.compile(
    r"^(?P<margin> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=margin)```$", re.MULTILINE | re.DOTALL
)
SERIES = {metric.name for metric in catalog.ALL}
RECORDS = {one.record for one in (*records.RECORDS, *alert_records.RECORDS)} | {alert_records.TARGET}
SETTINGS = set(keys.settings())
SECTIONS = {re.split(r"[.\[]", key)[0] for key in SETTINGS}
VALUES = set(yaml.safe_load((CHART / "values.yaml").read_text()))
OTHERS = {"apiVersion", "basic_auth", "metadata", "scrape_configs", "spec", "tls_server_config"}
"""Top keys of what others read: Kubernetes, Prometheus, the web configuration, `report --http-config`."""
RULES = "dashboards/generated/prometheus/rules.yaml"
COMMANDS = cli.parser()


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text())):
            text = re.sub(rf"^{match['margin']}", "", match["text"], flags=re.MULTILINE)
            if match["language"] in languages:
                found.append(pytest.param(Block(page, match["language"], text), id=f"{name(page)}-{number}"))
    return found


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


# ---------------------------------------------------------------------------------------------- commands


def calls(text: str) -> Iterator[list[str]]:
    """The arguments of every call of joulemeter in lines for a shell, `$ ` before them or not."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for index, word in enumerate(words):
            is_program = word.endswith("/bin/joulemeter") or (
                word == "joulemeter" and (index == 0 or words[index - 1] == "--")
            )
            if is_program:
                rest = words[index + 1 :]
                yield rest[: next((at for at, one in enumerate(rest) if one[0] in "<>|&;"), len(rest))]
                break


@pytest.mark.parametrize("block", blocks("sh", "console"))
def test_commands_are_taken_by_the_command_line(block: Block):
    for arguments in calls(block.text):
        COMMANDS.parse_args(arguments)


def test_a_wrong_command_would_be_found():
    (arguments,) = calls("$ sudo -u x /opt/joulemeter/bin/joulemeter probe --confg a.yaml > out  # why\n")
    assert arguments == ["probe", "--confg", "a.yaml"]
    with pytest.raises(SystemExit):
        COMMANDS.parse_args(arguments)
    assert list(calls("kubectl exec ds/joulemeter -- joulemeter probe\nuseradd joulemeter")) == [["probe"]]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path):
    for written in re.findall(r"`joulemeter ([a-z][^`]*)`", prose(page)):
        (action,) = (one for one in COMMANDS._actions if one.dest == "command")
        assert written.split()[0] in (action.choices or ()), written
        for flag in re.findall(r"--[a-z-]+", written):
            assert flag in (action.choices or {})[written.split()[0]].format_help(), written


# ---------------------------------------------------------------------------------------------- YAML


def test_kinds_of_yaml_are_told_apart():
    assert not OTHERS & (SECTIONS | VALUES)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_can_be_used(block: Block):
    """Of the chart's values, their own names and `config`."""
    for found in yaml.safe_load_all(block.text):
        if isinstance(found, list):  # who is scraped, as Prometheus reads it from a file
            assert all(group.keys() == {"targets", "labels"} for group in found)
            continue
        top = set(found)
        if top <= SECTIONS:
            config.load(block.text, source=name(block.page))
        elif top <= VALUES:
            config.parse(found.get("config", {}))
        else:
            assert top & OTHERS, f"a block of no kind that this test knows: {sorted(top)}"


def test_promtool_takes_the_scrape_of_the_installation(promtool: str, tmp_path: Path):
    """That of security.md, test_web_config.py has."""
    (text,) = (
        found.values[0].text
        for found in blocks("yaml")
        if found.values[0].page.name == "install.md" and "scrape_configs" in found.values[0].text
    )
    path = tmp_path / "prometheus.yaml"
    path.write_text(text)
    (tmp_path / "joulemeter-rules.yaml").write_bytes((ROOT / RULES).read_bytes())
    done = subprocess.run([promtool, "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    assert (scrape["job_name"], scrape["honor_labels"]) == ("joulemeter", True)


def test_runbooks_of_a_plain_prometheus_are_where_people_can_read_them(tmp_path: Path):
    (tmp_path / "dashboards").symlink_to(ROOT / "dashboards")
    texts = [match["text"] for match in FENCE.finditer((ROOT / "docs/install.md").read_text())]
    (command,) = [text for text in texts if "runbook_url:" in text]
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    groups = yaml.safe_load((tmp_path / "joulemeter-rules.yaml").read_text())["groups"]
    found = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    where = "https://git.example.org/joulemeter/blob/main/docs/runbook"
    assert len(found) >= 20
    assert found == {name: f"{where}/{name}.md" for name in found}


# ---------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("block", blocks("promql"))
def test_queries_read_series_and_labels_that_exist(block: Block):
    labels = {metric.name: set(metric.labels) for metric in catalog.ALL}
    for query in re.split(r"\n(?=\S)", block.text.strip()):
        for selector in selectors(query):
            assert selector.name in SERIES | RECORDS
            if selector.name in labels:
                assert selector.labels <= labels[selector.name] | {"instance", "job", "cluster"}


# ---------------------------------------------------------------------------------------------- names and links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_series_exist(page: Path):
    known = SERIES | RECORDS | {f"{one}_{end}" for one in SERIES for end in ("bucket", "sum", "count")}
    found = set(re.findall(r"(?<![\w/-])(?:\w+:)?joulemeter_[a-z0-9_]+(?::\w+)?", page.read_text()))
    assert {one for one in found if not one.endswith("_")} <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_keys_exist(page: Path):
    """`observation.give_up_seconds`, and with `config.` before it where the chart's values are meant."""
    for written in re.findall(r"`(?:config\.)?([a-z_]+(?:\[\])?\.[a-z_.]+)(?::[^`]*)?`", prose(page)):
        if re.split(r"[.\[]", written)[0] not in SECTIONS or written in {"baselines.json", "grid.json"}:
            continue
        here = written.replace("servers.", "servers[].")
        assert any(key == here or key.startswith(f"{here}.") for key in SETTINGS), written


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_and_named_files_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link
    written = re.findall(
        r"`((?:exporter|tests|docs|dashboards|tools|deploy|benchmarks)/[\w./-]+)`", prose(page)
    )
    assert [one for one in written if not (ROOT / one).exists() and "foo" not in one] == []


# ---------------------------------------------------------------------------------------------- figures


def test_the_bounds_that_the_security_page_names_are_those_of_the_code():
    table = (ROOT / "docs/security.md").read_text().partition("## Who lies to it")[2].partition("\n## ")[0]
    mib = 2**20
    for words in (
        f"| {answers.MAX_BODY_BYTES // mib} MiB, also after decompression | a page of a server",
        f"{grid_client.MAX_BODY_BYTES // mib} MiB of a grid provider's answer",
        f"{api_server.MAX_BODY_BYTES // mib} MiB of a list of pods",
        f"{pod_resources.MAX_ANSWER_BYTES // mib} MiB of the kubelet's answer",
        f"({config.Config().observation.timeout_seconds:g} s) | one whole answer of a server",
        f"{grid_client.TIMEOUT_SECONDS:g} s of a provider, {pod_resources.TIMEOUT_SECONDS:g} s of the kubelet",
        f"| {pages.MAX_SERIES:,} series, {pages.MAX_LINE_CHARACTERS:,} characters a line |",
        f"from 0 to {pages.MAX_VALUE:g}".replace("e+", "e"),
        f"| {watch.MAX_NAME_CHARACTERS} characters, printable |",
    ):
        assert words in table


def test_the_versions_that_the_upgrade_page_names_are_those_of_the_code():
    page = (ROOT / "docs/upgrade.md").read_text()
    assert (
        f"| `/grid.json`, which the source `relay` reads | carries a version, {grid_codec.VERSION} now."
        in page
    )
    assert f"| `baselines.json` | carries a version, {baseline_file.VERSION} now;" in page
    assert f"`zero_hold_seconds`** ({config.Config().zero_hold_seconds:g} s)" in page
    assert baseline_keeper.SAVE_SECONDS == 300, "saved every five minutes"
