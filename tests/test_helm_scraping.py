"""How the chart has its pods scraped, held against Prometheus's own relabelling."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import FOLDER, LOCKED, Values, container, objects, one, render

JOB = "job"
MONITORS = [
    ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
    ("ServiceMonitor", "serviceMonitor", "endpoints"),
]
COMMON: Mapping[str, str] = {
    "namespace": "__meta_kubernetes_namespace",
    "container": "__meta_kubernetes_pod_container_name",
    "pod": "__meta_kubernetes_pod_name",
}
GIVEN: Mapping[str, Mapping[str, str]] = {
    "PodMonitor": COMMON,
    "ServiceMonitor": {**COMMON, "service": "__meta_kubernetes_service_name"},
}
"""Labels that the operator gives a target before the monitor's own relabelings (pkg/prometheus/promcfg.go, 0.90)."""


def endpoint(kind: str, key: str, listed: str, more: Values | None = None) -> dict[str, Any]:
    """The only endpoint of a monitor."""
    (found,) = one(kind, {key: {"enabled": True, **(more or {})}})["spec"][listed]
    return dict(found)


def pod_labels(name: str, address: str) -> dict[str, str]:
    """What Kubernetes tells Prometheus of a pod of ours on node gpu-1."""
    return {
        "__address__": f"{address}:9847",
        "__meta_kubernetes_namespace": "obs",
        "__meta_kubernetes_pod_node_name": "gpu-1",
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_container_name": "joulemeter",
        "__meta_kubernetes_service_name": "jm-joulemeter",
    }


def relabelled(
    promtool: str, config: Path, rules: Sequence[Values], target: Mapping[str, str]
) -> dict[str, str]:
    """The labels that a real Prometheus keeps of a target."""
    address, labels = target["__address__"], {k: v for k, v in target.items() if k != "__address__"}
    scrape = {
        "job_name": JOB,
        "static_configs": [{"targets": [address], "labels": labels}],
        "relabel_configs": rules,
    }
    config.write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    command = [promtool, "check", "service-discovery", "--timeout=1s", str(config), JOB]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)
    return {name: value for name, value in found["labels"].items() if not name.startswith("__")}


@pytest.mark.parametrize(("kind", "key", "listed"), MONITORS)
def test_a_rollout_makes_no_new_series(kind: str, key: str, listed: str, promtool: str, tmp_path: Path):
    operator = [{"source_labels": [meta], "target_label": label} for label, meta in GIVEN[kind].items()]
    operator += [
        {"target_label": "job", "replacement": "obs/jm"},
        {"target_label": "endpoint", "replacement": "metrics"},
    ]
    own = [
        {re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name): value for name, value in rule.items()}
        for rule in endpoint(kind, key, listed)["relabelings"]
    ]
    before, after = (
        pod_labels("jm-joulemeter-x2k4f", "10.0.0.7"),
        pod_labels("jm-joulemeter-9qz7m", "10.0.0.8"),
    )
    kept = relabelled(promtool, tmp_path / "prometheus.yaml", [*operator, *own], before)
    assert kept == {"instance": "gpu-1", "job": "joulemeter"}
    assert relabelled(promtool, tmp_path / "prometheus.yaml", [*operator, *own], after) == kept
    stock = relabelled(promtool, tmp_path / "prometheus.yaml", operator, before)
    assert {"pod", "container", "namespace", "endpoint"} <= stock.keys(), "else the test would prove nothing"


@pytest.mark.parametrize(("kind", "key", "listed"), MONITORS)
def test_labels_of_the_serving_pod_survive(kind: str, key: str, listed: str):
    assert endpoint(kind, key, listed)["honorLabels"] is True


def test_the_job_is_the_one_that_the_alerts_ask_for():
    asked = set(re.findall(r'job="([^"]*)"', (FOLDER / "files/prometheus/rules.yaml").read_text()))
    assert asked <= {"joulemeter"}


@pytest.mark.parametrize(("kind", "key", "listed"), MONITORS)
def test_it_picks_our_pods_and_port(kind: str, key: str, listed: str):
    monitor = one(kind, {key: {"enabled": True}})
    picked = monitor["spec"]["selector"]["matchLabels"].items()
    daemonset, service = one("DaemonSet"), one("Service")
    labelled = service if kind == "ServiceMonitor" else daemonset["spec"]["template"]
    assert picked <= labelled["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["obs"]}
    (found,) = monitor["spec"][listed]
    assert (found["port"], found["path"]) == ("metrics", "/metrics")
    ports = container()["ports"] if kind == "PodMonitor" else service["spec"]["ports"]
    assert [port["name"] for port in ports] == ["metrics"]


@pytest.mark.parametrize(("kind", "key", "listed"), MONITORS)
def test_what_the_user_adds_comes_after_ours(kind: str, key: str, listed: str):
    more = LOCKED["podMonitor"]
    found = endpoint(kind, key, listed, more)
    assert found["relabelings"][-1] == more["relabelings"][0]
    assert len(found["relabelings"]) == 4
    assert found["metricRelabelings"] == more["metricRelabelings"]
    assert (found["scheme"], found["tlsConfig"], found["basicAuth"]) == (
        "https",
        more["tlsConfig"],
        more["basicAuth"],
    )
    assert one(kind, {key: more})["spec"]["sampleLimit"] == 5000
    assert one(kind, {key: more})["metadata"]["labels"]["release"] == "kps"


def test_both_at_once_are_refused():
    with pytest.raises(Exception, match="each joule twice; enable one"):
        render({"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}})


def test_the_policy_lets_in_the_scraper_and_out_to_what_is_asked():
    policy = one("NetworkPolicy", LOCKED)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"] == one("DaemonSet", LOCKED)["spec"]["selector"]["matchLabels"]
    (ingress,) = policy["ingress"]
    assert ingress["from"] == LOCKED["networkPolicy"]["from"]
    assert ingress["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert policy["egress"][-1] == LOCKED["networkPolicy"]["extraEgress"][0]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", ())}
    assert ports == {53, 443, 6443}
    assert not any(item["kind"] == "NetworkPolicy" for item in objects())


@pytest.mark.parametrize("kind", ["livenessProbe", "readinessProbe", "startupProbe"])
def test_with_a_web_configuration_the_probes_need_no_password(kind: str):
    assert container()[kind]["httpGet"]["path"] == ("/readyz" if kind == "readinessProbe" else "/healthz")
    assert container(LOCKED)[kind]["tcpSocket"] == {"port": "metrics"}
    assert "httpGet" not in container(LOCKED)[kind]
    own = {"httpGet": {"path": "/healthz", "port": "metrics", "scheme": "HTTPS"}}
    assert container({**LOCKED, kind: own})[kind] == own
