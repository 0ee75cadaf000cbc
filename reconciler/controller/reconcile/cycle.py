"""The cycle of one reconcile: receives reports of its reads and writes, and describes it to logs and user code.

Status mutations that could not be saved are kept for the next reconcile of the object.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler.controller.reconcile.threads import ReconcileThreads, ThreadBridge
from reconciler.controller.result import Completion
from reconciler.controller.wake.change import Creation, WakingChanges
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import RECONCILE_IDS, current_cycle
from reconciler.meta.documents import Version
from reconciler.status.recording import StatusMetrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span

is_async = functools.lru_cache(maxsize=256)(inspect.iscoroutinefunction)
"""Cached, since it is called twice in each reconcile with the same few functions."""

MAX_UNSAVED = 1000
"""The highest number of objects per controller whose unsaved mutations are kept."""


@dataclass(frozen=True, slots=True)
class UnsavedStatistics:
    """Counters of unsaved mutations.

    Attributes:
        kept: objects with unsaved mutations now.
        blocked: those that the server refused, and would refuse again unchanged.
        dropped: entries that were dropped since the start because too many were kept.
    """

    kept: int
    blocked: int
    dropped: int


class UnsavedStore:
    """The unsaved mutations by key and uid. Only the batcher knows what they are.

    Args:
        limit: the highest number of objects. Default 1000.

    Attributes:
        entries: the uid and the mutations of each key.
    """

    def __init__(self, *, limit: int = MAX_UNSAVED) -> None:
        self._limit = limit
        self.entries: OrderedDict[Request, tuple[str, object]] = OrderedDict()
        self._blocked: dict[Request, tuple[str, int | None]] = {}  # outlives the entry while a batcher has taken it
        self._dropped = 0
        self._lock = threading.Lock()

    def keep(self, request: Request, uid: str, mutations: object) -> None:
        """Keep the mutations of an object; they replace what was kept for its key before."""
        with self._lock:
            self.entries[request] = (uid, mutations)
            self.entries.move_to_end(request)
            while len(self.entries) > self._limit:
                oldest, _ = self.entries.popitem(last=False)
                self._blocked.pop(oldest, None)
                self._dropped += 1

    def block(self, request: Request, uid: str, generation: int | None) -> bool:
        """Record that the server refused the mutations of an object at this generation; return whether that is new."""
        with self._lock:
            if self.entries.get(request, ("",))[0] != uid:
                return False
            is_new = self._blocked.get(request) != (uid, generation)
            self._blocked[request] = uid, generation
            return is_new

    def unblock(self, request: Request) -> None:
        """Record that refused mutations are saved now."""
        with self._lock:
            self._blocked.pop(request, None)

    def is_blocked(self, request: Request, uid: str, generation: int | None) -> bool:
        """Return whether the server refused the mutations of an object at this generation.

        A new generation may fix the cause, so it is reconciled, and is not blocked until the server refuses it, too.
        """
        with self._lock:
            if request not in self.entries:
                return False
            if self._blocked.get(request) != (uid, generation):
                self._blocked.pop(request, None)
            return request in self._blocked

    def blocks(self, request: Request) -> bool:
        """Return whether the object of a key is not reconciled, because the server refuses its mutations."""
        return request in self._blocked

    def take(self, request: Request, uid: str) -> object | None:
        """Hand over the mutations of an object; those of an earlier object of the same name are dropped."""
        with self._lock:
            entry = self.entries.pop(request, None)
        return entry[1] if entry is not None and entry[0] == uid else None

    def forget(self, request: Request) -> None:
        """Drop the mutations of an object that is gone."""
        with self._lock:
            self.entries.pop(request, None)
            self._blocked.pop(request, None)

    def retain(self, request: Request, uid: str | None) -> None:
        """Drop the mutations kept for a key unless they belong to the object with this uid; None if there is no object.

        Called at the end of each reconcile of the key: an object that was deleted or replaced in between may have left
        mutations after its event. Mutations that are blocked and no longer kept were saved.
        """
        if not self.entries and not self._blocked:
            return
        with self._lock:
            if request in self.entries and self.entries[request][0] != uid:
                del self.entries[request]
            if request not in self.entries:
                self._blocked.pop(request, None)

    def __contains__(self, request: Request) -> bool:
        return request in self.entries

    def statistics(self) -> UnsavedStatistics:
        """Return the current counters."""
        return UnsavedStatistics(len(self.entries), len(self._blocked), self._dropped)


class ReconcileRun(msgspec.Struct, frozen=True, gc=False):
    """The description of one reconcile.

    Attributes:
        controller: the controller's name.
        request: the key.
        reasons: why it runs: ``"event"``, ``"deleted"``, ``"owned: Deployment"``, ``"requeue_after"``, ``"retry"`` …
        attempt: consecutive failures of this key before this reconcile; 0 for a first try.
        priority: the priority that the key was queued with.
        since: monotonic second of its start.
        bits: 128 random bits, which `reconcile_id` is made of.
    """

    controller: str
    request: Request
    reasons: frozenset[str]
    attempt: int
    priority: int
    since: float = 0.0
    bits: int = msgspec.field(default_factory=functools.partial(RECONCILE_IDS.getrandbits, 128))

    @property
    def reconcile_id(self) -> str:
        """Return a random UUID (version 4): unique per reconcile, and part of every log record of it.

        It is formatted when somebody asks: most reconciles log nothing, and send no request.
        """
        digits = f"{self.bits:032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def log_fields(self) -> dict[str, object]:
        """Return the ``extra`` of this reconcile's log records."""
        return {
            "controller": self.controller,
            "object_namespace": self.request.namespace,
            "object_name": self.request.name,
            "reconcile_id": self.reconcile_id,
            "reasons": sorted(self.reasons),
            "attempt": self.attempt,
        }


class ReconcileContext(msgspec.Struct, frozen=True):
    """The parts that the cycles of one controller share.

    Attributes:
        gvk: the primary kind.
        tracker: the controller's echo tracker.
        unsaved: mutations that a batcher could not save, of the controller's keys.
        loop: the controller's event loop.
        threads: run plain functions; None for none.
        stopping: returns whether the controller is stopping. Default: it is not.
        matches: returns whether an object with these labels belongs to this process. Default: every object does.
        status_metrics: receives the flushes of batchers without metrics of their own. Default: none.
        thread: the loop's thread. Default: the current one.
    """

    gvk: GroupVersionKind
    tracker: EchoTracker[Request]
    unsaved: UnsavedStore
    loop: asyncio.AbstractEventLoop
    threads: ReconcileThreads | None = None
    stopping: Callable[[], bool] = lambda: False
    matches: Callable[[Mapping[str, str]], bool] = lambda _: True
    status_metrics: StatusMetrics | None = None
    thread: int = msgspec.field(default_factory=threading.get_ident)


class Reconcile:
    """One reconcile: why it runs, what it wrote, and how it ended.

    Implements `Cycle`: it passes what the reconcile reads and writes to the controller's echo tracker, and mutations
    that could not be saved to the controller's store. Reports about other objects are ignored: what a reconcile writes
    to them is news to their own reconciles. Reports after the end are ignored as well; they come from tasks that
    outlived the reconcile. A report from a thread is transferred to the loop, where it arrives before the end of the
    thread does.

    Args:
        context: shared by the controller's cycles.
        run: the description of the reconcile.
        uid: of the object in the informer's store; None if there is none, or if it is not read yet.
        basis: its resourceVersion there.
        by_timer: whether only the key's timer made it ready. Default False.

    Attributes:
        run: the description.
        gvk: the primary kind.
        controller: the controller's name, for log records.
        request: the key.
        by_timer: whether only the key's timer made it ready.
        uid: of the object that the reconcile began with; None if there was none, or none was read yet.
        basis: the oldest version of the object that the reconcile can have read; None if there was none.
        unsaved: mutations that batchers could not save, of all keys.
        changes: the changes that enqueued the key; None if no change did.
        span: of OpenTelemetry; None without tracing.
        completion: how it ended; None while it is in progress, and if it was cancelled.
        seconds: its duration; 0.0 while it is in progress.
        task: the task that runs it; None before it begins.
        writes: how many of its writes to its own object changed it.
        status_written: whether a status write was among them.
        status_metrics: receives the flushes of a batcher without metrics of its own.
        owned: whether it may write, once that is decided; see `Ownership`. None while each write asks.
        changed_others: whether it changed an object other than its own, which can enqueue its key again.
        warnings: reasons and messages of what is wrong with the object, although nothing failed.
        behind: whether a conflict showed that the cache is behind.
        is_over: whether it has ended, although tasks that it started may go on.
    """

    def __init__(
        self,
        context: ReconcileContext,
        run: ReconcileRun,
        *,
        uid: str | None = None,
        basis: Version | None = None,
        by_timer: bool = False,
    ) -> None:
        self.run = run
        self.gvk = context.gvk
        self.controller = run.controller
        self.request = run.request
        self.by_timer = by_timer
        self.completion: Completion | None = None
        self.seconds = 0.0
        self.task: asyncio.Task[Any] | None = None
        self.writes = 0
        self.status_written = False
        self.changes: Creation | WakingChanges | None = None
        self.span: Span | None = None
        self.status_metrics = context.status_metrics
        self.owned: bool | None = None
        self.behind = False
        self.warnings: list[tuple[str, str]] = []
        self.changed_others = False
        self._context = context
        self.uid = uid
        self.basis = basis
        self.unsaved = context.unsaved
        self.is_over = False

    @functools.cached_property
    def bridge(self) -> ThreadBridge:
        """Return what lets threads of the reconcile wait for awaitables on the loop."""
        return ThreadBridge(self._context.loop)

    @property
    def thread(self) -> int | None:
        """Return the thread that works for it; None for none."""
        return self.bridge.thread if "bridge" in vars(self) else None

    def call(self, override: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Call a method that a subclass of `Reconciler` defines, ``async`` or plain; await its outcome.

        Cancellation is raised when the call has really ended, also in a thread.
        """
        if is_async(getattr(override, "__func__", override)):
            return override(*args)  # type: ignore[no-any-return]
        return self._call_in_thread(override, *args)

    async def _call_in_thread(self, override: Callable[..., Any], *args: Any) -> Any:
        assert self._context.threads is not None  # noqa: S101 - a worker has some
        result = await self._context.threads.run(self.bridge, override, *args)
        return await result if inspect.isawaitable(result) else result

    def set_basis(self, uid: str | None, version: Version | None) -> None:
        """Record the oldest version of the object that the reconcile can read.

        That is the version in the informer's store before the reconciler is called, whatever it reads; for a
        `ResourceReconciler` the version of the object that it is given.

        Args:
            uid: of the object; None if there is none.
            version: its resourceVersion; None if there is none.
        """
        if version == self.basis and uid == self.uid and not self.writes:
            return
        self.uid, self.basis = uid, version
        self._context.tracker.set_basis(self.request, version)

    @property
    def stopping(self) -> bool:
        """Return whether the controller is stopping."""
        return self._context.stopping()

    @property
    def reconcile_id(self) -> str:
        """Return the id of this reconcile, for log records and requests."""
        return self.run.reconcile_id

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        """Record that the reconcile read an object at this version. Thread-safe."""
        if version == self.basis and uid == self.uid:  # nearly always; it may be read at any time up to now
            return
        if self.is_own(gvk, request):
            self._on_loop(self._record_read, uid, version)

    def wrote(
        self,
        gvk: GroupVersionKind,
        request: Request,
        uid: str,
        *,
        before: Version,
        after: Version,
        exact: bool,
        is_status: bool = True,
    ) -> None:
        """Record a conditional write by the batcher or the finalizer helper. Thread-safe."""
        if self.is_own(gvk, request):
            self._on_loop(self._record_write, uid, before, after, exact, is_status)

    def may_write(self, gvk: GroupVersionKind, request: Request, document: Mapping[str, Any]) -> bool:
        """Return whether a write may be retried on a newer version of an object; not if another process owns it now."""
        return not self.is_own(gvk, request) or self._context.matches(
            (document.get("metadata") or {}).get("labels") or {}
        )

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        """Keep mutations of the reconcile's object that a batcher could not save, for the next reconcile."""
        if self.is_over:  # a task that outlived the reconcile: nothing would drop this when the object is deleted
            return
        self.unsaved.keep(self.request, uid, mutations)

    def warn(self, reason: str, message: str) -> None:
        """Record something that is wrong with the object, although nothing failed. Thread-safe."""
        self.warnings.append((reason, message))

    def take_unsaved(self, uid: str) -> object | None:
        """Hand over what an earlier reconcile could not save for an object of this uid; None if there is nothing."""
        return self.unsaved.take(self.request, uid) if self.unsaved.entries else None

    def end(self, seconds: float) -> None:
        """Record how long it took, and ignore all reports from now on."""
        self.seconds = seconds
        self.is_over = True

    def is_own(self, gvk: GroupVersionKind, request: Request) -> bool:
        """Return whether an object is the one that is reconciled."""
        # The API version is not compared: it names a representation of the object, and resourceVersions are the same.
        return request == self.request and gvk.kind == self.gvk.kind and gvk.group == self.gvk.group

    def _on_loop(self, report: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._context.thread:
            report(*args)
        elif not self._context.loop.is_closed():
            self._context.loop.call_soon_threadsafe(report, *args)

    def _record_read(self, uid: str, version: Version) -> None:
        if not self.is_over and uid == self.uid:
            self._context.tracker.record_read(self.request, version)

    def _record_write(self, uid: str, before: Version, after: Version, exact: bool, is_status: bool) -> None:
        if self.is_over:
            return
        if before != after:
            self.writes += 1
            self.status_written |= is_status
        if uid == self.uid:
            self._context.tracker.record_write(self.request, before=before, after=after, exact=exact)


def current_reconcile() -> Reconcile | None:
    """Return the cycle of the reconcile that this task or thread belongs to; None outside a reconcile."""
    cycle = current_cycle.get()
    return cycle if isinstance(cycle, Reconcile) else None


def current_run() -> ReconcileRun | None:
    """Return the description of the reconcile that this task or thread belongs to; None outside a reconcile."""
    cycle = current_reconcile()
    return None if cycle is None else cycle.run
