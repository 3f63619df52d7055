"""Web configuration files with certificates of authorities that tests make up."""

import ssl
from pathlib import Path

import bcrypt
import trustme

COST = 4
"""The lowest: a check takes milliseconds."""


def hashed(password: str, cost: int = COST) -> str:
    """A hash as htpasswd writes it."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().replace("$2b$", "$2y$")


class WebFiles:
    """A folder with a certificate of ours, an authority for clients, and a web configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "web.yaml"
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        self.clients.cert_pem.write_to_path(str(folder / "clients.pem"))
        self.issue()

    def issue(self, authority: trustme.CA | None = None) -> None:
        """Write another certificate and its key."""
        issued = (authority or self.authority).issue_cert("127.0.0.1", "localhost")
        (self.folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self.folder / "tls.key"))

    def client(self, name: str, authority: trustme.CA | None = None) -> tuple[Path, Path]:
        """The certificate and key of a client."""
        issued = (authority or self.clients).issue_cert(name)
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key

    def write(self, *, tls: str | None = None, users: dict[str, str] | None = None, more: str = "") -> Path:
        """Write the web configuration: keys of `tls_server_config` beside the pair, passwords of users."""
        lines = [] if tls is None else [f"tls_server_config: {{cert_file: tls.crt, key_file: tls.key{tls}}}"]
        if users is not None:
            lines += ["basic_auth_users:", *(f"  {user}: {hashed(word)}" for user, word in users.items())]
        self.path.write_text("\n".join([*lines, more]) + "\n")
        return self.path

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client believes, and shows."""
        made = ssl.create_default_context(cafile=str(self.folder / "authority.pem"))
        if client is not None:
            made.load_cert_chain(*client)
        return made
