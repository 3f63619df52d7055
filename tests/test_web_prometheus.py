"""A real Prometheus scrapes the real daemon over TLS, with a password, and with a client certificate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemons import Daemon, run, until

from benchmarks.prometheus import asked, running
from joulemeter.simulation.library import LIBRARY_VARIABLE
from tests.web_files import WebFiles

NO_GPU = {LIBRARY_VARIABLE: "/nonexistent/libnvidia-ml.so.1"}
MUST = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: clients.pem, client_allowed_sans: [prometheus]"


@pytest.fixture
def files(tmp_path: Path) -> WebFiles:
    return WebFiles(tmp_path)


def serve(files: WebFiles) -> Daemon:
    config = files.folder / "joulemeter.yaml"
    config.write_text(f"listen: 127.0.0.1:0\nweb_config_file: {files.path}\n")
    return Daemon(files.folder, "serve", "--config", str(config), environment=NO_GPU)


class Prometheus:
    """Scrapes one target once a second, in several ways at a time: a job for each."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> dict[str, float]:
        """The value of an expression, by job."""
        found = asked(self._url, "query", query=expression)["result"]
        return {one["metric"]["job"]: float(one["value"][1]) for one in found}

    def says(self, job: str) -> str:
        """What went wrong at the last scrape."""
        targets = asked(self._url, "targets")["activeTargets"]
        (found,) = (one["lastError"] for one in targets if one["labels"]["job"] == job)
        return str(found)

    def up(self, **wanted: int) -> bool:
        return self.query("up") == wanted


@contextmanager
def scraping(folder: Path, target: str, jobs: dict[str, dict[str, object]]) -> Iterator[Prometheus]:
    common = {"scheme": "https", "static_configs": [{"targets": [target.partition("//")[2]]}]}
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": name, **common, **how} for name, how in jobs.items()],
    }
    with running(folder / "data", config) as url:
        yield Prometheus(url)


@pytest.mark.usefixtures("prometheus")
def test_with_tls_and_a_password(files: WebFiles):
    files.write(tls="", users={"prometheus": "s3cret"})
    for name, word in (("right", "s3cret"), ("wrong", "guess")):
        (files.folder / name).write_text(word)
    ca = {"ca_file": str(files.folder / "authority.pem")}

    def login(word: str) -> dict[str, object]:
        return {"username": "prometheus", "password_file": str(files.folder / word)}

    jobs: dict[str, dict[str, object]] = {
        "right": {"tls_config": ca, "basic_auth": login("right")},
        "wrong": {"tls_config": ca, "basic_auth": login("wrong")},
        "nobody": {"tls_config": ca},
        "strange": {"basic_auth": login("right")},
        "plain": {"scheme": "http", "basic_auth": login("right")},
    }
    with serve(files) as daemon, scraping(files.folder, daemon.url, jobs) as server:
        until(lambda: server.up(right=1, wrong=0, nobody=0, strange=0, plain=0))
        assert server.query("joulemeter_build_info") == {"right": 1}
        until(
            lambda: (
                server.says("wrong")
                == server.says("nobody")
                == "server returned HTTP status 401 Unauthorized"
            )
        )
        until(lambda: "certificate" in server.says("strange"))
        files.issue()
        files.write(tls="", users={"prometheus": "s3cret", "other": "x"})
        until(lambda: "taken anew" in daemon.log)
        (files.folder / "right").write_text("changed")
        until(lambda: server.up(right=0, wrong=0, nobody=0, strange=0, plain=0))
        files.write(tls="", users={"prometheus": "changed"})
        until(lambda: server.up(right=1, wrong=0, nobody=0, strange=0, plain=0))
        assert daemon.terminate()[0] == 0
    assert "Traceback" not in daemon.log
    assert "s3cret" not in daemon.log


@pytest.mark.usefixtures("prometheus")
def test_a_renewed_certificate_costs_no_scrape(files: WebFiles):
    files.write(tls="")
    jobs: dict[str, dict[str, object]] = {
        "joulemeter": {"tls_config": {"ca_file": str(files.folder / "authority.pem")}}
    }
    with serve(files) as daemon, scraping(files.folder, daemon.url, jobs) as server:
        until(lambda: server.up(joulemeter=1))
        for times in (1, 2):
            files.issue()
            until(lambda times=times: daemon.log.count("taken anew") == times)
            time.sleep(2)
        assert server.query("min_over_time(up[1m])") == {"joulemeter": 1}


@pytest.mark.usefixtures("prometheus")
def test_with_a_client_certificate(files: WebFiles):
    files.write(tls=MUST)
    ca = {"ca_file": str(files.folder / "authority.pem")}

    def shows(name: str, **more: object) -> dict[str, object]:
        certificate, key = files.client(name, **more)  # type: ignore[arg-type]
        return {"tls_config": ca | {"cert_file": str(certificate), "key_file": str(key)}}

    jobs = {
        "right": shows("prometheus"),
        "other": shows("grafana"),
        "stranger": shows("mallory", authority=files.authority),
        "nobody": {"tls_config": ca},
    }
    with serve(files) as daemon, scraping(files.folder, daemon.url, jobs) as server:
        until(lambda: server.up(right=1, other=0, stranger=0, nobody=0))
        until(lambda: server.says("other") == "server returned HTTP status 403 Forbidden")


# ---------------------------------------------------------------------------------------------- commands


def test_the_daemon_and_the_check_name_every_problem(files: WebFiles):
    (files.folder / "joulemeter.yaml").write_text(f"listen: 127.0.0.1:0\nweb_config_file: {files.path}\n")
    files.path.write_text(
        "tls_server_config: {cert_file: tls.crt, min_version: TLS11}\nbasic_auth_users: {alice: s3cret}\n"
    )
    for words in (["serve", "--config"], ["check-config"]):
        done = run(*words, str(files.folder / "joulemeter.yaml"), environment=NO_GPU)
        assert (done.returncode, done.stdout) == (2, "")
        places = [line.split(": ")[2] for line in done.stderr.splitlines()]
        assert places == [
            "tls_server_config.key_file",
            "tls_server_config.min_version",
            "basic_auth_users.alice",
        ]
        assert "s3cret" not in done.stderr
    files.write(tls="", users={"alice": "s3cret"}, more="http_server_config: {http2: true}")
    done = run("check-config", str(files.folder / "joulemeter.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        f"web_config_file {files.path}: http_server_config.http2: no effect, HTTP/1.1 is served",
        f"web_config_file {files.path}: ok",
    ]
