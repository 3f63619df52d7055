"""How to ask a Prometheus that wants to know who asks: part of Prometheus's own HTTP client configuration. Pure."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from joulemeter.errors import ConfigError
from joulemeter.settings import Section


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Who we are, and whom we believe; the keys of Prometheus's `http_config` that it has."""

    username: str | None = None
    password_file: Path | None = None
    authorization_type: str = "Bearer"
    credentials_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_skip_verify: bool = False
    proxy_from_environment: bool = False


def read_http_config(text: str, source: str, folder: Path) -> HttpConfig:
    """Read the text of a file.

    Args:
        text: YAML.
        source: its name, for messages.
        folder: where relative paths begin, as for Prometheus: that of the file.

    Raises:
        ConfigError: every problem, each with place, value and remedy.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError([f"{source}: not YAML: {' '.join(str(error).split())}"]) from None
    problems: list[str] = []
    found = _read(Section(raw, "", problems), folder)
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return found


def _read(top: Section, folder: Path) -> HttpConfig:
    basic, bearer, tls = (top.section(key) for key in ("basic_auth", "authorization", "tls_config"))

    def path(section: Section, key: str) -> Path | None:
        given = section.path(key)
        return None if given is None else folder / given

    found = HttpConfig(
        username=basic.text("username", None),
        password_file=path(basic, "password_file"),
        authorization_type=bearer.text("type", "Bearer"),
        credentials_file=path(bearer, "credentials_file"),
        ca_file=path(tls, "ca_file"),
        cert_file=path(tls, "cert_file"),
        key_file=path(tls, "key_file"),
        insecure_skip_verify=tls.flag("insecure_skip_verify", default=False),
        proxy_from_environment=top.flag("proxy_from_environment", default=False),
    )
    if top.get("basic_auth") is not None:
        _need(basic, "username", "the name that the password is of")
        _need_file(basic, "password")
        if top.get("authorization") is not None:
            top.problem("authorization", "basic_auth is given too; keep one of them")
    if top.get("authorization") is not None:
        _need_file(bearer, "credentials")
    if found.key_file is not None:
        _need(tls, "cert_file", "the certificate that key_file belongs to")
    for part in (basic, bearer, tls, top):
        part.finish()
    return found


def _need(section: Section, key: str, what: str) -> None:
    if section.get(key) is None:
        section.problem(key, f"missing; give {what}")


def _need_file(section: Section, secret: str) -> None:
    """Prometheus takes a secret as it is, too; we take it from a file alone, and show it nowhere."""
    if section.get(secret) is not None:
        section.problem(secret, f"secrets are read from files alone; write it to one and give {secret}_file")
    else:
        _need(section, f"{secret}_file", "the file that holds it")
