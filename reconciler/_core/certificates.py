"""TLS contexts of clients, and of servers: from files that are reloaded when they change, or self-signed."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import os
import ssl
import tempfile
from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from pathlib import Path

from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError, importing


def client_tls_context(
    cafile: str | PathLike[str] | None = None, *, cadata: str | None = None, verify: bool = True
) -> ssl.SSLContext:
    """Return a TLS context that accepts the certificates that Go programs such as kubectl accept.

    Args:
        cafile: PEM file of the authorities to trust, or of the certificate of the server itself. Default: the system's,
            unless `cadata` is given.
        cadata: the same as a string.
        verify: whether to verify the server's certificate and name. Default True.

    Raises:
        OSError, ssl.SSLError, ValueError: the authorities cannot be read.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # As in Go, and the same in every version of Python: 3.13 made both flags the default. Private authorities, as those
    # of clusters, often lack the extensions that the strict check demands.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


_log = logging.getLogger("reconciler.http")

INTERVAL = 10.0
"""Seconds between checks of the files; controller-runtime's number."""

_SELF_SIGNED_DAYS = 3650
"""Longer than any process runs: the certificate is made anew at every start."""


class CertWatcher:
    """A TLS context that follows the files ``tls.crt`` and ``tls.key``, as in a Secret of type ``kubernetes.io/tls``.

    New connections use the new certificate; open connections continue. If the files are invalid or only one of them has
    been replaced, the previous certificate stays in use.

    Args:
        directory: the directory with the files.
        purpose: what the certificate is for, as an adjective in messages: ``"webhook"``.
        client_ca: PEM file of the CAs that must have signed client certificates. Default: clients need no certificate.

    Attributes:
        context: the TLS context of the server.
        on_read: called after each changed certificate was read, with whether it is valid.

    Raises:
        ConfigurationError: a file cannot be loaded.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        purpose: str,
        client_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        self._certificate, self._key = Path(directory) / "tls.crt", Path(directory) / "tls.key"
        self._purpose = purpose
        self.context = _server_context()
        self._digest = b""
        self.on_read: Callable[[bool], object] = lambda _: None
        try:
            if client_ca is not None:
                self.context.load_verify_locations(cafile=client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
            self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"cannot load the {purpose} certificate (tls.crt, tls.key) in {Path(directory)}: {_reason(error)}"
            ) from error

    async def follow(self) -> None:
        """Check the files periodically until cancelled. Cancellation leaves the certificate unchanged."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.refresh()

    def refresh(self) -> None:
        """Load the files if they have changed; log an error if they are invalid."""
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            self.on_read(False)
            _log.error(
                "failed to reload the %s certificate, keeping the previous one: %s", self._purpose, _reason(error)
            )

    def _load(self) -> None:
        digest = hashlib.sha256(self._certificate.read_bytes() + b"\0" + self._key.read_bytes()).digest()
        if digest == self._digest:
            return
        if self._digest:
            # Try a separate context first: a failure would leave a certificate and a key of different pairs behind.
            _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificate, self._key)
        _load_chain(self.context, self._certificate, self._key)
        if self._digest:
            _log.info("reloaded the %s certificate", self._purpose)
        self._digest = digest
        self.on_read(True)


def self_signed_context(purpose: str) -> ssl.SSLContext:
    """Return a TLS context with a new self-signed certificate for this machine; its key is never stored.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtra: the package ``cryptography`` is not installed.
    """
    with importing(extra="tls", purpose=purpose):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    now = current_clock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # for clients whose clock is behind
        .not_valid_after(now + timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)  # a client may trust it
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = _server_context()
    # Python loads keys from files only: one in memory if possible, since a container's disk may be read-only.
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("tls"), "wb") if in_memory else tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}" if in_memory else file.name)
    return context


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    detail = f": {error.reason}" if error.reason else ""
    return f"a file is not a certificate, or a key without a password, in PEM{detail}"


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    # An empty password: OpenSSL would otherwise ask for that of an encrypted key on the terminal.
    context.load_cert_chain(certificate, key, password="")
