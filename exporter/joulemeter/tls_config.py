"""The part of a web configuration that is about TLS: `tls_server_config` of Prometheus's exporter-toolkit.

Opens no file and repeats no key. What Python's `ssl` cannot do as Go's `crypto/tls` does is a problem, with its remedy.
"""

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulemeter.settings import Section, shown, suggestion

TLS12: Final = "TLS12"
TLS13: Final = "TLS13"
VERSIONS: Final = (TLS12, TLS13)
OLD_VERSIONS: Final = ("TLS10", "TLS11")

ALWAYS: Final = "RequireAndVerifyClientCert"
IF_GIVEN: Final = "VerifyClientCertIfGiven"
UNSEEN: Final = "RequestClientCert"
UNPROVEN: Final = ("RequireAnyClientCert", "RequireClientCert")
CLIENT_AUTH: Final = ("NoClientCert", UNSEEN, IF_GIVEN, ALWAYS)

CIPHERS: Final = {
    f"TLS_ECDHE_{proof}_WITH_{go}": f"ECDHE-{proof}-{openssl}"
    for proof in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
"""Suites of TLS 1.2 that Go calls secure (crypto/tls, CipherSuites), and OpenSSL's names of the same."""
CIPHERS_13: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Always on with TLS 1.3; neither Go nor Python lets one choose."""
CURVES: Final = {
    "X25519": "X25519",
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted, and which clients may make one."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    """Authorities whose clients are believed; None asks no client for a certificate."""
    client_must: bool = False
    """Whether a client without a certificate is turned away."""
    client_allowed_sans: tuple[str, ...] = ()
    """Names of which a client's certificate must have one; none: any name."""
    oldest: str = TLS12
    newest: str = TLS13
    ciphers: tuple[str, ...] = ()
    """For TLS 1.2, best first, by OpenSSL's names; none: Python's choice."""
    server_chooses: bool = True
    """Whether our order of ciphers counts rather than the client's."""
    curve: str | None = None
    """The only curve for the key exchange, by OpenSSL's name; None: OpenSSL's choice."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that it is made of."""
        every = (self.cert_file, self.key_file, self.client_ca_file)
        return tuple(file for file in every if file is not None)


def read_tls(section: Section, folder: Path, notes: list[str]) -> Tls:
    """Read `tls_server_config`; relative paths start at `folder`, `notes` grows by what has no effect."""
    for key in ("cert", "key", "client_ca"):
        if section.get(key) is not None:
            section.problem(key, f"is read from a file only; put it in one and name that with {key}_file")
    cert_file, key_file = (_file(section, key, folder) for key in ("cert_file", "key_file"))
    for key, file in (("cert_file", cert_file), ("key_file", key_file)):
        if file is None and section.get(key) is None:
            section.problem(key, "missing; give the path of a PEM file")
    authorities, must = _clients(section, folder, notes)
    oldest, newest = _versions(section)
    tls = Tls(
        cert_file=cert_file or folder,
        key_file=key_file or folder,
        client_ca_file=authorities,
        client_must=must,
        client_allowed_sans=_allowed_sans(section, must=must),
        oldest=oldest,
        newest=newest,
        ciphers=_ciphers(section, oldest),
        server_chooses=section.flag("prefer_server_cipher_suites", default=True),
        curve=_curve(section),
    )
    section.finish()
    return tls


def _file(section: Section, key: str, folder: Path) -> Path | None:
    def path(value: object) -> Path:
        if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
            raise ValueError(
                "expected the path of a PEM file, not its text"
            )  # which may be a key: not repeated
        return folder / value.strip()

    return section.converted(key, None, path)


def _clients(section: Section, folder: Path, notes: list[str]) -> tuple[Path | None, bool]:
    """Return the authorities that vouch for clients, if clients are asked; and whether each must show a certificate."""
    if section.get("client_auth_type") in UNPROVEN:
        section.problem(
            "client_auth_type",
            f"{section.get('client_auth_type')!r} would let in everyone with a certificate of his own making;"
            f" use {ALWAYS!r} with client_ca_file",
        )
        kind = ALWAYS
    else:
        kind = section.choice("client_auth_type", CLIENT_AUTH[0], CLIENT_AUTH)
    file = _file(section, "client_ca_file", folder)
    given = section.get("client_ca_file") is not None
    if kind == UNSEEN:
        notes.append(
            f"tls_server_config.client_auth_type: {UNSEEN!r} checks nothing, so no certificate is asked for"
        )
    elif kind == CLIENT_AUTH[0] and given:
        section.problem("client_ca_file", f"unused without client_auth_type; set it to {ALWAYS!r}")
    if kind in (ALWAYS, IF_GIVEN):
        if not given:
            problem = (
                f"missing; {kind!r} needs the PEM file of the authorities that sign clients' certificates"
            )
            section.problem("client_ca_file", problem)
        return file, kind == ALWAYS
    return None, False


def _allowed_sans(section: Section, *, must: bool) -> tuple[str, ...]:
    names = []
    for index, value in enumerate(section.items("client_allowed_sans")):
        if not isinstance(value, str) or not value.strip():
            section.problem(
                f"client_allowed_sans[{index}]",
                f"expected a name, address, e-mail or URI, got {shown(value)}; put it in quotes",
            )
        else:
            names.append(same_name(value.strip()))
    if names and not must:
        section.problem("client_allowed_sans", f"needs client_auth_type: {ALWAYS}, got another")
    if section.get("client_allowed_sans") is not None and not section.items("client_allowed_sans"):
        section.problem("client_allowed_sans", "no name is in the list; add one, or leave it out for any")
    return tuple(names)


def same_name(name: str) -> str:
    """Write an IP address in its one short form; other names stay as they are."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _versions(section: Section) -> tuple[str, str]:
    found = []
    for key, default in (("min_version", TLS12), ("max_version", TLS13)):
        value = section.get(key)
        if value in OLD_VERSIONS:
            section.problem(key, f"{value!r} is no longer safe (RFC 8996); use {TLS12!r} or {TLS13!r}")
            found.append(default)
        else:
            found.append(section.choice(key, default, VERSIONS))
    if found[0] > found[1]:
        section.problem("max_version", f"expected at least min_version ({found[0]}), got {found[1]}")
    return found[0], found[1]


def _ciphers(section: Section, oldest: str) -> tuple[str, ...]:
    items = section.items("cipher_suites")
    names = list(_known(section, "cipher_suites", items, {*CIPHERS, *CIPHERS_13}))
    chosen = tuple(CIPHERS[name] for name in names if name in CIPHERS)
    if len(names) == len(items) > 0 == len(chosen) and oldest == TLS12:
        section.problem(
            "cipher_suites",
            f"none is for TLS 1.2; add one, or set min_version: {TLS13}, whose suites are fixed",
        )
    return chosen


def _curve(section: Section) -> str | None:
    items = section.items("curve_preferences")
    names = list(_known(section, "curve_preferences", items, CURVES))
    if len(items) > 1:
        section.problem(
            "curve_preferences",
            f"expected one curve, got {len(items)}: Python can allow one or all, not order some; keep the first,"
            " or leave it out for all",
        )
    return CURVES[names[0]] if names else None


def _known(section: Section, key: str, items: Sequence[object], known: Collection[str]) -> Iterator[str]:
    for index, value in enumerate(items):
        if isinstance(value, str) and value in known:
            yield value
        else:
            section.problem(f"{key}[{index}]", f"unknown value {shown(value)}; {suggestion(value, known)}")
