"""Event recording: Kubernetes Events about objects, as shown by ``kubectl describe``.

The recorder never blocks its caller and never raises errors of the API server. Identical events become one Event with a
count, and many similar ones become one combined Event. Events are rate-limited per object. Memory is bounded, and
dropped events are counted. Events are best effort: keep state in ``status``.

Callers fill a queue, and one task sends it. A correlator decides whether an occurrence becomes a new Event, raises a
count, or is dropped. Its three steps (aggregation, counting, spam filter), and all numbers, are those of client-go's
classic recorder. Times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from reconciler._core.backoff import retry_after_delay
from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.lru import LRU
from reconciler._core.wire import JSONObject
from reconciler.clock import Clock, current_clock
from reconciler.errors import (
    AlreadyExists,
    NotFound,
    ReconcilerError,
    ServerError,
    TooManyRequests,
    TransportError,
    error_text,
)
from reconciler.meta.cycle import Cycle, current_cycle
from reconciler.meta.documents import encodable, format_time
from reconciler.meta.metadata import gvk_of, request_of, uid_of, version_of
from reconciler.objects.kinds import original_document

__all__ = ["EventRecorder"]


CACHE_SIZE = 4096
"""Entries in each of the three caches; the least recently used entry is evicted."""

SIMILAR_LIMIT = 10
"""Different messages of similar events after which they are combined."""

SIMILAR_INTERVAL = 600.0
"""Seconds without a similar event after which the count of similar events is reset."""

BURST = 25
"""Token bucket size: events of one object and type that pass in a burst."""

REFILL = 1 / 300
"""Token bucket rate: events per second of one object and type."""

COMBINED = "(combined from similar events): "


class EventSubject(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The object that an event is about, as in ``involvedObject``."""

    api_version: str
    kind: str
    name: str
    namespace: str | None
    uid: str
    resource_version: str


SimilarKey = tuple[EventSubject, str, str]
"""What similar events have in common: the object, whatever its version, the type and the reason."""


@dataclass(frozen=True)
class Occurrence:
    """An event as reported by a caller."""

    subject: EventSubject
    type: str
    reason: str
    message: str
    at: datetime
    monotonic: float

    @functools.cached_property
    def similar(self) -> SimilarKey:
        """Return the key of similar events: all fields but the message and the object's version."""
        return msgspec.structs.replace(self.subject, resource_version=""), self.type, self.reason


class Correlation(msgspec.Struct, frozen=True, gc=False):
    """The decision how to store an occurrence.

    Attributes:
        name: the Event's name.
        message: the occurrence's message, or the combined one.
        count: 1 to create the Event; higher to patch the Event of this name.
        first: time of the first occurrence.
    """

    name: str
    message: str
    count: int
    first: datetime


class _Messages(msgspec.Struct, gc=False):
    last: float
    seen: set[str] = msgspec.field(default_factory=set)


class _Bucket(msgspec.Struct, gc=False):
    tokens: float
    last: float


class Correlator:
    """A correlator of events, with a bounded memory of earlier occurrences.

    Args:
        new_name: returns the name of a new Event.
        size: entries in each cache. Default 4096, client-go's number.
    """

    def __init__(self, new_name: Callable[[Occurrence], str], *, size: int = CACHE_SIZE) -> None:
        self._new_name = new_name
        self._messages: LRU[SimilarKey, _Messages] = LRU(size)
        self._stored: LRU[tuple[SimilarKey, str | None], Correlation] = LRU(size)
        self._buckets: LRU[tuple[EventSubject, str], _Bucket] = LRU(size)

    def decide(self, occurrence: Occurrence) -> Correlation | None:
        """Return how to store an occurrence; None to drop it, because its object has reported too many events."""
        combined = self._must_combine(occurrence)
        decision = self._count(occurrence, combined=combined)
        return decision if self._take_token(occurrence) else None

    def _must_combine(self, occurrence: Occurrence) -> bool:
        messages = self._messages.get(occurrence.similar)
        if messages is None or occurrence.monotonic - messages.last > SIMILAR_INTERVAL:
            messages = _Messages(occurrence.monotonic)
        self._messages[occurrence.similar] = messages
        messages.last = occurrence.monotonic
        messages.seen.add(occurrence.message)
        if len(messages.seen) < SIMILAR_LIMIT:
            return False
        messages.seen.remove(occurrence.message)
        return True

    def _count(self, occurrence: Occurrence, *, combined: bool) -> Correlation:
        key = (occurrence.similar, None if combined else occurrence.message)
        message = _truncate(COMBINED + occurrence.message) if combined else occurrence.message
        last = self._stored.get(key)
        if last is None:
            decision = Correlation(self._new_name(occurrence), message, 1, occurrence.at)
        else:
            decision = Correlation(last.name, message, last.count + 1, last.first)
        self._stored[key] = decision
        return decision

    def _take_token(self, occurrence: Occurrence) -> bool:
        key = occurrence.similar[:2]
        bucket = self._buckets[key] = self._buckets.get(key) or _Bucket(BURST, occurrence.monotonic)
        elapsed = max(0.0, occurrence.monotonic - bucket.last)
        bucket.tokens = min(BURST, bucket.tokens + elapsed * REFILL)
        bucket.last = occurrence.monotonic
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


_log = logging.getLogger("reconciler.events")

QUEUE_SIZE = 1000
"""Maximum number of events in the queue; client-go's number."""

TRIES = 12
"""Attempts to send one Event; client-go's number."""

RETRY_DELAY = 10.0
"""Seconds between attempts; client-go's number. The first delay is a random fraction of it."""

MESSAGE_LIMIT = 1024
"""Maximum size of a message in bytes: the limit of ``note`` in events.k8s.io, another view of the same objects."""

NAME_LIMIT = 253
"""Maximum length of an object's name."""

_TRANSIENT = (TransportError, ServerError, TooManyRequests)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ELLIPSIS = "…"


class EventSink(Protocol):
    """The part of a client that the recorder needs."""

    async def create(self, obj: JSONObject, /) -> object:
        """Create an object. Cancellation may leave it created."""

    async def patch(self, kind: str, name: str, namespace: str | None = None, /, *, patch: JSONObject) -> object:
        """Send a merge patch. Cancellation may leave it applied."""


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """Counts of events since the recorder was created.

    Attributes:
        recorded: reported by callers.
        created: created on the server.
        patched: added to the count of an existing Event.
        filtered: not sent, because their object reported too many.
        dropped: not sent, because the queue was full or the recorder closed.
        rejected: rejected by the server.
        abandoned: not sent after the last attempt.
        waiting: in the queue now.
    """

    recorded: int = 0
    created: int = 0
    patched: int = 0
    filtered: int = 0
    dropped: int = 0
    rejected: int = 0
    abandoned: int = 0
    waiting: int = 0


class EventRecorder:
    """A recorder of Events about objects.

    ``normal`` and ``warning`` are safe to call from any thread, and before `run`: their events wait in the queue.

    Args:
        client: creates and patches ``v1/Event``.
        source: the reporting component, such as the controller's name.
        host: the reporting instance, such as the pod's name. Default: none.
        clock: source of timestamps. Default: the current clock.
        rng: jitters the first retry. Default: a new one.
        queue_size: how many Events may wait, about 2.4 KB each; those beyond are dropped. Default 1000, client-go's.
    """

    def __init__(
        self,
        client: EventSink,
        *,
        source: str,
        host: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self._client = client
        self._source = source
        self._host = host
        self._queue_size = queue_size
        self._clock = clock or current_clock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads load
        self._correlator = Correlator(self._new_name)
        self._last_stamp = 0
        self._lock = threading.Lock()
        # Guarded by the lock, because reconcilers may run in threads.
        self._queue: deque[tuple[Occurrence, Cycle | None]] = deque()
        self._counts: Counter[str] = Counter()  # of `EventStatistics`
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def normal(self, obj: object, reason: str, message: str) -> None:
        """Record an Event of type Normal.

        Args:
            obj: a Resource, an Unstructured, a dict or a model object, with kind and name.
            reason: a machine-readable reason in CamelCase.
            message: a human-readable message; truncated to 1024 bytes. A lone surrogate in it is sent as ``?``.

        Raises:
            ValueError: `reason` is empty, or `obj` has no kind or name.
            TypeError: `obj` is not a Kubernetes object, or `reason` or `message` is not a str.
        """
        self._record(obj, "Normal", reason, message)

    def warning(self, obj: object, reason: str, message: str) -> None:
        """Record an Event of type Warning; arguments and errors are those of `normal`."""
        self._record(obj, "Warning", reason, message)

    async def run(self) -> None:
        """Send events until `close` is called; return immediately if the recorder is already closed.

        Cancellation stops immediately: the Event being sent may or may not have been stored; the others are dropped.

        Raises:
            RuntimeError: `run` was already called.
        """
        if self._worker is not None:
            raise RuntimeError("this EventRecorder is already running")
        self._loop = asyncio.get_running_loop()
        worker = self._worker = asyncio.create_task(self._work(), name=f"events {self._source}")
        try:
            await asyncio.wait({worker})
        finally:
            worker.cancel()
            await asyncio.wait({worker})
            self._drop_all()
        if not worker.cancelled():
            worker.result()

    async def close(self, timeout: DurationLike = 5.0) -> None:  # noqa: ASYNC109 - a timeout drops the rest, it does not raise
        """Stop accepting events, wait until the queued ones are sent, and end `run`.

        Cancellation leaves the recorder closed and drops the unsent events.

        Args:
            timeout: the duration (seconds, a timedelta or ``"5s"``) to wait; events that are not sent by then are
                dropped and counted.
        """
        seconds = seconds_of("timeout", timeout, zero=True)
        # Let a task that was just created for `run` start.
        await asyncio.sleep(0)
        with self._lock:
            self._closed = True
        self._wake.set()
        try:
            if self._worker is not None:
                await asyncio.wait({self._worker}, timeout=seconds)
        finally:
            if self._worker is not None:
                self._worker.cancel()
            self._drop_all()

    def statistics(self) -> EventStatistics:
        """Return the current counts."""
        with self._lock:
            return EventStatistics(**self._counts, waiting=len(self._queue))

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _record(self, obj: object, type: str, reason: str, message: str) -> None:
        for name, text in (("reason", reason), ("message", message)):
            if not isinstance(text, str):
                raise TypeError(
                    f"the {name} of an event must be a str, not {text.__class__.__name__}: pass obj, reason, message"
                )
        if not reason:
            raise ValueError("an event needs a reason in CamelCase")
        now = self._clock.now()
        reason, message = encodable(reason), encodable(message)
        occurrence = Occurrence(_subject_of(obj), type, reason, _truncate(message), now, self._clock.monotonic())
        with self._lock:
            self._counts["recorded"] += 1
            accepted = not self._closed and len(self._queue) < self._queue_size
            is_first = not self._queue
            if accepted:
                self._queue.append((occurrence, current_cycle.get()))
            else:
                self._counts["dropped"] += 1
        if not accepted:
            _log.debug("dropped event %s of %s: queue full or recorder closed", reason, occurrence.subject.name)
        elif is_first and self._loop is not None:  # the worker goes on until the queue is empty
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # a closed loop has no worker to wake; the events stay counted as waiting
                if not self._loop.is_closed():
                    raise

    def _drop_all(self) -> None:
        with self._lock:
            self._closed = True
            self._counts["dropped"] += len(self._queue)
            self._queue.clear()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                entry = self._queue.popleft() if self._queue else None
                closed = self._closed
            if entry is not None:
                occurrence, cycle = entry
                current_cycle.set(cycle)  # an Event is a write of the reconcile that recorded it
                await self._store(occurrence)
            elif closed:
                return
            else:
                await self._wake.wait()

    async def _store(self, occurrence: Occurrence) -> None:
        decision = self._correlator.decide(occurrence)
        if decision is None:
            self._count("filtered")
            return
        try:
            await self._try(lambda: self._send(occurrence, decision))
        except asyncio.CancelledError:
            self._count("dropped")
            raise
        except _TRANSIENT as error:
            self._count("abandoned")
            _log.warning("gave up event %s after %d attempts: %s", occurrence.reason, TRIES, error_text(error))
        except ReconcilerError as error:
            self._count("rejected")
            _log.warning("event %s was rejected: %s", occurrence.reason, error_text(error))
        except Exception:  # noqa: BLE001 - one bad Event must not stop the sending of others
            self._count("rejected")
            _log.exception("failed to send event %s", occurrence.reason)

    async def _try(self, send: Callable[[], Awaitable[None]]) -> None:
        delay = RETRY_DELAY * self._rng.random()
        for _ in range(TRIES - 1):
            try:
                return await send()
            except _TRANSIENT as error:
                delay = max(delay, retry_after_delay(error.retry_after, self._rng))
                _log.debug("failed to send event, retrying in %.1f s: %s", delay, error_text(error))
            await asyncio.sleep(delay)
            delay = RETRY_DELAY
        return await send()

    async def _send(self, occurrence: Occurrence, decision: Correlation) -> None:
        if decision.count > 1:
            patch = {
                "count": decision.count,
                "lastTimestamp": format_time(occurrence.at),
                "message": decision.message,
            }
            try:
                await self._client.patch("v1/Event", decision.name, _namespace(occurrence.subject), patch=patch)
            except NotFound:
                # The server keeps Events for an hour, less than the correlator remembers them.
                pass
            else:
                self._count("patched")
                return
        try:
            await self._client.create(self._document(occurrence, decision))
        except AlreadyExists:
            # The response to an earlier attempt was lost.
            _log.debug("event %s already exists: stored by an earlier attempt", decision.name)
        self._count("created")

    def _document(self, occurrence: Occurrence, decision: Correlation) -> JSONObject:
        subject = occurrence.subject
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": decision.name, "namespace": _namespace(subject)},
            "involvedObject": {key: value for key, value in msgspec.to_builtins(subject).items() if value},
            "type": occurrence.type,
            "reason": occurrence.reason,
            "message": decision.message,
            "source": {"component": self._source, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._source,
            "reportingInstance": self._host,
            "count": decision.count,
            "firstTimestamp": format_time(decision.first),
            "lastTimestamp": format_time(occurrence.at),
        }

    def _new_name(self, occurrence: Occurrence) -> str:
        # The time in nanoseconds, as in client-go, but always unique.
        self._last_stamp = max(self._last_stamp + 1, (occurrence.at - _EPOCH) // timedelta(microseconds=1) * 1000)
        suffix = f".{self._last_stamp:x}"
        return occurrence.subject.name[: NAME_LIMIT - len(suffix)].rstrip(".-") + suffix


def _namespace(subject: EventSubject) -> str:
    """Return the Event's namespace: its object's, or ``default`` for cluster-scoped objects, as the API requires."""
    return subject.namespace or "default"


def _subject_of(obj: object) -> EventSubject:
    document = original_document(obj)
    gvk, (name, namespace) = gvk_of(document), request_of(document)
    if not name:
        raise ValueError(f"cannot record an event about this {gvk.kind}: it has no name")
    return EventSubject(gvk.api_version, gvk.kind, name, namespace, uid_of(document), version_of(document))


def _truncate(message: str) -> str:
    """Return the message, truncated to `MESSAGE_LIMIT` bytes at a character boundary."""
    encoded = message.encode()
    if len(encoded) <= MESSAGE_LIMIT:
        return message
    return encoded[: MESSAGE_LIMIT - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS
