"""Be the cycle of one key: what the rooms below report to, and what log lines and a reconcile itself can ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.controller.reconcile.threads import ThreadBridge
from reconciler.controller.reconcile.unsaved import UnsavedStore
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request, Version, current_cycle
from reconciler.status import StatusMetrics

__all__ = ["ReconcileCycle", "ReconcileRun", "current_run"]


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """Describe a run of a reconciler.

    Attributes:
        controller: the controller's name.
        request: the key.
        reconcile_id: fresh for each run; stands in every log record of it.
        reasons: why it runs: ``"event"``, ``"deleted"``, ``"owned: Deployment"``, ``"requeue_after"``, ``"retry"`` …
        attempt: failures of this key in a row before this run; 0 for a first try.
        priority: what the key was handed out with.
        since: monotonic second of the hand-out.
    """

    controller: str
    request: Request
    reconcile_id: str
    reasons: frozenset[str]
    attempt: int
    priority: int
    since: float = 0.0

    def log_fields(self) -> dict[str, object]:
        """Return what a log record of this run carries as ``extra``."""
        return {
            "controller": self.controller,
            "object_namespace": self.request.namespace,
            "object_name": self.request.name,
            "reconcile_id": self.reconcile_id,
            "reasons": sorted(self.reasons),
            "attempt": self.attempt,
        }


class ReconcileCycle:
    """Carry the reports of one run to the echo tracker and the store of unsaved mutations.

    Implements `reconciler.meta.Cycle`. Reports about other objects are ignored: what a cycle writes to them is news to
    their own cycles. So are reports after the cycle's end, which come from tasks that outlived it. A report from a
    thread is carried over to the loop; it arrives there before the thread's end does.

    Args:
        gvk: the kind of the primary object.
        run: what runs.
        tracker: the controller's echo tracker.
        unsaved: the controller's store of unsaved mutations.
        stopping: says whether the controller is to stop.
        owns: says of an object's labels whether it is this process's.
        status_metrics: hears of each flush of the cycle's batchers.
        loop: the controller's event loop; the caller runs on it.

    Attributes:
        gvk: the kind of the controller's primary objects.
        request: the key in hand.
        run: what runs.
    """

    def __init__(
        self,
        gvk: GroupVersionKind,
        run: ReconcileRun,
        *,
        tracker: EchoTracker[Request],
        unsaved: UnsavedStore,
        stopping: Callable[[], bool] = lambda: False,
        owns: Callable[[Mapping[str, str]], bool] = lambda _: True,
        status_metrics: StatusMetrics | None = None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.gvk = gvk
        self.run = run
        self.request = run.request
        self.bridge = ThreadBridge(loop)
        self._tracker = tracker
        self._unsaved = unsaved
        self._stopping = stopping
        self._owns = owns
        self._status_metrics = status_metrics
        self._loop = loop
        self._thread = threading.get_ident()
        self._uid: str | None = None
        self._ended = False

    def start(self, uid: str | None, version: Version | None) -> None:
        """Record the oldest state of the object that the reconcile can act on.

        That is the state in the informer's store before the reconciler is called, however it reads; for a
        `ResourceReconciler` the object that it is given.

        Args:
            uid: of the object; None if there is none.
            version: its resourceVersion; None if there is none.
        """
        self._uid = uid
        self._tracker.start(self.request, version)

    @property
    def stopping(self) -> bool:
        """Say whether the controller is to stop."""
        return self._stopping()

    @property
    def status_metrics(self) -> StatusMetrics | None:
        """Return what hears of each flush of a batcher that is given nothing else."""
        return self._status_metrics

    @property
    def reconcile_id(self) -> str:
        """Return the id of this run, for log records."""
        return self.run.reconcile_id

    @property
    def controller(self) -> str:
        """Return the controller's name, for log records."""
        return self.run.controller

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        """Hear that the cycle read an object at a version."""
        if self._is_own(gvk, request):
            self._on_loop(self._saw, uid, version)

    def wrote(
        self, gvk: GroupVersionKind, request: Request, uid: str, *, before: Version, after: Version, exact: bool
    ) -> None:
        """Hear of a conditional write by the batcher or the finalizer helper."""
        if self._is_own(gvk, request):
            self._on_loop(self._wrote, uid, before, after, exact)

    def may_write(self, gvk: GroupVersionKind, request: Request, document: Mapping[str, Any]) -> bool:
        """Say whether a write may be repeated on a newer version of an object; not when it is another process's."""
        return not self._is_own(gvk, request) or self._owns((document.get("metadata") or {}).get("labels") or {})

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        """Take what a batcher recorded for the cycle's object and could not save, for the next cycle."""
        if self._ended:  # a task that outlived the reconcile: nothing would drop this when the object is deleted
            return
        self._unsaved.keep(self.request, uid, mutations)

    def take_unsaved(self, uid: str) -> object | None:
        """Give what an earlier cycle could not save for an object of this uid, once."""
        return self._unsaved.take(self.request, uid)

    @property
    def has_unsaved(self) -> bool:
        """Say whether an earlier cycle left something that this one's batcher takes over."""
        return self.request in self._unsaved

    def unsaved_is_blocked(self, uid: str, generation: int | None) -> bool:
        """Say whether what an earlier cycle left was refused by the server, and would be again."""
        return self._unsaved.is_blocked(self.request, uid, generation)

    def block_unsaved(self, uid: str, generation: int | None) -> bool:
        """Note that the server refused what this cycle leaves; say whether that is news."""
        return self._unsaved.block(self.request, uid, generation)

    def unblock_unsaved(self) -> None:
        """Note that what was refused before is saved by now."""
        self._unsaved.unblock(self.request)

    def end(self) -> None:
        """Ignore all reports from now on."""
        self._ended = True

    def _is_own(self, gvk: GroupVersionKind, request: Request) -> bool:
        # The version of the API is left out: it names a form of the object, and resource versions are the same in all.
        return request == self.request and gvk.kind == self.gvk.kind and gvk.group == self.gvk.group

    def _on_loop(self, report: Callable[..., None], *args: Any) -> None:
        if threading.get_ident() == self._thread:
            report(*args)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(report, *args)

    def _saw(self, uid: str, version: Version) -> None:
        if not self._ended and uid == self._uid:
            self._tracker.saw(self.request, version)

    def _wrote(self, uid: str, before: Version, after: Version, exact: bool) -> None:
        if not self._ended and uid == self._uid:
            self._tracker.wrote(self.request, before=before, after=after, exact=exact)


def current_run() -> ReconcileRun | None:
    """Return the run that this task or thread works for; None outside a reconcile."""
    cycle = current_cycle.get()
    return cycle.run if isinstance(cycle, ReconcileCycle) else None
