"""The current reconcile as seen by lower layers, which report their reads and writes of its object.

The controller sets `current_cycle` to a `Cycle` around each reconcile. Cached reads and the `StatusBatcher` report to
it, which lets the controller recognize the watch event of its own write. Outside a controller there is no cycle, and
nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from reconciler.meta.documents import Version
from reconciler.meta.metadata import GroupVersionKind, Request


class Cycle(Protocol):
    """One reconcile of one key by one controller.

    Every method may be called from any thread, since a batcher over a blocking client runs in one. Objects other than
    the cycle's own are ignored.
    """

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind of the controller's primary objects."""
        ...

    @property
    def request(self) -> Request:
        """Return the key being reconciled."""
        ...

    @property
    def stopping(self) -> bool:
        """Return whether the controller is stopping, so that nothing should wait long."""
        ...

    @property
    def status_metrics(self) -> Any:
        """Return the metrics notified of each flush of a batcher that has none of its own; None for none.

        It is a `reconciler.status.recording.StatusMetrics`, a type that this package does not know.
        """

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        """Record that the reconcile read the object at this version."""

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
        """Record a conditional write by the batcher or the finalizer helper.

        Args:
            gvk: the kind of the written object.
            request: its name and namespace.
            uid: its uid.
            before: the version that the write was conditional on.
            after: the version in the response; equal to `before` if nothing was stored.
            exact: whether the response equals what was computed, that is, contains no foreign change.
            is_status: whether it wrote the status. Default True.
        """

    def may_write(self, gvk: GroupVersionKind, request: Request, document: Mapping[str, Any]) -> bool:
        """Return whether a write may be repeated on a newer version of an object.

        False if another process is now responsible for the object.

        Args:
            gvk: the kind of the object.
            request: its name and namespace.
            document: the newer version.
        """
        ...

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        """Keep what a batcher recorded for the cycle's object and could not save, for the next cycle."""

    def warn(self, reason: str, message: str) -> None:
        """Record something that is wrong with the cycle's object, although nothing failed."""

    def take_unsaved(self, uid: str) -> object | None:
        """Hand over what an earlier cycle could not save for an object with this uid; None if there is nothing."""


current_cycle: ContextVar[Cycle | None] = ContextVar("current_cycle", default=None)
"""The reconcile that this task belongs to, or None."""

RECONCILE_IDS = random.Random()  # noqa: S311 - ids for logs need not be hard to guess; the system is asked once
"""Generates the ids of reconciles."""
if hasattr(os, "register_at_fork"):  # otherwise each child process would generate the same ids
    os.register_at_fork(after_in_child=RECONCILE_IDS.seed)


@contextlib.contextmanager
def seeded_reconcile_ids(seed: int | str = 0) -> Iterator[None]:
    """Generate the same ids in each execution of the block, so that a test can be repeated exactly."""
    RECONCILE_IDS.seed(seed)
    try:
        yield
    finally:
        RECONCILE_IDS.seed()
