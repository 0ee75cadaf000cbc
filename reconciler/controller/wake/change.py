"""Changes of objects that enqueue keys.

The fields that differ, and the field managers that wrote them according to ``metadata.managedFields``, are computed
when somebody asks.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from reconciler._core.redaction import is_secret_name
from reconciler._core.wire import UNDECODABLE
from reconciler.cache import CachedObject, CacheEvent, EventType
from reconciler.client.pool import excerpt
from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.meta import GroupVersionKind, Request, equal
from reconciler.meta.documents import Version

if TYPE_CHECKING:
    from reconciler.controller.reconcile.cycle import Reconcile


_LIST_KEYS = ("name", "type", "key", "uid", "ip", "containerPort", "port")
"""Members that identify an item of a list, as in the built-in kinds; the first one that fits is used."""

_MAX_DEPTH = 50
_MAX_NAME = 80
_MAX_PATH = 200

_UNINTERESTING = ("managedFields", "resourceVersion", "generation", "selfLink")  # of the metadata


class Item(NamedTuple):
    """An item of a list in a path.

    Attributes:
        label: such as ``"name=web"``, or the index.
        position: its index.
        value: the item.
    """

    label: str
    position: int
    value: Any


Path = tuple[str | Item, ...]
"""The members and items that lead to a field."""


class Difference(NamedTuple):
    """A field that differs.

    Attributes:
        path: the path to it.
        before: its value; None if it was absent.
        after: its value; None if it is absent.
    """

    path: Path
    before: Any
    after: Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the fields in which two versions differ: those of the metadata last, without those that the server keeps.

    Objects that appear or disappear are compared member by member. Items of lists are compared by their name, type or
    key if all have one, and by their index otherwise. A list of strings or numbers is one field, and so is everything
    deeper than 50 levels.
    """
    for name in sorted({*old, *new}, key=lambda name: (name == "metadata", name == "status", name)):
        yield from _compare((name,), old.get(name), new.get(name))


def format_fields(path: Path) -> str:
    """Format a path: ``spec.containers[name=web].image``, at most 200 characters."""
    text = ""
    for step in path:
        if isinstance(step, Item):
            text += f"[{_shortened(step.label)}]"
        else:
            text += f"[{_shortened(step)}]" if "." in step or "/" in step else f".{_shortened(step)}"
    text = text.removeprefix(".")
    return text if len(text) <= _MAX_PATH else f"{text[: _MAX_PATH - 1]}…"


def _compare(path: Path, old: Any, new: Any) -> Iterator[Difference]:
    if old == new:  # in C, which matters for large objects
        return
    kinds = {type(value) for value in (old, new) if value is not None}
    if len(path) < _MAX_DEPTH and kinds == {dict} and (old or new):
        before, after = old or {}, new or {}
        for name in dict.fromkeys((*before, *after)):
            if path == ("metadata",) and name in _UNINTERESTING:
                continue
            yield from _compare((*path, name), before.get(name), after.get(name))
    elif len(path) < _MAX_DEPTH and kinds == {list} and _are_objects([*(old or ()), *(new or ())]):
        before, after = _items(old or [], new or [])
        for label in dict.fromkeys((*before, *after)):
            item = after.get(label) or before[label]
            yield from _compare((*path, item), _keyed_value(before, label), _keyed_value(after, label))
    elif not equal(old, new):
        yield Difference(path, old, new)


def _are_objects(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, dict) for item in items)


def _keyed_value(items: dict[str, Item], label: str) -> Any:
    return items[label].value if label in items else None


def _items(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> tuple[dict[str, Item], dict[str, Item]]:
    """Return the items of two lists by their labels."""
    for key in _LIST_KEYS:
        if _identifies(key, old) and _identifies(key, new):
            return _labeled(old, key), _labeled(new, key)
    return _labeled(old, None), _labeled(new, None)


def _identifies(key: str, items: list[dict[str, Any]]) -> bool:
    values = [item.get(key) for item in items]
    return all(isinstance(value, (str, int)) for value in values) and len({str(each) for each in values}) == len(values)


def _labeled(items: list[dict[str, Any]], key: str | None) -> dict[str, Item]:
    labels = (str(index) if key is None else f"{key}={item[key]}" for index, item in enumerate(items))
    return {label: Item(label, index, item) for index, (label, item) in enumerate(zip(labels, items, strict=True))}


def _shortened(name: str) -> str:
    name = "".join(sign if sign.isprintable() else "�" for sign in name[: _MAX_NAME + 1])
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


_MAX_NAMES = 3
_MAX_LENGTH = 128


class _FieldsEntry(msgspec.Struct, gc=False, rename="camel"):
    manager: str = ""
    subresource: str = ""
    time: str = ""
    fields: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="fieldsV1")


class _MetadataWithWriters(msgspec.Struct, gc=False, rename="camel"):
    managed_fields: list[_FieldsEntry] | None = None


class _ObjectWithWriters(msgspec.Struct, gc=False):
    metadata: _MetadataWithWriters


class _UndecodedWriters(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    managed_fields: msgspec.Raw = msgspec.Raw(b"[]")


class _ManagedFields(msgspec.Struct, gc=False):
    metadata: _UndecodedWriters


_decode = msgspec.json.Decoder(_ObjectWithWriters).decode
_decode_raw = msgspec.json.Decoder(_ManagedFields).decode


class FieldWriters:
    """The managed fields of one version of an object.

    Args:
        received: the object as the API server sent it; None if that is not known.
    """

    def __init__(self, received: msgspec.Raw | bytes | None) -> None:
        self._entries: list[_FieldsEntry] = []
        if received is not None:
            try:
                self._entries = _decode(received).metadata.managed_fields or []
            except UNDECODABLE:
                return

    def writers_of(self, path: Path) -> tuple[str, ...]:
        """Return the managers that wrote a field last, three at most; none if that is not known.

        A removed field has no manager any more. The managers of the latest change are returned then. Times of managed
        fields are whole seconds, so there may be several.
        """
        depths = [_owned_depth(tree, path) for tree in self._trees]
        deepest = max(depths, default=0)
        owners = [entry for entry, depth in zip(self._entries, depths, strict=True) if depth == deepest > 0]
        if not owners:
            place = "status" if path[:1] == ("status",) else ""
            owners = [entry for entry in self._entries if entry.subresource == place] or self._entries
        latest = max((entry.time for entry in owners), default="")
        return _managed_names(entry.manager for entry in owners if entry.time == latest)

    def all_writers(self) -> tuple[str, ...]:
        """Return the managers of the object, the first one first; three at most."""
        return _managed_names(entry.manager for entry in sorted(self._entries, key=lambda entry: entry.time))

    @cached_property
    def _trees(self) -> list[Any]:
        return [msgspec.json.decode(entry.fields) for entry in self._entries]


def _owned_depth(tree: Any, path: Path) -> int:
    """Return how many steps of a path lead to a leaf of FieldsV1, or to its end; 0 if the path leaves the tree.

    A leaf is a field without owned parts: it contains everything below it if it is atomic, and nothing otherwise. So
    the owner of more of the path takes precedence.
    """
    for depth, step in enumerate(path):
        if not isinstance(tree, dict):
            return 0
        if not tree:
            return depth
        tree = _below(tree, step)
        if tree is None:
            return 0
    return len(path)


def _below(tree: dict[str, Any], step: str | Item) -> Any:
    if isinstance(step, str):
        return tree.get(f"f:{step}")
    for name, below in tree.items():
        if name == f"i:{step.position}" or (name.startswith("k:") and _has(step.value, name[2:])):
            return below
    return None


def _has(item: Any, keys: str) -> bool:
    try:
        wanted = msgspec.json.decode(keys)
    except UNDECODABLE:
        return False
    return isinstance(item, dict) and isinstance(wanted, dict) and all(item.get(key) == wanted[key] for key in wanted)


def _managed_names(managers: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name[:_MAX_LENGTH] for name in managers if name))[:_MAX_NAMES]


MAX_FIELDS = 20
"""The highest number of fields that are named for a change."""

_OVERHEAD = 500
"""Bytes of a change without documents, rounded up."""

_NAMING = ("name", "key", "id", "field", "header", "parameter", "variable")
"""Members whose value is the name of what is beside them, as in the environment of a container, in either case."""

_MAX_LEFT_OUT = 1000
_MAX_VALUE = 100


class FieldChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    before: str | None = None
    after: str | None = None
    managers: tuple[str, ...] = ()


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
        managers = FieldWriters(received).all_writers() if received is not None else ()
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

    @property
    def versions(self) -> tuple[CachedObject, ...]:
        """Return the object before and after an update; nothing for another change."""
        return () if self._old is None or self._new is None else (self._old, self._new)

    @property
    def managed_fields(self) -> bytes:
        """Return the managedFields after an update, as JSON; empty if they are not known."""
        if self._received is None:
            return b""
        try:
            return bytes(_decode_raw(self._received).metadata.managed_fields)
        except UNDECODABLE:
            return b""

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
        managed = FieldWriters(self._received)
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

    def _field(self, difference: Difference, managed: FieldWriters, *, shown: bool) -> FieldChange:
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


_MAX_OBJECTS = 5
"""Objects that are remembered for a reconcile; further ones are counted."""

_MAX_RECONCILES = 3
"""Reconciles of a key whose changes are remembered, so that a busy key does not displace the others."""

_BUDGET = 2**20
"""Bytes of all changes that are kept for a controller.

They are documents that the cache would have dropped, of objects that somebody may ask about soon after they changed: a
hundred changes of objects of 5 KiB are enough, and ten controllers have 10 MiB.
"""


class Creation(NamedTuple):
    """The creation of the object of a key, which enqueued it: shared by all keys, since each object is created once.

    Attributes:
        gvk: the kind.
        managers: the field managers of the new object.
    """

    gvk: GroupVersionKind
    managers: tuple[str, ...]

    def told(self, request: Request, at: datetime) -> tuple[ObjectChange, ...]:
        """Return the change.

        Args:
            request: the key.
            at: when it was enqueued, as far as known.
        """
        return (ObjectChange(gvk=self.gvk, request=request, at=at, type="added", managers=self.managers),)


class WakingChanges:
    """The changes that enqueued a key for one reconcile.

    Attributes:
        objects: one for each object, in the order of their first events; five at most. Empty if they were forgotten.
        left_out: how many events of further objects came.
    """

    __slots__ = ("left_out", "objects")

    def __init__(self, change: ObjectChange) -> None:
        self.objects: tuple[ObjectChange, ...] = (change,)
        self.left_out = 0

    def told(self, _request: Request, _at: datetime) -> tuple[ObjectChange, ...]:
        """Return the changes."""
        return self.objects

    def has(self, event: CacheEvent) -> bool:
        """Return whether the last change is that of an event."""
        if not self.objects or event.rewritten:
            return False
        last, found = self.objects[-1], event.object
        return last.version == found.version and last.uid == found.uid

    def add(self, change: ObjectChange) -> int:
        """Add a change, or extend that of the same object; return by how many bytes they grew."""
        for number, known in enumerate(self.objects):
            if known.uid == change.uid:
                change = change.after(known)
                self.objects = (*self.objects[:number], change, *self.objects[number + 1 :])
                return change.size - known.size
        if len(self.objects) >= _MAX_OBJECTS:
            self.left_out += 1
            return 0
        self.objects = (*self.objects, change)
        return change.size

    def forget(self) -> int:
        """Drop the changes; return how many bytes they had."""
        size = sum(change.size for change in self.objects)
        self.objects = ()
        return size


class ChangeLog(ReconcileObserver):
    """The changes that enqueued the keys of a controller.

    Args:
        gvk: the kind of the keys.
        clock: dates the changes.
        budget: bytes of all changes. Beyond it, the changes of the keys that were not enqueued for longest are
            dropped. Default: 1 MiB.
    """

    def __init__(self, gvk: GroupVersionKind, clock: Clock, *, budget: int = _BUDGET) -> None:
        self._gvk = gvk
        self._now = clock.now
        self._budget = budget
        self._bytes = 0
        self._pending: dict[Request, Creation | WakingChanges] = {}  # of keys that are not reconciled yet
        self._kept: OrderedDict[Request, list[WakingChanges]] = OrderedDict()  # last enqueued: at the end

    def event(self, key: Request, gvk: GroupVersionKind, event: CacheEvent, /) -> None:
        """Record that an event of an object enqueued a key; one of an object that was there before is not a change."""
        if event.initial or event.type is EventType.RESYNC:
            return
        changes = self._pending.get(key)
        is_own = gvk == self._gvk and (event.new or event.object).request == key
        if changes is None or (is_own and event.new is None and isinstance(changes, Creation)):
            if is_own and event.old is None:
                self._pending[key] = _creation(gvk, FieldWriters(event.received).all_writers())
                return
            change = ObjectChange.of(gvk, event, self._now())
            changes = self._pending[key] = WakingChanges(change)
            self._keep(key, changes, change.size)
        elif isinstance(changes, WakingChanges) and not changes.has(event):
            self._keep(key, changes, changes.add(ObjectChange.of(gvk, event, self._now())))

    def begun(self, reconcile: Reconcile, /) -> None:
        """Set the changes that enqueued the key of a reconcile."""
        reconcile.changes = self._pending.pop(reconcile.request, None)

    def current(self, reconcile: Reconcile | None) -> tuple[ObjectChange, ...]:
        """Return the changes that enqueued the key of a reconcile in progress; none without one."""
        return () if reconcile is None else self._told(reconcile.request, reconcile.changes)

    def pending(self, key: Request) -> tuple[ObjectChange, ...]:
        """Return the changes that enqueued a key for its next reconcile."""
        return self._told(key, self._pending.get(key))

    def _keep(self, key: Request, changes: WakingChanges, size: int) -> None:
        """Count what changes grew by, and make their key the last one; they may have been dropped in the meantime."""
        kept = self._kept.setdefault(key, [])
        self._kept.move_to_end(key)
        if changes not in kept:
            kept.append(changes)
            if len(kept) > _MAX_RECONCILES:
                self._bytes -= kept.pop(0).forget()
        self._bytes += size
        while self._bytes > self._budget:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= sum(each.forget() for each in oldest)

    def _told(self, key: Request, changes: Creation | WakingChanges | None) -> tuple[ObjectChange, ...]:
        return () if changes is None else changes.told(key, self._now())


_creation = functools.lru_cache(maxsize=256)(Creation)
