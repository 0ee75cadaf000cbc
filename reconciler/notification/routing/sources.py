"""Sources of the routing configuration: a file, or a key of a ConfigMap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler._core.wire import JSONObject
from reconciler.cache import CacheEvent
from reconciler.errors import ConfigurationError
from reconciler.notification.routing.config import RoutingConfigError
from reconciler.notification.routing.router import RoutingTable

if TYPE_CHECKING:
    from reconciler.cache import Cache

__all__ = ["ConfigMapSource", "FileSource"]

_log = logging.getLogger("reconciler.notification")


class FileSource:
    """A file that is reloaded when its content changes.

    Only the content counts, not the modification time, because a mounted ConfigMap is replaced by a symbolic link.
    While the file is unreadable or invalid, the previous configuration stays in use.

    Args:
        path: the file.
        table: the routing table to load it into.
        interval: seconds between reads. Default 5.
    """

    def __init__(self, path: str | os.PathLike[str], table: RoutingTable, *, interval: float = 5.0) -> None:
        self._path = Path(path)
        self._table = table
        self._interval = interval

    def load(self) -> None:
        """Load the file now. Call it at startup to fail rather than run without routing.

        Raises:
            ConfigurationError: the file cannot be read, or is invalid.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"cannot read the routing configuration {self._path}: {reason}") from error
        self._table.load(text, name=str(self._path), required=self._table.config is None)

    async def run(self) -> None:
        """Reload the file on changes until cancelled; the configuration stays in use."""
        logged = ""
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.load()
                logged = ""
            except RoutingConfigError:
                pass  # logged by the table
            except ConfigurationError as error:
                if str(error) != logged:
                    _log.error("%s; keeping the previous one", error)
                logged = str(error)


class ConfigMapSource:
    """A key of a ConfigMap that is reloaded when it changes.

    If the ConfigMap or the key is deleted, the previous configuration stays in use.

    Args:
        cache: the cache that watches the ConfigMap.
        namespace: namespace of the ConfigMap.
        name: name of the ConfigMap.
        table: the routing table to load it into.
        key: the key to read. Default ``routing.yaml``.
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
        """Return the name for errors and logs."""
        return f"ConfigMap {self._namespace}/{self._name}, key {self._key}"

    async def run(self) -> None:
        """Reload the ConfigMap on changes until cancelled; the configuration stays in use."""
        informer = await self._cache.informer(
            "v1/ConfigMap", namespaces=[self._namespace], field_selector={"metadata.name": self._name}
        )
        registration = informer.add_handler(self._handle)
        try:
            await asyncio.Event().wait()
        finally:
            registration.remove()

    def _handle(self, event: CacheEvent) -> None:
        if event.new is None:
            _log.warning("%s was deleted; keeping the previous routing configuration", self.label)
            return
        document: JSONObject = event.new.decode()
        text = (document.get("data") or {}).get(self._key)
        if not isinstance(text, str):
            _log.warning("%s not found; keeping the previous routing configuration", self.label)
            return
        with contextlib.suppress(RoutingConfigError):  # logged by the table
            self._table.load(text, name=self.label)
