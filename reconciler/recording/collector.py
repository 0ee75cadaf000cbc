"""The collector: traces what each reconcile reads, writes, calls and is woken by, for recordings, replays and worlds.

It observes the controllers, the transport and the cached reads of their clients, the effects and, for recordings, the
clock, the log and the source of random numbers. What happens outside a reconcile is not traced. While a reconcile runs
it takes references to what was read, sent and received; everything else is done in another thread, or later.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from copy import copy
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import msgspec

from reconciler._core.lru import LRU
from reconciler.cache import CachedClient, CachedObject
from reconciler.cache.informer import Informer
from reconciler.cache.store import IdleObject, restored
from reconciler.clock import Clock, boottime_of, current_clock, use_clock
from reconciler.controller.effects import EffectCall, EffectHandler, use_effect_handler
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.reconcile.explanation import failure_of
from reconciler.controller.wake.change import ObjectChange
from reconciler.errors import error_text
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import Request
from reconciler.meta.metadata import ResourceType
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.recording.records import (
    EffectStep,
    ListStep,
    LogStep,
    ReadStep,
    ReconcileRecord,
    RequestStep,
    Step,
    WakeUp,
    drawn_through,
)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)
_MAX_DRAWS = 1000
"""Random numbers that are kept for a reconcile; one that draws more is replayed with others from there on."""


_LARGE = 2**16
"""Bytes from which an object that is read counts as held."""

_MAX_VERSIONS = 10_000
"""Changes, and versions of objects, that are remembered as counted: 2 MB."""

_MAX_VALUE = 2**20
"""Bytes of the arguments or the result of an effect, such as the body of a response, that are kept."""


class Held(msgspec.Struct):
    """The bytes that the traces of a sink hold; those in progress and those that wait are included.

    Attributes:
        limit: more are not held: the trace that grows beyond is left out.
        lock: held while `added` or the size of a trace changes, since ``def`` reconciles run in threads.
        added: all that were held.
        waiting: those of them whose reconciles have ended.
        released: those of them that are not held any more, counted by the thread of the sink.
        versions: the changes and objects that were counted. Several traces may refer to one, the first has its size.
    """

    limit: int = sys.maxsize
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    added: int = 0
    waiting: int = 0
    released: int = 0
    versions: LRU[tuple[Request, object], None] = msgspec.field(default_factory=lambda: LRU(_MAX_VERSIONS))


class RecordSink:
    """Receives the traces of a manager's reconciles.

    Attributes:
        limit: bytes that they hold at most.
    """

    limit: int = sys.maxsize

    def start(self, kinds: Callable[[], Sequence[ResourceType]]) -> None:
        """Called before the first reconcile.

        Args:
            kinds: returns how the kinds that the client knows are served. Thread-safe.
        """

    def begun(self, trace: ReconcileTrace) -> None:
        """Called when a reconcile begins; its trace grows until `ended`."""

    def ended(self, trace: ReconcileTrace) -> None:
        """Called when a reconcile has ended."""

    async def stop(self) -> None:
        """Called after the last reconcile. Cancellation abandons what is not stored yet."""


_kind_text = lru_cache(maxsize=256)(str)


class ReconcileTrace(msgspec.Struct, eq=False, gc=False):
    """What a reconcile depends on, which grows until it ends.

    The steps are made when the record is read, mostly in another thread and many at a time. Code that runs once in a
    reconcile costs more, because the caches of the CPU are cold for it.

    Attributes:
        run: why it runs.
        draft: the record without the changes that enqueued the key, and without its steps.
        changes: those changes.
        steps: each makes a step, in order. It makes a new one each time, since a task that outlives the reconcile may
            still get the response to its request.
        size: roughly the bytes that only the trace refers to, beside what every trace takes.
        held: what all traces of the sink hold.
        left_out: what held too much, so that it is empty: traces that are ``"running"`` or ``"waiting"``; else ``""``.
    """

    run: ReconcileRun
    draft: ReconcileRecord
    changes: tuple[ObjectChange, ...]
    steps: list[Callable[[], Step]] = msgspec.field(default_factory=list)
    size: int = 0
    held: Held = msgspec.field(default_factory=Held)
    left_out: str = ""

    def grow(self, size: int) -> None:
        """Count bytes that it holds from now on, and leave it out if they are too many."""
        held = self.held
        with held.lock:
            if self.draft.result:  # a task outlived its reconcile
                return
            self.size += size
            held.added += size
            if held.added - held.released > held.limit:
                held.added -= self.size
                self.size, self.changes, self.steps = 0, (), []
                self.left_out = "waiting" if 2 * (held.waiting - held.released) >= held.limit else "running"
                self.draft.result = "left out"  # so that it is nobody's current trace

    def count(self, version: tuple[Request, object], size: int) -> None:
        """Count bytes of a version of an object that the cache has not, or soon has not. Each version counts once."""
        versions = self.held.versions
        if version not in versions:
            versions[version] = None
            self.grow(size)

    @property
    def record(self) -> ReconcileRecord:
        """Return what it read, wrote, called and logged so far; its result is ``""`` while it is in progress."""
        self.draft.wake_ups = tuple(map(_wake_up, self.changes))
        self.draft.steps = [make() for make in self.steps]
        return self.draft


def _wake_up(change: ObjectChange) -> WakeUp:
    return WakeUp(
        _kind_text(change.gvk),
        *change.request,
        change.type,
        None if change.version is None else str(change.version),
        change.at,
        change.managers,
        [_read_step(0.0, change.gvk, change.request, each) for each in change.versions],
        change.managed_fields,
    )


class Trace(RecordSink):
    """A sink that keeps the traces in memory, for tests and tools: ``Manager(client, recording=Trace())``.

    Attributes:
        traces: the traces, in the order in which the reconciles began; those in progress have no result yet.
        kinds: returns how the kinds that the client knows are served.
    """

    def __init__(self) -> None:
        self.traces: list[ReconcileTrace] = []
        self.kinds: Callable[[], Sequence[ResourceType]] = tuple

    @property
    def records(self) -> list[ReconcileRecord]:
        """Return the traces as data."""
        return [each.record for each in self.traces]

    def start(self, kinds: Callable[[], Sequence[ResourceType]]) -> None:
        """Keep the function that returns the kinds."""
        self.kinds = kinds

    def begun(self, trace: ReconcileTrace) -> None:
        """Add a trace."""
        self.traces.append(trace)

    def __str__(self) -> str:
        return "in memory"


_current: ContextVar[ReconcileTrace | None] = ContextVar("reconcile_trace", default=None)


def current_trace() -> ReconcileTrace | None:
    """Return the trace of this context; None outside a reconcile, and in a task that outlived its reconcile."""
    trace = _current.get()
    return trace if trace is not None and not trace.draft.result else None


class Collector(ReconcileObserver):
    """The observer that traces the reconciles of controllers. It is a handler of effects as well.

    Args:
        clock: source of time; `clock` is what the recorded controllers use in its place.
        sink: receives the traces. Default: nobody; `begun` and `ended` may be overridden.
        effects: handles the effects. Default: they are called.

    Attributes:
        clock: a clock whose wall times are recorded.
        planning: whether reconcilers see `Reconciler.planning` as true.
        latest: the trace of the reconcile that ended last; None before the first.
    """

    def __init__(self, clock: Clock, sink: RecordSink | None = None, effects: EffectHandler | None = None) -> None:
        self._sink = RecordSink() if sink is None else sink
        self._held = Held(self._sink.limit)
        self._time = clock
        self._now = clock.now
        self._effects = effects
        self.planning = effects is not None and effects.planning
        self.clock = _RecordedClock(clock)
        self._open: dict[Reconcile, ReconcileTrace] = {}
        self.latest: ReconcileTrace | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record times, random numbers, effects and log records until the block ends."""
        handler = _RecordingHandler()
        root = logging.getLogger()
        with use_clock(self.clock), drawn_through(_draw), use_effect_handler(self):
            root.addHandler(handler)
            try:
                yield
            finally:
                root.removeHandler(handler)

    def client(self, client: CachedClient) -> CachedClient:
        """Return a client whose reads and requests are recorded."""
        return RecordedClient.over_cached(client, self._time.monotonic)

    def begun(self, reconcile: Reconcile, /) -> None:
        """Begin a trace, in the context of the reconcile."""
        started, changes = self._now(), reconcile.changes
        told = () if changes is None else changes.told(reconcile.request, started)
        run, request = reconcile.run, reconcile.request
        draft = ReconcileRecord(
            reconcile.reconcile_id,
            run.controller,
            _kind_text(reconcile.gvk),
            request.name,
            request.namespace,
            started,
            tuple(sorted(run.reasons)),
            run.attempt,
            run.priority,
        )
        trace = self._open[reconcile] = ReconcileTrace(run, draft, told, held=self._held)
        for change in told:
            if change.type == "updated" and change.versions:
                trace.count((change.request, change.version), change.size - len(change.versions[-1].data))
        _current.set(trace)
        self._sink.begun(trace)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Complete a trace, and pass it on."""
        trace = self.latest = self._open.pop(reconcile)
        record, completion = trace.draft, reconcile.completion
        record.seconds = reconcile.seconds
        record.result = "cancelled" if completion is None else completion.result
        record.requeue_after = completion.outcome.requeue_after if completion and completion.outcome else None
        if completion is not None and completion.error is not None:
            # Now, since the frames of a traceback must be released in the thread that made them.
            record.failure = failure_of(completion.error, completion)
        self._sink.ended(trace)

    def overtaken(self, reconcile: Reconcile, /) -> None:  # noqa: ARG002 - it is the latest
        """Note that the object of the reconcile that has ended just now changed meanwhile."""
        if self.latest is not None:
            self.latest.draft.overtaken = True

    async def __call__(self, call: EffectCall, /) -> Any:
        """Call an effect, or its handler, and record the result."""
        run = call.run() if self._effects is None else self._effects(call)
        trace = current_trace()
        if trace is None:
            return await run
        arguments, _ = bounded(encoded(dict(call.arguments)))  # now: the reconcile may change them
        step = EffectStep(self._time.monotonic() - trace.run.since, call.name, key_of(call), arguments)
        trace.steps.append(partial(copy, step))
        try:
            value = await run
        except BaseException as error:
            step.error, step.message = class_path(error), error_text(error)
            attributes = encoded(vars(error))
            step.attributes = attributes if len(attributes) <= _MAX_VALUE else b"{}"
            raise
        step.value, step.left_out = bounded(encoded(value))
        trace.grow(len(arguments) + len(step.value))
        return value


class RecordedClient(CachedClient):
    """A cached client whose reads and requests are recorded."""

    _now: Callable[[], float]

    @classmethod
    def over_cached(cls, client: CachedClient, now: Callable[[], float]) -> RecordedClient:
        """Return a recorded client that reads and writes as another one.

        Args:
            client: the other one.
            now: returns the monotonic time.
        """
        recorded = cls.__new__(cls)
        own = client.through(lambda transport: _RecordedTransport(transport, now))
        vars(recorded).update(vars(own), _now=now)
        return recorded

    async def peek(self, kind: KindLike, request: Request) -> CachedObject | None:
        """Return the object that `get` would read, and record it."""
        found = await super().peek(kind, request)
        return self._read_in_trace(kind, request, found)

    async def _find(self, informer: Informer, request: Request) -> CachedObject | None:
        found = await super()._find(informer, request)
        return self._read_in_trace(informer.gvk, request, found)

    def _read_in_trace(self, kind: KindLike, request: Request, found: CachedObject | None) -> CachedObject | None:
        trace = _current.get()  # not by `current_trace`, since each reconcile reads
        if trace is not None and not trace.draft.result:
            trace.steps.append(partial(_read_step, self._now() - trace.run.since, kind, request, found))
            if found is not None and found.data[_LARGE : _LARGE + 1]:  # longer than that, without a call
                trace.count((found.request, found.version), len(found.data))
        return found

    async def _select(
        self, informer: Informer, namespace: str | None, labels: str, fields: str
    ) -> Sequence[CachedObject | IdleObject]:
        found = await super()._select(informer, namespace, labels, fields)
        trace = current_trace()
        if trace is not None:
            at, gvk = self._now() - trace.run.since, informer.gvk
            items = [_read_step(at, gvk, each.request, restored(each)) for each in found]
            listed = ListStep(at, _kind_text(gvk), namespace, labels, fields, items)
            trace.steps.append(partial(copy, listed))
            # The cache has them, too, apart from those that it keeps compressed.
            copies = [item.data for item, each in zip(items, found, strict=True) if isinstance(each, IdleObject)]
            trace.grow(100 * len(found) + sum(map(len, copies)))
        return found


def _read_step(at: float, kind: KindLike, request: Request, found: CachedObject | None) -> ReadStep:
    text = _kind_text(gvk_from(kind))
    if found is None:
        return ReadStep(at, text, request.name, request.namespace)
    return ReadStep(at, text, request.name, request.namespace, str(found.version), found.data)


def _sent(step: RequestStep, request: HTTPRequest) -> RequestStep:
    step = copy(step)
    step.target, step.content_type = request.target, request.headers.get("content-type", "")
    return step


class _RecordedTransport:
    """A transport that records the requests of reconciles, and their responses."""

    def __init__(self, transport: Transport, now: Callable[[], float]) -> None:
        self._transport = transport
        self._now = now

    @property
    def host(self) -> str:
        """The server's host and port; ``""`` for one inside the process."""
        return str(getattr(self._transport, "host", ""))

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request and record it. A cancelled request is recorded without a response."""
        trace = current_trace()
        if trace is None:
            return await self._transport.send(request)
        step = RequestStep(self._now() - trace.run.since, 0.0, request.method, "", "", request.body)
        trace.steps.append(partial(_sent, step, request))
        try:
            response = await self._transport.send(request)
        except BaseException as error:
            step.error, step.message = class_path(error), error_text(error)
            trace.grow(len(request.body))
            raise
        finally:
            step.seconds = self._now() - trace.run.since - step.at
        step.status, step.response = response.status, response.body
        if response.status >= 400:
            step.retry_after = response.headers.get("retry-after", "")
        trace.grow(len(request.body) + len(response.body))
        return response


class _RecordedClock:
    """A clock that records the wall times that reconciles read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.monotonic, self.boottime = clock.monotonic, boottime_of(clock)  # each request asks

    def now(self) -> datetime:
        now = self._clock.now()
        trace = current_trace()
        if trace is not None:
            trace.draft.times.append(now)
        return now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


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


def bounded(data: bytes) -> tuple[bytes, int]:
    """Return JSON that a recording keeps, and how many bytes it leaves out: all, if they are too many."""
    if len(data) <= _MAX_VALUE:
        return data, 0
    text = f"[left out: {len(data)} bytes; a recording keeps at most {_MAX_VALUE // 2**20} MiB of a value]"
    return msgspec.json.encode(text), len(data)


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
        trace = current_trace()
        if trace is not None:
            try:
                message = record.getMessage()
            except Exception:  # noqa: BLE001 - the arguments do not fit; other handlers report it
                message = record.msg if isinstance(record.msg, str) else type(record.msg).__qualname__
            step = LogStep(current_clock().monotonic() - trace.run.since, record.levelname, record.name, message)
            trace.steps.append(partial(copy, step))
            trace.grow(len(message))


def _draw(make: Callable[[], Any]) -> Any:
    value = make()
    trace = current_trace()
    if trace is not None and len(trace.draft.draws) < _MAX_DRAWS:
        trace.draft.draws.append(value)
    return value
