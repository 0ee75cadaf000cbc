"""Server certificates that kubectl accepts, and that Python's default settings refuse, depending on its version."""

from __future__ import annotations

import datetime as dt
import ssl
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from reconciler.http import HTTPRequest
from tests.client.test_sockets import ok, serving, transport_to


async def test_an_authority_without_the_extensions_of_the_strict_check(tmp_path: Path) -> None:
    authority, key = _certificate("authority", x509.BasicConstraints(ca=True, path_length=None))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate, own_key = _certificate("server", address, issuer="authority", signed_with=key)
    private = own_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    (tmp_path / "ca.crt").write_bytes(authority.public_bytes(Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    assert await _status(tls, tmp_path / "ca.crt") == 200


async def test_a_file_with_the_certificate_of_the_server_itself(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(tls)
    (tmp_path / "ca.crt").write_bytes(issued.cert_chain_pems[0].bytes())
    assert await _status(tls, tmp_path / "ca.crt") == 200


def _certificate(
    name: str,
    extension: x509.ExtensionType,
    *,
    issuer: str | None = None,
    signed_with: ec.EllipticCurvePrivateKey | None = None,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate with one extension only, and its key; self-signed by default."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(
        issuer_name=_named(issuer or name),
        subject_name=_named(name),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(hours=1),
        not_valid_after=now + dt.timedelta(hours=1),
    )
    return built.add_extension(extension, critical=False).sign(signed_with or key, hashes.SHA256()), key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


async def _status(tls: ssl.SSLContext, authorities: Path) -> int:
    async with (
        serving(ok, tls) as server,
        transport_to(server.port, scheme="https", ssl_ca_cert=str(authorities)) as transport,
    ):
        return (await transport.send(HTTPRequest("GET", "/x"))).status
