"""The chart as a real Helm renders it, and the sets of values that tests render it with."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import yaml

from dashboards.chart import CHART
from dashboards.generate import ROOT

FOLDER = ROOT / CHART
PORT = 9847
RELEASE, NAMESPACE = "jm", "obs"
CUSTOM_RESOURCES = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Not part of Kubernetes: their schemas belong to the Prometheus Operator."""

Values = Mapping[str, Any]

UNPRIVILEGED: Values = {
    "config": {
        "discovery": {"kubernetes": False},
        "servers": [{"url": "http://vllm.chat.svc:8000", "gpus": [0]}],
    },
    "state": {"volume": "emptyDir"},
}
LOCKED: Values = {
    "fullnameOverride": "energy",
    "commonLabels": {"team": "platform"},
    "image": {"repository": "registry.example/joulemeter", "digest": f"sha256:{'0a' * 32}"},
    "imagePullSecrets": [{"name": "pull"}],
    "config": {
        "web_config_file": "/run/secrets/joulemeter/web/web.yaml",
        "grid": {
            "zone": "FR",
            "sources": ["electricitymaps", "static"],
            "electricitymaps": {"token_file": "/run/secrets/joulemeter/grid/token"},
        },
        "discovery": {"pod_resources_socket": "/var/lib/k0s/kubelet/pod-resources/kubelet.sock"},
    },
    "secrets": ["web", "grid"],
    "resources": {"limits": {"memory": "128Mi"}},
    "nodeSelector": {"nvidia.com/gpu.present": None, "pool": "gpu"},
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-node-critical",
    "podAnnotations": {"example.com/owner": "platform"},
    "podLabels": {"example.com/tier": "monitoring"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
    "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
    "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority", "readOnly": True}],
    "serviceAccount": {"annotations": {"example.com/role": "reader"}},
    "service": {"port": 9443, "annotations": {"example.com/owner": "platform"}},
    "podMonitor": {
        "enabled": True,
        "additionalLabels": {"release": "kps"},
        "scheme": "https",
        "tlsConfig": {"ca": {"secret": {"name": "web", "key": "tls.crt"}}, "serverName": "joulemeter"},
        "basicAuth": {
            "username": {"name": "scraper", "key": "username"},
            "password": {"name": "scraper", "key": "password"},
        },
        "sampleLimit": 5000,
        "relabelings": [{"targetLabel": "cluster", "replacement": "paris"}],
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}],
    },
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}],
    },
}
GKE: Values = {
    "gpuAccess": {"mode": "hostPath"},
    "nodeSelector": {"nvidia.com/gpu.present": None},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "cloud.google.com/gke-accelerator", "operator": "Exists"}]}
                ]
            }
        }
    },
}
SETS: Mapping[str, Values] = {
    "default": {},
    "unprivileged": UNPRIVILEGED,
    "locked": LOCKED,
    "default-runtime": {"gpuAccess": {"mode": "defaultRuntime"}, "serviceMonitor": {"enabled": True}},
    "nri": {"gpuAccess": {"mode": "nri"}},
    "dra": {"gpuAccess": {"mode": "dra"}},
    "host-path": GKE,
    "processes": {"hostPID": True, "hostNetwork": True, "config": {"discovery": {"kubernetes": False}}},
    "simulated": {"simulated": True, "podMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}},
}
"""By name, as the golden renders are called."""
SINCE: Mapping[str, str] = {"dra": "1.34"}
"""The Kubernetes that a set needs, where the oldest that the chart supports is too old."""


def render(values: Values | None = None, *, release: str = RELEASE) -> dict[str, str]:
    """Every text that Helm makes of the chart, by path; the schema is asked first, as `helm install` does."""
    loaded = _chart()
    loaded.validate_schema(dict(values or {}))
    return loaded.render(dict(values or {}), name=release, namespace=NAMESPACE)


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(FOLDER)


def objects(values: Values | None = None, *, release: str = RELEASE) -> list[dict[str, Any]]:
    """Everything that the release creates."""
    texts = [text for path, text in render(values, release=release).items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def one(kind: str, values: Values | None = None) -> dict[str, Any]:
    """The only object of a kind; of the ConfigMaps, the configuration."""
    found = [
        item
        for item in objects(values)
        if item["kind"] == kind and "dashboard" not in item["metadata"]["name"]
    ]
    assert len(found) == 1, [item["metadata"]["name"] for item in found]
    return found[0]


def pod(values: Values | None = None) -> dict[str, Any]:
    """The pods' specification."""
    spec: dict[str, Any] = one("DaemonSet", values)["spec"]["template"]["spec"]
    return spec


def container(values: Values | None = None) -> dict[str, Any]:
    """The only container."""
    (found,) = pod(values)["containers"]
    return dict(found)


def notes(values: Values | None = None) -> str:
    """What `helm install` says at the end."""
    return render(values)["joulemeter/templates/NOTES.txt"]


OPERATOR = Path(__file__).parent / "fixtures/prometheus_operator"
OPERATOR_VERSIONS = [path.stem for path in sorted(OPERATOR.glob("*.json"))]


def check_custom_resource(item: Mapping[str, Any], version: str) -> None:
    """Raise jsonschema.ValidationError if a version of the Prometheus Operator would not take an object."""
    jsonschema.validate(item, _operator(version)[item["kind"]])


@cache
def _operator(version: str) -> Any:
    return json.loads((OPERATOR / f"{version}.json").read_text())
