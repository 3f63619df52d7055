"""The Compose stack: what can be checked without a Docker daemon."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_stack import FILE, SERVICES, STACK, Laid, Mount, mounts, targets

from benchmarks.history import demo, panels
from dashboards.generate import GENERATED, ROOT

PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*$")


def files(service: str) -> list[Mount]:
    return [mount for mount in mounts(service) if not mount.named]


def test_it_obeys_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str):
    assert PINNED.match(SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_has_a_privilege_or_can_gain_one(service: str):
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]


def test_grafana_downloads_nothing():
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert environment["GF_ANALYTICS_CHECK_FOR_UPDATES"] == "false"


@pytest.mark.parametrize("service", SERVICES)
def test_everything_mounted_exists_and_cannot_be_written(service: str):
    for mount in files(service):
        assert mount.path.exists(), mount.path
        assert mount.path.is_file() == bool(Path(mount.target).suffix), f"a file over a folder: {mount}"
        assert mount.mode == "ro"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str):
    for port in SERVICES[service].get("ports", ()):
        assert port.startswith("127.0.0.1:")


def test_the_one_url_to_open_is_named_where_people_look():
    assert SERVICES["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    for name in ("docker-compose.yml", "README.md", "docs/compose.md"):
        assert "http://127.0.0.1:3000" in (ROOT / name).read_text(), name


def test_named_volumes_are_declared():
    named = {mount.source for service in SERVICES for mount in mounts(service) if mount.named}
    assert named == set(STACK["volumes"])


def test_the_history_is_there_before_prometheus_and_belongs_to_its_user():
    (mount,) = mounts("history")
    assert mount in mounts("prometheus")
    needs = SERVICES["prometheus"]["depends_on"]
    assert needs["history"] == {"condition": "service_completed_successfully"}
    assert needs["joulemeter"] == {"condition": "service_healthy"}
    assert "healthcheck" in SERVICES["joulemeter"]
    assert f"--storage.tsdb.path={mount.target}" in SERVICES["prometheus"]["command"]
    assert SERVICES["history"]["command"] == [mount.target]
    user = SERVICES["prometheus"]["user"]
    recipe = (ROOT / SERVICES["history"]["build"]["dockerfile"]).read_text()
    assert f"\nUSER {user}\n" in recipe
    owner, group = user.split(":")
    assert f"install --directory --owner={owner} --group={group} {mount.target}\n" in recipe
    assert SERVICES["prometheus"]["image"] == re.findall(r"FROM (\S+) AS prometheus", recipe)[0], (
        "blocks are made by the Prometheus that reads them"
    )
    assert SERVICES["history"]["network_mode"] == "none"


def test_prometheus_accepts_its_configuration_and_finds_rules_and_targets(promtool: str, tmp_path: Path):
    laid = Laid("prometheus", tmp_path).lay()
    config = laid.command()[0].removeprefix("--config.file=")
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout
    assert len(list(targets(laid))) == 1


def test_prometheus_scrapes_the_demo_where_it_listens_and_calls_it_what_the_history_does(tmp_path: Path):
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["honor_labels"] is True
    command = SERVICES["joulemeter"]["command"]
    assert command[:2] == ["demo", "--listen"]
    (file,) = targets(Laid("prometheus", tmp_path).lay())
    (group,) = yaml.safe_load(file.read_text())
    assert group["targets"] == [f"joulemeter:{command[2].rpartition(':')[2]}"]
    assert {"job": scrape["job_name"], **group["labels"]} == demo.TARGET


def placed(service: str) -> dict[str, Path]:
    return {mount.target: mount.path for mount in files(service)}


def source() -> dict[str, Any]:
    """Grafana's provisioned data source."""
    path = placed("grafana")["/etc/grafana/provisioning/datasources/joulemeter.yaml"]
    (found,) = yaml.safe_load(path.read_text())["datasources"]
    return dict(found)


def test_grafana_has_its_datasource_and_finds_the_dashboards():
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert (source()["type"], source()["isDefault"]) == ("prometheus", True)
    assert source()["url"] == f"http://prometheus:{port}"
    provider = placed("grafana")["/etc/grafana/provisioning/dashboards/joulemeter.yaml"]
    (found,) = yaml.safe_load(provider.read_text())["providers"]
    folder = placed("grafana")[found["options"]["path"]]
    assert folder == ROOT / GENERATED / "grafana"
    assert len(list(folder.glob("*.json"))) == 5
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == found["options"]["path"]
    assert json.loads((folder / home.name).read_text())["title"] == "Joulemeter / Fleet"


def test_rates_of_the_history_have_two_scrapes_at_least():
    interval = source()["jsonData"]["timeInterval"]
    live = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert panels.seconds(interval) == max(demo.GRAIN.scrape_seconds, panels.seconds(live))


def references(node: Any) -> Iterator[dict[str, str]]:
    """Every data source that something in a dashboard refers to."""
    if isinstance(node, dict):
        if isinstance(node.get("datasource"), dict):
            yield node["datasource"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


@pytest.mark.parametrize("path", sorted((ROOT / GENERATED / "grafana").glob("*.json")), ids=lambda p: p.stem)
def test_a_dashboard_asks_the_provisioned_datasource(path: Path):
    board = json.loads(path.read_text())
    (variable,) = (item for item in board["templating"]["list"] if item["type"] == "datasource")
    assert variable["query"] == source()["type"], "the variable lists the sources of that type"
    assert not variable.get("regex")
    uids = {reference["uid"] for reference in references(board)}
    assert uids - {"-- Grafana --"} == {f"${{{variable['name']}}}"}
    chosen = variable.get("current", {}).get("value", "default")
    assert chosen in ("", "default", source()["uid"]), "the default one is chosen at first"
