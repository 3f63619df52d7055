"""What the chart renders for the main sets of values: word for word, and valid for old and new clusters."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from charts import (
    CUSTOM_RESOURCES,
    FOLDER,
    LOCKED,
    OPERATOR_VERSIONS,
    SETS,
    SINCE,
    Values,
    check_custom_resource,
    objects,
    one,
    render,
)

OLDEST = (
    yaml.safe_load((FOLDER / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").rpartition(".")[0]
)
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
WITHOUT_GENERATED: Values = {"dashboards": {"enabled": False}, "prometheusRule": {"enabled": False}}
RULES: Values = {"prometheusRule": {"enabled": True}}


@pytest.mark.parametrize("name", SETS)
def test_render_is_golden(name: str, golden: Callable[[str, str], None]):
    files = render({**SETS[name], **WITHOUT_GENERATED})
    golden(f"helm/{name}.txt", files.pop("joulemeter/templates/NOTES.txt"))
    texts = [f"# {path}\n{text.strip()}\n" for path, text in sorted(files.items()) if text.strip()]
    golden(f"helm/{name}.yaml", "---\n".join(texts))


VERSIONS = [(name, version) for name in SETS for version in (SINCE.get(name, OLDEST), NEWEST)]


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_kubernetes_accepts_every_object(name: str, version: str):
    found = [item for item in objects(SETS[name]) if item["kind"] not in CUSTOM_RESOURCES]
    assert found
    for item in found:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("name", SINCE)
def test_what_needs_a_newer_kubernetes_is_not_in_the_one_before(name: str):
    major, minor = map(int, SINCE[name].split("."))
    version = f"{major}.{minor - 1}"
    refused = []
    for item in objects(SETS[name]):
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.ValidationError):
            refused.append(item["kind"])
    assert refused == ["ResourceClaimTemplate"]


def test_the_versions_are_those_that_the_readme_names():
    text = (FOLDER / "README.md").read_text()
    assert f"Kubernetes {OLDEST} or newer" in text
    assert f"Prometheus Operator {OPERATOR_VERSIONS[0].rpartition('.')[0]} or newer" in text
    assert f"Kubernetes {SINCE['dra']} or newer" in text


def test_a_misspelt_field_would_not_be_accepted():
    item = one("DaemonSet")
    container = item["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(item, NEWEST, strict=True)


SERVICE_MONITOR: Values = {"serviceMonitor": LOCKED["podMonitor"]}


@pytest.mark.parametrize("version", OPERATOR_VERSIONS)
@pytest.mark.parametrize("values", [{**LOCKED, **RULES}, SERVICE_MONITOR, SETS["simulated"]])
def test_the_operator_accepts_its_objects(values: Values, version: str):
    found = [item for item in objects(values) if item["kind"] in CUSTOM_RESOURCES]
    assert found
    for item in found:
        if version == OPERATOR_VERSIONS[0] and item["kind"] == "PrometheusRule":
            for group in item["spec"]["groups"]:  # the README says that rules need the version after it
                for rule in group["rules"]:
                    rule.pop("keep_firing_for", None)
        check_custom_resource(item, version)


@pytest.mark.parametrize("version", OPERATOR_VERSIONS)
def test_a_field_that_the_operator_does_not_know_would_not_be_accepted(version: str):
    item: dict[str, Any] = one("PodMonitor", LOCKED)
    item["spec"]["podMetricsEndpoints"][0]["honourLabels"] = True
    with pytest.raises(jsonschema.ValidationError, match="honourLabels"):
        check_custom_resource(item, version)


def test_the_release_and_every_object_are_small_enough_to_be_stored():
    files = render({**LOCKED, **RULES})
    biggest = max(len(json.dumps(item)) for item in objects({**LOCKED, **RULES}))
    assert biggest < 262_144, "kubectl apply keeps a copy in an annotation"
    # Helm keeps the chart and what it rendered, as compressed JSON in base64, in a Secret.
    chart = {str(path): path.read_text() for path in FOLDER.rglob("*") if path.is_file()}
    assert len(base64.b64encode(gzip.compress(json.dumps([chart, files]).encode()))) < 1_000_000


def test_every_dashboard_keeps_a_name_of_its_own_however_long_the_release_is():
    names = [item["metadata"]["name"] for item in objects(release="r" * 53) if item["kind"] == "ConfigMap"]
    dashboards = list((FOLDER / "files/grafana").glob("*.json"))
    assert len(set(names)) == 1 + len(dashboards)
    assert max(map(len, names)) <= 63
