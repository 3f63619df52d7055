"""TLS of our listener: files in, an SSL context or every problem at once out; a context that can be replaced."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from joulemeter.errors import ConfigError
from joulemeter.tls_config import TLS12, TLS13, Tls

VERSIONS: Final = {TLS12: ssl.TLSVersion.TLSv1_2, TLS13: ssl.TLSVersion.TLSv1_3}
CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
KEY: Final = "PRIVATE KEY-----"
MISMATCH: Final = "KEY_VALUES_MISMATCH"


class ReplaceableContext(ssl.SSLContext):
    """Hands every new connection to the context that is in use then.

    asyncio wraps each connection that it accepts with `wrap_bio` of the listener's context. (The callback for server
    names could only replace the certificate: versions and whether clients need one are settled before it is called.)
    """

    in_use: ssl.SSLContext

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection."""
        return self.in_use.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def replaceable(context: ssl.SSLContext) -> ReplaceableContext:
    """Return a listener's context that hands on to `context`, until `in_use` is set to another."""
    made = ReplaceableContext(ssl.PROTOCOL_TLS_SERVER)
    made.in_use = context
    return made


def server_context(tls: Tls) -> ssl.SSLContext:
    """Read the files and build the context; blocking.

    Raises:
        ConfigError: with every file that cannot be used, and why; no text of theirs is repeated.
    """
    problems = [*_unusable(tls)]
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = VERSIONS[tls.oldest], VERSIONS[tls.newest]
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.server_chooses:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, tls)
    if tls.client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED if tls.client_must else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(cafile=str(tls.client_ca_file))
        except OSError as error:
            raise ConfigError([_broken("client_ca_file", tls.client_ca_file, error)]) from None
    try:
        if tls.ciphers:
            context.set_ciphers(":".join(tls.ciphers))
        if tls.curve is not None:
            context.set_ecdh_curve(tls.curve)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            [f"tls_server_config: this machine's OpenSSL has none of the ciphers or not the curve: {error}"]
        ) from None
    return context


def _unusable(tls: Tls) -> Iterator[str]:
    """Find what OpenSSL would only call an error: it does not say in which file."""
    wanted = [("cert_file", tls.cert_file, CERTIFICATE), ("key_file", tls.key_file, KEY)]
    if tls.client_ca_file is not None:
        wanted.append(("client_ca_file", tls.client_ca_file, CERTIFICATE))
    for name, path, mark in wanted:
        place = f"tls_server_config.{name}: {path}"
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            yield f"{place}: cannot be read: {error.strerror}; make it readable, or give another path"
            continue
        if mark not in text:
            yield f"{place}: holds no {'key' if mark == KEY else 'certificate'} in PEM; give a file with one"
        elif mark == KEY and "ENCRYPTED" in text:
            yield f"{place}: is encrypted, and nobody is there to type its password; store it decrypted"


def _load_pair(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        context.load_cert_chain(
            str(tls.cert_file), str(tls.key_file), password=""
        )  # nobody is to be asked for one
    except OSError as error:  # ssl.SSLError is one
        if isinstance(error, ssl.SSLError) and error.reason == MISMATCH:
            problem = f"{tls.key_file}: is not the key of the certificate in {tls.cert_file}; give that key"
            raise ConfigError([f"tls_server_config.key_file: {problem}"]) from None
        raise ConfigError([_broken("cert_file", tls.cert_file, error, f" or {tls.key_file}")]) from None


def _broken(name: str, path: Path, error: object, other: str = "") -> str:
    return f"tls_server_config.{name}: {path}{other}: cannot be used: {error}; give a whole PEM file"
