"""The part of the configuration that describes one inference server."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from joulemeter.dialects.generic import GenericNames
from joulemeter.model import Moves, Pod
from joulemeter.settings import Section, shown

DIALECTS: Final = ("auto", "vllm", "sglang", "llamacpp", "tgi", "generic")
MOVES: Final = tuple(moves.value for moves in Moves)

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
METRICS_PATH: Final = "/metrics"
MAX_PORT: Final = 65_535
MAX_URL_CHARACTERS: Final = 2000
"""Proxies and servers refuse longer ones, and each is remembered."""
HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
BLANKS: Final = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One inference server."""

    url: str
    """Address of its metrics page; `/metrics` is added where it has no path."""
    name: str
    """Its label `server` on our page."""
    dialect: str = "auto"
    """How it names its series; `auto` looks at its page, `generic` needs the names under `metrics`."""
    model: str | None = None
    """What it serves, where it does not say."""
    credentials_file: Path | None = None
    """File with the bearer token that the server wants; read anew for every request."""
    ca_file: Path | None = None
    """File with the certificates that the server's is checked against, in PEM."""
    insecure_skip_verify: bool = False
    """Believe any certificate."""
    tokens: bool = True
    """Whether its tokens count here; false on the nodes of a multi-node server that do not run its head."""
    gpus: tuple[int | str, ...] | None = None
    """The GPUs it uses, by index or UUID; `auto` finds them by the process behind its port."""
    metrics: GenericNames | None = None
    pod: Pod | None = None
    """The pod that was found to serve it; no key of the configuration, nor is `container`."""
    container: str | None = None
    """Its container there, where that is known."""


def is_host(host: str) -> bool:
    """Say whether this can be a host: an IP address, or a name in ASCII."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST_NAME.fullmatch(host) is not None
    return True


def page_url(value: object) -> tuple[str, str]:
    """Complete a server's address: `/metrics` where it has no path, the port always; the query stays.

    Returns:
        The URL of the metrics page, and host:port, the server's default name.

    Raises:
        ValueError: nothing that can be asked over HTTP. A URL with a password is not repeated in the message.
    """
    parts = _split(value)
    if parts is None:
        raise ValueError(f"expected an http(s) URL such as http://127.0.0.1:8000, got {shown(value)}")
    if len(parts.geturl()) > MAX_URL_CHARACTERS:
        raise ValueError(
            f"expected a URL of at most {MAX_URL_CHARACTERS} characters, got {len(parts.geturl())}"
        )
    if "@" in parts.netloc:
        raise ValueError("the URL holds a user or password; use authorization.credentials_file instead")
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    address = f"{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"
    path = parts.path if parts.path.strip("/") else METRICS_PATH
    return parts._replace(netloc=address, path=path).geturl(), address


def base_url(value: object) -> str:
    """Return a server's address without a path.

    Raises:
        ValueError: it is none, or has a path, a query or a password.
    """
    parts = _split(value)
    if parts is None or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise ValueError(
            f"expected an http(s) URL without a path such as https://10.0.0.1:6443, got {shown(value)}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _split(value: object) -> SplitResult | None:
    """Take a URL apart; None if it cannot be one of ours."""
    if not isinstance(value, str) or not value.isascii() or BLANKS.search(value.strip()):
        return None
    try:
        parts = urlsplit(value.strip())
        usable = parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:  # a port or an IPv6 address that is none
        return None
    return parts if usable and parts.scheme in DEFAULT_PORTS and not parts.fragment else None


def read_servers(items: Sequence[object], place: str, problems: list[str]) -> tuple[ServerConfig, ...]:
    """Read the list of servers; `problems` grows by what is wrong with any of them."""
    found = []
    for index, item in enumerate(items):
        here = f"{place}[{index}]"
        if not isinstance(item, Mapping):
            problems.append(
                f"{here}: expected a server such as {{url: http://127.0.0.1:8000}}, got {shown(item)}"
            )
            continue
        server = read_server(Section(item, here, problems))
        if server.url:
            found.append((here, server))
    refuse_twins(found, problems)
    return tuple(server for _, server in found)


def refuse_twins(servers: Sequence[tuple[str, ServerConfig]], problems: list[str]) -> None:
    """A page observed twice would count its tokens twice; a name for two would mix their series."""
    urls: dict[str, str] = {}
    names: dict[str, str] = {}
    for place, server in servers:
        if server.url in urls:
            problems.append(f"{place}: same URL as {urls[server.url]}, {server.url!r}; keep one of them")
        elif server.name in names:
            problems.append(
                f"{place}: same name as {names[server.name]}, {server.name!r}; set another `name`"
            )
        urls.setdefault(server.url, place)
        names.setdefault(server.name, place)


def read_server(section: Section) -> ServerConfig:
    """Read one server; its URL is "" if it has no usable one."""
    if section.get("url") is None:
        section.problem("url", "missing; give the server's address such as http://127.0.0.1:8000")
    url, address = section.converted("url", ("", ""), page_url)
    authorization = section.section("authorization")
    tls = section.section("tls_config")
    server = ServerConfig(
        url=url,
        name=section.text("name", address),
        dialect=section.choice("dialect", "auto", DIALECTS),
        model=section.text("model", None),
        credentials_file=authorization.path("credentials_file"),
        ca_file=tls.path("ca_file"),
        insecure_skip_verify=tls.flag("insecure_skip_verify", default=False),
        tokens=section.flag("tokens", default=True),
        gpus=_gpus(section),
        metrics=_generic_names(section),
    )
    for part in (authorization, tls, section):
        part.finish()
    return server


def _gpus(section: Section) -> tuple[int | str, ...] | None:
    value = section.get("gpus")
    if value is None or value == "auto":
        return None
    if not isinstance(value, list | tuple) or not value:
        section.problem("gpus", f"expected auto, or a list such as [0, 1] or ['GPU-...'], got {shown(value)}")
        return None
    for index, gpu in enumerate(value):
        if isinstance(gpu, str) and gpu.startswith("MIG-"):
            section.problem(
                f"gpus[{index}]",
                f"{shown(gpu)} is a MIG instance, and energy is counted for whole GPUs: give the 'GPU-...' UUID"
                " above it in the list of `nvidia-smi -L`; servers on instances of one GPU then share it",
            )
            continue
        is_index = isinstance(gpu, int) and not isinstance(gpu, bool) and gpu >= 0
        if not is_index and not (isinstance(gpu, str) and gpu.startswith("GPU-")):
            section.problem(f"gpus[{index}]", f"expected an index >= 0 or a 'GPU-...' UUID, got {shown(gpu)}")
        elif gpu in value[:index]:
            section.problem(f"gpus[{index}]", f"{shown(gpu)} is already in the list; name each GPU once")
    return tuple(value)


def _generic_names(section: Section) -> GenericNames | None:
    """Read the names of a `generic` server's series; only such a server has them, and it must."""
    is_generic = section.get("dialect") == "generic"
    if section.get("metrics") is None:
        if is_generic:
            section.problem("metrics", "missing; dialect 'generic' needs the names of the server's series")
        return None
    if not is_generic:
        section.problem(
            "metrics", "only dialect 'generic' takes names; set `dialect: generic` or leave them out"
        )
    names = section.section("metrics")
    if names.get("generation") is None:
        names.problem("generation", "missing; give the name of the counter of generated tokens")
    read = GenericNames(
        generation=names.text("generation", ""),
        generation_moves=Moves(names.choice("generation_moves", Moves.FINISH, MOVES)),
        prompt=names.text("prompt", None),
        prompt_includes_cached=names.flag("prompt_includes_cached", default=False),
        prompt_moves=Moves(names.choice("prompt_moves", Moves.FINISH, MOVES)),
        cached_prompt=names.text("cached_prompt", None),
        requests=names.text("requests", None),
        steps=names.text("steps", None),
        first_tokens=names.text("first_tokens", None),
        inter_token_seconds=names.text("inter_token_seconds", None),
        running=names.text("running", None),
        waiting=names.text("waiting", None),
        model_label=names.text("model_label", None),
    )
    names.finish()
    return read
