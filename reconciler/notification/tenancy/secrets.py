"""Credentials of namespaces, from labelled Secrets."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING

from reconciler.cache import CacheEvent
from reconciler.notification.credentials import Credentials

if TYPE_CHECKING:
    from reconciler.cache import Cache

__all__ = ["LABEL", "SecretSource"]

LABEL = "notify.reconciler.dev/credentials"
"""The label, with the value ``"true"``, of Secrets whose keys are credentials of their namespace."""


class SecretSource:
    """The labelled Secrets, watched on every replica. Each key is a credential of the Secret's namespace.

    If several Secrets of a namespace have a key, the one of the first Secret by name counts.

    Args:
        cache: the cache that watches them.
        credentials: the credentials to keep up to date. They are incomplete until all Secrets are listed; until then a
            delivery that needs a missing one is deferred, which uses no attempt.
    """

    def __init__(self, cache: Cache, credentials: Credentials) -> None:
        self._cache = cache
        self._credentials = credentials
        credentials.has_namespaces = False
        self._secrets: dict[str, dict[str, dict[str, str]]] = {}

    async def run(self) -> None:
        """Watch the Secrets until cancelled; the latest values stay in use."""
        informer = await self._cache.informer("v1/Secret", label_selector={LABEL: "true"})
        registration = informer.add_handler(self._handle)
        try:
            await registration.wait_synced()
            self._credentials.has_namespaces = True
            await asyncio.Event().wait()
        finally:
            registration.remove()

    def _handle(self, event: CacheEvent) -> None:
        name, namespace = event.object.name, event.object.namespace or ""
        secrets = self._secrets.setdefault(namespace, {})
        secrets.pop(name, None)
        if event.new is not None:
            secrets[name] = _decoded(event.new.decode().get("data") or {})
        merged: dict[str, str] = {}
        for each in sorted(secrets, reverse=True):
            merged.update(secrets[each])
        if not secrets:
            del self._secrets[namespace]
        self._credentials.set_namespace(namespace, merged)


def _decoded(data: dict[str, str]) -> dict[str, str]:
    """Return the values of a Secret that are text."""
    found: dict[str, str] = {}
    for name, value in data.items():
        try:
            found[name] = base64.b64decode(value, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found
