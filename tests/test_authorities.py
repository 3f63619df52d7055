"""Authorities as clusters have them: some are older than what Python began to ask of certificates in 3.13."""

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_api import NODE, ApiPlayer

from joulemeter.authorities import trusting
from joulemeter.discovery.api_server import ApiServer

DAY = datetime.timedelta(days=1)
PYTHONS = ssl.create_default_context


@pytest.fixture(autouse=True)
def as_in_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(**options: str | None) -> ssl.SSLContext:
        context = PYTHONS(**options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


def certificate(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    """One without key identifiers."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(by, hashes.SHA256())


def old_cluster(folder: Path) -> ssl.SSLContext:
    """Write `ca.crt` and `token` as Kubernetes mounts them; return the API server's context."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    ca = certificate("kubernetes", "kubernetes", authority, authority, is_ca=True)
    leaf = certificate("kube-apiserver", "kubernetes", server, authority, is_ca=False)
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "token").write_text("token-1\n")
    (folder / "server.crt").write_bytes(leaf.public_bytes(pem))
    (folder / "server.key").write_bytes(
        server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


async def test_a_cluster_whose_authority_has_no_key_identifiers_is_believed(tmp_path: Path):
    with ApiPlayer(tls=old_cluster(tmp_path)) as player:
        async with ApiServer(player.url, NODE, tmp_path) as api:
            assert await api.list() == ([], "1000")


def test_all_else_is_checked_as_ever(tmp_path: Path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    context = trusting(tmp_path / "ca.crt")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert trusting(None).verify_flags & ssl.VERIFY_X509_STRICT


def test_a_file_that_holds_no_certificate_is_an_error(tmp_path: Path):
    (tmp_path / "ca.crt").write_text("x")
    with pytest.raises(OSError, match="NO_CERTIFICATE_OR_CRL_FOUND"):
        trusting(tmp_path / "ca.crt")
    with pytest.raises(FileNotFoundError):
        trusting(tmp_path / "none")
