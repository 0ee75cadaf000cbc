"""The shared memory of clients on one connection: written documents, invalid objects, warnings.

Each memory is bounded: the least recent entry is forgotten.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from reconciler._core.lru import LRU
from reconciler._core.wire import JSONObject
from reconciler.client.requests import SERVER_METADATA, InvalidItem
from reconciler.meta import GroupVersionKind, equal
from reconciler.meta.metadata import version_of

_logger = logging.getLogger("reconciler.client")

_MAX_INVALID = 1024
"""Versions of invalid objects that are remembered. A forgotten one would be logged again."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class WrittenDocuments:
    """For each object, the last document that was sent and the version that it became.

    A server fills in defaults, also inside lists. A caller that sets ``ports: [{port: 80}]`` reads back a protocol and
    a target port. Compared with the stored object, the same desired state always looks different, and each reconcile
    would write. At the version that the response had, the document that was sent is known to be what is stored.

    Args:
        most: objects that are remembered. A forgotten one costs one more write.
    """

    def __init__(self, most: int = 1000) -> None:
        self._sent: LRU[Hashable, tuple[str, Mapping[str, Any]]] = LRU(most)

    def record(self, key: Hashable, sent: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Record that writing `sent` resulted in `stored`."""
        self._sent.pop(key, None)
        if not equal(without_server_metadata(sent), without_server_metadata(stored)):
            self._sent[key] = (version_of(stored), sent)

    def is_stored(self, key: Hashable, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Return whether writing `wanted` would change nothing in `stored`."""
        version, sent = self._sent.get(key, ("", None))
        return _is_same(stored, wanted, sent if version == version_of(stored) else None)

    def __len__(self) -> int:
        return len(self._sent)


def without_server_metadata(document: Mapping[str, Any]) -> JSONObject:
    """Return a document without the metadata that only the server writes."""
    metadata = document.get("metadata") or {}
    return {**document, "metadata": {key: metadata[key] for key in metadata if key not in SERVER_METADATA}}


def _is_same(stored: Any, wanted: Any, sent: Any) -> bool:
    """Return whether each part is as it is stored, or as it was sent when it became what is stored."""
    if equal(stored, wanted):
        return True
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping) and isinstance(sent, Mapping):
        keys = stored.keys() | wanted.keys()
        return all(_is_same_member(stored.get(key), wanted.get(key), sent.get(key)) for key in keys)
    if isinstance(stored, list) and isinstance(wanted, list) and isinstance(sent, list):
        return len(stored) == len(wanted) == len(sent) and all(map(_is_same_member, stored, wanted, sent))
    return False


def _is_same_member(stored: Any, wanted: Any, sent: Any) -> bool:
    # A member that is absent both from `wanted` and from `sent` was filled in by the server.
    return equal(wanted, sent) or _is_same(stored, wanted, sent)


class Reported:
    """What was logged and is not logged again.

    Args:
        most: entries that are remembered. A forgotten one would be logged again.
    """

    def __init__(self, most: int) -> None:
        self._seen: LRU[Hashable, None] = LRU(most)

    def is_new(self, key: Hashable) -> bool:
        """Remember an entry, and return whether it was not remembered yet."""
        new = key not in self._seen
        self._seen[key] = None
        return new

    def __len__(self) -> int:
        return len(self._seen)


class InvalidItemLog:
    """A log of the objects that lists leave out: one warning for each version of an object."""

    def __init__(self) -> None:
        self._reported = Reported(_MAX_INVALID)

    def log(self, gvk: GroupVersionKind, items: Iterable[InvalidItem]) -> None:
        """Log the objects that were not yet logged at their version."""
        for item in items:
            if self._reported.is_new((gvk, item.key, item.resource_version)):
                _logger.warning("the list leaves out the invalid object %s %s: %s", gvk, item.key, item.error)


def warning_text(header: str) -> str:
    """Return the text in a Warning header (RFC 7234: code, agent, quoted text), or the whole header if malformed."""
    found = _QUOTED.search(header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else header
