"""The Compose file, and its services as processes of this machine, with the very files that it mounts."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dashboards.generate import ROOT

FILE = ROOT / "docker-compose.yml"
STACK = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]


@dataclass(frozen=True)
class Mount:
    """A file, a folder or a named volume (`source`) that a service sees at `target`."""

    source: str
    target: str
    mode: str

    @property
    def named(self) -> bool:
        return not self.source.startswith("./")

    @property
    def path(self) -> Path:
        """What of the project is mounted."""
        return ROOT / self.source


def mounts(service: str) -> list[Mount]:
    parts = [str(volume).split(":") for volume in SERVICES[service].get("volumes", ())]
    return [Mount(source, target, mode[0] if mode else "rw") for source, target, *mode in parts]


@dataclass(frozen=True)
class Laid:
    """What a service sees, laid out below a folder; services that share a volume share it here."""

    service: str
    folder: Path

    def lay(self) -> "Laid":
        """Copy what is mounted."""
        for mount in mounts(self.service):
            place = self._place(mount)
            place.parent.mkdir(parents=True, exist_ok=True)
            if mount.named:
                place.mkdir(exist_ok=True)
            elif mount.path.is_dir():
                shutil.copytree(mount.path, place)
            else:
                shutil.copy(mount.path, place)
        return self

    def at(self, inside: str) -> Path:
        """Where a path of the container is here."""
        for mount in mounts(self.service):
            if inside == mount.target or inside.startswith(f"{mount.target}/"):
                return Path(f"{self._place(mount)}{inside.removeprefix(mount.target)}")
        return self._root / inside.lstrip("/")

    def command(self) -> list[str]:
        """The service's command, with the paths of here."""
        return [self._argument(argument) for argument in SERVICES[self.service]["command"]]

    @property
    def _root(self) -> Path:
        return self.folder / self.service

    def _place(self, mount: Mount) -> Path:
        return (
            self.folder / "volumes" / mount.source if mount.named else self._root / mount.target.lstrip("/")
        )

    def _argument(self, argument: str) -> str:
        flag, equals, value = argument.rpartition("=")
        return f"{flag}{equals}{self.at(value)}" if value.startswith("/") else argument


def entrypoint(service: str) -> list[str]:
    """The command that the image of a service begins with."""
    text = (ROOT / SERVICES[service]["build"]["dockerfile"]).read_text()
    found = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    return list(json.loads(found[-1]))


def targets(prometheus: Laid) -> Iterator[Path]:
    """The files that name who is scraped, by Prometheus's configuration."""
    flag = next(one for one in SERVICES[prometheus.service]["command"] if one.startswith("--config.file="))
    config = prometheus.at(flag.partition("=")[2])
    for job in yaml.safe_load(config.read_text())["scrape_configs"]:
        for discovery in job["file_sd_configs"]:
            for pattern in discovery["files"]:
                yield from config.parent.glob(pattern)
