"""The certificate of a server that serves over TLS."""

from __future__ import annotations

import base64
import ssl

from reconciler.errors import MissingExtra

__all__ = ["serving_certificate"]


def serving_certificate() -> tuple[ssl.SSLContext, str]:
    """Return a TLS context with a new certificate for loopback addresses, and its CA as it stands in a kubeconfig.

    Raises:
        MissingExtra: the extra ``develop`` is not installed.
    """
    try:
        import trustme
    except ModuleNotFoundError as error:
        raise MissingExtra("trustme", extra="develop", purpose="the embedded API server over TLS") from error
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "::1", "localhost").configure_cert(context)
    return context, base64.b64encode(authority.cert_pem.bytes()).decode()
