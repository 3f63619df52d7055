"""The chart, rendered by a real Helm: objects that fit together, and the configuration untouched."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
import yaml
from charts import (
    FOLDER,
    LOCKED,
    PORT,
    SETS,
    UNPRIVILEGED,
    Values,
    container,
    notes,
    objects,
    one,
    pod,
    render,
)

from dashboards import chart
from dashboards.generate import GENERATED, ROOT
from joulemeter import cli
from joulemeter import config as configuration
from joulemeter.simulation.library import LIBRARY_VARIABLE

EVERYTHING: Values = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}


def kinds(values: Values | None = None) -> list[str]:
    return sorted(item["kind"] for item in objects(values))


def environment(values: Values | None = None) -> dict[str, str]:
    """The variables that have a value of their own."""
    return {one["name"]: one["value"] for one in container(values)["env"] if "value" in one}


def test_helm_finds_nothing_to_complain_about():
    report = helm_python.lint(FOLDER, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_kinds():
    dashboards = ["ConfigMap"] * len(list((FOLDER / "files/grafana").glob("*.json")))
    access = ["ClusterRole", "ClusterRoleBinding"]
    least = ["ConfigMap", "DaemonSet", "Service"]
    plain = [*least, "ServiceAccount", *access, *dashboards]
    assert kinds() == sorted(plain)
    assert kinds(EVERYTHING) == sorted([*plain, "ServiceMonitor", "PrometheusRule"])
    assert kinds(LOCKED) == sorted([*plain, "PodMonitor", "NetworkPolicy"])
    assert kinds(SETS["dra"]) == sorted([*plain, "ResourceClaimTemplate"])
    assert kinds(UNPRIVILEGED) == sorted([*least, "ServiceAccount", *dashboards])
    none = {"dashboards": {"enabled": False}, "serviceAccount": {"create": False}, "rbac": {"create": False}}
    assert kinds(none) == sorted(least)


def test_selectors_pick_the_pods_and_nothing_of_another_release():
    daemonset, service = one("DaemonSet"), one("Service")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    wanted = {"app.kubernetes.io/name": "joulemeter", "app.kubernetes.io/instance": "jm"}
    assert daemonset["spec"]["selector"]["matchLabels"] == wanted
    assert service["spec"]["selector"] == wanted
    assert wanted.items() <= labels.items()


def test_common_labels_are_everywhere_and_select_nothing():
    for item in objects(LOCKED):
        assert item["metadata"]["labels"]["team"] == "platform"
    daemonset = one("DaemonSet", LOCKED)["spec"]
    assert "team" not in daemonset["selector"]["matchLabels"], "it could not be changed any more"
    labels = daemonset["template"]["metadata"]["labels"]
    assert (labels["team"], labels["example.com/tier"]) == ("platform", "monitoring")


def test_ports_lead_to_the_daemon():
    assert container()["ports"] == [{"name": "metrics", "containerPort": PORT}]
    (port,) = one("Service")["spec"]["ports"]
    assert port == {"name": "metrics", "port": PORT, "targetPort": "metrics"}


def test_another_port_moves_everything_at_once():
    values = {"service": {"port": 9000}}
    assert container(values)["args"][-2:] == ["--listen", "0.0.0.0:9000"]
    assert container({"service": {"listenAddress": "[::]"}})["args"][-1] == f"[::]:{PORT}"
    assert container(values)["ports"][0]["containerPort"] == 9000
    assert one("Service", values)["spec"]["ports"][0]["port"] == 9000


@pytest.mark.parametrize("name", SETS)
def test_the_command_line_is_one_that_joulemeter_takes(name: str):
    options = cli.parser().parse_args(container(SETS[name])["args"])
    assert options.command == ("demo" if name == "simulated" else "serve")
    assert options.listen.startswith("0.0.0.0:")


def test_the_image_is_the_charts_own_unless_a_digest_is_given():
    version = yaml.safe_load((FOLDER / "Chart.yaml").read_text())["appVersion"]
    assert container()["image"] == f"joulemeter:{version}"
    assert container({"image": {"tag": "1.2.3"}})["image"] == "joulemeter:1.2.3"
    assert container(LOCKED)["image"] == f"registry.example/joulemeter@sha256:{'0a' * 32}"


# ------------------------------------------------------------------------------------------- configuration

DEFAULT: Mapping[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())["config"]
CONFIG: dict[str, Any] = {
    "servers": [
        {"url": "http://127.0.0.1:8000", "name": "chat: {{ not a template }}", "gpus": [0, 1]},
        {"url": "http://[::1]:8001/metrics", "gpus": ["GPU-1b2c"], "tokens": False, "model": "org/ä-7B"},
    ],
    "sampling": {"interval_seconds": 0.05},
    "grid": {"zone": "NO", "sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": 56}},
    "pue": 1.2,
    "series_ttl_seconds": 1234567,
}


def arrived(config: Values) -> Any:
    data = one("ConfigMap", {"config": config})["data"]
    assert list(data) == ["config.yaml"]
    return yaml.safe_load(data["config.yaml"])


@pytest.mark.parametrize("config", [{}, CONFIG], ids=["empty", "full"])
def test_configuration_arrives_as_it_was_given(config: dict[str, Any]):
    wanted = {**DEFAULT, **config}
    assert json.dumps(arrived(config), sort_keys=True) == json.dumps(wanted, sort_keys=True), (
        "1 is not 1.0 here"
    )


def test_null_takes_a_default_away():
    assert arrived({"state_dir": None, "discovery": None}) == {}


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"simulated"}))
def test_the_daemon_takes_the_configuration(name: str):
    text = one("ConfigMap", {**SETS[name], "dashboards": {"enabled": False}})["data"]["config.yaml"]
    config: Any = configuration.load(text, source=name)
    mounts = {mount["name"]: mount["mountPath"] for mount in container(SETS[name])["volumeMounts"]}
    assert mounts["state"] == str(config.state_dir)
    discovers = config.discovery.kubernetes
    assert mounts.get("pod-resources") == (
        str(config.discovery.pod_resources_socket.parent) if discovers else None
    )


def test_configuration_is_where_the_daemon_looks_and_a_change_rolls_the_pods():
    mount = next(mount for mount in container()["volumeMounts"] if mount["name"] == "config")
    volume = next(volume for volume in pod()["volumes"] if volume["name"] == "config")
    assert container()["args"][:3] == ["serve", "--config", f"{mount['mountPath']}/config.yaml"]
    assert volume["configMap"]["name"] == one("ConfigMap")["metadata"]["name"]
    sums = {
        one("DaemonSet", {"config": config})["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for config in ({}, {"pue": 1.1}, {"pue": 1.2})
    }
    assert len(sums) == 3


def test_the_node_says_its_name():
    variable = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    assert variable in container()["env"]


def test_the_kubelets_socket_is_where_the_configuration_says():
    volumes = {volume["name"]: volume for volume in pod(LOCKED)["volumes"]}
    k0s = "/var/lib/k0s/kubelet/pod-resources"
    assert volumes["pod-resources"]["hostPath"] == {"path": k0s, "type": "Directory"}
    assert {"name": "pod-resources", "mountPath": k0s, "readOnly": True} in container(LOCKED)["volumeMounts"]


def test_state_is_kept_on_the_node_or_with_the_pod_or_not_at_all():
    def volume(values: Values) -> dict[str, Any] | None:
        return next((found for found in pod(values)["volumes"] if found["name"] == "state"), None)

    directory = {"path": "/var/lib/joulemeter", "type": "DirectoryOrCreate"}
    assert volume({}) == {"name": "state", "hostPath": directory}
    assert volume({"state": {"volume": "emptyDir"}}) == {"name": "state", "emptyDir": {}}
    assert volume({"config": {"state_dir": None}}) is None
    moved = container({"config": {"state_dir": "/data"}})["volumeMounts"]
    assert {"name": "state", "mountPath": "/data"} in moved


# ---------------------------------------------------------------------------------------------- GPU access


def test_gpus_through_a_runtime_class():
    assert pod()["runtimeClassName"] == "nvidia"
    assert environment() == {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility"}


def test_gpus_through_the_default_runtime():
    assert "runtimeClassName" not in pod(SETS["default-runtime"])
    assert environment(SETS["default-runtime"]) == environment()


def test_gpus_through_nri():
    assert "runtimeClassName" not in pod(SETS["nri"]), "the GPU Operator deletes the class"
    template = one("DaemonSet", SETS["nri"])["spec"]["template"]
    key = f"nvidia.cdi.k8s.io/container.{template['spec']['containers'][0]['name']}"
    assert template["metadata"]["annotations"][key] == "management.nvidia.com/gpu=all"


def test_gpus_through_a_claim_with_admin_access():
    template = one("ResourceClaimTemplate", SETS["dra"])
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["adminAccess"] is True, "else it would take the GPUs"
    (claim,) = pod(SETS["dra"])["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert container(SETS["dra"])["resources"]["claims"] == [{"name": claim["name"]}]
    assert "runtimeClassName" not in pod(SETS["dra"])
    assert "resource.kubernetes.io/admin-access=true" in notes(SETS["dra"])


def test_gpus_through_a_mounted_driver():
    mount = next(
        one for one in container(SETS["host-path"])["volumeMounts"] if one["name"] == "driver-libraries"
    )
    assert environment(SETS["host-path"]) == {"LD_LIBRARY_PATH": mount["mountPath"]}
    assert mount["readOnly"] is True


def test_a_simulated_node_needs_nothing_of_the_real_one():
    values = {**SETS["simulated"], "hostPID": True, "hostNetwork": True}
    spec = pod(values)
    assert not {"nodeSelector", "runtimeClassName", "hostPID", "hostNetwork"} & spec.keys()
    assert [volume["name"] for volume in spec["volumes"]] == ["tmp"]
    assert environment(values).keys() == {LIBRARY_VARIABLE}
    copied = re.search(
        r"python -m joulemeter\.simulation\.library (\S+)", (ROOT / "deploy/Dockerfile").read_text()
    )
    assert copied
    assert environment(values)[LIBRARY_VARIABLE] == copied[1]
    assert not any(item["kind"] == "ConfigMap" and "config.yaml" in item["data"] for item in objects(values))


# ------------------------------------------------------------------------------------- rules and dashboards


def test_rules_and_dashboards_are_the_generated_ones_unrendered():
    rules = yaml.safe_load((ROOT / GENERATED / "prometheus/rules.yaml").read_text())
    assert one("PrometheusRule", EVERYTHING)["spec"] == rules
    labelled = {"prometheusRule": {"enabled": True, "additionalLabels": {"release": "kps"}}}
    assert one("PrometheusRule", labelled)["metadata"]["labels"]["release"] == "kps"
    found = [item for item in objects() if item["metadata"]["labels"].get("grafana_dashboard") == "1"]
    shown = {name: json.loads(text) for item in found for name, text in item["data"].items()}
    folder = ROOT / GENERATED / "grafana"
    assert shown == {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert len(found) == len(shown), "one ConfigMap for each"


def test_dashboards_go_where_the_sidecar_looks():
    values = {
        "dashboards": {
            "namespace": "grafana",
            "label": "show",
            "labelValue": "yes",
            "annotations": {"a": "b"},
        }
    }
    (one, *_) = (item for item in objects(values) if "dashboard" in item["metadata"]["name"])
    assert one["metadata"]["namespace"] == "grafana"
    assert one["metadata"]["labels"]["show"] == "yes"
    assert one["metadata"]["annotations"] == {"a": "b"}


RUNBOOKS = "https://git.example.org/joulemeter/blob/main/docs/runbook"


def alerts(**values: Any) -> dict[str, dict[str, Any]]:
    """The alerts of the PrometheusRule by name."""
    groups = one("PrometheusRule", {"prometheusRule": {"enabled": True, **values}})["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize("base", [RUNBOOKS, f"{RUNBOOKS}/"])
@pytest.mark.parametrize("disabled", [[], ["JoulemeterDown"]])
def test_runbooks_are_where_people_can_read_them(base: str, disabled: list[str]):
    changed, generated = alerts(runbookBaseUrl=base, disabled=disabled), alerts(disabled=disabled)
    for name, alert in changed.items():
        assert alert["annotations"].pop("runbook_url") == f"{RUNBOOKS}/{name}.md"
        assert generated[name]["annotations"].pop("runbook_url") == f"docs/runbook/{name}.md"
    assert changed == generated


def test_alerts_that_are_left_out_leave_the_rest_as_it_is():
    every, left = alerts(), ["JoulemeterDown", "JoulemeterSamplingLate"]
    assert alerts(disabled=left) == {name: alert for name, alert in every.items() if name not in left}
    groups = one("PrometheusRule", {"prometheusRule": {"enabled": True, "disabled": left}})["spec"]["groups"]
    rules = yaml.safe_load((ROOT / GENERATED / "prometheus/rules.yaml").read_text())["groups"]
    assert groups[:-1] == rules[:-1], "recording rules"


def test_targets_become_series():
    targets = {"meta-llama/Llama-3.1-8B-Instruct": 2.5, "tiny": 10}
    groups = one("PrometheusRule", {"prometheusRule": {"enabled": True, "targets": targets}})["spec"][
        "groups"
    ]
    assert groups[-1]["name"] == "joulemeter.targets"
    found = {rule["labels"]["model"]: rule["expr"] for rule in groups[-1]["rules"]}
    assert found == {model: f"vector({joules})" for model, joules in targets.items()}


# ------------------------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"serviceMoniter": {"enabled": True}}, "serviceMoniter"),
        ({"podMonitor": {"enable": True}}, "enable"),
        ({"podMonitor": {"basicAuth": {"user": {}}}}, "user"),
        ({"service": {"port": "http"}}, "service"),
        ({"serviceMonitor": {"interval": "15"}}, "interval"),
        ({"hostPID": "yes"}, "hostPID"),
        ({"gpuAccess": {"mode": "runtimeclass"}}, "mode"),
        ({"gpuAccess": {"runtimeClassName": ""}}, "runtimeClassName"),
        ({"gpuAccess": {"nri": {"cdiDevice": "all"}}}, "cdiDevice"),
        ({"state": {"volume": "pvc"}}, "volume"),
        ({"state": {"hostPath": "var/lib"}}, "hostPath"),
        ({"secrets": [{"name": "web"}]}, "secrets"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "maxSurge"),
        ({"livenessProbe": {"httpget": {}}}, "httpget"),
        ({"image": {"digest": "0a0a"}}, "digest"),
        ({"nodeSelector": {"gpu": True}}, "gpu"),
        ({"prometheusRule": {"targets": {"tiny": "10"}}}, "tiny"),
        ({"prometheusRule": {"runbookBaseUrl": "docs/runbook"}}, "runbookBaseUrl"),
        ({"networkPolicy": {"egressPorts": [0]}}, "egressPorts"),
        ({"resources": {"limit": {}}}, "limit"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], complaint: str):
    with pytest.raises(helm_python.HelmError, match=complaint):
        render(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            {**UNPRIVILEGED, "state": {"volume": "hostPath"}},
            "user 65532, who could not write it; set state.volume",
        ),
        (
            {"podSecurityContext": {"runAsUser": 5}, "state": {"volume": "emptyDir"}},
            "kubelet's socket, which is root's",
        ),
        ({"config": {"listen": "127.0.0.1:1"}}, "127.0.0.1:1 would not count; set service.port"),
        (
            {"prometheusRule": {"enabled": True, "disabled": ["JoulemeterDwon"]}},
            "no alert is called JoulemeterDwon; known: .*JoulemeterDown",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_a_remedy(values: dict[str, Any], complaint: str):
    with pytest.raises(helm_python.HelmError, match=complaint):
        render(values)


def test_what_an_administrator_prepared_is_taken():
    prepared = {**UNPRIVILEGED, "state": {"volume": "hostPath", "hostPathType": "Directory"}}
    assert pod(prepared)["securityContext"]["runAsUser"] == 65532


def test_every_value_is_described_by_the_schema_and_used_by_a_template():
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    used = "".join(path.read_text() for path in (FOLDER / "templates").iterdir())
    paths = [path for path, _, _ in chart.rows((FOLDER / "values.yaml").read_text())]
    for path in (path for path in paths if not path.startswith("config.")):
        part = schema
        for key in path.split("."):
            part = part["properties"][key]
            part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
            assert re.search(rf"[.]{key}\b", used), f"{path} is in no template"
    assert {path.split(".")[0] for path in paths} == set(schema["properties"]) - {"global"}


PASSED_THROUGH = {
    "config", "containerSecurityContext", "exec", "global", "grpc", "httpGet", "items", "limits", "nodeAffinity",
    "podAffinity", "podAntiAffinity", "podSecurityContext", "requests", "tcpSocket", "tlsConfig",
}  # fmt: skip
"""What others define, and check: joulemeter, Kubernetes, the Prometheus Operator; `items` of their lists."""


def test_the_schema_leaves_nothing_open_but_what_is_passed_through():
    def lax(part: Any, name: str) -> Iterator[str]:
        if isinstance(part, dict):
            if part.get("type") == "object" and "additionalProperties" not in part:
                yield name
            for key, value in part.items():
                yield from lax(value, key)

    schema = json.loads((FOLDER / "values.schema.json").read_text())
    assert set(lax(schema, "")) == PASSED_THROUGH


# -------------------------------------------------------------------------------------------- what it says


def test_the_readme_has_a_row_for_every_value():
    text = (FOLDER / "README.md").read_text()
    assert chart.readme(ROOT) == text, "run: python -m dashboards.generate"
    defaults = yaml.safe_load((FOLDER / "values.yaml").read_text())
    seen: dict[str, Any] = {}
    for path, default in re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| ", text, re.MULTILINE):
        value: Any = defaults
        for key in path.split("."):
            value = value[key]
        assert json.loads(default) == value
        seen[path] = value

    def covered(path: str, value: Any) -> bool:
        inner = (
            isinstance(value, dict) and value and all(covered(f"{path}.{key}", value[key]) for key in value)
        )
        return path in seen or bool(inner)

    assert [key for key, value in defaults.items() if not covered(key, value)] == []


def test_a_value_without_a_comment_is_an_error():
    with pytest.raises(ValueError, match=r"values\.yaml:3: b: say in a comment"):
        chart.table("# One.\na: 1\nb: {c: 2}\n")
    assert chart.table("# A | B.\na: 1\n").endswith("| `a` | `1` | A \\| B. |\n")


def test_notes_say_how_to_look_and_what_is_missing():
    assert "port-forward daemonset/jm-joulemeter 9847" in notes()
    assert "No server is configured" not in notes()
    assert "pod-security.kubernetes.io/enforce=privileged" in notes()
    assert "podMonitor.enabled=true" in notes()
    blind = {"config": {"discovery": {"kubernetes": False}}, "state": {"volume": "emptyDir"}}
    assert "No server is configured" in notes(blind)
    assert "No server is configured" not in notes(UNPRIVILEGED)
    assert "serviceMonitor.additionalLabels" in notes(EVERYTHING)
    assert "podMonitor.additionalLabels" not in notes(LOCKED)
    assert "joulemeter probe" not in notes(SETS["simulated"])


def test_notes_say_which_nodes_and_how_to_see_that_there_are_some():
    assert "kubectl get nodes --label-columns nvidia.com/gpu.present\n" in notes()
    assert "kubectl get nodes --label-columns pool\n" in notes(LOCKED)
    assert "every node that `affinity` allows." in notes(SETS["host-path"])
    everywhere = notes({"nodeSelector": {"nvidia.com/gpu.present": None}})
    assert everywhere.startswith("joulemeter runs on every node.\n")
    assert "--label-columns" not in notes(SETS["simulated"])


def test_notes_say_that_rules_may_be_left_out_and_their_runbooks_not_found():
    bare = notes({"prometheusRule": {"enabled": True}})
    assert "prometheusRule.additionalLabels" in bare
    assert "ruleSelector" in bare
    assert "prometheusRule.runbookBaseUrl" in bare
    labelled = {"enabled": True, "additionalLabels": {"release": "kps"}, "runbookBaseUrl": RUNBOOKS}
    assert "prometheusRule" not in notes({"prometheusRule": labelled})
    assert "prometheusRule" not in notes()


def test_nodes_that_have_another_label_are_selected_as_the_readme_says():
    text = (FOLDER / "README.md").read_text().partition("**Which nodes.**")[2]
    written = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert written == SETS["host-path"]
    assert "nodeSelector" not in pod(written)
    assert pod(written)["affinity"] == written["affinity"]


@pytest.mark.parametrize("page", ["deploy/helm/joulemeter/README.md", "docs/install.md"])
def test_laptops_cluster_gets_the_image_that_no_registry_has_before_the_chart_asks_for_it(page: str):
    image = container(SETS["simulated"])["image"]
    (block,) = [
        block
        for block in re.findall(r"```\w+\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        if "simulated=true" in block
    ]
    build, load, install, *_ = block.splitlines()
    assert build.endswith(f"docker build --file deploy/Dockerfile --tag {image} .")
    assert f"kind load docker-image {image} " in load
    assert load.endswith(f"# minikube image load {image}")
    assert "helm install" in install


def test_notes_say_that_a_monitor_would_not_be_let_in():
    locked_out = {"config": {"web_config_file": "/etc/web.yaml"}, "podMonitor": {"enabled": True}}
    assert "Prometheus will not be let in" in notes(locked_out)
    assert "Prometheus will not be let in" not in notes(LOCKED)
