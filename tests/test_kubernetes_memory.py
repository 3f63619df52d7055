"""What discovery costs: resident memory and processor time of the daemon on a full node of a cluster.

    pytest -s tests/test_kubernetes_memory.py

prints it. Eight GPUs are read at 20 Hz, eight vLLM pages a second; 110 pods (Kubernetes's limit by default) are listed,
change all the time, and are listed anew.
"""

import itertools
import ssl
import sys
import time
from pathlib import Path

import pytest
import trustme
import yaml
from daemons import Daemon, until
from kubelet import Kubelet
from kubernetes_api import NODE, ApiPlayer, PodJson, container, pod_json

from benchmarks.processes import cpu_seconds, memory_mib
from benchmarks.rig import Rig

LIMIT_MIB = 96.0
PODS = 110
SECONDS = 25.0


def padded(pod: PodJson) -> PodJson:
    """Give a pod what it has in a real cluster: status of containers, volumes, environment, managed fields; 14 kB."""
    names = [f"f:name-{number}" for number in range(160)]
    pod["metadata"]["managedFields"] = [
        {"manager": "kubelet", "fieldsV1": {"f:status": {name: {".": {}} for name in names}}}
    ] * 2
    pod["spec"]["volumes"] = [{"name": f"volume-{n}", "configMap": {"name": f"map-{n}"}} for n in range(20)]
    pod["spec"]["containers"][0]["env"] = [{"name": f"SETTING_{n}", "value": "x" * 40} for n in range(60)]
    return pod


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@pytest.mark.timeout(180)
def test_daemon_with_discovery_stays_small(tmp_path: Path, nvml_library: Path):
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("token")
    with Rig() as rig, ApiPlayer(tls) as api, Kubelet(tmp_path / "kubelet.sock") as kubelet:
        others = [padded(pod_json(f"other-{n}", container("app", "acme/app:1"))) for n in range(PODS - 8)]
        for index, port in enumerate(rig.ports["filtering"]):
            annotations = {"joulemeter.io/scrape": "true", "joulemeter.io/port": str(port)}
            api.put(padded(pod_json(f"llm-{index}", container(), annotations=annotations)))
            kubelet.give(f"llm-{index}", [rig.state.uuid(index)])
        for pod in others:
            api.put(pod)
        config = {
            "listen": "127.0.0.1:0",
            "zero_hold_seconds": 5,
            "discovery": {
                "kubernetes": True,
                "node_name": NODE,
                "api_server": api.url,
                "service_account_dir": str(tmp_path),
                "pod_resources_socket": str(kubelet.socket),
            },
        }
        path = tmp_path / "joulemeter.yaml"
        path.write_text(yaml.safe_dump(config))
        with Daemon(tmp_path, "serve", "--config", str(path), environment=rig.environment) as daemon:
            daemon.becomes_ready()
            until(lambda: len(daemon.page().labels("server_gpu_info", "pod", "gpu")) == 8)
            rig.draw()
            begun, used = time.monotonic(), cpu_seconds(daemon.pid)
            for second, pod in zip(itertools.count(), itertools.cycle(others), strict=False):
                if time.monotonic() - begun > SECONDS:
                    break
                pod["metadata"]["annotations"]["changed"] = str(second)
                api.put(pod)
                if second % 20 == 19:  # a list anew, of all pods
                    api.expire()
                    api.drop()
                daemon.page()
                time.sleep(0.25)
            percent = 100 * (cpu_seconds(daemon.pid) - used) / (time.monotonic() - begun)
            resident, peak = memory_mib(daemon.pid).resident, peak_mib(daemon.pid)
            lists = len(api.lists)
            assert daemon.page().total("model_energy_joules_total") > 0
    sys.stdout.write(
        f"\n{PODS} pods, {lists} lists of them, {len(kubelet.calls)} questions to the kubelet:"
        f" resident {resident:.1f} MiB, at most {peak:.1f} MiB;"
        f" {percent:.1f} % of a core, with four scrapes and pod events a second\n"
    )
    assert lists > 3
    assert peak < LIMIT_MIB
