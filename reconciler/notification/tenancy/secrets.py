"""Credentials of namespaces, from labelled Secrets."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import TYPE_CHECKING

from reconciler.cache import CachedObject, CacheEvent
from reconciler.notification.credentials import NAMESPACE_SIZE, NAMESPACE_VALUES, Credentials

if TYPE_CHECKING:
    from reconciler.cache import Cache

__all__ = ["LABEL", "SecretSource"]

LABEL = "notify.reconciler.dev/credentials"
"""The label, with the value ``"true"``, of Secrets whose keys are credentials of their namespace."""

SECRETS = 20
"""Maximum Secrets of a namespace that are read; the first ones by name."""

_log = logging.getLogger("reconciler.notification")


class SecretSource:
    """The labelled Secrets, watched on every replica. Each key is a credential of the Secret's namespace.

    If several Secrets of a namespace have a key, the one of the first Secret by name counts. A namespace has a budget
    of Secrets, and of credentials in them; what exceeds it is left out, with a warning.

    Args:
        cache: the cache that watches them.
        credentials: the credentials to keep up to date. They are incomplete until all Secrets are listed; until then a
            delivery that needs a missing one is deferred, which uses no attempt.
    """

    def __init__(self, cache: Cache, credentials: Credentials) -> None:
        self._cache = cache
        self._credentials = credentials
        credentials.has_namespaces = False
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._exceeding: set[str] = set()

    async def run(self) -> None:
        """Watch the Secrets until cancelled; the latest values stay in use."""
        informer = await self._cache.informer("v1/Secret", label_selector={LABEL: "true"})
        registration = informer.add_handler(self._handle)
        try:
            await registration.wait_synced()
            while True:
                self._wake.clear()
                while self._changed:
                    namespace, _ = self._changed.popitem()
                    self._read(namespace, informer.store.list(namespace))
                    await asyncio.sleep(0)
                self._credentials.has_namespaces = True
                await self._wake.wait()
        finally:
            registration.remove()

    def _handle(self, event: CacheEvent) -> None:
        """Note which namespace must be read, so that many changes of it cost as much as one."""
        self._changed[event.object.namespace or ""] = None
        self._wake.set()

    def _read(self, namespace: str, found: Sequence[CachedObject]) -> None:
        merged: dict[str, str] = {}
        for each in reversed(nsmallest(SECRETS, found, key=attrgetter("name"))):
            merged.update(_decoded(each.decode().get("data") or {}))
        if self._credentials.set_namespace(namespace, merged) and len(found) <= SECRETS:
            self._exceeding.discard(namespace)
        elif namespace not in self._exceeding:
            self._exceeding.add(namespace)
            _log.warning(
                "namespace %s exceeds %d Secrets, or %d credentials or %d characters in them; the others are not used",
                *(namespace, SECRETS, NAMESPACE_VALUES, NAMESPACE_SIZE),
            )


def _decoded(data: dict[str, str]) -> dict[str, str]:
    """Return the values of a Secret that are text."""
    found: dict[str, str] = {}
    for name, value in data.items():
        try:
            found[name] = base64.b64decode(value, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found
