"""The ways in which a kubeconfig's user gets credentials: entries of the file, or an exec plugin."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from reconciler.client.config.exec_plugin import run_plugin
from reconciler.client.config.kubeconfig import Entry
from reconciler.client.transport.redaction import excerpt
from reconciler.clock import boottime_of, current_clock
from reconciler.errors import ConfigurationError

__all__ = ["ExecLogin", "FileLogin", "Login", "login_of"]

_logger = logging.getLogger("reconciler.client")

_RENEW_BEFORE = 70.0
"""Seconds before its expiry at which a credential is replaced: a little more than the time between two refreshes."""

_PLUGINS = {
    "oidc": "kubelogin (kubectl oidc-login)",
    "gcp": "gke-gcloud-auth-plugin",
    "azure": "kubelogin for Azure",
}
"""The exec plugins that replaced the auth-providers of early Kubernetes clients."""


_RUN_EVERY = 10.0
"""The shortest time in seconds between runs of a plugin that refused requests cause."""


class Login(Protocol):
    """A way to get credentials.

    Attributes:
        changes: whether credentials can change although none was refused.
        entries: the user's entries with tokens, passwords and certificates, or the files that contain them.
    """

    changes: bool
    entries: Mapping[str, Any]

    @property
    def expired(self) -> bool:
        """Return whether the credentials have expired, so that requests must wait for new ones."""
        ...

    async def renew(self, *, refused: bool) -> None:
        """Get new entries if it is time. A cancelled call leaves the credentials as they were.

        Args:
            refused: the server refused the last ones, so they are invalid whatever their expiry says.
        """
        ...

    def close(self) -> None:
        """Remove what was written to disk."""
        ...


def login_of(user: Entry, cluster: Entry) -> Login:
    """Return the way in which a user of a cluster gets credentials.

    Raises:
        ConfigurationError: it is an auth-provider.
    """
    if "exec" in user.value:
        return ExecLogin(user, cluster)
    provider = user.value.get("auth-provider")
    if provider:
        name = str(provider.get("name") or "")
        plugin = _PLUGINS.get(name)
        hint = f"the exec plugin {plugin}" if plugin else "an exec plugin"
        raise ConfigurationError(
            f"kubeconfig {user.path}: user {user.name!r} has auth-provider {name!r}, which is not supported: configure "
            f"{hint} instead"
        )
    return FileLogin(user)


class FileLogin:
    """Tokens, passwords and certificates in the kubeconfig, or in files that it names."""

    def __init__(self, user: Entry) -> None:
        self.entries = user.value
        self.changes = any(user.value.get(key) for key in ("tokenFile", "client-certificate", "client-key"))

    @property
    def expired(self) -> bool:
        """Always False: files have no expiry."""
        return False

    async def renew(self, *, refused: bool) -> None:
        """Do nothing: the entries stay, and the files that they name are read again each time."""

    def close(self) -> None:
        """Do nothing."""


class ExecLogin:
    """The credentials of an exec plugin, which are kept until they expire or are refused.

    As in client-go, a plugin that names no expiry is run again only when its credentials were refused. An expiry is
    measured from the end of the run in boot time, so a step of the wall clock does not move it.
    """

    def __init__(self, user: Entry, cluster: Entry) -> None:
        self.changes = True
        self._user = user
        self._cluster = cluster
        self.entries: Mapping[str, Any] = {}
        self._refused_at = -math.inf  # when the last run ended that a refused request caused
        self._expires_at = math.inf  # in boot time
        self._files: list[Any] = []

    @property
    def expired(self) -> bool:
        """Return whether the plugin's expirationTimestamp has passed."""
        return boottime_of(current_clock())() >= self._expires_at

    async def renew(self, *, refused: bool) -> None:
        """Run the plugin if its credentials expire soon, or if they were refused. A cancelled call kills it."""
        if not refused:
            if not self.entries or self._expires_soon():
                await self._run()
        elif current_clock().monotonic() - self._refused_at >= _RUN_EVERY:
            try:
                await self._run()
            finally:
                self._refused_at = current_clock().monotonic()

    def _expires_soon(self) -> bool:
        return boottime_of(current_clock())() >= self._expires_at - _RENEW_BEFORE

    async def _run(self) -> None:
        status = await run_plugin(self._user, self._cluster)
        token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
        if not token and not certificate:
            raise ConfigurationError("exec: the plugin gave neither a token nor a client certificate")
        if bool(certificate) != bool(key):
            raise ConfigurationError("exec: the plugin gave a client certificate or its key, but not both")
        clock, expiry = current_clock(), _time(status.get("expirationTimestamp"))
        left = math.inf if expiry is None else (expiry - clock.now()).total_seconds()
        if left <= 0:
            _logger.warning("exec: the plugin gave an expired credential: check its cache and the clocks")
        given = {"token": token} if token else {}
        if certificate and key:
            given |= self._written(certificate, key)
        self.entries, self._expires_at = given, boottime_of(clock)() + left

    def _written(self, certificate: str, key: str) -> dict[str, str]:
        """Write both to files that only the owner can read; the ssl module reads files only."""
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
