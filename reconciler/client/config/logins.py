"""The ways of a kubeconfig's user to get credentials: entries of the file, an exec plugin, an identity provider."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from reconciler.client.config.exec_plugin import run_plugin
from reconciler.client.config.expiry import expires_soon
from reconciler.client.config.kubeconfig import Entry
from reconciler.client.transport.redaction import excerpt
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError

__all__ = ["ExecPlugin", "Login", "Plain", "login_of"]

_logger = logging.getLogger("reconciler.client")


class Login(Protocol):
    """Be one way to get credentials.

    Attributes:
        changes: whether credentials can change while none is refused.
    """

    changes: bool

    @property
    def expired(self) -> bool:
        """Return whether the credential has expired, so that requests must wait for a new one."""
        ...

    async def entries(self, *, refused: bool) -> Mapping[str, Any]:
        """Return the user's entries for the loader: tokens and certificates only.

        A cancelled call leaves what was there.

        Args:
            refused: the last ones were refused; whatever their expiry says, they are no good.
        """
        ...

    def close(self) -> None:
        """Remove what was written to disk."""
        ...


def login_of(user: Entry, cluster: Entry) -> Login:
    """Return how a user of a cluster gets credentials."""
    if "exec" in user.value:
        return ExecPlugin(user, cluster)
    provider = user.value.get("auth-provider")
    if isinstance(provider, Mapping) and provider.get("name") == "oidc":
        # It speaks HTTP, and loads aiohttp for that.
        from reconciler.client.config.oidc import OIDC

        return OIDC(user, provider.get("config") or {})
    return Plain(user)


class Plain:
    """Have tokens, passwords and certificates as they stand in the file, or in files that it names.

    Attributes:
        needs_library: there is an authentication provider that `kubernetes_asyncio` alone knows.
    """

    def __init__(self, user: Entry) -> None:
        self._entries = user.value
        files = ("tokenFile", "client-certificate", "client-key", "auth-provider")
        self.changes = any(user.value.get(key) for key in files)
        self.needs_library = bool(user.value.get("auth-provider"))

    @property
    def expired(self) -> bool:
        """Return False: a file says nothing about that."""
        return False

    async def entries(self, *, refused: bool) -> Mapping[str, Any]:  # noqa: ARG002 - the files are read each time
        """Return what the file says; the loader reads the files that it names anew each time."""
        return self._entries

    def close(self) -> None:
        """Do nothing."""


class ExecPlugin:
    """Run a credential plugin, and keep what it gives until it expires or is refused.

    As in client-go, a plugin that names no expiry is run again only when what it gave was refused.
    """

    def __init__(self, user: Entry, cluster: Entry) -> None:
        self.changes = True
        self._user = user
        self._cluster = cluster
        self._given: dict[str, Any] | None = None
        self._expiry: datetime | None = None
        self._files: list[Any] = []

    @property
    def expired(self) -> bool:
        """Return whether the credential is past the plugin's expirationTimestamp."""
        return self._expiry is not None and current_clock().now() >= self._expiry

    async def entries(self, *, refused: bool) -> Mapping[str, Any]:
        """Return the plugin's credential; run the plugin if it has expired. A cancelled call kills it."""
        if self._given is None or refused or expires_soon(self._expiry):
            await self._run()
        return self._given or {}

    async def _run(self) -> None:
        status = await run_plugin(self._user, self._cluster)
        token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
        if not token and not certificate:
            raise ConfigurationError("exec: the plugin gave neither a token nor a client certificate")
        if bool(certificate) != bool(key):
            raise ConfigurationError("exec: the plugin gave a client certificate or its key, but not both")
        expiry = _time(status.get("expirationTimestamp"))
        if expiry is not None and expiry <= current_clock().now():
            _logger.warning("exec: the plugin gave a credential that has expired: check its cache and the clocks")
        given = {"token": token} if token else {}
        if certificate and key:
            given |= self._written(certificate, key)
        self._given, self._expiry = given, expiry

    def _written(self, certificate: str, key: str) -> dict[str, str]:
        """Write both to files, the only form that the ssl module takes; only the owner can read them."""
        files = [tempfile.NamedTemporaryFile(suffix=".pem") for _ in range(2)]  # noqa: SIM115 - closed when replaced
        for file, content in zip(files, (certificate, key), strict=True):
            file.write(content.encode())
            file.flush()
        self.close()
        self._files = files
        return {"client-certificate": files[0].name, "client-key": files[1].name}

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()
        self._files = []


def _time(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        shown = excerpt(str(text))
        raise ConfigurationError(f"exec: the plugin gave an invalid expirationTimestamp: {shown!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
