"""What one client learned of its server: what became of the statuses that were sent.

A server may store something else than was sent: it prunes fields that the CRD does not have, fills in defaults, and
webhooks change values. The same wish would then look like a change in each cycle. So it is remembered, for one object
and one path, what was wanted and what was stored instead. The same want over the same stored value is not sent again;
anything else is, and every write is sent whole. What one object taught never concerns another one, and is forgotten
after ten minutes, because schemas and webhooks change.

Also remembered: which kinds lack the ``status`` subresource, and which dropped fields were reported.

Bounded: beyond the limits a useless request is made now and then.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.clock import Clock
from reconciler.meta import GroupVersionKind, get_path
from reconciler.status.record.json_values import digest
from reconciler.status.record.mutations import Path

__all__ = ["StatusMemory", "memory_of"]

RETRY_AFTER = 600.0
"""Seconds after which it is tried once more; a schema changes rarely, and a useless request costs little."""

MAX_ANSWERS = 10_000
MAX_KINDS = 256
MAX_PATHS = 256

ITEM = "*"
"""Stands in a path for every item of a list."""

_TRANSITION_TIME = "lastTransitionTime"


@dataclass(slots=True)
class _Kind:
    reported: set[Path] = field(default_factory=set)
    lacks_subresource: bool = False
    told_of_subresource: bool = False


class StatusMemory:
    """What the batchers of one client learned. Safe in threads."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, Path], tuple[bytes, bytes, float]] = OrderedDict()
        self._kinds: OrderedDict[GroupVersionKind, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def has_answers(self) -> bool:
        """Return whether any server's answer differed from what was sent."""
        return bool(self._answers)

    def foresees(
        self, uid: str, paths: Iterable[Path], wanted: Mapping[str, Any], stored: Mapping[str, Any], clock: Clock
    ) -> bool:
        """Return whether at each of these paths the server is known to store this value for this want.

        Args:
            uid: of the object.
            paths: where the two statuses differ.
            wanted: the status asked for.
            stored: the status that is stored.
            clock: tells how old the knowledge is.
        """
        now = clock.monotonic()
        with self._lock:
            for path in paths:
                want, answer, since = self._answers.get((uid, path), (b"", b"", now))
                if now - since >= RETRY_AFTER or want != _digest(get_path(wanted, path)):
                    return False
                if answer != _digest(get_path(stored, path)):
                    return False
        return True

    def learn(
        self, uid: str, paths: Iterable[Path], wanted: Mapping[str, Any], stored: Mapping[str, Any], clock: Clock
    ) -> None:
        """Remember what the server stored instead of what was wanted; the arguments are those of `foresees`."""
        now = clock.monotonic()
        with self._lock:
            for path in paths:
                key = (uid, path)
                self._answers[key] = (_digest(get_path(wanted, path)), _digest(get_path(stored, path)), now)
                self._answers.move_to_end(key)
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)

    def report(self, gvk: GroupVersionKind, wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> list[Path]:
        """Return the paths of fields that are not stored at all and were not reported before."""
        with self._lock:
            known = self._entry(gvk)
            news = [path for path in _missing(wanted, stored) if path not in known.reported]
            known.reported.update(news[: MAX_PATHS - len(known.reported)])
            return news

    def lacks_subresource(self, gvk: GroupVersionKind) -> bool:
        """Return whether the kind is known to be served without the ``status`` subresource."""
        with self._lock:
            known = self._kinds.get(gvk)
            return known is not None and known.lacks_subresource

    def note_subresource(self, gvk: GroupVersionKind, *, missing: bool) -> bool:
        """Record whether the kind has the ``status`` subresource; return whether its lack was not reported before."""
        with self._lock:
            known = self._entry(gvk)
            known.lacks_subresource = missing
            news = missing and not known.told_of_subresource
            known.told_of_subresource |= missing
            return news

    def _entry(self, gvk: GroupVersionKind) -> _Kind:
        known = self._kinds.setdefault(gvk, _Kind())
        self._kinds.move_to_end(gvk)
        while len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return known


_memories: weakref.WeakKeyDictionary[Any, StatusMemory] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def memory_of(client: object) -> StatusMemory:
    """Return what was learned over a client. It ends with the client; one without weak references learns nothing."""
    try:
        with _lock:
            known = _memories.get(client)
            if known is None:
                known = _memories[client] = StatusMemory()
            return known
    except TypeError:
        return StatusMemory()


def _digest(value: Any) -> bytes:
    """Return the fingerprint of a value; the same for conditions that differ in their transition times alone.

    Those times are set when a condition is recorded, and move only with its status.
    """
    if isinstance(value, list) and any(isinstance(item, Mapping) and _TRANSITION_TIME in item for item in value):
        value = [
            {name: member for name, member in item.items() if name != _TRANSITION_TIME or "status" not in item}
            if isinstance(item, Mapping)
            else item
            for item in value
        ]
    return digest(value)


def _missing(wanted: Any, stored: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of members that say something and are not stored at all, each once.

    Zeros and empty values are passed over: Go leaves them out of a stored object.
    """
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        for key, value in wanted.items():
            if stored.get(key) is not None:
                yield from _missing(value, stored[key], (*path, key))
            elif value:
                yield (*path, key)
    elif isinstance(wanted, list) and isinstance(stored, list) and len(wanted) == len(stored):
        pairs = zip(wanted, stored, strict=True)
        yield from dict.fromkeys(found for want, got in pairs for found in _missing(want, got, (*path, ITEM)))
