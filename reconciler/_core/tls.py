"""The TLS context of everything that connects to a server."""

from __future__ import annotations

import ssl
from os import PathLike

__all__ = [
    "client_tls_context",
]


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
