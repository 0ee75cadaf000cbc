"""Follow where a routing configuration comes from: a file, or a key of a ConfigMap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.cache import CacheEvent
from reconciler.errors import ConfigurationError
from reconciler.notification.routing.config import RoutingConfigError
from reconciler.notification.routing.router import RoutingTable

if TYPE_CHECKING:
    from reconciler.cache import Cache

__all__ = ["ConfigMapSource", "FileSource"]

_log = logging.getLogger("reconciler.notification")


class FileSource:
    """Load a file, and load it again when its content changes.

    The content decides, not the time of change: a mounted ConfigMap is exchanged by a symbolic link. A file that cannot
    be read, or used, leaves the configuration in force as it is.

    Args:
        path: the file.
        table: where to load it.
        interval: seconds between two looks. Default 5.
    """

    def __init__(self, path: str | os.PathLike[str], table: RoutingTable, *, interval: float = 5.0) -> None:
        self._path = Path(path)
        self._table = table
        self._interval = interval

    def load(self) -> None:
        """Load the file now, for a start that should fail rather than run without routing.

        Raises:
            ConfigurationError: the file cannot be read, or what it says cannot be used.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"the routing configuration {self._path} cannot be read: {reason}") from error
        self._table.load(text, name=str(self._path))

    async def run(self) -> None:
        """Follow the file until it is cancelled, which leaves the configuration in force."""
        unreadable = ""
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.load()
                unreadable = ""
            except RoutingConfigError:
                pass  # the table has told everybody
            except ConfigurationError as error:
                if str(error) != unreadable:
                    _log.error("%s; the one before stays in force", error)
                unreadable = str(error)


class ConfigMapSource:
    """Load a key of a ConfigMap, and load it again whenever it changes.

    A ConfigMap or key that is deleted leaves the configuration in force as it is.

    Args:
        cache: watches the one object.
        namespace: of the ConfigMap.
        name: of the ConfigMap.
        table: where to load it.
        key: what to read of it. Default ``routing.yaml``.
    """

    def __init__(
        self, cache: Cache, namespace: str, name: str, table: RoutingTable, *, key: str = "routing.yaml"
    ) -> None:
        self._cache = cache
        self._namespace = namespace
        self._name = name
        self._key = key
        self._table = table

    @property
    def label(self) -> str:
        """Return what errors call it."""
        return f"ConfigMap {self._namespace}/{self._name}, key {self._key}"

    async def run(self) -> None:
        """Follow the ConfigMap until it is cancelled, which leaves the configuration in force."""
        informer = await self._cache.informer(
            "v1/ConfigMap", namespaces=[self._namespace], field_selector={"metadata.name": self._name}
        )
        registration = informer.add_handler(self._take)
        try:
            await asyncio.Event().wait()
        finally:
            registration.remove()

    def _take(self, event: CacheEvent) -> None:
        if event.new is None:
            _log.warning("%s is gone; what it said stays in force", self.label)
            return
        document: dict[str, Any] = event.new.decode()
        text = (document.get("data") or {}).get(self._key)
        if not isinstance(text, str):
            _log.warning("%s is missing; what it said before stays in force", self.label)
            return
        with contextlib.suppress(RoutingConfigError):  # the table has told everybody
            self._table.load(text, name=self.label)
