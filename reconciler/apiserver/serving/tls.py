"""The certificates of a server that serves over TLS."""

from __future__ import annotations

import base64
import ssl

from reconciler.errors import MissingExtra
from reconciler.wire import JSONObject

__all__ = ["Certificates"]


class Certificates:
    """New certificates, signed by a CA whose key is dropped: one of the server, and one of its admin.

    Attributes:
        context: the TLS context of the server; clients may present the certificate of the admin.
        cluster: the members of a kubeconfig's cluster.
        user: the members of a kubeconfig's user.

    Raises:
        MissingExtra: the extra ``develop`` is not installed.
    """

    def __init__(self) -> None:
        try:
            import trustme
        except ModuleNotFoundError as error:
            raise MissingExtra("trustme", extra="develop", purpose="the embedded API server over TLS") from error
        authority = trustme.CA()
        admin = authority.issue_cert(common_name="kubernetes-admin", organization_name="system:masters")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        authority.issue_cert("127.0.0.1", "::1", "localhost").configure_cert(self.context)
        authority.configure_trust(self.context)
        self.cluster: JSONObject = {"certificate-authority-data": _data(authority.cert_pem.bytes())}
        self.user: JSONObject = {
            "client-certificate-data": _data(admin.cert_chain_pems[0].bytes()),
            "client-key-data": _data(admin.private_key_pem.bytes()),
        }


def _data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
