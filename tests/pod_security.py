"""The highest level of Kubernetes' Pod Security Standards that a pod meets, read off its specification.

The rules are those of the page "Pod Security Standards" of Kubernetes 1.37, for Linux pods without init or ephemeral
containers, which the chart does not make.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RESTRICTED, BASELINE, PRIVILEGED = "restricted", "baseline", "privileged"

BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SAFE_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
PROFILES = {"RuntimeDefault", "Localhost"}

Spec = Mapping[str, Any]


def level(pod: Spec) -> str:
    """Return the highest level that nothing speaks against."""
    if any(against_baseline(pod)):
        return PRIVILEGED
    return BASELINE if any(against_restricted(pod)) else RESTRICTED


def against_baseline(pod: Spec) -> Iterator[str]:
    """Yield why a namespace that enforces `baseline` refuses the pod."""
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
    yield from (f"volume {volume['name']}" for volume in pod["volumes"] if "hostPath" in volume)
    contexts = [("pod", pod.get("securityContext", {})), *_contexts(pod)]
    for name, context in contexts:
        if context.get("privileged"):
            yield f"{name}: privileged"
        if not set(context.get("capabilities", {}).get("add", ())) <= BASELINE_CAPABILITIES:
            yield f"{name}: capabilities.add"
        if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
            yield f"{name}: seccompProfile"
        if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
            yield f"{name}: appArmorProfile"
        if context.get("procMount", "Default") != "Default":
            yield f"{name}: procMount"
        selinux = context.get("seLinuxOptions", {})
        if selinux.get("type", "") not in SAFE_SELINUX or selinux.get("user") or selinux.get("role"):
            yield f"{name}: seLinuxOptions"
        if context.get("sysctls"):
            yield f"{name}: sysctls"
    for found in pod["containers"]:
        yield from (f"{found['name']}: hostPort" for port in found.get("ports", ()) if port.get("hostPort"))
        probes = [probe for key, probe in found.items() if key.endswith("Probe")]
        yield from (f"{found['name']}: probe's host" for probe in probes if _has_host(probe))


def against_restricted(pod: Spec) -> Iterator[str]:
    """Yield why one that enforces `restricted` does, though `baseline` would not."""
    for volume in pod["volumes"]:
        if not volume.keys() - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume['name']}"
    common = pod.get("securityContext", {})
    for name, own in _contexts(pod):
        context = {**common, **own}
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            yield f"{name}: runAsNonRoot, runAsUser"
        if context.get("seccompProfile", {}).get("type") not in PROFILES:
            yield f"{name}: seccompProfile"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {
            "NET_BIND_SERVICE"
        }:
            yield f"{name}: capabilities"


def _contexts(pod: Spec) -> Sequence[tuple[str, Spec]]:
    return [(found["name"], found.get("securityContext", {})) for found in pod["containers"]]


def _has_host(probe: Spec) -> bool:
    return any(probe.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket"))
