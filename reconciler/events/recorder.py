"""Queue events where they happen and send them from one task."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from reconciler.backoff import retry_after_delay
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
from reconciler.events.correlator import Correlator, Decision, Occurrence, Subject
from reconciler.meta import format_time, gvk_of, name_of, namespace_of, uid_of, version_of
from reconciler.objects import Resource, to_document

__all__ = ["EventRecorder", "EventSink", "EventStatistics"]

_log = logging.getLogger("reconciler.events")

QUEUE_SIZE = 1000
"""Events waiting to be sent; client-go's number."""

TRIES = 12
"""Attempts to send one Event; client-go's number."""

RETRY_DELAY = 10.0
"""Seconds between them; client-go's number. The first delay is a random part of it."""

MESSAGE_LIMIT = 1024
"""Bytes of a message; the API's limit for the ``note`` of events.k8s.io, which shows the same objects."""

NAME_LIMIT = 253
"""Letters of an object's name in the API."""

_PASSING = (TransportError, ServerError, TooManyRequests)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CUT = "…"


class EventSink(Protocol):
    """Be what the recorder needs of a client."""

    async def create(self, obj: dict[str, Any], /) -> object:
        """Create an object. Cancellation may leave it created."""
        ...

    async def patch(self, kind: str, name: str, namespace: str | None = None, /, *, patch: dict[str, Any]) -> object:
        """Send a merge patch. Cancellation may leave it applied."""
        ...


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """Count what became of events since the recorder was made.

    Attributes:
        recorded: events reported by callers.
        created: Events made on the server.
        patched: Events whose count was raised.
        filtered: not sent, since their object reported too many.
        dropped: not sent, since the queue was full or the recorder closed.
        rejected: refused by the server.
        abandoned: not sent after the last try.
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
    """Report Events about objects.

    ``normal`` and ``warning`` may be called from any thread, and before `run`: what they report waits in the queue.

    Args:
        client: creates and patches ``v1/Event``.
        source: the reporting component, such as the controller's name.
        host: the reporting instance, such as the pod's name. Defaults to none.
        clock: stamps the events. Defaults to the clock in force.
        rng: spreads the first retry. Defaults to the process-wide generator.
    """

    def __init__(
        self,
        client: EventSink,
        *,
        source: str,
        host: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._source = source
        self._host = host
        self._clock = clock or current_clock()
        self._rng = rng or random.Random()  # noqa: S311 - spreads load
        self._correlator = Correlator(self._new_name)
        self._last_stamp = 0
        self._lock = threading.Lock()
        # Guarded by the lock, since reconcilers may run in threads.
        self._queue: deque[Occurrence] = deque()
        self._recorded = 0
        self._dropped = 0
        self._closed = False
        # Only the worker writes these.
        self._created = self._patched = self._filtered = self._rejected = self._abandoned = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def normal(self, obj: object, reason: str, message: str) -> None:
        """Report that something expected happened to an object.

        Args:
            obj: a Resource, an Unstructured, a dict or a model object, with kind and name.
            reason: a CamelCase word for programs.
            message: a sentence for people; cut to 1024 bytes.

        Raises:
            ValueError: `reason` is empty, or `obj` lacks kind or name.
            TypeError: `obj` is no Kubernetes object.
        """
        self._record(obj, "Normal", reason, message)

    def warning(self, obj: object, reason: str, message: str) -> None:
        """Report that something went wrong with an object; arguments and errors are those of `normal`."""
        self._record(obj, "Warning", reason, message)

    async def run(self) -> None:
        """Send what is reported until `close`; return at once when it is closed already.

        Cancellation stops at once: the Event being sent may or may not have been stored, the others are dropped.

        Raises:
            RuntimeError: it runs already.
        """
        if self._worker is not None:
            raise RuntimeError("this EventRecorder runs already")
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

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - what is left after it is dropped, not raised
        """Take no more events, wait until the queued ones are sent, and end `run`.

        Cancellation leaves the recorder closed and drops what was not sent.

        Args:
            timeout: seconds to wait; what is left then is dropped and counted.
        """
        # A task that was made for `run` just now gets the chance to begin.
        await asyncio.sleep(0)
        with self._lock:
            self._closed = True
        self._wake.set()
        try:
            if self._worker is not None:
                await asyncio.wait({self._worker}, timeout=timeout)
        finally:
            if self._worker is not None:
                self._worker.cancel()
            self._drop_all()

    def statistics(self) -> EventStatistics:
        """Return the counts of now."""
        with self._lock:
            recorded, dropped, waiting = self._recorded, self._dropped, len(self._queue)
        return EventStatistics(
            recorded=recorded,
            created=self._created,
            patched=self._patched,
            filtered=self._filtered,
            dropped=dropped,
            rejected=self._rejected,
            abandoned=self._abandoned,
            waiting=waiting,
        )

    def _record(self, obj: object, type: str, reason: str, message: str) -> None:
        if not reason:
            raise ValueError("an event needs a reason: a CamelCase word")
        now = self._clock.now()
        occurrence = Occurrence(_subject_of(obj), type, reason, _cut(message), now, self._clock.monotonic())
        with self._lock:
            self._recorded += 1
            accepted = not self._closed and len(self._queue) < QUEUE_SIZE
            if accepted:
                self._queue.append(occurrence)
            else:
                self._dropped += 1
        if accepted:
            self._wake_up()
        else:
            _log.debug("event %s of %s dropped: queue full or recorder closed", reason, occurrence.subject.name)

    def _wake_up(self) -> None:
        # A loop that is gone has no worker to wake; the events stay counted as waiting.
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise

    def _drop_all(self) -> None:
        with self._lock:
            self._closed = True
            self._dropped += len(self._queue)
            self._queue.clear()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                occurrence = self._queue.popleft() if self._queue else None
                closed = self._closed
            if occurrence is not None:
                await self._store(occurrence)
            elif closed:
                return
            else:
                await self._wake.wait()

    async def _store(self, occurrence: Occurrence) -> None:
        decision = self._correlator.decide(occurrence)
        if decision is None:
            self._filtered += 1
            return
        try:
            await self._try(lambda: self._send(occurrence, decision))
        except asyncio.CancelledError:
            with self._lock:
                self._dropped += 1
            raise
        except _PASSING as error:
            self._abandoned += 1
            _log.warning("event %s not sent after %d tries: %s", occurrence.reason, TRIES, error_text(error))
        except ReconcilerError as error:
            self._rejected += 1
            _log.warning("event %s rejected: %s", occurrence.reason, error_text(error))
        except Exception:  # noqa: BLE001 - a fault in sending one Event must not end the sending of others
            self._rejected += 1
            _log.exception("event %s not sent", occurrence.reason)

    async def _try(self, send: Callable[[], Awaitable[None]]) -> None:
        delay = RETRY_DELAY * self._rng.random()
        for _ in range(TRIES - 1):
            try:
                return await send()
            except _PASSING as error:
                delay = max(delay, retry_after_delay(error.retry_after, self._rng))
                _log.debug("event not sent, trying again in %.1f s: %s", delay, error_text(error))
            await asyncio.sleep(delay)
            delay = RETRY_DELAY
        return await send()

    async def _send(self, occurrence: Occurrence, decision: Decision) -> None:
        if decision.count > 1:
            patch = {
                "count": decision.count,
                "lastTimestamp": format_time(occurrence.at),
                "message": _cut(decision.message),
            }
            try:
                await self._client.patch("v1/Event", decision.name, _namespace(occurrence.subject), patch=patch)
            except NotFound:
                # Events live for an hour on the server; the memory of them here is longer.
                pass
            else:
                self._patched += 1
                return
        try:
            await self._client.create(self._document(occurrence, decision))
        except AlreadyExists:
            # The answer to an earlier try was lost.
            _log.debug("event %s was stored by an earlier try", decision.name)
        self._created += 1

    def _document(self, occurrence: Occurrence, decision: Decision) -> dict[str, Any]:
        subject = occurrence.subject
        involved = {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "name": subject.name,
            "namespace": subject.namespace,
            "uid": subject.uid,
            "resourceVersion": subject.resource_version,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": decision.name, "namespace": _namespace(subject)},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": occurrence.type,
            "reason": occurrence.reason,
            "message": _cut(decision.message),
            "source": {"component": self._source, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._source,
            "reportingInstance": self._host,
            "count": decision.count,
            "firstTimestamp": format_time(decision.first),
            "lastTimestamp": format_time(occurrence.at),
        }

    def _new_name(self, occurrence: Occurrence) -> str:
        # The time in nanoseconds, as client-go has it, but never the same twice.
        self._last_stamp = max(self._last_stamp + 1, (occurrence.at - _EPOCH) // timedelta(microseconds=1) * 1000)
        suffix = f".{self._last_stamp:x}"
        return occurrence.subject.name[: NAME_LIMIT - len(suffix)].rstrip(".-") + suffix


def _namespace(subject: Subject) -> str:
    """Return where the Event lives: with its object, and in ``default`` for cluster-scoped ones, as the API demands."""
    return subject.namespace or "default"


def _subject_of(obj: object) -> Subject:
    if isinstance(obj, Resource):
        metadata = obj.metadata
        gvk, name, namespace = obj.gvk, metadata.name, metadata.namespace
        uid, version = metadata.uid, metadata.resource_version
    else:
        document = to_document(obj)
        gvk, name, namespace = gvk_of(document), name_of(document), namespace_of(document)
        uid, version = uid_of(document), version_of(document)
    if not name:
        raise ValueError(f"an event is about an object with a name; this {gvk.kind} has none")
    return Subject(gvk.api_version, gvk.kind, name, namespace, uid, version)


def _cut(message: str) -> str:
    """Return a message of at most `MESSAGE_LIMIT` bytes, without a broken letter at its end."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= MESSAGE_LIMIT:
        return encoded.decode()
    return encoded[: MESSAGE_LIMIT - len(_CUT.encode())].decode(errors="ignore") + _CUT
