"""The collector: writes the record of each reconcile while it runs, and passes it to a sink.

It observes the controllers, the transport and the cached reads of their clients, the clock, the log, the effects and
the source of random numbers. What happens outside a reconcile is not recorded.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol

import msgspec

from reconciler.cache import CachedClient, CachedObject
from reconciler.cache.informer import Informer
from reconciler.cache.store import IdleObject, restored
from reconciler.clock import Clock, use_clock
from reconciler.controller.effects import EffectCall, current_effect_handler, set_effect_handler
from reconciler.controller.observers import ReconcileRecorder
from reconciler.controller.reconcile.cycle import Reconcile
from reconciler.controller.reconcile.explanation import failure_of
from reconciler.errors import error_text
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.recording.records import (
    EffectStep,
    ListStep,
    LogStep,
    ReadStep,
    ReconcileRecord,
    RequestStep,
    WakeUp,
    drawn_through,
)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)
_MAX_DRAWS = 1000
"""Random numbers that are kept for a reconcile; one that draws more is replayed with others from there on."""


class RecordSink(Protocol):
    """Receives the records of a manager's reconciles."""

    def start(self, kinds: Callable[[], Sequence[ResourceType]]) -> None:
        """Called before the first reconcile.

        Args:
            kinds: returns how the kinds that the client knows are served. Thread-safe.
        """

    def begun(self, record: ReconcileRecord) -> None:
        """Called when a reconcile begins; its record grows until `ended`."""

    def ended(self, record: ReconcileRecord) -> None:
        """Called when a reconcile has ended."""

    async def stop(self) -> None:
        """Called after the last reconcile. Cancellation abandons what is not stored yet."""


class Trace:
    """A sink that keeps the records in memory, for tests and tools: ``Manager(client, recording=Trace())``.

    Attributes:
        records: the records, in the order in which the reconciles began; those in progress have no result yet.
        kinds: returns how the kinds that the client knows are served.
    """

    def __init__(self) -> None:
        self.records: list[ReconcileRecord] = []
        self.kinds: Callable[[], Sequence[ResourceType]] = tuple

    def start(self, kinds: Callable[[], Sequence[ResourceType]]) -> None:
        """Keep the function that returns the kinds."""
        self.kinds = kinds

    def begun(self, record: ReconcileRecord) -> None:
        """Add a record."""
        self.records.append(record)

    def ended(self, record: ReconcileRecord) -> None:
        """Ignore it: the record is the one that was added."""

    async def stop(self) -> None:
        """Ignore it; cancellation has no effect."""

    def __str__(self) -> str:
        return "in memory"


class _Current:
    """The record of the reconcile in progress, and the seconds since it began."""

    __slots__ = ("_clock", "_since", "record")

    def __init__(self, record: ReconcileRecord, clock: Clock, since: float) -> None:
        self.record = record
        self._clock = clock
        self._since = since

    @property
    def at(self) -> float:
        return self._clock.monotonic() - self._since


_current: ContextVar[_Current | None] = ContextVar("reconcile_record", default=None)


def _recorded() -> _Current | None:
    """Return the record of this context; None outside a reconcile, and in a task that outlived its reconcile."""
    current = _current.get()
    return current if current is not None and not current.record.result else None


class Collector(ReconcileRecorder):
    """The observer that writes the records of a manager's controllers.

    Args:
        sink: receives the records.
        clock: source of time; `clock` is what the recorded controllers use in its place.

    Attributes:
        clock: a clock whose wall times are recorded.
    """

    def __init__(self, sink: RecordSink, clock: Clock) -> None:
        self._sink = sink
        self._time = clock
        self.clock = _RecordedClock(clock)
        self._records: dict[Request | tuple[str, Request], ReconcileRecord] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record times, random numbers and log records until the block ends."""
        handler = _RecordingHandler()
        root = logging.getLogger()
        with use_clock(self.clock), drawn_through(_draw):
            root.addHandler(handler)
            try:
                yield
            finally:
                root.removeHandler(handler)

    def client(self, client: CachedClient) -> CachedClient:
        """Return a client whose reads and requests are recorded."""
        return RecordedClient.over_cached(client)

    def begun(self, reconcile: Reconcile, /) -> None:
        """Begin a record, in the context of the reconcile."""
        run = reconcile.run
        record = ReconcileRecord(
            id=run.reconcile_id,
            controller=run.controller,
            kind=_kind_text(reconcile.gvk),
            name=run.request.name,
            namespace=run.request.namespace,
            started=self._time.now(),
            reasons=tuple(sorted(run.reasons)),
            attempt=run.attempt,
            priority=run.priority,
        )
        if reconcile.changes is not None:
            record.wake_ups = tuple(
                WakeUp(_kind_text(each.gvk), *each.request, each.type, _text(each.version), each.at)
                for each in reconcile.changes.told(run.request, record.started)
            )
        self._records[run.controller, run.request] = record
        _current.set(_Current(record, self._time, run.since))
        set_effect_handler(_RecordedEffects())
        self._sink.begun(record)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Complete a record, and pass it on."""
        record = self._records.pop((reconcile.run.controller, reconcile.request))
        completion = reconcile.completion
        record.seconds = reconcile.seconds
        if completion is None:
            record.result = "cancelled"
        else:
            record.result = completion.result
            if completion.outcome is not None:
                record.requeue_after = completion.outcome.requeue_after
            if completion.error is not None:
                record.failure = failure_of(completion.error, completion)
        self._sink.ended(record)


class RecordedClient(CachedClient):
    """A cached client whose reads and requests are recorded."""

    @classmethod
    def over_cached(cls, client: CachedClient) -> RecordedClient:
        """Return a recorded client that reads and writes as another one."""
        recorded = cls.__new__(cls)
        vars(recorded).update(vars(client.through(_RecordedTransport)))
        return recorded

    async def peek(self, kind: KindLike, request: Request) -> CachedObject | None:
        """Return the object that `get` would read, and record it."""
        found = await super().peek(kind, request)
        _record_read(gvk_from(kind), request, found)
        return found

    async def _find(self, informer: Informer, request: Request) -> CachedObject | None:
        found = await super()._find(informer, request)
        _record_read(informer.gvk, request, found)
        return found

    async def _select(
        self, informer: Informer, namespace: str | None, labels: str, fields: str
    ) -> Sequence[CachedObject | IdleObject]:
        found = await super()._select(informer, namespace, labels, fields)
        current = _recorded()
        if current is not None:
            at, kind = current.at, _kind_text(informer.gvk)
            items = [_read_step(at, kind, each.request, restored(each)) for each in found]
            current.record.steps.append(ListStep(at, kind, namespace, labels, fields, items))
        return found


def _record_read(gvk: GroupVersionKind, request: Request, found: CachedObject | None) -> None:
    current = _recorded()
    if current is not None:
        current.record.steps.append(_read_step(current.at, _kind_text(gvk), request, found))


def _read_step(at: float, kind: str, request: Request, found: CachedObject | None) -> ReadStep:
    if found is None:
        return ReadStep(at, kind, request.name, request.namespace)
    return ReadStep(at, kind, request.name, request.namespace, str(found.version), found.data)


_kind_text = functools.lru_cache(maxsize=256)(str)


def _text(version: object) -> str | None:
    return None if version is None else str(version)


class _RecordedTransport:
    """A transport that records the requests of reconciles, and their responses."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def host(self) -> str:
        """The server's host and port; ``""`` for one inside the process."""
        return str(getattr(self._transport, "host", ""))

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request and record it. A cancelled request is recorded without a response."""
        current = _recorded()
        if current is None:
            return await self._transport.send(request)
        step = RequestStep(
            current.at, 0.0, request.method, request.target, request.headers.get("content-type", ""), request.body
        )
        current.record.steps.append(step)
        try:
            response = await self._transport.send(request)
        except BaseException as error:
            step.error, step.message = class_path(error), error_text(error)
            raise
        finally:
            step.seconds = current.at - step.at
        step.status, step.response = response.status, response.body
        step.retry_after = response.headers.get("retry-after", "")
        return response


class _RecordedClock:
    """A clock that records the wall times that reconciles read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.monotonic = clock.monotonic

    def now(self) -> datetime:
        now = self._clock.now()
        current = _recorded()
        if current is not None:
            current.record.times.append(now)
        return now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


class _RecordedEffects:
    """The handler of effects: calls them, or the handler of the surrounding context, and records the results."""

    def __init__(self) -> None:
        self._outer = current_effect_handler()
        self.planning = self._outer is not None and self._outer.planning

    async def __call__(self, call: EffectCall, /) -> Any:
        run = call.run() if self._outer is None else self._outer(call)
        current = _recorded()
        if current is None:
            return await run
        step = EffectStep(current.at, call.name, key_of(call), encoded(dict(call.arguments)))
        current.record.steps.append(step)
        try:
            value = await run
        except BaseException as error:
            step.error, step.message = class_path(error), error_text(error)
            step.attributes = encoded(vars(error))
            raise
        step.value = encoded(value)
        return value


def key_of(call: EffectCall) -> str:
    """Return what an effect concerns; the class of its first argument if that has no text."""
    try:
        return call.key
    except Exception:  # noqa: BLE001 - whatever the argument is, the reconcile must not depend on it
        return type(next(iter(call.arguments.values()))).__qualname__


def class_path(error: BaseException) -> str:
    """Return where the class of an error is defined, ``"module:Class"``."""
    return f"{type(error).__module__}:{type(error).__qualname__}"


def encoded(value: object) -> bytes:
    """Return a value as JSON; what JSON cannot express is its ``repr``."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except Exception:  # noqa: BLE001 - whatever the value is, the reconcile must not depend on it
        return msgspec.json.encode(type(value).__qualname__)


def _plain(value: Any) -> object:
    to_dict = getattr(value, "to_dict", None) or getattr(value, "model_dump", None)
    if callable(to_dict):
        return to_dict()
    # A repr with an address, of the object or of one in it, is another one in each process.
    text = repr(value)
    return type(value).__qualname__ if _ADDRESS.search(text) else text


class _RecordingHandler(logging.Handler):
    """A log handler that records the log records of reconciles."""

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and logging.getLogger().handlers == [self]:
            last.handle(record)  # which this handler would replace
        current = _recorded()
        if current is not None:
            try:
                message = record.getMessage()
            except Exception:  # noqa: BLE001 - the arguments do not fit; other handlers report it
                message = str(record.msg)
            current.record.steps.append(LogStep(current.at, record.levelname, record.name, message))


def _draw(make: Callable[[], Any]) -> Any:
    value = make()
    current = _recorded()
    if current is not None and len(current.record.draws) < _MAX_DRAWS:
        current.record.draws.append(value)
    return value
