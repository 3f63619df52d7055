"""The keys of the configuration, told by the code that reads them, and what is written about each."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Final

from joulemeter import config, grids, server_config
from joulemeter.dialects.generic import GenericNames
from joulemeter.grids import Place
from joulemeter.settings import Default, Section, Value

SECTIONS: Final[dict[str, type]] = {
    "servers[].metrics.": GenericNames,
    "servers[].": server_config.ServerConfig,
    "grid.": config.GridSettings,
    "price.": config.PriceSettings,
    "baseline.": config.BaselineSettings,
    "discovery.": config.DiscoverySettings,
    "observation.": config.ObservationSettings,
    "sampling.": config.Sampling,
    "": config.Config,
}
SPOKEN: Final = {
    "servers[].url": ("http(s) URL", "required"),
    "servers[].name": ("text", "host:port of `url`"),
    "servers[].gpus": ("`auto`, or a list such as `[0, 1]` or `[GPU-...]`", "`auto`"),
    "servers[].metrics.generation": ("text", "required"),
    "grid.sources": (f"list of {', '.join(f'`{name}`' for name in grids.names())}", "`[static]`"),
    "grid.cloud_region": ("provider/region", None),
    "time_zone": ("IANA name", None),
    "price.currency": ("ISO 4217 code", None),
    "grid.fixed.intensity_grams_per_kwh": ("number from 0 to 2000", "required"),
    "grid.relay.url": ("http(s) URL", "required"),
    "grid.watttime.username": ("text", "required"),
    "grid.neso.region_id": ("number from 1 to 17", None),
    "grid.neso.postcode": ("text", None),
    "grid.energy_charts.country": ("text", None),
    "listen": ("HOST:PORT", None),
    "state_dir": ("path", None),
    "web_config_file": ("path", None),
    "baseline.file": ("path", None),
    "discovery.api_server": ("http(s) URL", None),
    "discovery.service_account_dir": ("path", f"`{config.DiscoverySettings().service_account_dir}`"),
    "discovery.pod_resources_socket": ("path", f"`{config.DiscoverySettings().pod_resources_socket}`"),
}
"""What keys take, and their defaults, where the call that reads them does not say it well."""
GENERIC_SERVER: Final = {
    "url": "http://host:8000",
    "dialect": "generic",
    "metrics": {"generation": "tokens_total"},
}
"""A server that may have every key."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a key takes, and its value when it is left out."""

    takes: str = ""
    default: object = None


class Recorder(Section):
    """A section that remembers what it was asked for: the configuration's reader tells us its own keys."""

    def __init__(self, raw: object, place: str, settings: dict[str, Setting]) -> None:
        super().__init__(raw, place, [])
        self._settings = settings

    def _note(self, key: str, takes: str, default: object) -> None:
        self._settings.setdefault(self.place(key), Setting(takes, default))

    def get(self, key: str) -> object:
        """Note that the key exists."""
        self._note(key, "", None)
        return super().get(key)

    def section(self, key: str) -> "Recorder":
        """Open a section that notes its keys in the same place."""
        return Recorder(super().get(key), self.place(key), self._settings)

    def path(self, key: str) -> Path | None:
        """Note a path."""
        self._note(key, "path", None)
        return super().path(key)

    def converted(self, key: str, default: Default, convert: Callable[[object], Value]) -> Value | Default:
        """Note the default."""
        parts = default if isinstance(default, tuple) else (default,)
        self._note(key, "", ":".join(map(str, parts)) if default else None)
        return super().converted(key, default, convert)

    def items(self, key: str, default: Sequence[object] = ()) -> Sequence[object]:
        """Note a list."""
        self._note(key, "list", f"[{', '.join(map(str, default))}]")
        return super().items(key, default)

    def number(self, key: str, default: Default, *, low: float, high: float) -> float | Default:
        """Note the range."""
        shown = default if default is None else f"{default:.10g}"
        self._note(key, f"number from {low:.10g} to {high:.10g}", shown)
        return super().number(key, default, low=low, high=high)

    def flag(self, key: str, *, default: bool) -> bool:
        """Note a switch."""
        self._note(key, "`true` or `false`", str(default).lower())
        return super().flag(key, default=default)

    def text(self, key: str, default: Default) -> str | Default:
        """Note a text."""
        self._note(key, "text", default)
        return super().text(key, default)

    def choice(self, key: str, default: str, known: Collection[str]) -> str:
        """Note the words."""
        self._note(key, ", ".join(f"`{word}`" for word in known), default)
        return super().choice(key, default, known)


def settings() -> dict[str, Setting]:
    """Return every key of the configuration by its path, in the order in which they are read."""
    found: dict[str, Setting] = {}
    config.read(Recorder({}, "", found), [])
    server_config.read_server(Recorder(GENERIC_SERVER, "servers[]", found))
    for name in grids.names():
        grids.by_name(name).configured(Recorder({}, f"grid.{name}", found), Place("FR"))
    return {
        key: setting
        for key, setting in found.items()
        if not any(other.startswith(f"{key}.") for other in found)
    }


def meaning(key: str) -> str:
    """Return what is written below the field that a key sets. Raises LookupError if nothing is."""
    if (source := key.split(".")[1:2]) and key.startswith("grid.") and source[0] in grids.names():
        return _source_meaning(source[0], key)
    section = next(prefix for prefix in SECTIONS if key.startswith(prefix))
    cls = SECTIONS[section]
    path = key.removeprefix(section).replace(".", "_")
    docs = attribute_docs(cls)
    names = [field.name for field in fields(cls) if field.name in docs]
    fitting = (
        lambda name: name == path,
        lambda name: path.endswith(f"_{name}"),  # authorization.credentials_file
        lambda name: name.startswith(f"{path}_"),  # listen
    )
    found = next((name for fits in fitting for name in names if fits(name)), None)
    if found is None:
        raise LookupError(f"{key}: write what it means below its field in {cls.__name__}")
    return docs[found]


def _source_meaning(source: str, key: str) -> str:
    told: dict[str, str] = getattr(import_module(f"joulemeter.grids.{source}"), "KEYS", {})
    name = key.removeprefix(f"grid.{source}.")
    if name not in told:
        raise LookupError(f"{key}: write what it means in KEYS of grids/{source}.py")
    return told[name]


def attribute_docs(source: type | ModuleType) -> dict[str, str]:
    """Return the text below each attribute of a class, or below each constant of a module, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(source))).body
    if isinstance(body[0], ast.ClassDef) and isinstance(source, type):
        body = body[0].body
    found = {}
    for node, below in pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[target.id] = " ".join(text.value.split())
    return found
