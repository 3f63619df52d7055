"""The Compose stack: what can be checked without a Docker daemon."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generate import GENERATED, ROOT

FILE = ROOT / "docker-compose.yml"
STACK = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*$")


def mounts(service: str) -> list[tuple[Path, str, str]]:
    """The files and folders that a service gets: where from, where to, how."""
    parts = [str(volume).split(":") for volume in SERVICES[service].get("volumes", ())]
    return [(ROOT / source, target, mode[0]) for source, target, *mode in parts if source.startswith("./")]


def test_it_obeys_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str):
    assert PINNED.match(SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_everything_mounted_exists_and_cannot_be_written(service: str):
    for source, target, mode in mounts(service):
        assert source.exists(), source
        assert source.is_file() == bool(Path(target).suffix), f"a file is mounted over a folder: {target}"
        assert mode == "ro"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str):
    for port in SERVICES[service]["ports"]:
        assert port.startswith("127.0.0.1:")


def test_named_volumes_are_declared():
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    named = {volume.split(":")[0] for volume in volumes if not volume.startswith("./")}
    assert named == set(STACK["volumes"])


def test_prometheus_accepts_its_configuration_and_finds_the_rules(promtool: str, tmp_path: Path):
    for source, target, _ in mounts("prometheus"):
        place = tmp_path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)
    flag = next(flag for flag in SERVICES["prometheus"]["command"] if flag.startswith("--config.file="))
    config = tmp_path / flag.removeprefix("--config.file=").lstrip("/")
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_prometheus_scrapes_the_demo_where_it_listens():
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    scrape = next(job for job in config["scrape_configs"] if job["job_name"] == "joulemeter")
    listen = SERVICES["joulemeter"]["command"][2]
    assert SERVICES["joulemeter"]["command"][:2] == ["demo", "--listen"]
    assert scrape["static_configs"][0]["targets"] == [f"joulemeter:{listen.rpartition(':')[2]}"]
    assert scrape["honor_labels"] is True
    assert config["global"]["scrape_interval"] == "5s"


def test_grafana_has_its_datasource_and_finds_the_dashboards():
    provisioning = "/etc/grafana/provisioning"
    placed = {target: source for source, target, _ in mounts("grafana")}
    sources = yaml.safe_load(placed[f"{provisioning}/datasources/joulemeter.yaml"].read_text())["datasources"]
    assert [(found["type"], found["isDefault"]) for found in sources] == [("prometheus", True)]
    assert sources[0]["url"] == "http://prometheus:9090"
    providers = yaml.safe_load(placed[f"{provisioning}/dashboards/joulemeter.yaml"].read_text())["providers"]
    folder = placed[providers[0]["options"]["path"]]
    assert folder == ROOT / GENERATED / "grafana"
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == providers[0]["options"]["path"]
    assert json.loads((folder / home.name).read_text())["title"] == "Joulemeter / Fleet"
