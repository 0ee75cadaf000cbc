"""Hold one cached object as the bytes it came in, with the few fields that keys, indexes and predicates need."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from reconciler.meta import UNDECODABLE, Request, Version, json_members
from reconciler.objects import InvalidObject

__all__ = ["CacheEvent", "CachedObject", "CachedOwner", "EventType"]


_NOTHING: Mapping[str, str] = MappingProxyType({})


class CachedOwner(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Hold one entry of ``metadata.ownerReferences``.

    Attributes:
        api_version: such as ``"apps/v1"``.
        kind: the owner's kind.
        name: the owner's name; its namespace is the object's own, or none.
        uid: the owner's uid.
        controller: whether it is the managing controller.
        block_owner_deletion: whether a foreground deletion of the owner waits for the object.
    """

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None

    @property
    def group(self) -> str:
        """Return the group of the owner's kind; ``""`` for the core group."""
        return self.api_version.rpartition("/")[0]


class _Annotations(msgspec.Struct, gc=False):
    annotations: dict[str, str] | None = None


class _AnnotatedObject(msgspec.Struct, gc=False):
    metadata: _Annotations = msgspec.field(default_factory=_Annotations)


_decode_annotations = msgspec.json.Decoder(_AnnotatedObject).decode
_decode_texts = msgspec.json.Decoder(dict[str, str] | None).decode
_decode_document = msgspec.json.Decoder(dict[str, Any]).decode


class CachedObject(msgspec.Struct, frozen=True, gc=False, eq=False, kw_only=True):
    """Hold one version of one object; never changes, and shares nothing that a reader could change.

    It holds only strings, numbers, bytes and containers of them, so no reference cycle can go through it and the
    garbage collector need not track it: a cache of 100,000 objects does not lengthen its passes.

    Attributes:
        request: name and namespace.
        uid: changes when an object is deleted and made again under the same name.
        version: the resourceVersion, an int unless the server's versions are opaque.
        generation: ``metadata.generation``, None for kinds without one.
        finalizers: ``metadata.finalizers``.
        owner_references: ``metadata.ownerReferences``.
        deletion_timestamp: RFC 3339 text when the object is being deleted, else None.
        creation_timestamp: RFC 3339 text, None when the server sent none.
        data: the JSON document as the server sent it, without managedFields, after the informer's transform.
        problem: why a decoder refused the document or its metadata, None where it did not. The fields above hold what
            could be read of such an object.
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

    @property
    def name(self) -> str:
        """Return the object's name."""
        return self.request.name

    @property
    def namespace(self) -> str | None:
        """Return the object's namespace, None for a cluster-scoped one."""
        return self.request.namespace

    @property
    def labels(self) -> Mapping[str, str]:
        """Return a read-only view of ``metadata.labels``."""
        return MappingProxyType(self._labels) if self._labels else _NOTHING

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return ``metadata.annotations``, decoded at each access.

        They are often as large as the rest of the object (kubectl's last-applied one is a copy of it) and rarely read,
        so they are not held twice.
        """
        try:
            return _decode_annotations(self.data).metadata.annotations or {}
        except UNDECODABLE:
            return _salvaged_annotations(self.data)

    @property
    def controller(self) -> CachedOwner | None:
        """Return the owner reference marked as controller, or None."""
        return next((reference for reference in self.owner_references if reference.controller), None)

    def decode(self) -> dict[str, Any]:
        """Return the document as a copy that belongs to the caller.

        Raises:
            InvalidObject: it cannot be decoded: it is nested too deep, or holds something that is not JSON.
        """
        try:
            return _decode_document(self.data)
        except UNDECODABLE as error:
            raise InvalidObject(f"{self.request} cannot be decoded", [("$", str(error))]) from None

    def __repr__(self) -> str:
        return f"<CachedObject {self.request} version={self.version} uid={self.uid}>"


def _salvaged_annotations(data: bytes) -> dict[str, str]:
    try:
        return _decode_texts(json_members(json_members(data)["metadata"])["annotations"]) or {}
    except (KeyError, ValueError, *UNDECODABLE):
        return {}


class EventType(enum.Enum):
    """Say what a handler hears of."""

    ADDED = "ADDED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"
    RESYNC = "RESYNC"


class CacheEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Tell a handler about one change; the store has it already.

    Attributes:
        type: ADDED has only `new`, UPDATED both, DELETED only `old`; RESYNC repeats what is there as both.
        old: the object before. For DELETED its last state, at the version of the deletion if that was seen.
        new: the object now.
        initial: the object was there when the informer, or this handler, began.
        final: False for a DELETED whose `old` is only the last state that was seen: the deletion was found by a list,
            or by another uid under the same name, or the object may have left the informer's selector alive.
        rewritten: the content changed and the version did not, as when a CRD gains a default.
    """

    type: EventType
    old: CachedObject | None = None
    new: CachedObject | None = None
    initial: bool = False
    final: bool = True
    rewritten: bool = False

    @property
    def object(self) -> CachedObject:
        """Return `new`, or `old` of a deletion."""
        found = self.new if self.new is not None else self.old
        assert found is not None  # noqa: S101 - one of the two is there by construction
        return found
