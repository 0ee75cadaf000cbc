"""Renewal of credentials: at intervals, and when a request was refused or got no response."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path

from reconciler.client.config.logins import Login
from reconciler.client.config.settings import ClusterSettings
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError

__all__ = ["Credentials", "reason_of"]

_REFRESH_EVERY = 60.0
"""Seconds between refreshes of credentials that can change, as in client-go for token files."""

_IN_FLIGHT = 65.0
"""Seconds after a change of the credentials in which a request may be refused that was sent before it."""

_LONGEST = 200

_logger = logging.getLogger("reconciler.client")


class Credentials:
    """The renewal of the credentials in settings.

    Tasks of their own renew them. A request waits for one only if the current credentials have expired. A request that
    stops waiting, because its time is up or it is cancelled, leaves the task to the others.

    Args:
        settings: contain the credentials.
        load: reads the files again, and the entries of the login, into the settings.
        scheduled: whether they can change although none was refused.
        login: gets credentials that are not in files. Default: none are needed.

    Attributes:
        certificates: the certificates and the certificate authority of connections. When they change, new connections
            are needed.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        load: Callable[[], None],
        *,
        scheduled: bool,
        login: Login | None = None,
    ) -> None:
        self._settings = settings
        self._load = load
        self._scheduled = scheduled
        self._login = login
        self._lock = asyncio.Lock()
        self._tasks: dict[bool, asyncio.Task[None]] = {}  # by whether the credentials were refused
        self._refreshed = current_clock().monotonic()
        self._changed_at = -math.inf
        self._failure = ""
        self.certificates = self._read_certificates()

    @property
    def is_due(self) -> bool:
        """Return whether it is time to `refresh`."""
        return self._scheduled and current_clock().monotonic() - self._refreshed >= _REFRESH_EVERY

    async def refresh(self) -> None:
        """Start to refresh the credentials if it is time, and wait for the end if the current ones have expired.

        If that fails, they stay as they are. After cancellation, the task goes on.
        """
        if self.is_due:
            task = self._task(refused=False)
            await asyncio.sleep(0)  # enough to read files
            if self._login is not None and self._login.expired:
                await asyncio.shield(task)

    async def renew(self) -> bool:
        """Read the credentials again because the server refused them, and return whether a request may use others now.

        If many requests are refused at once, one renewal serves all. After cancellation, the task goes on.
        """
        await asyncio.shield(self._task(refused=True))
        return current_clock().monotonic() - self._changed_at < _IN_FLIGHT

    def read_files(self) -> bool:
        """Read the files again, and return whether they changed. If that fails, the credentials stay as they are."""
        before = (dict(self._settings.api_key), self.certificates)
        try:
            self._load()
            self.certificates = self._read_certificates()
        except Exception as error:  # noqa: BLE001 - files have any content
            self._log(error)
        else:
            self._failure = ""
        changed = (self._settings.api_key, self.certificates) != before
        if changed:
            self._changed_at = current_clock().monotonic()
        return changed

    async def close(self) -> None:
        """Stop all tasks and kill running plugins. A cancelled call leaves that to the event loop."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, *, refused: bool) -> asyncio.Task[None]:
        task = self._tasks.get(refused)
        if task is None or task.done():
            task = self._tasks[refused] = asyncio.create_task(self._renew() if refused else self._refresh())
        return task

    async def _refresh(self) -> None:
        async with self._lock:
            if self.is_due:
                await self._read(refused=False)
                self._refreshed = current_clock().monotonic()

    async def _renew(self) -> None:
        async with self._lock:
            await self._read(refused=True)

    async def _read(self, *, refused: bool) -> None:
        try:
            if self._login is not None:
                await self._login.renew(refused=refused)
        except Exception as error:  # noqa: BLE001 - foreign code: plugins
            self._log(error)
        else:
            self.read_files()

    def _log(self, error: Exception) -> None:
        """Log a failure; once while it repeats, since files are read for each request that fails."""
        reason = reason_of(error)
        if reason != self._failure:
            _logger.warning("the credentials could not be renewed: %s", reason)
        self._failure = reason

    def _read_certificates(self) -> tuple[bytes, ...]:
        """Return the contents, since the files are rotated in place."""
        paths = (self._settings.ssl_ca_cert, self._settings.cert_file, self._settings.key_file)
        return tuple(Path(path).read_bytes() if path else b"" for path in paths)


def reason_of(error: Exception) -> str:
    """Return why a configuration could not be loaded, in one line and without secrets."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ConfigurationError):
        return " ".join(str(error).split())[:_LONGEST]
    return type(error).__name__
