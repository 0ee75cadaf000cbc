"""Cached objects: the JSON bytes as received, and the fields that keys, indexes and predicates need."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

import msgspec
from msgspec.structs import force_setattr

from reconciler._core.wire import UNDECODABLE, JSONObject, json_members
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.scalars import Version
from reconciler.objects import AnyResource, InvalidObject, Resource, Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike, from_document

__all__ = ["CacheEvent", "CachedObject", "CachedOwner", "EventType"]

R = TypeVar("R", bound=TypedObject)


_NOTHING: Mapping[str, str] = MappingProxyType({})


class CachedOwner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An entry of ``metadata.ownerReferences`` of a cached object.

    Attributes:
        api_version: such as ``"apps/v1"``.
        kind: the owner's kind.
        name: the owner's name; its namespace is the object's own, or none.
        uid: the owner's uid.
        controller: whether the owner is the managing controller.
        block_owner_deletion: whether a foreground deletion of the owner waits for this object.
    """

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None

    @property
    def group(self) -> str:
        """Return the API group of the owner's kind; ``""`` for the core group."""
        return self.api_version.rpartition("/")[0]


class _Annotations(msgspec.Struct, gc=False):
    annotations: dict[str, str] | None = None


class _AnnotatedObject(msgspec.Struct, gc=False):
    metadata: _Annotations = msgspec.field(default_factory=_Annotations)


_decode_annotations = msgspec.json.Decoder(_AnnotatedObject).decode
_decode_texts = msgspec.json.Decoder(dict[str, str] | None).decode
_decode_document = msgspec.json.Decoder(dict[str, Any]).decode


class CachedObject(msgspec.Struct, frozen=True, gc=False, eq=False, kw_only=True):
    """One version of one object, immutable.

    It contains only strings, numbers, bytes and containers of them, so it cannot be part of a reference cycle and the
    garbage collector need not track it: a cache of 100,000 objects does not lengthen collections.

    Attributes:
        request: name and namespace.
        uid: differs for an object that was deleted and created again under the same name.
        version: the resourceVersion; an int unless the server's versions are opaque.
        generation: ``metadata.generation``; None for kinds without one.
        finalizers: ``metadata.finalizers``.
        owner_references: ``metadata.ownerReferences``.
        deletion_timestamp: RFC 3339 text if the object is being deleted, else None.
        creation_timestamp: RFC 3339 text; None if the server sent none.
        data: the JSON document as received, without managedFields and after the informer's transform.
        problem: why the decoder rejected the document or its metadata; None if it did not. The other fields then
            contain whatever could be read.
    """

    request: Request
    uid: str
    version: Version
    data: bytes
    generation: int | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[CachedOwner, ...] = ()
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
    problem: str | None = None
    _labels: dict[str, str] | None = None
    _fits: type[AnyResource] | None = None  # the class that the document was last found to fit

    @property
    def name(self) -> str:
        """Return the object's name."""
        return self.request.name

    @property
    def namespace(self) -> str | None:
        """Return the object's namespace; None if it is cluster-scoped."""
        return self.request.namespace

    @property
    def labels(self) -> Mapping[str, str]:
        """Return a read-only view of ``metadata.labels``."""
        return MappingProxyType(self._labels) if self._labels else _NOTHING

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return ``metadata.annotations``, decoded at each access.

        They are often as large as the rest of the object (kubectl's last-applied annotation is a copy of it) and rarely
        read, so they are not stored twice.
        """
        try:
            return _decode_annotations(self.data).metadata.annotations or {}
        except UNDECODABLE:
            return _decode_annotations_leniently(self.data)

    @property
    def controller(self) -> CachedOwner | None:
        """Return the owner reference marked as controller; None if there is none."""
        return next((reference for reference in self.owner_references if reference.controller), None)

    def decode(self) -> JSONObject:
        """Return the document as a private copy.

        Raises:
            InvalidObject: the document cannot be decoded: it is nested too deeply, or contains something other than
                JSON.
        """
        try:
            return _decode_document(self.data)
        except UNDECODABLE as error:
            raise InvalidObject(f"{self.request} cannot be decoded", [("$", str(error))]) from None

    @overload
    def read_as(self, kind: type[R], *, lenient: bool = False) -> R: ...
    @overload
    def read_as(self, kind: str | GroupVersionKind, *, lenient: bool = False) -> Unstructured: ...
    @overload
    def read_as(self, kind: KindLike, *, lenient: bool = False) -> TypedObject | Unstructured: ...
    def read_as(self, kind: KindLike, *, lenient: bool = False) -> TypedObject | Unstructured:
        """Return a private copy as an object of a kind; see `from_document`.

        A version is compared with its model once. From then on only the parts that are used are read as models.

        Raises:
            InvalidObject: the document cannot be decoded, or does not fit the kind's class and `lenient` is False.
        """
        if self._fits is not None and self._fits is kind:
            return self._fits.from_valid(self.decode())
        obj: TypedObject | Unstructured = from_document(kind, self.decode(), lenient=lenient)
        if isinstance(obj, Resource) and not obj.problems:
            force_setattr(self, "_fits", type(obj))
        return obj

    def __repr__(self) -> str:
        return f"<CachedObject {self.request} version={self.version} uid={self.uid}>"


def _decode_annotations_leniently(data: bytes) -> dict[str, str]:
    try:
        return (
            _decode_texts(json_members(json_members(data, "metadata")["metadata"], "annotations")["annotations"]) or {}
        )
    except (KeyError, ValueError, *UNDECODABLE):
        return {}


class EventType(enum.Enum):
    """The type of a `CacheEvent`."""

    ADDED = "ADDED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"
    RESYNC = "RESYNC"


class CacheEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A change that a handler is notified of; the store already contains it.

    Attributes:
        type: ADDED has only `new`, UPDATED both, DELETED only `old`; RESYNC repeats the stored object as both.
        old: the previous object. For DELETED, its last state, at the version of the deletion if that was received.
        new: the current object.
        initial: the object existed when the informer started or the handler was added.
        final: False for a DELETED whose `old` is only the last known state. Either a list or another uid under the same
            name revealed the deletion, or the object may have left the informer's selector alive.
        rewritten: the content changed but the version did not, as when a CRD gains a default.
        received: the object as the watch sent it, with its managedFields and before the informer's transform; None if a
            list revealed the change.
    """

    type: EventType
    old: CachedObject | None = None
    new: CachedObject | None = None
    initial: bool = False
    final: bool = True
    rewritten: bool = False
    received: msgspec.Raw | None = None

    @property
    def object(self) -> CachedObject:
        """Return `new`, or `old` for a deletion."""
        found = self.new if self.new is not None else self.old
        assert found is not None  # noqa: S101 - one of the two is always set
        return found
