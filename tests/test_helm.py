"""The chart, rendered by a real Helm: valid objects that fit together, and the configuration untouched."""

import json
import re
from collections.abc import Mapping
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from dashboards import rules
from dashboards.generate import CHART, GENERATED, ROOT

FOLDER = ROOT / CHART.parent
PORT = 9847
EVERYTHING = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
CUSTOM_RESOURCES = {"ServiceMonitor", "PrometheusRule"}
"""Not part of Kubernetes: their schemas belong to the Prometheus Operator."""


@pytest.fixture(scope="module")
def chart():
    with helm_python.Chart.load(FOLDER) as loaded:
        yield loaded


def objects(chart: helm_python.Chart, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Everything that the release `jm` in namespace `obs` creates."""
    files = chart.render(dict(values or {}), name="jm", namespace="obs")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def one(chart: helm_python.Chart, kind: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The only object of a kind; of the ConfigMaps, the configuration."""
    found = [
        item
        for item in objects(chart, values)
        if item["kind"] == kind and "dashboard" not in item["metadata"]["name"]
    ]
    assert len(found) == 1
    return found[0]


def pod(chart: helm_python.Chart, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return one(chart, "DaemonSet", values)["spec"]["template"]["spec"]


def test_helm_finds_nothing_to_complain_about():
    report = helm_python.lint(FOLDER, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_kinds(chart: helm_python.Chart):
    boards = len(list((ROOT / GENERATED / "grafana").glob("*.json")))
    plain = [*["ConfigMap"] * (1 + boards), "DaemonSet", "Service", "ServiceAccount"]
    assert sorted(item["kind"] for item in objects(chart)) == plain
    assert sorted(item["kind"] for item in objects(chart, EVERYTHING)) == sorted([*plain, *CUSTOM_RESOURCES])
    bare = {"dashboards": {"enabled": False}, "serviceAccount": {"create": False}}
    assert sorted(item["kind"] for item in objects(chart, bare)) == ["ConfigMap", "DaemonSet", "Service"]


@pytest.mark.parametrize("version", ["1.31", "1.35"])
def test_kubernetes_accepts_every_object(chart: helm_python.Chart, version: str):
    for item in objects(chart, EVERYTHING | {"config": {"pue": 1.2}}):
        if item["kind"] not in CUSTOM_RESOURCES:
            kubernetes_validate.validate(item, version, strict=True)


def test_a_misspelt_field_would_not_be_accepted(chart: helm_python.Chart):
    item = one(chart, "DaemonSet")
    container = item["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(item, "1.35", strict=True)


def test_selectors_pick_the_pods_and_nothing_of_another_release(chart: helm_python.Chart):
    daemonset, service = one(chart, "DaemonSet"), one(chart, "Service")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    wanted = {"app.kubernetes.io/name": "joulemeter", "app.kubernetes.io/instance": "jm"}
    assert daemonset["spec"]["selector"]["matchLabels"] == wanted
    assert service["spec"]["selector"] == wanted
    assert wanted.items() <= labels.items()
    monitor = one(chart, "ServiceMonitor", EVERYTHING)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["obs"]}
    assert monitor["spec"]["jobLabel"] in service["metadata"]["labels"]


def test_ports_and_probes_lead_to_the_daemon(chart: helm_python.Chart):
    container = pod(chart)["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": PORT}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    port = one(chart, "Service")["spec"]["ports"][0]
    assert port == {"name": "metrics", "port": PORT, "targetPort": "metrics"}
    endpoint = one(chart, "ServiceMonitor", EVERYTHING)["spec"]["endpoints"][0]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")


def test_another_port_moves_everything_at_once(chart: helm_python.Chart):
    values = {"service": {"port": 9000}}
    container = pod(chart, values)["containers"][0]
    assert container["args"][-2:] == ["--listen", "0.0.0.0:9000"]
    assert container["ports"][0]["containerPort"] == 9000
    assert one(chart, "Service", values)["spec"]["ports"][0]["port"] == 9000


CONFIG: dict[str, Any] = {
    "servers": [
        {"url": "http://127.0.0.1:8000", "name": "chat: {{ not a template }}", "gpus": [0, 1]},
        {"url": "http://[::1]:8001/metrics", "gpus": ["GPU-1b2c"], "tokens": False, "model": "org/ä-7B"},
    ],
    "sampling": {"interval_seconds": 0.05},
    "grid": {"zone": "NO", "sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": 56}},
    "pue": 1.2,
    "series_ttl_seconds": 3600,
}


@pytest.mark.parametrize("config", [{}, CONFIG], ids=["empty", "full"])
def test_configuration_arrives_as_it_was_given(chart: helm_python.Chart, config: dict[str, Any]):
    data = one(chart, "ConfigMap", {"config": config})["data"]
    assert list(data) == ["config.yaml"]
    arrived = yaml.safe_load(data["config.yaml"])
    assert json.dumps(arrived, sort_keys=True) == json.dumps(config, sort_keys=True), "1 is not 1.0 here"


def test_configuration_is_where_the_daemon_looks_and_a_change_rolls_the_pods(chart: helm_python.Chart):
    spec = pod(chart)
    container = spec["containers"][0]
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "config")
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "config")
    assert container["args"][:3] == ["serve", "--config", f"{mount['mountPath']}/config.yaml"]
    assert volume["configMap"]["name"] == one(chart, "ConfigMap")["metadata"]["name"]
    sums = {
        one(chart, "DaemonSet", {"config": config})["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        for config in ({}, {"pue": 1.1}, {"pue": 1.2})
    }
    assert len(sums) == 3


def test_it_is_unprivileged_and_takes_no_gpu(chart: helm_python.Chart):
    spec = pod(chart)
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["hostPID"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("nvidia.com/gpu" in part for part in container["resources"].values())
    assert "hostPath" not in json.dumps(spec)


def test_gpus_are_seen_through_the_runtime_class_or_the_default_runtime(chart: helm_python.Chart):
    assert pod(chart)["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod(chart, {"gpuAccess": {"runtimeClassName": ""}})
    assert pod(chart)["containers"][0]["env"] == [
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
    ]


def test_labels_of_the_serving_pod_survive_and_instance_is_the_node(chart: helm_python.Chart):
    endpoint = one(chart, "ServiceMonitor", EVERYTHING)["spec"]["endpoints"][0]
    assert endpoint["honorLabels"] is True
    relabel = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}
    assert endpoint["relabelings"] == [relabel]


def test_labels_that_a_prometheus_selects_by_can_be_added(chart: helm_python.Chart):
    for kind, key in (("ServiceMonitor", "serviceMonitor"), ("PrometheusRule", "prometheusRule")):
        values = {key: {"enabled": True, "additionalLabels": {"release": "kps"}}}
        assert one(chart, kind, values)["metadata"]["labels"]["release"] == "kps"


def test_rules_and_dashboards_are_the_generated_ones_unrendered(chart: helm_python.Chart):
    expected = yaml.safe_load((ROOT / GENERATED / "prometheus/rules.yaml").read_text())
    assert one(chart, "PrometheusRule", EVERYTHING)["spec"] == expected
    shown = {
        name: json.loads(text)
        for item in objects(chart)
        if item["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in item["data"].items()
    }
    assert shown == {
        path.name: json.loads(path.read_text()) for path in (ROOT / GENERATED / "grafana").glob("*.json")
    }
    assert max(len(json.dumps(item)) for item in objects(chart)) < 262_144, (
        "kubectl apply keeps a copy in an annotation"
    )


def test_targets_become_the_series_that_the_alert_asks_for(chart: helm_python.Chart):
    targets = {"meta-llama/Llama-3.1-8B-Instruct": 2.5, "tiny": 10}
    values = {"prometheusRule": {"enabled": True, "targets": targets}}
    groups = {group["name"]: group for group in yaml.safe_load(rules.build(targets))["groups"]}
    rendered = {group["name"]: group for group in one(chart, "PrometheusRule", values)["spec"]["groups"]}
    assert rendered == groups
    assert len(rendered["joulemeter.targets"]["rules"]) == 2


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"prometheusRule": {"targets": {"tiny": "10"}}}, "tiny"),
        ({"serviceMoniter": {"enabled": True}}, "serviceMoniter"),
        ({"service": {"port": "http"}}, "service"),
        ({"serviceMonitor": {"interval": "15"}}, "interval"),
        ({"hostPID": "yes"}, "hostPID"),
    ],
)
def test_wrong_values_are_refused_by_name(chart: helm_python.Chart, values: dict[str, Any], complaint: str):
    with pytest.raises(helm_python.HelmError, match=complaint):
        chart.validate_schema(values)
    chart.validate_schema({})


def test_every_value_is_described_by_the_schema_and_used_by_a_template(chart: helm_python.Chart):
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    templates = "".join(template["data"] for template in chart.templates)
    assert {key for key in values if not re.search(rf"\.Values\.{key}\b", templates)} == set()


def test_notes_say_how_to_look_and_what_is_missing(chart: helm_python.Chart):
    def notes(values: dict[str, Any]) -> str:
        return chart.render(values, name="jm", namespace="obs")["joulemeter/templates/NOTES.txt"]

    assert "port-forward daemonset/jm-joulemeter 9847" in notes({})
    assert "No server is configured" in notes({})
    assert "serviceMonitor.enabled=true" in notes({})
    complete = EVERYTHING | {"config": CONFIG}
    assert "No server is configured" not in notes(complete)
    assert "serviceMonitor.additionalLabels" in notes(complete)
    monitor = {"serviceMonitor": {"enabled": True, "additionalLabels": {"release": "kps"}}}
    assert "serviceMonitor.additionalLabels" not in notes(monitor)
