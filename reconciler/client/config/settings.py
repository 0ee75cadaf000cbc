"""Read what a kubeconfig or a pod says about address, certificates and credentials, without a generated client.

The attributes have the names of ``kubernetes_asyncio.client.Configuration``, which stands in for `OwnSettings` where
that library is needed: for its authentication plugins, and behind a proxy. Loading it costs 50 MB and a third of a
second, so it is loaded there only.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reconciler.client.transport.network import proxy_of_environment
from reconciler.client.transport.pool import CONNECTIONS
from reconciler.errors import ConfigurationError

__all__ = ["OwnSettings"]


class OwnSettings:
    """Hold address, certificates and credentials; see `reconciler.client.transport.transport.Settings`."""

    def __init__(self) -> None:
        self.host = ""
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.connection_pool_maxsize = CONNECTIONS
        self.api_key: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, Any]] = {}

    async def get_api_key_with_prefix(self, name: str, /) -> str | None:
        """Return the value of the Authorization header for ``"BearerToken"``, None for none."""
        return self.api_key.get(name)

    def take_kubeconfig(self, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        """Take over a cluster and a user of a kubeconfig, whose paths are absolute.

        Raises:
            OSError: a file cannot be read.
            ConfigurationError: the token is empty, or cannot stand in a header; or a proxy is not valid.
        """
        authorization = _authorization(user)  # first: what fails changes nothing
        self.host = str(cluster["server"]).rstrip("/")
        self.ssl_ca_cert = self._file(cluster, "certificate-authority")
        self.cert_file = self._file(user, "client-certificate")
        self.key_file = self._file(user, "client-key")
        self.verify_ssl = not cluster.get("insecure-skip-tls-verify")
        self.tls_server_name = cluster.get("tls-server-name")
        self.proxy = cluster.get("proxy-url") or _proxy_before(self.host)
        self.api_key = {"BearerToken": authorization} if authorization else {}

    def take_service_account(self, folder: Path) -> None:
        """Take over what a pod is given.

        Raises:
            ConfigurationError: a file is empty, or not there.
        """
        token, authority = folder / "token", folder / "ca.crt"
        for path, what in ((token, "Token"), (authority, "Cert")):
            if not path.is_file():
                raise ConfigurationError(f"{what} file does not exist: {path}")
            if not path.read_bytes().strip():
                raise ConfigurationError(f"{what} file exists but empty.")
        bearer = read_token(token)
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        self.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.proxy = _proxy_before(self.host)
        self.ssl_ca_cert = str(authority)
        self.api_key = {"BearerToken": f"Bearer {bearer}"}

    def close(self) -> None:
        """Remove the files that were written."""
        for _, file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, entry: Mapping[str, Any], key: str) -> str | None:
        """Return the path of a certificate or a key; one that stands in the text itself is written to a file.

        The ssl module takes keys from files only. Nobody but the owner can read them.
        """
        data = entry.get(f"{key}-data")
        if not data:
            return entry.get(key) or None
        content = base64.b64decode(str(data))
        known, file = self._files.get(key, (b"", None))
        if file is None or known != content:
            if file is not None:
                file.close()
            file = tempfile.NamedTemporaryFile(suffix=".pem")  # noqa: SIM115 - closed with the client
            file.write(content)
            file.flush()
            self._files[key] = (content, file)
        return str(file.name)


def _proxy_before(address: str) -> str | None:
    parts = urlsplit(address)
    return proxy_of_environment(parts.scheme, parts.hostname or "")


def _authorization(user: Mapping[str, Any]) -> str:
    """Return the Authorization header of a user: a token counts more than a password.

    Raises:
        OSError: the token file cannot be read.
        ConfigurationError: the token is empty, or cannot stand in a header.
    """
    token = user.get("token")
    if user.get("tokenFile"):
        token = read_token(Path(user["tokenFile"]))
    if token:
        return f"Bearer {checked_token(token, 'the token')}"
    if user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return ""


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        OSError: it cannot be read.
        ConfigurationError: it is empty, or cannot stand in a header.
    """
    return checked_token(path.read_bytes().decode(errors="replace"), f"the token file {path}")


def checked_token(text: str, subject: str) -> str:
    """Return a token without the white space around it.

    Raises:
        ConfigurationError: it is empty, or cannot stand in a header.
    """
    token = text.strip()
    if not token:
        raise ConfigurationError(f"{subject} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError(f"{subject} holds white space or other characters that a token cannot")
    return token
