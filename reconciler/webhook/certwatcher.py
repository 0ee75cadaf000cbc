"""A watcher that reloads the webhook server's certificate when its files change."""

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

__all__ = ["CertWatcher"]

_log = logging.getLogger("reconciler.webhook")

INTERVAL = 10.0
"""Seconds between checks of the files; controller-runtime's number."""


class CertWatcher:
    """A TLS context that follows the files ``tls.crt`` and ``tls.key``, as in a Secret of type ``kubernetes.io/tls``.

    New connections use the new certificate; open connections continue. If the files are invalid or only one of them has
    been replaced, the previous certificate stays in use.

    Args:
        directory: the directory with the files.
        client_ca: PEM file of the CAs that must have signed client certificates. Default: clients need no certificate.

    Raises:
        ConfigurationError: a file cannot be loaded.
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
                f"cannot load the webhook certificate (tls.crt, tls.key) in {Path(directory)}: {reason}"
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
            if self.metrics is not None:
                self.metrics.read_errors.inc()
            _log.error("failed to reload the webhook certificate, keeping the previous one: %s", error)

    def _load(self) -> None:
        digest = hashlib.sha256(self._certificate.read_bytes() + b"\0" + self._key.read_bytes()).digest()
        if digest == self._digest:
            return
        if self._digest:
            # Try a separate context first: a failure would leave a certificate and a key of different pairs behind.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)
        if self._digest:
            _log.info("reloaded the webhook certificate")
        self._digest = digest
        if self.metrics is not None:
            self.metrics.reads.inc()
