"""Renewal of credentials: at intervals, and when the server has refused them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from reconciler.client.config.settings import ClusterSettings
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError

__all__ = ["Credentials", "reason_of"]

_REFRESH_EVERY = 60.0
"""Seconds between refreshes of credentials that can change, as in client-go for token files."""

_RENEW_EVERY = 10.0
"""The shortest time in seconds between renewals that refused requests cause."""

_LONGEST = 200

_logger = logging.getLogger("reconciler.client")


class Credentials:
    """The renewal of the credentials in settings.

    Tasks of their own renew them. A request waits for one only if the current credentials have expired. A request that
    stops waiting, because its time is up or it is cancelled, leaves the task to the others.

    Args:
        settings: contain the credentials.
        reload: reads them again into the settings; called with whether the server refused the current ones.
        scheduled: whether they can change although none was refused.
        expired: returns whether the current ones have expired.

    Attributes:
        certificates: the certificates and the certificate authority of connections. When they change, new connections
            are needed.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        reload: Callable[[bool], Awaitable[None]],
        *,
        scheduled: bool,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._scheduled = scheduled
        self._expired = expired
        self._lock = asyncio.Lock()
        self._tasks: dict[bool, asyncio.Task[None]] = {}  # by whether the credentials were refused
        self._refreshed = current_clock().monotonic()
        self._renewed: float | None = None
        self._changed = False
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
            if self._expired():
                await asyncio.shield(task)

    async def renew(self) -> bool:
        """Read the credentials again because the server refused them, and return whether they changed.

        If many requests are refused at once, one renewal serves all. After cancellation, the task goes on.
        """
        await asyncio.shield(self._task(refused=True))
        return self._changed

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
            now = current_clock().monotonic()
            if self._renewed is None or now - self._renewed >= _RENEW_EVERY:
                before = (dict(self._settings.api_key), self.certificates)
                await self._read(refused=True)
                self._changed = (self._settings.api_key, self.certificates) != before
                self._renewed = current_clock().monotonic()

    async def _read(self, *, refused: bool) -> None:
        try:
            await self._reload(refused)
            self.certificates = self._read_certificates()
        except Exception as error:  # noqa: BLE001 - foreign code: plugins, files
            _logger.warning("the credentials could not be renewed: %s", reason_of(error))

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
