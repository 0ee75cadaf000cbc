"""The cycle of one reconcile: receives reports of its reads and writes, and describes it to logs and user code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.controller.changes.log import Creation, WakingChanges
from reconciler.controller.reconcile.threads import ThreadBridge
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request, Version, current_cycle
from reconciler.status import StatusMetrics

__all__ = ["ReconcileCycle", "ReconcileRun", "current_reconcile", "current_run"]


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """The description of one reconcile.

    Attributes:
        controller: the controller's name.
        request: the key.
        reconcile_id: unique per reconcile; part of every log record of it.
        reasons: why it runs: ``"event"``, ``"deleted"``, ``"owned: Deployment"``, ``"requeue_after"``, ``"retry"`` …
        attempt: consecutive failures of this key before this reconcile; 0 for a first try.
        priority: the priority that the key was queued with.
        since: monotonic second of its start.
    """

    controller: str
    request: Request
    reconcile_id: str
    reasons: frozenset[str]
    attempt: int
    priority: int
    since: float = 0.0

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


class ReconcileCycle:
    """The link from one reconcile to the controller's echo tracker and its store of unsaved mutations.

    Implements `reconciler.meta.Cycle`. Reports about other objects are ignored: what a reconcile writes to them is news
    to their own reconciles. Reports after the end are ignored as well; they come from tasks that outlived the
    reconcile. A report from a thread is transferred to the loop, where it arrives before the end of the thread does.

    Args:
        gvk: the kind of the primary object.
        run: the description of the reconcile.
        tracker: the controller's echo tracker.
        unsaved: the controller's store of unsaved mutations.
        stopping: returns whether the controller is stopping.
        matches: returns whether an object with these labels belongs to this process; see `ShardFilter`.
        status_metrics: receives each flush of the reconcile's batchers.
        loop: the controller's event loop; the caller runs on it.
        changes: the changes that enqueued the key; None if no change did.

    Attributes:
        gvk: the kind of the controller's primary objects.
        request: the key.
        run: the description of the reconcile.
        bridge: lets threads of the reconcile wait for awaitables on the loop.
        writes: status and finalizer writes to the primary object that took effect.
        status_written: whether one of them was a status write.
        changes: as given.
    """

    def __init__(
        self,
        gvk: GroupVersionKind,
        run: ReconcileRun,
        *,
        tracker: EchoTracker[Request],
        unsaved: UnsavedStore,
        stopping: Callable[[], bool] = lambda: False,
        matches: Callable[[Mapping[str, str]], bool] = lambda _: True,
        status_metrics: StatusMetrics | None = None,
        loop: asyncio.AbstractEventLoop,
        changes: Creation | WakingChanges | None = None,
    ) -> None:
        self.gvk = gvk
        self.run = run
        self.request = run.request
        self.bridge = ThreadBridge(loop)
        self.writes = 0
        self.status_written = False
        self.changes = changes
        self._tracker = tracker
        self._unsaved = unsaved
        self._stopping = stopping
        self._matches = matches
        self._status_metrics = status_metrics
        self._loop = loop
        self._thread = threading.get_ident()
        self._uid: str | None = None
        self._ended = False

    def set_basis(self, uid: str | None, version: Version | None) -> None:
        """Record the oldest version of the object that the reconcile can read.

        That is the version in the informer's store before the reconciler is called, whatever it reads; for a
        `ResourceReconciler` the version of the object that it is given.

        Args:
            uid: of the object; None if there is none.
            version: its resourceVersion; None if there is none.
        """
        self._uid = uid
        self._tracker.set_basis(self.request, version)

    @property
    def uid(self) -> str | None:
        """Return the uid of the object that the reconcile began with; None if there was none, or none was read yet."""
        return self._uid

    @property
    def stopping(self) -> bool:
        """Return whether the controller is stopping."""
        return self._stopping()

    @property
    def status_metrics(self) -> StatusMetrics | None:
        """Return the metrics for the flushes of a batcher without metrics of its own."""
        return self._status_metrics

    @property
    def reconcile_id(self) -> str:
        """Return the id of this reconcile, for log records."""
        return self.run.reconcile_id

    @property
    def controller(self) -> str:
        """Return the controller's name, for log records."""
        return self.run.controller

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        """Record that the reconcile read an object at this version. Thread-safe."""
        if self._is_own(gvk, request):
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
        if self._is_own(gvk, request):
            self._on_loop(self._record_write, uid, before, after, exact, is_status)

    def may_write(self, gvk: GroupVersionKind, request: Request, document: Mapping[str, Any]) -> bool:
        """Return whether a write may be retried on a newer version of an object; not if another process owns it now."""
        return not self._is_own(gvk, request) or self._matches((document.get("metadata") or {}).get("labels") or {})

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        """Keep mutations of the reconcile's object that a batcher could not save, for the next reconcile."""
        if self._ended:  # a task that outlived the reconcile: nothing would drop this when the object is deleted
            return
        self._unsaved.keep(self.request, uid, mutations)

    def take_unsaved(self, uid: str) -> object | None:
        """Return, once, what an earlier reconcile could not save for an object of this uid."""
        return self._unsaved.take(self.request, uid)

    @property
    def has_unsaved(self) -> bool:
        """Return whether an earlier reconcile left mutations that its batcher takes."""
        return self.request in self._unsaved

    def unsaved_is_blocked(self, uid: str, generation: int | None) -> bool:
        """Return whether the server refused the unsaved mutations, and would refuse them again."""
        return self._unsaved.is_blocked(self.request, uid, generation)

    def block_unsaved(self, uid: str, generation: int | None) -> bool:
        """Record that the server refused the unsaved mutations; return whether that is new."""
        return self._unsaved.block(self.request, uid, generation)

    def unblock_unsaved(self) -> None:
        """Record that the refused mutations are saved now."""
        self._unsaved.unblock(self.request)

    def end(self) -> None:
        """Ignore all reports from now on."""
        self._ended = True

    def _is_own(self, gvk: GroupVersionKind, request: Request) -> bool:
        # The API version is not compared: it names a representation of the object, and resourceVersions are the same.
        return request == self.request and gvk.kind == self.gvk.kind and gvk.group == self.gvk.group

    def _on_loop(self, report: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            report(*args)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(report, *args)

    def _record_read(self, uid: str, version: Version) -> None:
        if not self._ended and uid == self._uid:
            self._tracker.record_read(self.request, version)

    def _record_write(self, uid: str, before: Version, after: Version, exact: bool, is_status: bool) -> None:
        if self._ended:
            return
        if before != after:
            self.writes += 1
            self.status_written |= is_status
        if uid == self._uid:
            self._tracker.record_write(self.request, before=before, after=after, exact=exact)


def current_reconcile() -> ReconcileCycle | None:
    """Return the cycle of the reconcile that this task or thread belongs to; None outside a reconcile."""
    cycle = current_cycle.get()
    return cycle if isinstance(cycle, ReconcileCycle) else None


def current_run() -> ReconcileRun | None:
    """Return the description of the reconcile that this task or thread belongs to; None outside a reconcile."""
    cycle = current_reconcile()
    return None if cycle is None else cycle.run
