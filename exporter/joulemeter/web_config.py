"""TLS and passwords of our listener, in the format of Prometheus's exporter-toolkit (docs/web-configuration.md there).

A text in, a WebConfig or every problem at once out (ConfigError). Opens no file and repeats no key, hash or password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from joulemeter.errors import ConfigError
from joulemeter.settings import Section, shown
from joulemeter.tls_config import Tls, read_tls
from joulemeter.yaml_text import read_yaml

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""Headers that may be added to answers, and the values of those that have few."""

BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}")
LOWEST_COST: Final = 4
HIGHEST_COST: Final = 16
"""Some seconds for each check; every step up doubles them."""
REPEATED: Final = re.compile(r"\b(alias|anchor|tag|tag handle) '.*'")
"""What YAML's errors repeat of a value that begins with *, & or !, which may be a password."""
MAKE_HASH: Final = "make one with: htpasswd -nBC 10 '' | tr -d ':\\n'"


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What a web configuration file says."""

    tls: Tls | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """User to bcrypt hash; none: nobody is asked for a password."""
    headers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was accepted, and has no effect or a bad one."""


def load(text: str, *, source: str, folder: Path) -> WebConfig:
    """Read a web configuration file's YAML text.

    Args:
        text: the file's text.
        source: names it in errors.
        folder: that of the file; relative paths in it start there.

    Raises:
        ConfigError: with every problem, each with its place, the value unless it may be a secret, and the remedy.
    """
    problems: list[str] = []
    try:
        raw = read_yaml(text, source=source)
    except ConfigError as error:
        raise ConfigError(
            [REPEATED.sub(r"\1; put passwords in quotes", one) for one in error.problems]
        ) from None
    found = read(Section(raw, "", problems), folder)
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return found


def read(top: Section, folder: Path) -> WebConfig:
    """Read a whole web configuration."""
    notes: list[str] = []
    http = top.section("http_server_config")
    if http.flag("http2", default=False):
        notes.append("http_server_config.http2: no effect, HTTP/1.1 is served")
    if top.get("basic_auth_users") and not top.get("tls_server_config"):
        notes.append("basic_auth_users: without tls_server_config the network sees every password")
    config = WebConfig(
        tls=read_tls(top.section("tls_server_config"), folder, notes)
        if top.get("tls_server_config")
        else None,
        users=_users(top.section("basic_auth_users"), top.get("basic_auth_users")),
        headers=_headers(http.section("headers")),
        notes=tuple(notes),
    )
    http.finish()
    if top.get("rate_limit") is not None:
        problem = "not supported, for pages are formatted once however many ask; leave it out"
        top.problem("rate_limit", problem)
    if not any(top.get(key) for key in ("tls_server_config", "basic_auth_users", "http_server_config")):
        problem = (
            "missing, and so is tls_server_config; give at least one of them, or leave web_config_file out"
        )
        top.problem("basic_auth_users", problem)
    top.finish()
    return config


def _headers(section: Section) -> dict[str, str]:
    found = {}
    for name, allowed in HEADERS.items():
        if section.get(name) == "":
            continue  # as good as left out
        value = section.text(name, None)
        if value is not None and allowed and value not in allowed:
            section.problem(name, f"expected {' or '.join(allowed)}, got {shown(value)}")
        elif value is not None:
            found[name] = value
    section.finish()
    return found


def _users(section: Section, raw: object) -> dict[str, str]:
    """Read the users; what stands in place of a hash may be a password and is not repeated."""
    found = {}
    for user in raw if isinstance(raw, Mapping) else ():
        place = user if isinstance(user, str) else shown(user)
        if not isinstance(user, str) or not user or not user.isprintable() or ":" in user:
            section.problem(place, "expected a user's name without a colon; put it in quotes")
            continue
        value = raw[user] if isinstance(raw, Mapping) else None
        match = BCRYPT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            section.problem(place, f"expected a bcrypt hash ($2y$...); {MAKE_HASH}")
        elif not LOWEST_COST <= int(match["cost"]) <= HIGHEST_COST:
            wanted = f"expected a cost from {LOWEST_COST} to {HIGHEST_COST}"
            section.problem(place, f"{wanted}, got {int(match['cost'])}, which takes too long; {MAKE_HASH}")
        else:
            found[user] = match[0]
    return found
