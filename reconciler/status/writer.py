"""The interface between a batcher and a client, and what the batchers of one client have learned.

A client offers a consistent read, and a write that is sent once.

A server may store something other than what was sent. It prunes fields that the CRD does not have and fills in
defaults, and webhooks change values. The same desired status would then look like a change in every reconcile. So the
memory of a client keeps, for each object and path, what was wanted and what was stored instead. The same desired value
over the same stored value is not sent again. Anything else is sent, and every write is sent whole. What one object
taught never affects another object. It is forgotten after ten minutes, because schemas and webhooks change.

The memory also keeps which dropped fields were reported, and which fields were sent last. The owner of a field shows
only that some flush under a field manager wrote it; what other flushes sent shows whether that can have been another
one.

It is bounded: beyond the limits an occasional useless request is made.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from reconciler._core.lru import LRU
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import Version, get_path, is_older
from reconciler.status.documents import digest

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject
    from reconciler.clock import Clock
    from reconciler.status.mutations import Path

RETRY_AFTER = 600.0
"""Seconds after which the value is sent again. A schema changes rarely, and a useless request costs little."""

MAX_ANSWERS = 10_000
MAX_KINDS = 256
MAX_PATHS = 256
MAX_SENT = 10_000

ITEM = "*"
"""The key in a path that stands for all items of a list."""

_TRANSITION_TIME = "lastTransitionTime"


class SentWrite(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A write that was sent, and that may have been applied.

    Attributes:
        sender: identifies the flush; compared by identity.
        uid: of the object.
        version: the resourceVersion that it was conditional on.
        fields: the members of the status that it changed something in.
    """

    sender: object
    uid: str
    version: Version
    fields: frozenset[str]


class StatusMemory:
    """The differences between what was sent over one client and what was stored. Thread-safe.

    Attributes:
        answers: digests of what was wanted and of what was stored instead, and since when, by uid and path.
    """

    def __init__(self) -> None:
        self.answers: LRU[tuple[str, Path], tuple[bytes, bytes, float]] = LRU(MAX_ANSWERS)
        self._reported: LRU[GroupVersionKind, set[Path]] = LRU(MAX_KINDS)
        self._sent: OrderedDict[SentWrite, None] = OrderedDict()
        self._newest_forgotten: Version | None = None
        self._lock = threading.Lock()

    def foresees(
        self, uid: str, paths: Iterable[Path], wanted: Mapping[str, Any], stored: Mapping[str, Any], clock: Clock
    ) -> bool:
        """Return whether the server is known to store, at each of these paths, this value instead of the wanted one.

        Args:
            uid: of the object.
            paths: where the two statuses differ.
            wanted: the desired status.
            stored: the stored status.
            clock: the age of what is known.
        """
        now = clock.monotonic()
        with self._lock:
            for path in paths:
                want, answer, since = self.answers.get((uid, path), (b"", b"", now))
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
                self.answers[uid, path] = (_digest(get_path(wanted, path)), _digest(get_path(stored, path)), now)

    def report(
        self, gvk: GroupVersionKind, wanted: Mapping[str, Any], stored: Mapping[str, Any]
    ) -> tuple[list[Path], list[Path]]:
        """Return the paths of fields that are not stored at all, and those of them that were not reported before."""
        missing = list(_missing(wanted, stored))
        with self._lock:
            reported = self._reported[gvk] = self._reported.get(gvk, set())
            news = [path for path in missing if path not in reported]
            reported.update(news[: MAX_PATHS - len(reported)])
            return missing, news

    def sent(self, write: SentWrite) -> None:
        """Remember a write that is about to be sent."""
        with self._lock:
            self._sent[write] = None
            if len(self._sent) > MAX_SENT:
                forgotten = self._sent.popitem(last=False)[0].version
                if not is_older(forgotten, self._newest_forgotten):
                    self._newest_forgotten = forgotten

    def refused(self, write: SentWrite) -> None:
        """Forget a write that was certainly not applied."""
        with self._lock:
            self._sent.pop(write, None)

    def may_be_of_another(self, write: SentWrite) -> bool:
        """Return whether another flush may have written what a version newer than the write's shows in its fields.

        A write that was conditional on an older version than this one cannot have been applied after it.
        """
        with self._lock:
            forgotten = self._newest_forgotten
            if forgotten is not None and not is_older(forgotten, write.version):
                return True
            return any(
                other.sender is not write.sender
                and other.uid == write.uid
                and other.fields & write.fields
                and not is_older(other.version, write.version)
                for other in self._sent
            )


_memories: weakref.WeakKeyDictionary[Any, StatusMemory] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def memory_of(client: object) -> StatusMemory:
    """Return the memory of a client, which ends with the client; a new one for a client without weak references."""
    try:
        with _lock:
            known = _memories.get(client)
            if known is None:
                known = _memories[client] = StatusMemory()
            return known
    except TypeError:
        return StatusMemory()


def _digest(value: Any) -> bytes:
    """Return the fingerprint of a value, without the transition times of conditions.

    A transition time is set when a condition is recorded, and changes only with the condition's status.
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
    """Yield the paths of members that have a value and are not stored at all, each once.

    Zeros and empty values are skipped: Go omits them from a stored object.
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


class Target(msgspec.Struct, frozen=True):
    """The object and the client.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        writer: the `StatusWriter` or `SyncStatusWriter`.
    """

    gvk: GroupVersionKind
    request: Request
    writer: Any

    # What only a flush needs is computed when it asks, since most reconciles have nothing to write.

    @property
    def field_manager(self) -> str:
        """Return the name that writes are recorded under; ``""`` if it is not known."""
        return str(getattr(self.writer, "field_manager", "") or "")

    @property
    def warnings(self) -> Sequence[str]:
        """Return the ``Warning`` headers of the last response."""
        found: Sequence[str] = getattr(self.writer, "warnings", ())
        return found

    @property
    def memory(self) -> StatusMemory:
        """Return what was learned over the client."""
        return memory_of(getattr(self.writer, "client", self.writer))

    def __str__(self) -> str:
        return f"{self.gvk} {self.request}"


Strategy = Literal["merge", "update", "apply"]
"""How a status is sent: ``"merge"`` (RFC 7386 merge patch), ``"update"`` (PUT) or ``"apply"`` (server-side apply)."""


class StatusTarget(Protocol):
    """The object that a writer reads and writes, and the client that it does so with."""

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the object's kind."""
        ...

    @property
    def request(self) -> Request:
        """Return the object's name and namespace."""
        ...

    @property
    def identity(self) -> Hashable:
        """Return what identifies server, client and field manager: only batchers of equal identity share a write."""


class StatusWriter(StatusTarget, Protocol):
    """The protocol for reading one object and writing its status over an asynchronous client.

    A writer may have more attributes:

    * ``field_manager`` (str): the manager that its writes are recorded under. With it, fields that this manager owns
      are overwritten on a newer version, and ``strategy="apply"`` is possible.
    * ``warnings`` (sequence of str): the ``Warning`` headers of the last response, logged if the server drops a field.
    * ``client`` (an object that supports weak references): the client that several writers share. What is learned about
      the server is kept for it, and ends with it; without this attribute it is kept for the writer.
    """

    async def read(self) -> JSONObject:
        """Read the whole object by a consistent GET (no ``resourceVersion`` parameter, no cache).

        Cancellation has no effect on the server.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no response.
        """
        ...

    async def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once and return the object in the response; no lower layer may repeat it.

        A cancelled call may have been executed: the batcher shields the call, and waits at most its ``flush_timeout``.

        Args:
            body: a merge patch; for an update the object without spec, with its whole status; or the applied
                configuration. It contains the resourceVersion that it is conditional on, and neither apiVersion nor
                kind.
            strategy: ``"merge"``, ``"update"`` or ``"apply"``; the last is sent with force.
            subresource: None writes the main resource.

        Raises:
            NotSent: the connection failed, so the server did not get it.
            OutcomeUnknown: it may have reached the server, but there was no response. An exception of another type,
                as of a response that is not JSON, is treated in the same way.
            APIError: the server's failure, typed.
        """
        ...


class SyncStatusWriter(StatusTarget, Protocol):
    """The protocol for reading one object and writing its status over a blocking client; see `StatusWriter`.

    One more attribute is optional: ``request_timeout`` (float). Before each request of a flush the batcher sets it to
    the seconds that the request may take, and the writer raises `OutcomeUnknown` when they have passed. Without it a
    stalled request uses up the time of the flush, and its outcome is never read back.
    """

    def read(self) -> JSONObject:
        """Read the whole object by a consistent GET."""
        ...

    def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once and return the object in the response; no lower layer may repeat it."""
        ...
