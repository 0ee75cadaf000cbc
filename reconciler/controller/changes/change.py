"""`ObjectChange`: a change of an object that enqueued a key. What differs is computed when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from reconciler._core.redaction import is_secret_name
from reconciler._core.wire import UNDECODABLE
from reconciler.cache import CachedObject, CacheEvent
from reconciler.client.transport.redaction import excerpt
from reconciler.controller.changes.fields import Difference, Item, Path, differences, format_fields
from reconciler.controller.changes.writers import ManagedFields
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.scalars import Version

__all__ = ["MAX_FIELDS", "FieldChange", "ObjectChange"]

MAX_FIELDS = 20
"""The highest number of fields that are named for a change."""

_OVERHEAD = 500
"""Bytes of a change without documents, rounded up."""

_NAMING = ("name", "key", "id", "field", "header", "parameter", "variable")
"""Members whose value is the name of what is beside them, as in the environment of a container, in either case."""

_MAX_LEFT_OUT = 1000
_MAX_VALUE = 100


class FieldChange(msgspec.Struct, frozen=True):
    """A field that changed.

    Attributes:
        path: such as ``"spec.containers[name=web].image"``; at most 200 characters.
        change: whether the field was added, changed or removed.
        before: its value before as JSON, at most 100 characters; None if there was none, or if it is not shown.
        after: its value after, in the same form.
        managers: the field managers that wrote it, three at most; none if they are not known. There are several only
            if they wrote in the same second.
    """

    path: str
    change: Literal["added", "changed", "removed"]
    before: str | None
    after: str | None
    managers: tuple[str, ...]


class ObjectChange(msgspec.Struct, frozen=True, gc=False, eq=False, kw_only=True):
    """A change of an object that enqueued a key: from the version before it to the last one before the reconcile.

    Attributes:
        gvk: the kind of the object.
        request: its name and namespace.
        at: when the watch delivered the change, or the first one of several.
        type: what happened to the object.
        uid: its uid; ``""`` if it is the new object of the key.
        version: its last resourceVersion; None if it is the new object of the key.
        managers: the field managers of a new object, three at most. Those of an update are in its `fields`.
        size: the bytes of the change with its documents, at most: the cache may have the newer one as well.
    """

    gvk: GroupVersionKind
    request: Request
    at: datetime
    type: Literal["added", "updated", "deleted"]
    uid: str = ""
    version: Version | None = None
    managers: tuple[str, ...] = ()
    size: int = _OVERHEAD
    _old: CachedObject | None = None
    _new: CachedObject | None = None
    _received: msgspec.Raw | None = None

    @classmethod
    def of(cls, gvk: GroupVersionKind, event: CacheEvent, at: datetime) -> ObjectChange:
        """Return the change of an event. Only an update keeps documents: two of the cache, and what the watch sent."""
        old, new, received = event.old, event.new, event.received
        if old is not None and new is not None:
            return cls(
                gvk=gvk,
                request=new.request,
                uid=new.uid,
                version=new.version,
                at=at,
                type="updated",
                size=_OVERHEAD + len(old.data) + len(new.data) + (0 if received is None else len(received)),
                _old=old,
                _new=new,
                _received=received,
            )
        found = event.object
        type_: Literal["added", "deleted"] = "added" if old is None else "deleted"
        managers = ManagedFields(received).all_writers() if received is not None else ()
        return cls(
            gvk=gvk, request=found.request, uid=found.uid, version=found.version, at=at, type=type_, managers=managers
        )

    def after(self, earlier: ObjectChange) -> ObjectChange:
        """Return this change together with an earlier one of the same object."""
        if self.type == "updated" and earlier.type != "deleted":
            if earlier.type == "added":
                return msgspec.structs.replace(earlier, version=self.version)
            older = 0 if earlier._old is None or self._old is None else len(earlier._old.data) - len(self._old.data)
            return msgspec.structs.replace(self, at=earlier.at, size=self.size + older, _old=earlier._old)
        return msgspec.structs.replace(self, at=earlier.at)

    def fields(self) -> tuple[list[FieldChange], int]:
        """Compute the fields that differ, 20 at most, and the number of the others, counted to 1,000.

        Without a value are the fields of Secrets, those whose names are those of secrets, those beside such a name
        (``name: DB_PASSWORD``), and objects. Text that looks like a secret is replaced. Documents that are nested too
        deeply to be compared are one other field.
        """
        if self._old is None or self._new is None:
            return [], 0
        found: list[FieldChange] = []
        left_out = 0
        managed = ManagedFields(self._received)
        try:
            documents = self._old.decode(), self._new.decode()
            for difference in differences(*documents):
                if len(found) < MAX_FIELDS:
                    found.append(self._field(difference, managed, shown=not self._hides(difference.path, documents)))
                else:
                    left_out += 1
                    if left_out >= _MAX_LEFT_OUT:
                        break
        except (ValueError, *UNDECODABLE):  # too deep to be compared
            return [], 1
        return found, left_out

    def _field(self, difference: Difference, managed: ManagedFields, *, shown: bool) -> FieldChange:
        path, before, after = difference
        return FieldChange(
            path=format_fields(path),
            change="added" if before is None else "removed" if after is None else "changed",
            before=_value(before) if shown else None,
            after=_value(after) if shown else None,
            managers=managed.writers_of(path),
        )

    def _hides(self, path: Path, documents: Sequence[Any]) -> bool:
        names = [self.gvk.kind, *(step.label if isinstance(step, Item) else step for step in path)]
        # The name of an object says nothing about its other metadata.
        places = [] if path[:1] == ("metadata",) else documents
        for step in path:
            if isinstance(step, Item):
                # Items without a name are compared by position, so the other one may be of another name.
                others = places if step.label == str(step.position) else []
                places = [step.value, *(place[step.position] for place in others if _has_item(place, step.position))]
            else:
                places = [place[step] for place in places if isinstance(place, dict) and step in place]
            names += [name for place in places if isinstance(place, dict) for name in _names(place)]
        return any(map(is_secret_name, names))


def _has_item(place: Any, position: int) -> bool:
    return isinstance(place, list) and position < len(place)


def _names(document: dict[str, Any]) -> Iterator[str]:
    """Yield what an object calls itself."""
    for member in _NAMING:
        for name in (document.get(member), document.get(member.capitalize())):
            if isinstance(name, str):
                yield name[:_MAX_VALUE]


def _value(value: Any) -> str | None:
    """Return a value as JSON; None if there is none, and for objects and texts that contain other values."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)):
        return None
    if value is None or (isinstance(value, str) and ("\n" in value or value.lstrip()[:1] in ("{", "["))):
        return None
    text = excerpt(msgspec.json.encode(value).decode())
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"
