"""The systemd unit: its settings against the code and docs/install.md, and systemd's opinion (250 or newer)."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dashboards.generate import ROOT
from joulemeter import cli, config

FOLDER = ROOT / "deploy/systemd"
INSTALL = (ROOT / "docs/install.md").read_text()
Settings = dict[str, list[str]]


def settings(file: str) -> Settings:
    """Values by key, in order; an empty one takes back those before it."""
    found: Settings = {}
    for line in (FOLDER / file).read_text().splitlines():
        if line and line[0] not in "#[":
            key, separator, value = line.partition("=")
            assert separator, line
            found[key] = [*found.get(key, []), value] if value else []
    return found


UNIT = settings("joulemeter.service")
PROCESSES = settings("processes.conf")


def test_it_starts_what_the_page_installs():
    program, *arguments = shlex.split(UNIT["ExecStart"][0])
    options = cli.parser().parse_args(arguments)
    assert (options.command, options.server, options.listen) == ("serve", [], None)
    assert program == "/opt/joulemeter/bin/joulemeter"
    assert "\npython3 -m venv /opt/joulemeter\n" in INSTALL
    assert f"Write `{options.config}`" in INSTALL
    assert f"check-config {options.config}\n" in INSTALL
    (user,) = re.findall(r"^useradd .* (\w+)$", INSTALL, re.MULTILINE)
    assert UNIT["User"] == UNIT["Group"] == [user]


def test_the_configuration_of_the_page_keeps_its_state_where_the_unit_allows_it():
    (text,) = re.findall(r"```yaml\n(servers:.*?)```", INSTALL, re.DOTALL)
    found = config.load(text, source="docs/install.md")
    assert found.state_dir == Path("/var/lib") / UNIT["StateDirectory"][0]
    assert UNIT["ProtectSystem"] == ["strict"]
    assert all(server.gpus for server in found.servers), "the unit alone does not see other users' processes"


def test_a_wrong_configuration_is_not_tried_again_and_all_else_is():
    assert UNIT["Restart"] == ["on-failure"]
    assert UNIT["RestartPreventExitStatus"] == [str(cli.EXIT_USAGE)]
    assert UNIT["StartLimitIntervalSec"] == ["0"]


def test_it_has_no_capability_and_the_drop_in_has_the_two_that_the_chart_gives():
    assert UNIT["CapabilityBoundingSet"] == UNIT["AmbientCapabilities"] == []
    both = {"CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"}
    assert {key: set(value[0].split()) for key, value in PROCESSES.items()} == {
        "CapabilityBoundingSet": both,
        "AmbientCapabilities": both,
    }
    helpers = (ROOT / "deploy/helm/joulemeter/templates/_helpers.tpl").read_text()
    assert all(one.removeprefix("CAP_") in helpers for one in both)


def test_what_it_reads_is_not_hidden():
    """/proc/net/tcp, the GPUs' device files, addresses, names; docs/install.md says which setting takes which away."""
    assert UNIT["ProcSubset"] == ["all"]
    assert UNIT["PrivateDevices"] == ["no"]
    assert UNIT["DeviceAllow"] == [f"char-{group} rw" for group in ("nvidia", "nvidiactl", "nvidia-frontend")]
    assert set(UNIT["RestrictAddressFamilies"][0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    assert not {"PrivateNetwork", "IPAddressDeny", "DynamicUser"} & UNIT.keys()


def test_credentials_of_the_page_are_where_systemd_puts_them():
    given = set(re.findall(r"^LoadCredential=([^:]+):/", INSTALL, re.MULTILINE))
    named = set(re.findall(r"/run/credentials/joulemeter\.service/([\w.]+)", INSTALL))
    assert named == given - {"tls.crt", "tls.key"}


@pytest.fixture
def analyze(systemd_analyze: str, tmp_path: Path) -> list[str]:
    """The unit with a program that is here, and systemd-analyze before it."""
    there = Path(sys.executable).with_name("joulemeter")
    text = (FOLDER / "joulemeter.service").read_text().replace("/opt/joulemeter/bin/joulemeter", str(there))
    (tmp_path / "joulemeter.service").write_text(text)
    folder = tmp_path / "joulemeter.service.d"
    folder.mkdir()
    shutil.copy(FOLDER / "processes.conf", folder)
    return [systemd_analyze, str(tmp_path / "joulemeter.service")]


def test_systemd_understands_every_line(analyze: list[str]):
    program, unit = analyze
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "joulemeter" not in done.stdout + done.stderr


def test_systemd_finds_it_as_tight_as_the_page_says(analyze: list[str]):
    (said,) = re.findall(r"`systemd-analyze security` calls that ([0-9.]+) of 10", INSTALL)
    program, unit = analyze
    shutil.rmtree(f"{unit}.d")
    done = subprocess.run(
        [program, "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    (score,) = re.findall(r"Overall exposure level for joulemeter\.service: ([0-9.]+)", done.stdout)
    assert float(score) <= float(said) + 0.2, "versions of systemd weigh differently"
