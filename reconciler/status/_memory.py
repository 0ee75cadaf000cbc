"""Remember, for each kind, what its server did not take as it was sent, so that it is not sent again and again.

A field that the kind's schema does not know is pruned: it is absent from the answer. It is left out of later writes and
comparisons of the kind for ten minutes, then tried again, because the schema may have been extended. A value that the
server stored in another form (a default added to a list item, a zero left out) is remembered as a pair: what was sent,
what was stored; for as long the same wish over the same stored value is no change, any other is written.

A kind without the ``status`` subresource is remembered as well, for batchers that write its main resource then.

Bounded: the kinds used last, and so many paths and pairs a kind; beyond that a useless request is made now and then.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.clock import Clock
from reconciler.meta import delete_path, equal, get_path, set_path
from reconciler.status._json import copy_json, digest
from reconciler.status._mutations import Path, leaves

__all__ = ["MEMORY", "KindMemory"]

RETRY_AFTER = 600.0
"""Seconds after which it is tried once more; a schema changes rarely, and a useless request costs little."""

MAX_KINDS = 256
MAX_PATHS = 256
MAX_PAIRS = 1024

ITEM = "*"
"""Stands in a path for every item of a list."""


@dataclass(slots=True)
class _Kind:
    pruned: dict[Path, float] = field(default_factory=dict)
    reported: set[Path] = field(default_factory=set)
    altered: OrderedDict[tuple[Path, bytes], tuple[bytes, float]] = field(default_factory=OrderedDict)
    lacks_subresource: bool = False
    told_of_subresource: bool = False


class KindMemory:
    """Keep what was learned of each kind on each server. Safe in threads."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def leave_out(self, kind: Hashable, computed: dict[str, Any], base: Mapping[str, Any], clock: Clock) -> None:
        """Change a computed status, in place, to what the server would store of it, as far as that is known.

        A pruned field that the base has is known to the schema by now, and is written again.
        """
        with self._lock:
            known = self._kinds.get(kind)
            if known is None:
                return
            self._kinds.move_to_end(kind)
            now = clock.monotonic()
            self._leave_out_pruned(known, computed, base, now)
            for path in {path for path, _ in known.altered}:
                stored = get_path(base, path)
                answer, since = known.altered.get((path, digest(get_path(computed, path))), (b"", now))
                if answer == digest(stored) and now - since < RETRY_AFTER:
                    _put(computed, path, stored)

    def learn(
        self,
        kind: Hashable,
        computed: Mapping[str, Any],
        diff: Mapping[str, Any],
        stored: Mapping[str, Any],
        clock: Clock,
    ) -> list[Path]:
        """Compare the status in an answer with the one computed, which differs; return newly found pruned paths.

        Args:
            kind: server and kind.
            computed: the status asked for.
            diff: the merge patch that was sent for it.
            stored: the status in the answer.
            clock: dates the finding.
        """
        with self._lock:
            known, now = self._entry(kind), clock.monotonic()
            news = self._learn_pruned(known, computed, stored, now)
            shaped = copy_json(computed)
            for path in known.pruned:
                _drop(shaped, path)
            for path, _ in leaves(diff):
                wanted, got = get_path(shaped, path), get_path(stored, path)
                if not equal(wanted, got):
                    known.altered[path, digest(wanted)] = (digest(got), now)
                    known.altered.move_to_end((path, digest(wanted)))
            while len(known.altered) > MAX_PAIRS:
                known.altered.popitem(last=False)
        return news

    def lacks_subresource(self, kind: Hashable) -> bool:
        """Say whether the kind is known to be served without the ``status`` subresource."""
        with self._lock:
            known = self._kinds.get(kind)
            return known is not None and known.lacks_subresource

    def note_subresource(self, kind: Hashable, *, missing: bool) -> bool:
        """Note whether the kind has the ``status`` subresource; say whether its lack is news in this process."""
        with self._lock:
            known = self._entry(kind)
            known.lacks_subresource = missing
            news = missing and not known.told_of_subresource
            known.told_of_subresource |= missing
            return news

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kinds.clear()

    def _entry(self, kind: Hashable) -> _Kind:
        known = self._kinds.setdefault(kind, _Kind())
        self._kinds.move_to_end(kind)
        while len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return known

    @staticmethod
    def _leave_out_pruned(known: _Kind, computed: dict[str, Any], base: Mapping[str, Any], now: float) -> None:
        for path, since in list(known.pruned.items()):
            if now - since >= RETRY_AFTER or _is_there(base, path):
                del known.pruned[path]
            else:
                _drop(computed, path)

    @staticmethod
    def _learn_pruned(known: _Kind, computed: Mapping[str, Any], stored: Mapping[str, Any], now: float) -> list[Path]:
        news = []
        for path in _missing(computed, stored):
            if len(known.pruned) < MAX_PATHS:
                known.pruned[path] = now
            if path not in known.reported and len(known.reported) < MAX_PATHS:
                known.reported.add(path)
                news.append(path)
        return news


def _missing(computed: Any, stored: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of members that say something and are not stored at all.

    Zeros and empty values are passed over: Go leaves them out of a stored object, and the next value may be kept.
    """
    if isinstance(computed, Mapping) and isinstance(stored, Mapping):
        for key, value in computed.items():
            if stored.get(key) is not None:
                yield from _missing(value, stored[key], (*path, key))
            elif value:
                yield (*path, key)
    elif isinstance(computed, list) and isinstance(stored, list) and len(computed) == len(stored):
        seen: set[Path] = set()
        for wanted, got in zip(computed, stored, strict=True):
            for found in _missing(wanted, got, (*path, ITEM)):
                if found not in seen:
                    seen.add(found)
                    yield found


def _drop(value: Any, path: Path) -> None:
    head, *rest = path
    if head == ITEM and isinstance(value, list):
        for item in value:
            _drop(item, tuple(rest))
    elif isinstance(value, dict) and head in value:
        if rest:
            _drop(value[head], tuple(rest))
        else:
            del value[head]


def _is_there(value: Any, path: Path) -> bool:
    if not path:
        return value is not None
    head, rest = path[0], path[1:]
    if head == ITEM and isinstance(value, list):
        return any(_is_there(item, rest) for item in value)
    return isinstance(value, Mapping) and head in value and _is_there(value[head], rest)


def _put(status: dict[str, Any], path: Path, value: Any) -> None:
    if value is None:
        delete_path(status, path)
    else:
        set_path(status, path, copy_json(value))


MEMORY = KindMemory()
"""What this process learned; batchers come and go, and a kind's schema stays."""
