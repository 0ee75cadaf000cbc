"""Keep credentials fresh: look at them from time to time, and when the server has refused them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

    from reconciler.client.config.settings import OwnSettings

__all__ = ["Credentials", "reason_of"]

_LOOK_EVERY = 60.0
"""Seconds between looks at credentials that can change, as in client-go for token files."""

_RENEW_EVERY = 10.0
"""Seconds between renewals that refused requests can cause at most."""

_LONGEST = 200

_logger = logging.getLogger("reconciler.client")


class Credentials:
    """Keeps the credentials in a configuration fresh.

    They are renewed by tasks of their own. Requests wait for one only if there is nothing valid to send; a request that
    stops waiting, because its time is up or it is cancelled, leaves the task to the others.

    Args:
        configuration: holds them for the transport.
        reload: reads them anew into the configuration; called with whether those that are there were refused.
        scheduled: whether they can change while nothing is refused.
        expired: says whether those that are there have expired.

    Attributes:
        certificates: what connections are made with, certificate authority included; other ones need new connections.
    """

    def __init__(
        self,
        configuration: Configuration | OwnSettings,
        reload: Callable[[bool], Awaitable[None]],
        *,
        scheduled: bool,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        self._configuration: Any = configuration
        self._reload = reload
        self._scheduled = scheduled
        self._expired = expired
        self._lock = asyncio.Lock()
        self._tasks: dict[bool, asyncio.Task[None]] = {}  # by whether the credentials were refused
        self._looked = current_clock().monotonic()
        self._renewed: float | None = None
        self._changed = False
        self.certificates = self._read_certificates()

    @property
    def is_due(self) -> bool:
        """Say whether it is time to `look`."""
        return self._scheduled and current_clock().monotonic() - self._looked >= _LOOK_EVERY

    async def look(self) -> None:
        """Start to renew the credentials if it is time; wait for the end if the current ones have expired.

        They stay if it fails. A cancelled call leaves the reading to go on.
        """
        if self.is_due:
            task = self._task(refused=False)
            await asyncio.sleep(0)  # reading files is done by then
            if self._expired():
                await asyncio.shield(task)

    async def renew(self) -> bool:
        """Read the credentials anew because they were refused; say whether they are others now.

        Of many requests that are refused at once, one renews and all hear of it. A cancelled call leaves the reading to
        go on.
        """
        await asyncio.shield(self._task(refused=True))
        return self._changed

    async def close(self) -> None:
        """Stop reading: a plugin that runs is killed."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, *, refused: bool) -> asyncio.Task[None]:
        task = self._tasks.get(refused)
        if task is None or task.done():
            task = self._tasks[refused] = asyncio.create_task(self._renew() if refused else self._look())
        return task

    async def _look(self) -> None:
        async with self._lock:
            if self.is_due:
                await self._read(refused=False)
                self._looked = current_clock().monotonic()

    async def _renew(self) -> None:
        async with self._lock:
            now = current_clock().monotonic()
            if self._renewed is None or now - self._renewed >= _RENEW_EVERY:
                before = (dict(self._configuration.api_key), self.certificates)
                await self._read(refused=True)
                self._changed = (self._configuration.api_key, self.certificates) != before
                self._renewed = current_clock().monotonic()

    async def _read(self, *, refused: bool) -> None:
        try:
            await self._reload(refused)
            self.certificates = self._read_certificates()
        except Exception as error:  # noqa: BLE001 - foreign code: plugins, files, identity providers
            _logger.warning("the credentials could not be renewed: %s", reason_of(error))

    def _read_certificates(self) -> tuple[bytes, ...]:
        """Return the contents, since files are rotated in place. They hold no more than three small files."""
        configuration = self._configuration
        paths = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        return tuple(Path(path).read_bytes() if path else b"" for path in paths)


def reason_of(error: Exception) -> str:
    """Say in one line, without secrets, why a configuration could not be loaded.

    The texts of `kubernetes_asyncio` quote whole entries of the file, except for those about plugins.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error)
    if isinstance(error, ConfigurationError) or text.startswith(("exec:", "Service ", "Cert file", "Token file")):
        return " ".join(text.split())[:_LONGEST]
    return type(error).__name__
