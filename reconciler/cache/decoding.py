"""Decoding of lists, watch events and responses to writes into cached objects; only the metadata is decoded.

Lists and watch lines are split into raw slices. Each object is then copied: a slice would keep the whole response in
memory as long as one of its objects lives (34 MB for 20,000 objects, measured).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from reconciler._core.user_code import FAILURES
from reconciler._core.wire import UNDECODABLE, JSONObject, json_array, json_members, json_parts
from reconciler.cache.scope import HashRange, Transform
from reconciler.cache.store import CachedObject, CachedOwner, decode_document, read_leniently
from reconciler.errors import RepeatedFailures
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import Version, parse_version
from reconciler.meta.metadata import gvk_of, name_of

_MANAGED_FIELDS = b'"managedFields":'
_KEY_LENGTH = len(_MANAGED_FIELDS)

_LABEL_SETS = 1024
"""Maximum label sets that are remembered to be shared. Lists are in the order of names, so equal ones come together."""

_SHARED_LABELS = 64
"""Maximum labels of a set that is remembered: those of a thousand deleted objects must not fill the memory."""

_TURN = 1_000_000
"""Bytes decoded before yielding to the event loop: a few ms of work."""

_OBJECT = 5_000
"""The work for any object, as that for so many bytes."""

_logger = logging.getLogger("reconciler.cache")


class _HeadMetadata(msgspec.Struct, rename="camel", gc=False):
    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    labels: dict[str, str] | None = None
    finalizers: tuple[str, ...] | None = None
    owner_references: tuple[CachedOwner, ...] | None = None
    deletion_timestamp: str | None = None
    managed_fields: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_METADATA_FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(_HeadMetadata))


class _Head(msgspec.Struct, rename="camel", gc=False):
    metadata: _HeadMetadata
    api_version: str = ""
    kind: str = ""


class _RawMetadata(msgspec.Struct, gc=False):
    metadata: msgspec.Raw


class ListMetadata(msgspec.Struct, rename="camel", gc=False):
    """The metadata of a list: version and continue token."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ListPage(msgspec.Struct, gc=False):
    """One page of a list; its items are slices of the response."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)
    items: list[msgspec.Raw] | None = None


class WatchLine(msgspec.Struct, gc=False):
    """One line of a watch (ADDED, MODIFIED, DELETED, BOOKMARK or ERROR); its object is a slice."""

    type: str
    object: msgspec.Raw


class Bookmark(msgspec.Struct, rename="camel", gc=False):
    """A bookmark: the version the watch has reached, and possibly the end of the initial events."""

    resource_version: str = ""
    annotations: dict[str, str] | None = None

    @property
    def ends_initial_events(self) -> bool:
        """Return whether this bookmark completes a streamed list."""
        return (self.annotations or {}).get("k8s.io/initial-events-end") == "true"


class _BookmarkObject(msgspec.Struct, gc=False):
    metadata: Bookmark


_decode_page = msgspec.json.Decoder(ListPage).decode
_decode_line = msgspec.json.Decoder(WatchLine).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_raw_metadata = msgspec.json.Decoder(_RawMetadata).decode
_decode_bookmark = msgspec.json.Decoder(_BookmarkObject).decode


class LoopTurns:
    """The turns of a long task on the event loop, by the size of what it has decoded."""

    def __init__(self) -> None:
        self._taken = 0

    def ends(self, size: int) -> bool:
        """Count an object; return whether to yield to the event loop now."""
        self._taken += size + _OBJECT
        if self._taken < _TURN:
            return False
        self._taken = 0
        return True


def decode_list(body: bytes) -> ListPage:
    """Decode a page of a list.

    Raises:
        ValueError: the page is not a list, or the decoder rejects an item; see `split_list`.
    """
    try:
        return _decode_page(body)
    except UNDECODABLE as error:
        raise ValueError(str(error)) from None


async def split_list(body: bytes) -> ListPage | None:
    """Decode a page of a list that has items that the decoder rejects, in turns; None if it is not a list."""
    items: list[msgspec.Raw] = []
    turns = LoopTurns()
    try:
        start = end = json_array(body, "items")
        for begin, end in json_parts(body, start):
            if item := body[begin:end].strip():
                items.append(msgspec.Raw(item))
            if turns.ends(end - begin):
                await asyncio.sleep(0)
        page = _decode_page(body[: start - 1] + b"null" + body[end + 1 :])
    except (ValueError, *UNDECODABLE):
        return None
    page.items = items
    return page


def decode_line(line: bytes) -> WatchLine:
    """Decode a line of a watch. An object that the decoder rejects does not fail the line.

    Raises:
        ValueError: the line is not an event.
    """
    try:
        return _decode_line(line)
    except UNDECODABLE as error:
        problem = str(error)
    try:
        members = json_members(line, "type", "object")
        return WatchLine(_decode_text(members["type"]), msgspec.Raw(members["object"]))
    except (KeyError, ValueError, *UNDECODABLE):
        raise ValueError(problem) from None


def read_bookmark(raw: msgspec.Raw) -> Bookmark:
    """Decode the object of a BOOKMARK line.

    Raises:
        ValueError: the object is not a bookmark.
    """
    try:
        return _decode_bookmark(raw).metadata
    except UNDECODABLE as error:
        raise ValueError(str(error)) from None


class WireReader:
    """A reader that turns raw JSON into cached objects of one kind.

    Args:
        gvk: the kind; added where list items omit it.
        metadata_only: keep only apiVersion, kind and metadata.
        managed_fields: keep ``metadata.managedFields``. Default False: they are often half of an object.
        transform: applied to each decoded object. Costs one decode and one encode per object (about 10 µs for 2 KB).
        hashes: the hash range this process is responsible for; objects outside it are dropped.

    Attributes:
        elsewhere: number of objects and events dropped because their uid's hash is not in `hashes`.
        unexpected: number of objects dropped because they are of another kind or have no readable name, or because the
            type of their event is unknown.
        transform_errors: how often `transform` failed; those objects are stored as received.
    """

    def __init__(
        self,
        gvk: GroupVersionKind,
        *,
        metadata_only: bool = False,
        managed_fields: bool = False,
        transform: Transform | None = None,
        hashes: HashRange | None = None,
    ) -> None:
        self._gvk = gvk
        names = (msgspec.json.encode(gvk.api_version), msgspec.json.encode(gvk.kind))
        self._head = b'{"apiVersion":%b,"kind":%b,' % names
        # The members of custom kinds are in alphabetical order, those of built-in kinds in the order of Go structs.
        self._heads = (self._head + b'"metadata":{', b'{"kind":%b,"apiVersion":%b,"metadata":{' % names[::-1])
        self._kinds = {"", gvk.kind, "PartialObjectMetadata"} if metadata_only else {"", gvk.kind}
        self._metadata_only = metadata_only
        self._managed_fields = managed_fields
        self._transform = transform
        self._hashes = hashes
        self.elsewhere = 0
        self.unexpected = 0
        self.transform_errors = 0
        self._failures = RepeatedFailures(
            _logger, logging.WARNING, "%s %s: the transform failed, storing the object as received"
        )

    def read(self, raw: msgspec.Raw | bytes, *, report: bool = True) -> CachedObject | None:
        """Read a cached object from JSON; None if it is not an object of this kind.

        Args:
            raw: the JSON.
            report: whether to count and log JSON that is not an object of this kind.
        """
        head, problem = _head_of(raw)
        if head.kind not in self._kinds or not head.metadata.name:
            if report:
                self.refuse(f"{head.kind or 'an object'} {head.metadata.name or 'without a name'}")
            return None
        if self._hashes is not None and not self._hashes.contains(head.metadata.uid):
            self.elsewhere += 1
            return None
        data = self._stored_bytes(raw, head)
        if self._transform is not None and problem is None:
            return self._transformed(self._transform, head.metadata, data)
        return _build(head.metadata, data, problem)

    def restore(self, request: Request, data: bytes) -> CachedObject:
        """Return the object of a key whose `CachedObject.data` was stored; it had no problem."""
        # What could be decoded then can be nested too deeply for the stack of now.
        return _build(_head_of(data)[0].metadata, data, request=request)

    def version_of(self, raw: msgspec.Raw | bytes) -> Version | None:
        """Return the version of an object for which `read` returned None; None if it has none or is of another kind."""
        head, _ = _head_of(raw)
        known = head.kind in self._kinds and head.metadata.resource_version
        return parse_version(head.metadata.resource_version) if known else None

    def _stored_bytes(self, raw: msgspec.Raw | bytes, head: _Head) -> bytes:
        if self._metadata_only:
            data = b'%b"metadata":%b}' % (self._head, _raw_metadata(raw))
        elif not head.kind:
            data = self._head + bytes(raw).lstrip()[1:]
        else:
            data = bytes(raw)
        if head.metadata.managed_fields is msgspec.UNSET or self._managed_fields:
            return data
        return _without_managed_fields(data, bytes(head.metadata.managed_fields), self._heads)

    def refuse(self, what: str, reason: str = "not an object of this kind with a name") -> None:
        """Count what the server sent and is ignored, and log the first of it as a warning."""
        self.unexpected += 1
        level = logging.WARNING if self.unexpected == 1 else logging.DEBUG
        _logger.log(level, "%s: ignoring %s sent by the server: %s", self._gvk, what, reason)

    def _transformed(self, transform: Transform, metadata: _HeadMetadata, data: bytes) -> CachedObject:
        try:
            document = transform(msgspec.json.decode(data))
            _restore_identity(document, metadata, self._gvk)
            data = msgspec.json.encode(document)
            return _build(_decode_head(data).metadata, data)
        except FAILURES as error:
            # User code; an object that cannot be transformed must not be lost.
            self.transform_errors += 1
            self._failures.log(error, self._gvk, Request(metadata.name, metadata.namespace))
            return _build(metadata, data)


def cached_object(document: Mapping[str, Any]) -> CachedObject:
    """Return a document as a cached object, as an informer without a transform stores it.

    Raises:
        ValueError: the document has no name, or its metadata is not that of a Kubernetes object.
    """
    found = WireReader(gvk_of(document)).read(msgspec.json.encode(document))
    if found is None or found.problem is not None:
        problem = f": {found.problem}" if found is not None else ": metadata.name is missing"
        raise ValueError(f"{gvk_of(document)} {name_of(document)!r} is not a valid object{problem}")
    return found


def _head_of(raw: msgspec.Raw | bytes) -> tuple[_Head, str | None]:
    """Return an object's head, and why the decoder rejected the object; None if it did not."""
    try:
        return _decode_head(raw), None
    except UNDECODABLE as error:
        return _decode_head_leniently(bytes(raw)), str(error) or type(error).__name__


def _decode_head_leniently(text: bytes) -> _Head:
    """Decode an object's head field by field; leave out what cannot be read."""
    try:
        members = json_members(text, "kind", "metadata")
        fields = json_members(members.get("metadata", b"{}"), *_METADATA_FIELDS)
    except ValueError:
        return _Head(_HeadMetadata())
    metadata = _HeadMetadata()
    if (managed_fields := fields.pop("managedFields", None)) is not None:
        metadata.managed_fields = msgspec.Raw(managed_fields)
    read_leniently(metadata, fields)
    head = _Head(metadata)
    with contextlib.suppress(KeyError, *UNDECODABLE):
        head.kind = _decode_text(members["kind"])
    return head


def _raw_metadata(raw: msgspec.Raw | bytes) -> bytes:
    try:
        return bytes(_decode_raw_metadata(raw).metadata)
    except UNDECODABLE:
        return json_members(bytes(raw), "metadata")["metadata"]


def _build(
    metadata: _HeadMetadata, data: bytes, problem: str | None = None, request: Request | None = None
) -> CachedObject:
    namespace, labels = metadata.namespace, metadata.labels
    if labels and len(labels) <= _SHARED_LABELS:
        labels = _shared(tuple(labels.items()))
    owners = metadata.owner_references
    return CachedObject(
        request=request or Request(metadata.name, sys.intern(namespace) if namespace else None),
        uid=metadata.uid,
        version=parse_version(metadata.resource_version),
        data=data,
        generation=metadata.generation,
        finalizers=metadata.finalizers or (),
        owner_references=_shared_owners(owners) if owners and len(owners) == 1 else owners or (),
        deletion_timestamp=metadata.deletion_timestamp,
        problem=problem,
        _labels=labels,
    )


_shared: Callable[[tuple[tuple[str, str], ...]], dict[str, str]] = functools.lru_cache(maxsize=_LABEL_SETS)(dict)
"""Returns the same dict for the same labels: those of a ReplicaSet's Pods, for example, are stored once."""

_shared_owners = functools.lru_cache(maxsize=_LABEL_SETS)(tuple[CachedOwner, ...])
"""Returns the same owners for equal ones, as `_shared` does."""


def _without_managed_fields(data: bytes, value: bytes, heads: tuple[bytes, ...]) -> bytes:
    """Cut the member out of the text; decode and encode only if its position is ambiguous.

    A quote inside a JSON string is escaped, so the key's bytes are always a key. The key is the right one if the value
    follows it and either there is no other, or the object begins with its metadata: the members before managedFields
    there only have strings as values. This saves the second search, which costs more than everything else.
    """
    start = data.find(_MANAGED_FIELDS)
    after = start + _KEY_LENGTH
    end = after + len(value)
    if data.startswith(value, after) and (data.startswith(heads) or data.rfind(_MANAGED_FIELDS) == start):
        if data.startswith(b",", end):
            return data[:start] + data[end + 1 :]
        if data.startswith(b",", start - 1):
            return data[: start - 1] + data[end:]
    try:
        document = decode_document(data)
    except UNDECODABLE:
        return data
    del document["metadata"]["managedFields"]
    return msgspec.json.encode(document)


def _restore_identity(document: JSONObject, metadata: _HeadMetadata, gvk: GroupVersionKind) -> None:
    kept = document.setdefault("metadata", {})
    kept |= {"name": metadata.name, "uid": metadata.uid, "resourceVersion": metadata.resource_version}
    if metadata.namespace:
        kept["namespace"] = metadata.namespace
    document |= {"apiVersion": gvk.api_version, "kind": gvk.kind}


class _Details(msgspec.Struct, gc=False):
    uid: str = ""


class _AnswerMetadata(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    resource_version: str = ""
    finalizers: list[str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class WriteAnswer(msgspec.Struct, gc=False):
    """The relevant parts of the response to a write.

    Attributes:
        kind: the kind of the response: the object's, ``"Status"``, or a subresource's such as ``"Scale"``.
        metadata: the object's metadata.
        details: the details of a Status.
    """

    kind: str = ""
    metadata: _AnswerMetadata = msgspec.field(default_factory=_AnswerMetadata)
    details: _Details | None = None

    @property
    def uid(self) -> str:
        """Return the uid of the written object; ``""`` if the response does not contain it."""
        return self.metadata.uid or (self.details.uid if self.details is not None else "")

    def deletes(self, verb: str) -> bool:
        """Return whether the write removed the object.

        A deletion is answered with a Status or with the object. An object with a deletionTimestamp still exists while
        finalizers or a grace period hold it. Any write that removes the last finalizer from such an object removes the
        object, too.
        """
        metadata = self.metadata
        if metadata.deletion_timestamp:
            return not metadata.finalizers and not metadata.deletion_grace_period_seconds
        return verb == "delete"


_decode_answer = msgspec.json.Decoder(WriteAnswer).decode


def read_answer(body: bytes) -> WriteAnswer | None:
    """Decode the response to a write; None if it is not an object."""
    try:
        return _decode_answer(body)
    except UNDECODABLE:
        return None


def version_in(body: bytes, verb: str) -> Version | None:
    """Return the version that a write created; None if the response does not contain it, as after a deletion."""
    answer = read_answer(body)
    if answer is None or answer.deletes(verb) or not answer.metadata.resource_version:
        return None
    return parse_version(answer.metadata.resource_version)
