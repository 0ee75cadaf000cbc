"""Load a certificate and its key, and load them again when they are exchanged."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import ConfigurationError

if TYPE_CHECKING:
    from reconciler.webhook.metrics import WebhookMetrics

__all__ = ["Certificates"]

_log = logging.getLogger("reconciler.webhook")

LOOK_AGAIN = 10.0
"""Seconds between two looks at the files; controller-runtime's number."""


class Certificates:
    """Hold a TLS context whose certificate follows its files: ``tls.crt`` and ``tls.key``, as in a Secret of that type.

    New connections get the new certificate; connections that are open go on. While the files are half exchanged, or
    wrong, the certificate before stays.

    Args:
        directory: where the files are.
        client_ca: PEM file of the authorities that clients must be certified by. Default: clients need no certificate.

    Raises:
        ConfigurationError: they cannot be loaded.
    """

    def __init__(self, directory: str | os.PathLike[str], *, client_ca: str | os.PathLike[str] | None = None) -> None:
        self._certificate, self._key = Path(directory) / "tls.crt", Path(directory) / "tls.key"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._digest = b""
        self.metrics: WebhookMetrics | None = None
        try:
            if client_ca is not None:
                self.context.load_verify_locations(cafile=client_ca)
                self.context.verify_mode = ssl.CERT_REQUIRED
            self._load()
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"the webhook certificate in {Path(directory)} cannot be used (tls.crt, tls.key): {reason}"
            ) from error

    async def follow(self) -> None:
        """Look at the files again and again until it is cancelled, which leaves the certificate as it is."""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            self.refresh()

    def refresh(self) -> None:
        """Load the files if they have changed; what is wrong is logged, once for each state of the files."""
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:
            if self.metrics is not None:
                self.metrics.read_errors.inc()
            _log.error("the webhook certificate cannot be exchanged, the one before stays: %s", error)

    def _load(self) -> None:
        digest = hashlib.sha256(self._certificate.read_bytes() + b"\0" + self._key.read_bytes()).digest()
        if digest == self._digest:
            return
        if self._digest:
            # Tried on a context of its own first: a failure would leave certificate and key of different pairs behind.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)
        if self._digest:
            _log.info("the webhook certificate was exchanged")
        self._digest = digest
        if self.metrics is not None:
            self.metrics.reads.inc()
