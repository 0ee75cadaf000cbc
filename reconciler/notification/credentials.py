"""Credentials from the files of a directory, read at each use so that a rotation needs no restart, and from Secrets."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import nsmallest
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler._core.lru import LRU
from reconciler.cache import CachedObject, CacheEvent
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError
from reconciler.notification.channel import DeferredDeliveryError, RetryableDeliveryError

if TYPE_CHECKING:
    from reconciler.cache import Cache

_log = logging.getLogger("reconciler.notification")

SIZE_LIMIT = 65_536
"""Maximum bytes of a credential; longer files are ignored."""

VALUE_LIMIT = 10_000
"""Maximum values that are remembered for redaction; the least recently read are dropped first."""

NAMESPACE_VALUES = 100
"""Maximum credentials of a namespace, and half the values of it that are remembered for redaction."""

NAMESPACE_SIZE = 65_536
"""Maximum characters of the credentials of a namespace together, and half those that are remembered for redaction."""

NAMESPACE_LIMIT = 1_000
"""Maximum namespaces without credentials whose earlier ones are remembered for redaction."""

NOT_LISTED_RETRY = 5.0
"""Seconds until a delivery is tried again that needs a credential of a namespace before these are complete."""

REFRESH_INTERVAL = 5.0
"""Seconds between reads of all files for redaction."""


class _Values:
    """Values for redaction within a budget: the least recently used are dropped first. Thread-safe.

    Args:
        count: the most values.
        size: the most characters of all values together.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._found: OrderedDict[str, None] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Use values."""
        with self._lock:
            for value in values:
                if value not in self._found:
                    self._total += len(value)
                self._found[value] = None
                self._found.move_to_end(value)
            while len(self._found) > self._count or self._total > self._size:
                self._total -= len(self._found.popitem(last=False)[0])

    def all(self) -> tuple[str, ...]:
        """Return the values."""
        with self._lock:
            return tuple(self._found)


class Credentials:
    """The credentials in a directory: each file is a credential, with its content stripped of surrounding whitespace.

    A mounted Secret has this form. Hidden files and directories are ignored. While a file is unreadable, its last value
    is used. `values` returns all values that were ever read, so that rotated ones are still redacted. Namespaces have
    credentials of their own, which hold for nothing but their texts and receivers.

    Args:
        directory: the directory; None for no credentials.

    Attributes:
        has_namespaces: whether the credentials of namespaces are complete. While they are not, a missing one defers
            the delivery. Default True.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.has_namespaces = True
        self._directory = Path(directory) if directory is not None else None
        self._last: dict[str, str] = {}
        self._values = _Values(VALUE_LIMIT, VALUE_LIMIT * SIZE_LIMIT)
        self._refreshed = float("-inf")
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._values_of: dict[str, _Values] = {}
        self._values_of_former: LRU[str, _Values] = LRU(NAMESPACE_LIMIT)

    def set_namespace(self, namespace: str, values: Mapping[str, str]) -> bool:
        """Replace the credentials of a namespace by name; return whether all of them are within its budget.

        The others are left out, the last by name first.
        """
        kept: dict[str, str] = {}
        size = 0
        for name in sorted(values)[:NAMESPACE_VALUES]:
            size += len(values[name])
            if size > NAMESPACE_SIZE:
                break
            kept[name] = values[name]
        known = self._values_of.pop(namespace, None) or self._values_of_former.pop(namespace, None)
        known = known or _Values(2 * NAMESPACE_VALUES, 2 * NAMESPACE_SIZE)
        known.add(each for each in kept.values() if each)
        self._namespaces.pop(namespace, None)
        if kept:
            self._namespaces[namespace], self._values_of[namespace] = kept, known
        else:
            self._values_of_former[namespace] = known
        return len(kept) == len(values)

    def of_namespace(self, namespace: str) -> Credentials:
        """Return a view of the credentials of a namespace only, always up to date."""
        return _NamespaceCredentials(self, namespace)

    def __repr__(self) -> str:
        return f"Credentials({str(self._directory)!r})"

    def check(self) -> None:
        """Check that the directory can be read, to fail at startup rather than later.

        Raises:
            ConfigurationError: the directory cannot be read.
        """
        if self._directory is None:
            return
        try:
            next(self._directory.iterdir(), None)
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the credentials directory {self._directory}: {error.strerror}"
            ) from error

    def missing(self, names: Iterable[str]) -> Sequence[str]:
        """Return an error message for each of these names without a value."""
        return [self._not_found(name) for name in dict.fromkeys(names) if self._read(name) is None]

    def get(self, name: str) -> str:
        """Return the current value of a credential.

        Raises:
            RetryableDeliveryError: the credential does not exist; it may be added later.
        """
        value = self._read(name)
        if value is None:
            raise RetryableDeliveryError(self._not_found(name))
        return value

    def values(self) -> Collection[str]:
        """Return all values that were ever read, for redaction."""
        if self._directory is not None and (now := current_clock().monotonic()) - self._refreshed >= REFRESH_INTERVAL:
            self._refreshed = now
            for name in self._names():
                self._read(name)
        return self._values.all()

    def values_of_namespace(self, namespace: str) -> Collection[str]:
        """Return the values of a namespace's own credentials, also earlier ones, for redaction."""
        known = self._values_of.get(namespace) or self._values_of_former.get(namespace)
        return known.all() if known is not None else ()

    def _names(self) -> list[str]:
        try:
            return [each.name for each in self._directory.iterdir()] if self._directory is not None else []
        except OSError:
            return list(self._last)

    def _read(self, name: str) -> str | None:
        if self._directory is None or not name or name.startswith(".") or os.sep in name:
            return None
        file = self._directory / name
        try:
            if file.is_dir() or file.stat().st_size > SIZE_LIMIT:
                return None
            value = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self._last.pop(name, None)
            return None
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("cannot read credential %s, using its last value: %s", name, type(error).__name__)
            return self._last.get(name)
        if not value:
            return None
        self._last[name] = value
        self._values.add([value])
        return value

    def _read_of_namespace(self, namespace: str, name: str) -> str | None:
        return self._namespaces.get(namespace, {}).get(name) or None

    def _not_found(self, name: str) -> str:
        why = f"in {self._directory}" if self._directory is not None else "because no credentials directory is set"
        return f"credential {name!r} not found {why}"


class _NamespaceCredentials(Credentials):
    """The credentials of one namespace."""

    def __init__(self, all_credentials: Credentials, namespace: str) -> None:
        super().__init__()
        self._all = all_credentials
        self._namespace = namespace

    def _read(self, name: str) -> str | None:
        return self._all._read_of_namespace(self._namespace, name)  # noqa: SLF001 - of the same class

    def get(self, name: str) -> str:
        """Return the current value of a credential.

        Raises:
            DeferredDeliveryError: it is not known, and the Secrets are not listed yet.
            RetryableDeliveryError: the credential does not exist; it may be added later.
        """
        if not self._all.has_namespaces and self._read(name) is None:
            message = f"the labelled Secrets, which may have credential {name!r}, are not listed yet"
            raise DeferredDeliveryError(message, retry_after=NOT_LISTED_RETRY)
        return super().get(name)

    def _not_found(self, name: str) -> str:
        return f"credential {name!r} not found in the labelled Secrets of namespace {self._namespace}"


LABEL = "notify.reconciler.dev/credentials"
"""The label, with the value ``"true"``, of Secrets whose keys are credentials of their namespace."""

SECRETS = 20
"""Maximum Secrets of a namespace that are read; the first ones by name."""


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
