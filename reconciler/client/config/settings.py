"""Address, certificates and credentials of a cluster, from a kubeconfig or a pod's service account."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.client.transport.network import proxy_from_environment
from reconciler.client.transport.pool import MAX_REQUESTS
from reconciler.errors import ConfigurationError

__all__ = ["ClusterSettings"]


class ClusterSettings:
    """The settings that a transport reads; see `reconciler.client.transport.transport.Settings`."""

    def __init__(self) -> None:
        self.host = ""
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.connection_pool_maxsize = MAX_REQUESTS
        self.api_key: dict[str, str] = {}
        self._files: dict[str, tuple[bytes, Any]] = {}

    async def get_api_key_with_prefix(self, name: str, /) -> str | None:
        """Return the value of the Authorization header for ``"BearerToken"``, None for none."""
        return self.api_key.get(name)

    def load_kubeconfig(self, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        """Read a cluster and a user of a kubeconfig, whose paths are absolute.

        Raises:
            OSError: a file cannot be read.
            ConfigurationError: the token is empty or not valid in a header, or the proxy is not valid.
        """
        authorization = _authorization(user)  # first: a failure changes nothing
        self.host = str(cluster["server"]).rstrip("/")
        self.ssl_ca_cert = self._file(cluster, "certificate-authority")
        self.cert_file = self._file(user, "client-certificate")
        self.key_file = self._file(user, "client-key")
        self.verify_ssl = not cluster.get("insecure-skip-tls-verify")
        self.tls_server_name = cluster.get("tls-server-name")
        self.proxy = cluster.get("proxy-url") or proxy_from_environment(self.host)
        self.api_key = {"BearerToken": authorization} if authorization else {}

    def load_service_account(self, folder: Path) -> None:
        """Read the service account of a pod.

        Raises:
            ConfigurationError: a file is missing or empty.
        """
        token, authority = folder / "token", folder / "ca.crt"
        for path, what in ((token, "Token"), (authority, "Cert")):
            if not path.is_file():
                raise ConfigurationError(f"{what} file does not exist: {path}")
            if not path.read_bytes().strip():
                raise ConfigurationError(f"{what} file is empty: {path}")
        bearer = read_token(token)
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        self.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.proxy = proxy_from_environment(self.host)
        self.ssl_ca_cert = str(authority)
        self.api_key = {"BearerToken": f"Bearer {bearer}"}

    def close(self) -> None:
        """Remove the files that were written."""
        for _, file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, entry: Mapping[str, Any], key: str) -> str | None:
        """Return the path of a certificate or a key. Inline data is written to a file that only its owner can read.

        The ssl module reads keys from files only.
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


def _authorization(user: Mapping[str, Any]) -> str:
    """Return the Authorization header of a user. A token takes precedence over a password.

    Raises:
        OSError: the token file cannot be read.
        ConfigurationError: the token is empty, or not valid in a header.
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
        OSError: the file cannot be read.
        ConfigurationError: the token is empty, or not valid in a header.
    """
    return checked_token(path.read_bytes().decode(errors="replace"), f"the token file {path}")


def checked_token(text: str, subject: str) -> str:
    """Return a token without the white space around it.

    Raises:
        ConfigurationError: the token is empty, or not valid in a header.
    """
    token = text.strip()
    if not token:
        raise ConfigurationError(f"{subject} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError(f"{subject} contains white space or other characters that are not valid in a token")
    return token
