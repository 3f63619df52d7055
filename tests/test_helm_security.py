"""What the pods may do: the least that each feature needs, and what the README says of it."""

import copy
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from charts import FOLDER, LOCKED, SETS, UNPRIVILEGED, Values, container, objects, one, pod
from pod_security import BASELINE, PRIVILEGED, RESTRICTED, against_baseline, level

README = (FOLDER / "README.md").read_text()


def merged(base: Values, over: Values) -> dict[str, Any]:
    """As Helm merges values."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        inner = result.get(key)
        result[key] = (
            merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
        )
    return result


FEATURES: Mapping[str, list[Values]] = {
    "GPUs' energy": [
        {"gpuAccess": {"mode": mode}} for mode in ("runtimeClass", "defaultRuntime", "nri", "dra")
    ],
    "serving pods, and who was given which GPU": [{"config": {"discovery": {"kubernetes": True}}}],
    "baselines that outlive the pod": [{"state": {"volume": "hostPath", "hostPathType": "Directory"}}],
    "baselines that outlive a container's crash": [{"state": {"volume": "emptyDir"}}],
    "servers named by hand": [{"config": {"servers": [{"url": "http://vllm:8000", "gpus": [0]}]}}],
    "TLS, passwords, tokens": [{"secrets": ["web"]}],
    "GPUs of servers that run on the node outside pods": [{"hostPID": True, "hostNetwork": True}],
    "GPUs without any of the first row's runtimes": [{"gpuAccess": {"mode": "hostPath"}}],
    "a simulated node": [{"simulated": True}],
}
"""The rows of the README's table, and what switches each on."""
TABLE = README.split("## What each feature needs")[1].split("\n## ")[0]
LINES = [line.strip("|").split("|") for line in TABLE.splitlines() if line.startswith("|")]
ROWS = {cells[0].strip(): cells[-1].strip() for cells in LINES[2:]}


def test_the_readme_has_a_row_for_every_feature():
    assert list(ROWS) == list(FEATURES)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_meets_the_level_that_the_readme_says(feature: str):
    for values in FEATURES[feature]:
        assert level(pod(merged(UNPRIVILEGED, values))) == ROWS[feature]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(name, RESTRICTED if name in {"unprivileged", "simulated"} else PRIVILEGED) for name in SETS],
)
def test_level_of_a_set(name: str, wanted: str):
    assert level(pod(SETS[name])) == wanted


def test_the_default_is_privileged_for_its_two_directories_of_the_node_alone():
    assert list(against_baseline(pod())) == ["volume pod-resources", "volume state"]
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    assert mounts["pod-resources"] == {
        "name": "pod-resources",
        "mountPath": "/var/lib/kubelet/pod-resources",
        "readOnly": True,
    }
    assert mounts["state"]["mountPath"] == "/var/lib/joulemeter"


def test_levels_are_told_apart():
    spec = pod(UNPRIVILEGED)
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert level(spec) == BASELINE
    for change in (
        {"hostIPC": True},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ):
        assert level(pod(UNPRIVILEGED) | change) == PRIVILEGED


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"host-path", "processes"}))
def test_no_capability_no_privilege_and_nothing_to_write(name: str):
    assert container(SETS[name])["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(SETS[name])["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostPID", "hostNetwork", "hostIPC"} & pod(SETS[name]).keys()


def open_files(capabilities: Sequence[str], pid: int) -> int:
    """How many open files of a process user 0 sees with these capabilities alone."""
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    command = ["setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}", "ls", "-l", f"/proc/{pid}/fd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.count(" -> ")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs user 0 and setpriv")
def test_processes_take_the_capabilities_that_linux_asks_for_and_no_more():
    capabilities = container(SETS["processes"])["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    with subprocess.Popen(["sleep", "60"], user=65532, group=65532, extra_groups=[]) as other:
        try:
            assert open_files(capabilities["add"], other.pid) >= 3
            for spared in capabilities["add"]:
                assert open_files([one for one in capabilities["add"] if one != spared], other.pid) == 0
        finally:
            other.kill()


def test_processes_take_two_capabilities_and_a_mounted_driver_takes_privilege():
    assert container(SETS["processes"])["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["DAC_READ_SEARCH", "SYS_PTRACE"],
    }
    context = container(SETS["host-path"])["securityContext"]
    assert context["privileged"] is True
    assert "allowPrivilegeEscalation" not in context, "the API server refuses false beside privileged"
    assert context["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("name", SETS)
def test_it_takes_no_gpu(name: str):
    resources = container(SETS[name])["resources"]
    assert not any("nvidia.com/gpu" in part for part in (resources["requests"], resources["limits"]))


def test_only_discovery_may_ask_the_api_server_and_only_for_pods():
    (rule,) = one("ClusterRole")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    binding = one("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == one("ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "jm-joulemeter", "namespace": "obs"}]
    assert pod()["serviceAccountName"] == one("ServiceAccount")["metadata"]["name"] == "jm-joulemeter"
    assert pod()["automountServiceAccountToken"] is True
    assert one("ServiceAccount")["automountServiceAccountToken"] is False, "for other pods that would name it"
    for name in ("unprivileged", "processes", "simulated"):
        assert pod(SETS[name])["automountServiceAccountToken"] is False
        assert not any(item["kind"].startswith("ClusterRole") for item in objects(SETS[name]))


def test_two_namespaces_can_have_releases_of_one_name():
    assert "obs" in one("ClusterRole")["metadata"]["name"]


def test_secrets_are_mounted_where_the_configuration_can_name_them():
    spec = pod(LOCKED)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {
        mount["mountPath"]: (volumes[mount["name"]]["secret"], mount["readOnly"])
        for mount in container(LOCKED)["volumeMounts"]
        if mount["name"].startswith("secret-")
    }
    assert mounted == {
        f"/run/secrets/joulemeter/{name}": ({"secretName": name, "defaultMode": 0o440}, True)
        for name in ("web", "grid")
    }
    group = pod(merged(UNPRIVILEGED, {"secrets": ["web"]}))["securityContext"]["fsGroup"]
    assert group == 65532, "else a user who is not root could not read them"


def test_the_users_security_context_is_merged_over_the_chart_s():
    values = merged(UNPRIVILEGED, {"podSecurityContext": {"runAsUser": 1000, "supplementalGroups": [44]}})
    context = pod(values)["securityContext"]
    assert (context["runAsUser"], context["supplementalGroups"]) == (1000, [44])
    assert context["runAsNonRoot"] is True
    own = container(merged(UNPRIVILEGED, {"containerSecurityContext": {"readOnlyRootFilesystem": False}}))
    assert own["securityContext"]["readOnlyRootFilesystem"] is False
    assert own["securityContext"]["capabilities"] == {"drop": ["ALL"]}
