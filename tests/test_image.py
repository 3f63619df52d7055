"""The image: its recipe by hadolint, and its steps run here, where there is no container engine."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from dashboards.generate import ROOT
from joulemeter.simulation.library import LIBRARY_VARIABLE

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
HISTORY = (ROOT / "deploy/compose/Dockerfile").read_text()
"""Of the image that fills the Compose stack's Prometheus."""
PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLACE = "/opt/joulemeter"
PINNED = re.compile(r"^python:\d+\.\d+\.\d+-[\w-]+$")


class Step(NamedTuple):
    """An instruction and what follows it."""

    name: str
    text: str


def steps(text: str = DOCKERFILE) -> list[Step]:
    """Every instruction, comments left out and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [Step(*line.split(maxsplit=1)) for line in lines.splitlines() if line.strip()]


def arguments(name: str, among: list[Step]) -> list[str]:
    return [step.text for step in among if step.name == name]


SECOND = max(index for index, step in enumerate(steps()) if step.name == "FROM")
BUILD, FINAL = steps()[:SECOND], steps()[SECOND:]


def hadolint(text: str) -> list[str]:
    """What hadolint complains of in a Dockerfile."""
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--no-color", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_hadolint_has_nothing_to_complain_of():
    assert hadolint(DOCKERFILE) == []
    assert hadolint(HISTORY) == []
    (complaint,) = hadolint(DOCKERFILE.replace("--no-cache-dir", ""))
    assert "DL3042" in complaint


def test_both_stages_have_the_same_python_and_debian_and_are_pinned():
    (build, label, alias), (final,) = (line.split() for line in arguments("FROM", steps()))
    assert (label, alias) == ("AS", "build")
    assert PINNED.match(build)
    assert final == build.replace("-", "-slim-"), "the environment and the library are copied between them"


def test_the_final_stage_runs_joulemeter_unprivileged_and_builds_nothing():
    assert arguments("USER", FINAL) == ["65532:65532"]
    assert arguments("RUN", FINAL) == []
    assert arguments("COPY", FINAL) == [f"--from=build {PLACE} {PLACE}"], (
        "an environment stays where it was made"
    )
    assert json.loads(arguments("ENTRYPOINT", FINAL)[0]) == ["joulemeter"]
    assert "joulemeter" in PROJECT["scripts"]


def test_the_virtual_library_is_where_the_demo_looks_and_nowhere_loaded_by_default():
    (run,) = arguments("RUN", BUILD)
    built = run.split()[-1]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["joulemeter"]
    assert compose["environment"][LIBRARY_VARIABLE] == built
    assert built.startswith(f"{PLACE}/")
    assert LIBRARY_VARIABLE not in "".join(arguments("ENV", FINAL))


def test_labels_and_tag_are_those_of_the_project():
    labels = dict(re.findall(r'([\w.]+)="([^"]*)"', arguments("LABEL", FINAL)[0]))
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == PROJECT["name"]
    assert labels[f"{prefix}version"] == PROJECT["version"]
    assert labels[f"{prefix}licenses"] == PROJECT["license"]
    assert labels[f"{prefix}description"]
    assert f"--tag joulemeter:{PROJECT['version']} " in DOCKERFILE
    chart = yaml.safe_load((ROOT / "deploy/helm/joulemeter/Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"]


def copied(among: list[Step] = BUILD) -> list[tuple[str, str]]:
    """What a stage copies from the project: from where, to where."""
    pairs = []
    for line in arguments("COPY", among):
        *sources, target = line.split()
        pairs += [(source, target) for source in sources if not sources[0].startswith("--from=")]
    return pairs


@pytest.mark.parametrize("text", [DOCKERFILE, HISTORY], ids=["daemon", "history"])
def test_the_build_context_lets_in_all_that_is_copied(text: str):
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    assert copied(steps(text))
    for source, _ in copied(steps(text)):
        assert (ROOT / source).exists()
        assert any(fnmatch(source, pattern) for pattern in allowed), f"{source} is not in .dockerignore"


# --------------------------------------------------------------------------------------- its steps, run here


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the final stage copies, made by the first stage's own command."""
    folder = tmp_path_factory.mktemp("image")
    source, place = folder / "source", folder / "joulemeter"
    source.mkdir()
    for name, target in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(ROOT / name, source / target)
    (command,) = arguments("RUN", BUILD)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["/bin/sh", "-ec", command.replace(PLACE, str(place))],
        cwd=source, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No matching distribution found" in done.stderr and not os.environ.get("CI"):
        pytest.skip("pip finds no package index")
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def in_image(built: Path, *command: str, **more: str) -> list[str]:
    """A command as the image would run it: its own PATH first, without a home, without a compiler."""
    variables = {"PATH": f"{built}/bin:/nonexistent", "HOME": "/nonexistent", "PYTHONUNBUFFERED": "1", **more}
    return ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]


@pytest.mark.timeout(600)
def test_the_command_is_there_and_so_is_all_that_the_extras_ask_for(built: Path):
    done = subprocess.run(
        in_image(built, "joulemeter", "--version"), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"joulemeter {PROJECT['version']}\n"
    extra = re.search(r"'\./\[(\w+)\]'", DOCKERFILE)
    assert extra
    names = [
        re.split(r"[<>=!~\[ ]", wanted)[0]
        for wanted in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra[1], ()))
    ]
    code = "import sys; from importlib.metadata import version; [version(name) for name in sys.argv[1:]]"
    subprocess.run(in_image(built, "python", "-c", code, *names), check=True)


@pytest.mark.timeout(600)
def test_nothing_that_builds_is_left(built: Path):
    assert not (built / "bin/pip").exists()
    assert not list(built.rglob("*.[ch]pp")) + list(built.rglob("pip-*.dist-info"))
    size = sum(path.stat().st_size for path in built.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < 80 * 2**20


@pytest.mark.timeout(600)
def test_the_demo_runs_without_a_compiler_and_the_health_check_sees_it(built: Path, tmp_path: Path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    (line,) = arguments("HEALTHCHECK", FINAL)
    check = json.loads(line.split("CMD", 1)[1])
    assert "127.0.0.1:9847/" in check[2]
    assert arguments("EXPOSE", FINAL) == ["9847"]
    look = in_image(built, check[0], check[1], check[2].replace("9847", port))
    assert subprocess.run(look, capture_output=True, check=False).returncode == 1, "nobody listens yet"
    (run,) = arguments("RUN", BUILD)
    library = run.split()[-1].replace(PLACE, str(built))
    command = in_image(
        built, "joulemeter", "demo", "--listen", f"127.0.0.1:{port}",
        **{LIBRARY_VARIABLE: library, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        demo = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 60
            while subprocess.run(look, capture_output=True, check=False).returncode:
                assert demo.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < give_up, (tmp_path / "log").read_text()
                time.sleep(0.5)
        finally:
            demo.terminate()
            demo.wait(30)


# ------------------------------------------------------------------------------------- the history's, by reading


def test_the_history_runs_on_the_python_of_the_daemon_as_nobody():
    assert arguments("FROM", steps(HISTORY))[-1] == arguments("FROM", FINAL)[0]
    assert arguments("USER", steps(HISTORY)) == ["65534:65534"]
    assert f'version="{PROJECT["version"]}"' in HISTORY


IMPORTED = """
import sys
from importlib.metadata import packages_distributions
before = set(sys.modules)
import benchmarks.history.__main__
roots = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(*{wheel for root in roots for wheel in packages_distributions().get(root, ())})
print(*{getattr(module, "__file__", None) for name, module in sys.modules.items() if name not in before})
"""


def test_the_history_has_all_that_it_imports():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wheels, files = (set(line.split()) for line in done.stdout.splitlines())
    wheels = {wheel.lower().replace("_", "-") for wheel in wheels}
    (extra,) = re.findall(r"'\./\[(\w+)\]'", HISTORY)
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]
    installed = {found.name.lower().replace("_", "-") for found in distributions()}
    brought = {"joulemeter"}
    while wanted:
        name = re.split(r"[<>=!~;\[ ]", wanted.pop())[0].lower().replace("_", "-")
        if name not in brought:
            brought.add(name)
            needed = requires(name) if name in installed else ()
            wanted += [one for one in needed or () if "extra ==" not in one]
    assert {"numba", "numpy"} <= wheels <= brought
    folders = [str(ROOT / source) for source, _ in copied(steps(HISTORY))]
    own = {file for file in files if file.startswith(f"{ROOT}/") and "site-packages" not in file}
    assert own
    assert [file for file in own if not file.startswith(tuple(folders))] == []
