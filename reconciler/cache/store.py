"""Cached objects, the events that report their changes, and the store: objects by name, namespace and index.

Objects are stored as the JSON bytes received, with the fields that keys, indexes and predicates need.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import msgspec
from msgspec.structs import force_setattr

from reconciler._core.user_code import FAILURES
from reconciler._core.wire import UNDECODABLE, JSONObject, json_members
from reconciler.cache import cold
from reconciler.errors import RepeatedFailures
from reconciler.meta import Request
from reconciler.meta.documents import Version, get_path, is_older, parse_path
from reconciler.objects import AnyResource, InvalidObject, Resource
from reconciler.objects.kinds import KindOf, R, from_document

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


class _Rest(msgspec.Struct, gc=False, rename="camel"):
    """The metadata that is rarely read."""

    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None


class _RestOfObject(msgspec.Struct, gc=False):
    metadata: _Rest = msgspec.field(default_factory=_Rest)


_decode_rest = msgspec.json.Decoder(_RestOfObject).decode
decode_document = msgspec.json.Decoder(dict[str, Any]).decode


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
        return self._rest().annotations or {}

    @property
    def creation_timestamp(self) -> str | None:
        """Return RFC 3339 text, decoded at each access; None if the server sent none."""
        return self._rest().creation_timestamp

    def _rest(self) -> _Rest:
        try:
            return _decode_rest(self.data).metadata
        except UNDECODABLE:
            rest = _Rest()
            with contextlib.suppress(KeyError, ValueError):
                read_leniently(rest, json_members(json_members(self.data, "metadata")["metadata"]))
            return rest

    @property
    def controller(self) -> CachedOwner | None:
        """Return the owner reference marked as controller; None if there is none."""
        return next((reference for reference in self.owner_references if reference.controller), None)

    def decode(self) -> JSONObject:
        """Decode the document: a private copy.

        Raises:
            InvalidObject: the document cannot be decoded: it is nested too deeply, or contains something other than
                JSON.
        """
        return _decode_as_document(self.request, self.data)

    def read_as(self, kind: KindOf[R], *, lenient: bool = False) -> R:
        """Read a private copy as an object of a kind; see `from_document`.

        A version is compared with its model once. From then on only the parts that are used are read as models.

        Raises:
            InvalidObject: the document cannot be decoded, or does not fit the kind's class and `lenient` is False.
        """
        if self._fits is not None and self._fits is kind:
            return cast("R", self._fits.from_valid(self.decode()))
        obj = from_document(kind, self.decode(), lenient=lenient)
        if isinstance(obj, Resource) and not obj.problems:
            force_setattr(self, "_fits", type(obj))
        return obj

    def __repr__(self) -> str:
        return f"<CachedObject {self.request} version={self.version} uid={self.uid}>"


class IdleObject(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A compressed object in the result of a list: its key, and the rest when it is used.

    Reading it decodes the document once, and not its metadata before.

    Attributes:
        request: name and namespace.
    """

    request: Request
    _frame: bytes
    _store: Store

    def restored(self) -> CachedObject:
        """Return the object; the store keeps it compressed."""
        return self._store.restored(self.request, self._frame)

    def read_as(self, kind: KindOf[R]) -> R:
        """Read a private copy; see `CachedObject.read_as`.

        Raises:
            InvalidObject: the document cannot be decoded, or does not fit the kind's class.
        """
        data, fits = self._store.unpack(self._frame)
        document = _decode_as_document(self.request, data)
        if fits is not None and fits is kind:
            return cast("R", fits.from_valid(document))
        return from_document(kind, document)


def restored(found: CachedObject | IdleObject) -> CachedObject:
    """Return an object that a list found."""
    return found if isinstance(found, CachedObject) else found.restored()


def same_content(one: CachedObject, other: CachedObject) -> bool:
    """Return whether two documents mean the same; a watch and a list may encode one object differently.

    Two documents that cannot be compared count as equal: no reader could tell them apart.
    """
    if one.data == other.data:
        return True
    try:
        return one.decode() == other.decode()
    except (InvalidObject, RecursionError):
        return True


def _decode_as_document(request: Request, data: bytes) -> JSONObject:
    try:
        return decode_document(data)
    except UNDECODABLE as error:
        raise InvalidObject(f"{request} cannot be decoded", [("$", str(error))]) from None


def read_leniently(into: msgspec.Struct, members: Mapping[str, bytes]) -> None:
    """Set those fields of a struct that can be read."""
    for field in msgspec.structs.fields(into):
        if (value := members.get(field.encode_name)) is not None:
            with contextlib.suppress(*UNDECODABLE):
                setattr(into, field.name, msgspec.json.decode(value, type=field.type))


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


DocumentValues = Callable[[JSONObject], Iterable[str]]
"""Compute index values from a decoded document."""

ObjectValues = Callable[[CachedObject], Iterable[str]]
"""Compute index values from the fields of a cached object, without decoding it."""

_logger = logging.getLogger("reconciler.cache")


def refuse_coroutine_function(function: object, what: str) -> None:
    """Raise for a coroutine function: the watch stream does not wait for handlers and index functions.

    Raises:
        TypeError: `function` is a coroutine function.
    """
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{what} must be a plain function that adds slow work to a queue; {function!r} is async")


def field_values(path: str) -> DocumentValues:
    """Return a function that returns the value of a document's field, or each item of a list, as text."""
    keys = parse_path(path)

    def values(document: JSONObject) -> Iterable[str]:
        found = get_path(document, keys)
        items = found if isinstance(found, list) else () if found is None else (found,)
        return [each if isinstance(each, str) else json.dumps(each) for each in items]

    return values


def owner_uids(cached: CachedObject) -> Iterable[str]:
    """Return the uids of all owners, as the values of an index that answers "what does this object own"."""
    return [reference.uid for reference in cached.owner_references]


class Index:
    """A mapping of values to the objects that have them; an object may have any number of values.

    Args:
        name: the name used in lookups.
        values: computes an object's values. If it fails, the object has no values.

    Attributes:
        errors: how often `values` failed.
    """

    def __init__(self, name: str, values: ObjectValues) -> None:
        self.name = name
        self.errors = 0
        self._failures = RepeatedFailures(_logger, logging.WARNING, "index %r failed on %r, not indexing the object")
        self._values = values
        # Both contain only stored objects: a value is removed with its last object.
        self._requests: dict[str, dict[Request, None]] = {}
        self._held: dict[Request, tuple[str, ...]] = {}

    def put(self, cached: CachedObject) -> None:
        """Index an object, replacing the previous one under its key."""
        self.discard(cached.request)
        values = self.values_of(cached)
        if not values:
            return
        self._held[cached.request] = values
        for value in values:
            self._requests.setdefault(value, {})[cached.request] = None

    def discard(self, request: Request) -> None:
        """Remove the object under a key."""
        for value in self._held.pop(request, ()):
            requests = self._requests[value]
            del requests[request]
            if not requests:
                del self._requests[value]

    def find(self, value: str) -> list[Request]:
        """Return the keys of the objects that have a value."""
        return list(self._requests.get(value, ()))

    def values_of(self, cached: CachedObject) -> tuple[str, ...]:
        """Return an object's values without duplicates."""
        try:
            values = self._values(cached)
            return (values,) if isinstance(values, str) else tuple(dict.fromkeys(values))
        except FAILURES as error:
            # User code; an object that cannot be indexed must still be cached.
            self.errors += 1
            self._failures.log(error, self.name, cached)
            return ()

    def __len__(self) -> int:
        """Return the number of distinct values."""
        return len(self._requests)


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """The numbers of objects and indexes in a store.

    Attributes:
        objects: number of objects.
        bytes: total length of their documents.
        held: bytes of memory that the documents take; less than `bytes` if idle ones are compressed.
        unreadable: objects that the decoder rejected, in whole or in part; see `CachedObject.problem`.
        indexes: number of distinct values per index.
        index_errors: how often an index function failed.
    """

    objects: int
    bytes: int
    held: int
    unreadable: int
    indexes: dict[str, int]
    index_errors: int


IDLE = 60.0
"""Seconds after which an object that nobody reads or changes is compressed; at most twice as long."""

LEAST_HELD = 4 * 1024 * 1024
"""Bytes of documents in a store from which on idle ones are compressed. The dictionary and its contexts take 0.3 MB."""

MOST_WHOLE = 16 * 1024 * 1024
"""Bytes of documents from which on a first list stores nothing else. The rest of an object takes 0.3 KB in small parts,
between which the names remain, so that Python would not return the memory. The first read of an object then decodes its
metadata again, which takes 2 to 3 µs."""

MOST_HELD = 320 * 1024 * 1024
"""Bytes that the documents of a store take from which on only the newest ones are not compressed. Each object that is
stored then compresses two older ones, which takes about 10 µs."""

_NEWEST = 32 * 1024 * 1024
"""Bytes of documents that stay uncompressed even then; up to twice as many."""

_PAUSE = 0.01
"""Seconds between two turns of 1 to 2 ms, so that compression takes at most a sixth of a core."""

_TURN = 128 * 1024
"""Bytes of documents that are compressed in one turn."""

_NAME = 64
"""Bytes that each name counts for in a turn, even if its object is gone or in use."""

_TRIM = 16 * 1024 * 1024
"""Bytes of freed documents after which memory is returned to the operating system."""


_Names = defaultdict[str | None, dict[str, None]]
"""The names of objects, by namespace: not keys, which are as large as names."""

_Held = CachedObject | bytes
"""An object, the document of one that nobody has read since the first list, or the frame of an idle one."""


class Store:
    """The read side of a store: objects as the watch delivered them, by name, namespace and index.

    Reads are in memory and do not wait. Every result is a snapshot that later events do not change. This process's own
    writes are not applied here; `CachedClient` does that.

    Objects that nobody has read or changed for a while are compressed. `get` restores an object for good; all other
    reads restore a compressed one for the caller alone, so that reading everything once takes no memory. An object of a
    long first list is stored as its document alone, until the first read by key, of a list or through an index.

    Args:
        decode: returns the object of a key and of its document as it was stored. Default None: nothing is compressed.

    Attributes:
        bytes: total length of the documents.
        held: bytes of memory that the documents take.
        unreadable: number of objects that cannot be decoded, in whole or in part.
        unpack: returns the document of a frame, and the class that it was last found to fit; reads of idle objects
            spend their time here, so it is the method itself.
    """

    def __init__(self, decode: Callable[[Request, bytes], CachedObject] | None = None) -> None:
        # Invariant: here and below, no namespace maps to an empty dict, so that a deleted namespace costs nothing.
        self._namespaces: dict[str | None, dict[str, _Held]] = {}
        self._indexes: dict[str, Index] = {}
        self.bytes = 0
        self.held = 0
        self.unreadable = 0
        self._count = 0
        self._decode = decode
        self._compressor = cold.Compressor()
        self._compresses = decode is not None and cold.AVAILABLE
        self.unpack = self._compressor.unpack
        # The objects that were stored or restored since the last sweep, and those since the one before, in order.
        # So memory is freed in the order in which it was allocated, or in reverse, and whole pages become free.
        self._young: _Names = defaultdict(dict)
        self._older: _Names = defaultdict(dict)
        self._young_bytes = 0
        self._idle: list[tuple[str | None, dict[str, None]]] = []  # to be compressed
        self._freed = 0
        self._sweep_due = asyncio.Event()

    def get(self, request: Request) -> CachedObject | None:
        """Return the object under a key, or None."""
        objects = self._namespaces.get(request.namespace)
        if objects is None:
            return None
        held = objects.get(request.name)
        if not isinstance(held, bytes):
            return held
        cached = objects[request.name] = self.restored(request, held)
        self.held -= len(held)
        self._remember(cached)
        return cached

    def peek(self, request: Request) -> CachedObject | None:
        """Return the object under a key, or None; an idle one stays compressed."""
        held = self._namespaces.get(request.namespace, {}).get(request.name)
        if not isinstance(held, bytes):
            return held
        return self.get(request) if held[-1] == cold.DOCUMENT else self.restored(request, held)

    def list(self, namespace: str | None = None) -> Sequence[CachedObject]:
        """Return the objects of a namespace; None for all."""
        return list(self.iterate(namespace))

    def find(self, namespace: str | None = None) -> Sequence[CachedObject | IdleObject]:
        """Return the objects of a namespace without restoring idle ones; None for all."""
        return [
            self._find(Request(name, each), held) if isinstance(held, bytes) else held
            for each, names, objects in self.snapshot(namespace)
            for name, held in zip(names, objects, strict=True)
        ]

    def names(self, namespace: str | None = None) -> Iterator[tuple[str | None, Sequence[str]]]:
        """Iterate over a snapshot of the namespaces that contain objects, with the names; None for all."""
        wanted = [*self._namespaces] if namespace is None else [namespace]
        return ((each, [*self._namespaces.get(each, ())]) for each in wanted)

    def requests(self, namespace: str | None = None) -> Iterator[Request]:
        """Iterate over the keys of a namespace; None for all."""
        return (Request(name, each) for each, names in self.names(namespace) for name in names)

    def snapshot(self, namespace: str | None = None) -> Sequence[tuple[str | None, Sequence[str], Sequence[_Held]]]:
        """Return the namespaces, the names in each, and tokens by which `peek_same` recognizes their objects."""
        wanted = self._namespaces if namespace is None else (namespace,)
        found = ((each, self._namespaces.get(each, {})) for each in wanted)
        return [(each, [*objects], [*objects.values()]) for each, objects in found]

    def peek_same(self, request: Request, token: _Held) -> CachedObject | None:
        """Return the object under a key if it is the same version as in a `snapshot`, else None."""
        held = self._namespaces.get(request.namespace, {}).get(request.name)
        if held is None:
            return None
        cached = self.restored(request, held) if isinstance(held, bytes) else held
        if held is token:
            return cached
        before = self.restored(request, token) if isinstance(token, bytes) else token
        return cached if (before.uid, before.version) == (cached.uid, cached.version) else None

    def has_document(self, cached: CachedObject) -> bool | None:
        """Return whether exactly this document is stored under the object's key; None if no object is."""
        held = self._namespaces.get(cached.request.namespace, {}).get(cached.request.name)
        if held is None:
            return None
        return cached.data == (self.unpack(held)[0] if isinstance(held, bytes) else held.data)

    def by_index(self, name: str, value: str) -> Sequence[CachedObject]:
        """Return the objects that have a value in an index.

        Raises:
            ValueError: there is no index with this name.
        """
        found = (self.peek(request) for request in self.index(name).find(value))
        return [cached for cached in found if cached is not None]

    def index(self, name: str) -> Index:
        """Return an index.

        Raises:
            ValueError: there is no index with this name.
        """
        index = self._indexes.get(name)
        if index is None:
            known = ", ".join(sorted(self._indexes)) or "none"
            raise ValueError(f"no index {name!r}: declare it with add_index (existing: {known})")
        return index

    def has_index(self, name: str) -> bool:
        """Return whether there is an index with this name."""
        return name in self._indexes

    def add_index(self, name: str, values: DocumentValues) -> None:
        """Index all present and future objects by the values that a function computes from the decoded document.

        Costs one decode per object and event (about 4 µs for 1.5 KB); `add_object_index` avoids it.

        Args:
            name: the name for `by_index`. If it is a field's path (``"spec.nodeName"``), field selectors of cached
                reads use the index.
            values: computes the values of one document. An object on which it fails has none, and the failure is
                counted.

        Raises:
            ValueError: the name is taken.
            TypeError: `values` is a coroutine function.
        """
        refuse_coroutine_function(values, "an index")
        self.add_object_index(name, lambda cached: values(cached.decode()))

    def add_object_index(self, name: str, values: ObjectValues) -> None:
        """Index all objects by the values that a function computes from the cached object, without decoding it.

        Raises:
            ValueError: the name is taken.
            TypeError: `values` is a coroutine function.
        """
        refuse_coroutine_function(values, "an index")
        if name in self._indexes:
            raise ValueError(f"index {name!r} already exists")
        index = self._indexes[name] = Index(name, values)
        for cached in self:
            index.put(cached)

    def statistics(self) -> StoreStatistics:
        """Return what the store contains."""
        return StoreStatistics(
            objects=self._count,
            bytes=self.bytes,
            held=self.held,
            unreadable=self.unreadable,
            indexes={name: len(index) for name, index in self._indexes.items()},
            index_errors=sum(index.errors for index in self._indexes.values()),
        )

    def __len__(self) -> int:
        """Return the number of objects."""
        return self._count

    def __contains__(self, request: object) -> bool:
        """Return whether there is an object under a key."""
        return isinstance(request, Request) and request.name in self._namespaces.get(request.namespace, ())

    def iterate(self, namespace: str | None = None) -> Iterator[CachedObject]:
        """Iterate over a snapshot of the objects of a namespace; None for all."""
        return (
            self.restored(Request(name, each), held) if isinstance(held, bytes) else held
            for each, names, objects in self.snapshot(namespace)
            for name, held in zip(names, objects, strict=True)
        )

    __iter__ = iterate

    def restored(self, request: Request, frame: bytes) -> CachedObject:
        """Return the object of a key and a frame."""
        assert self._decode is not None  # noqa: S101 - there is a frame
        data, fits = self.unpack(frame)
        cached = self._decode(request, data)
        if fits is not None:
            force_setattr(cached, "_fits", fits)
        return cached

    def _find(self, request: Request, held: bytes) -> CachedObject | IdleObject:
        # Frames and objects remember which class they were found to fit; documents do not.
        cached = self.get(request) if held[-1] == cold.DOCUMENT else None
        return IdleObject(request, held, self) if cached is None else cached

    def _remember(self, cached: CachedObject) -> None:
        size = len(cached.data)
        self.held += size
        if self._compresses:
            self._young[cached.request.namespace][cached.request.name] = None
            self._young_bytes += size
            if self.held >= LEAST_HELD:
                self._sweep_due.set()
            if self.held > MOST_HELD:
                self._compress_surplus()

    def _compress_surplus(self) -> None:
        if self._young_bytes > _NEWEST and not self._idle:
            self._age()
            self._age()
        for _ in range(2):
            if self._idle:
                self._compress_next()

    def _age(self) -> None:
        """Make the older objects idle, and the young ones the older ones."""
        self._idle.extend(item for item in self._older.items() if item[1])
        self._older, self._young, self._young_bytes = self._young, defaultdict(dict), 0

    def _compress_next(self) -> int:
        """Compress an idle object, unless it was changed or restored since; return the length of its document."""
        namespace, names = self._idle[-1]
        name, _ = names.popitem()
        if not names:
            self._idle.pop()
        objects = self._namespaces.get(namespace, {})
        held = objects.get(name)
        is_used = any(name in used.get(namespace, ()) for used in (self._young, self._older))
        if held is None or is_used or not _is_loose(held):
            return 0
        data, fits = (held, None) if isinstance(held, bytes) else (held.data, held._fits)  # noqa: SLF001 - parts of it
        self._compressor.learn(self._samples)
        frame = self._compressor.pack(data, fits)
        if frame is not None:
            objects[name] = frame
            self.held += len(frame) - len(data)
            self._freed += len(data)
            if self._freed >= _TRIM:
                self._release()
        return len(data)

    def _release(self) -> None:
        if self._freed:
            cold.release_memory()
            self._freed = 0

    def _samples(self) -> Sequence[bytes]:
        held = itertools.chain.from_iterable(objects.values() for objects in self._namespaces.values())
        loose = itertools.islice(filter(_is_loose, held), cold.SAMPLES)
        return [each if isinstance(each, bytes) else each.data for each in loose]


def _is_loose(held: _Held) -> bool:
    """Return whether an object is not compressed, and may be: its document restores it.

    A version without order is compared by the identity of its object, and a problem is not in the document.
    """
    if isinstance(held, CachedObject):
        return held.problem is None and isinstance(held.version, int) and held.data[-1] == cold.DOCUMENT
    return held[-1] == cold.DOCUMENT


class WritableStore(Store):
    """The write side of a store, used by its informer."""

    def put(self, cached: CachedObject, *, force: bool = False, bare: bool = False) -> tuple[bool, CachedObject | None]:
        """Store an object, unless the same or a newer version of it is stored.

        Args:
            cached: the object.
            force: store an older version, too. Default False.
            bare: keep the document alone until somebody reads the object, if there are many. Default False.

        Returns:
            Whether it was stored, and the object under its key before.
        """
        request = cached.request
        objects = self._namespaces.setdefault(request.namespace, {})
        held = objects.get(request.name)
        before = self.restored(request, held) if isinstance(held, bytes) else held
        if before is not None and before.uid == cached.uid:
            is_stale = not force and is_older(cached.version, before.version)
            if is_stale or (cached.version == before.version and same_content(cached, before)):
                return False, before
        if held is not None and before is not None:
            self._subtract(held, before)
        bare = bare and self._compresses and self.held >= MOST_WHOLE and _is_loose(cached)
        objects[request.name] = cached.data if bare else cached
        self._count += 1
        self.bytes += len(cached.data)
        self.unreadable += cached.problem is not None
        self._remember(cached)
        for index in self._indexes.values():
            index.put(cached)
        return True, before

    def discard(self, request: Request) -> CachedObject | None:
        """Remove the object under a key; return it."""
        before = self.peek(request)
        if before is None:
            return None
        self._subtract(self._namespaces[request.namespace][request.name], before)
        kept: dict[str | None, Any]
        for kept in (self._namespaces, self._young, self._older):
            names = kept.get(request.namespace, {})
            names.pop(request.name, None)
            if not names:
                kept.pop(request.namespace, None)
        for index in self._indexes.values():
            index.discard(request)
        return before

    async def compress_idle(self) -> None:
        """Compress idle objects until cancelled, in turns with pauses, so that everything else comes first."""
        while True:
            await self._sweep_due.wait()
            await asyncio.sleep(IDLE)
            self._age()
            turn = 0
            while self._idle:
                turn += _NAME + self._compress_next()
                if turn >= _TURN:
                    await asyncio.sleep(_PAUSE)
                    turn = 0
            self._release()
            if not self._older and not self._young:
                self._sweep_due.clear()

    def _subtract(self, held: _Held, before: CachedObject) -> None:
        self._count -= 1
        self.bytes -= len(before.data)
        self.held -= len(held if isinstance(held, bytes) else before.data)
        self.unreadable -= before.problem is not None
