"""Where the daemon finds its cluster, and what `probe` says of it."""

import ssl
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from daemons import run
from kubelet import Kubelet
from kubernetes_api import NODE, ApiPlayer, container, pod_json

from joulemeter.errors import DiscoveryError
from joulemeter.runtime.kubernetes import api_server, node_name

NO_LIBRARY = {"JOULEMETER_NVML_LIBRARY": "/nowhere/libnvidia-ml.so.1"}


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        (
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
            "https://10.96.0.1:6443",
        ),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
    ],
)
def test_api_server_is_where_kubernetes_says(environment: Mapping[str, str], address: str):
    assert api_server(environment) == address


def test_without_an_environment_it_says_what_to_set():
    assert node_name({"NODE_NAME": "node-a"}) == "node-a"
    with pytest.raises(DiscoveryError, match=r"NODE_NAME is not set: .*fieldPath: spec.nodeName"):
        node_name({})
    with pytest.raises(DiscoveryError, match=r"KUBERNETES_SERVICE_HOST is not set, so this is no pod"):
        api_server({})


# ---------------------------------------------------------------------------------------------- TLS of servers

GUESSED = {"prometheus.io/scrape": "true", "prometheus.io/scheme": "https"}
ANNOTATED = {"joulemeter.io/scrape": "true", "joulemeter.io/scheme": "https"}


class TlsServer(ThreadingHTTPServer):
    """A virtual vLLM server's page over TLS, with a certificate for 127.0.0.1."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that does not believe us hangs up; that is the point."""


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            b'vllm:generation_tokens_total{model_name="m"} 1\nvllm:prompt_tokens_total{model_name="m"} 1\n'
        )

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("annotations", "refused"), [(GUESSED, "looks like a server"), (ANNOTATED, "TLS failed")]
)
def test_discovered_servers_are_believed_as_the_configuration_says(
    annotations: Mapping[str, str], refused: str, tmp_path: Path
):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    believing = {"ca_file": str(tmp_path / "ca.crt")}, {"insecure_skip_verify": True}
    with ApiPlayer() as api, TlsServer(authority) as server:
        engine = container(ports=[server.server_port], limits={"nvidia.com/gpu": "1"})
        api.put(pod_json("chat-0", engine, annotations=annotations))
        where: dict[str, Any] = {"node_name": NODE, "api_server": api.url}
        said = [command("probe", tmp_path, **where, tls_config=tls).stdout for tls in ({}, *believing)]
        server.shutdown()
    name = f"default/chat-0:{server.server_port}"
    assert [refused in text for text in said] == [True, False, False]
    assert [f"{name}: vllm" in text for text in said] == [False, True, True]


# ---------------------------------------------------------------------------------------------- probe, serve


def command(
    what: str, folder: Path, environment: Mapping[str, str] = NO_LIBRARY, **discovery: Any
) -> subprocess.CompletedProcess[str]:
    config = folder / "joulemeter.yaml"
    config.write_text(yaml.safe_dump({"discovery": {"kubernetes": True, **discovery}}))
    return run(what, "--config", str(config), environment=environment)


def test_daemon_that_does_not_know_its_node_says_so_and_ends(tmp_path):
    done = command("serve", tmp_path, api_server="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "joulemeter: discovery.kubernetes: the environment variable NODE_NAME is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_probe_outside_a_cluster_says_what_is_missing(tmp_path):
    done = command("probe", tmp_path, NO_LIBRARY | {"NODE_NAME": NODE})
    assert done.returncode == 1
    assert "Kubernetes\n  not asked\n" in done.stdout
    assert (
        "  discovery.kubernetes: the environment variable KUBERNETES_SERVICE_HOST is not set" in done.stdout
    )


def test_probe_names_the_right_that_is_missing_and_the_mount(tmp_path):
    with ApiPlayer(status=403) as api:
        socket = tmp_path / "kubelet.sock"
        done = command(
            "probe", tmp_path, node_name=NODE, api_server=api.url, pod_resources_socket=str(socket)
        )
    assert f"Kubernetes\n  node {NODE}: the API server does not tell\n  kubelet: does not tell" in done.stdout
    mend = done.stdout.partition("To mend\n")[2]
    assert (
        f"API server ({api.url}): pods: HTTP 403: the ServiceAccount may not: it needs a ClusterRole" in mend
    )
    assert f"kubelet ({socket}): not there; mount the host's directory {tmp_path} (hostPath)" in mend
    assert "no server in the pods of this node: annotate those that serve" in mend


def test_probe_says_that_the_node_is_another(tmp_path):
    with ApiPlayer() as api, Kubelet(tmp_path / "kubelet.sock") as kubelet:
        api.put(pod_json("joulemeter-x", node="node-b"))
        done = command(
            "probe", tmp_path, node_name=NODE, api_server=api.url, pod_resources_socket=str(kubelet.socket)
        )
    assert f"  node {NODE}: 0 pods\n  kubelet: offers 0 devices of NVIDIA's\n" in done.stdout
    assert (
        f"no pod, not even this one, is on a node named {NODE!r}: set NODE_NAME from spec.nodeName"
        in done.stdout
    )


def test_probe_names_guesses_and_annotations_that_cannot_be_used(tmp_path):
    with ApiPlayer() as api, Kubelet(tmp_path / "kubelet.sock") as kubelet:
        api.put(pod_json("loading", container(image="vllm/vllm-openai", args=["--port", "1"])))
        api.put(pod_json("odd", annotations={"joulemeter.io/scrape": "true"}))
        done = command(
            "probe", tmp_path, node_name=NODE, api_server=api.url, pod_resources_socket=str(kubelet.socket)
        )
    assert (
        "  default/loading:1: looks like a server, and does not answer as one that we know\n" in done.stdout
    )
    assert "  pod default/odd: annotation joulemeter.io/port: no container of a known server" in done.stdout
