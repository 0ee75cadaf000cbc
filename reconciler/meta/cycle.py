"""Let the rooms below the controller tell a running reconcile what they did to its own object.

The controller puts a `Cycle` into `current_cycle` around each reconcile. A cached read and a `StatusBatcher` report to
it; from that the controller knows which event is only the echo of its own write. Outside a controller there is no
cycle, and nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from reconciler.meta.reference import GroupVersionKind, Request
from reconciler.meta.scalars import Version

__all__ = ["Cycle", "current_cycle"]


class Cycle(Protocol):
    """Be one hand-out of one key by one controller.

    Every method may be called from any thread, since a batcher over a blocking client lives in one, and ignores objects
    other than the cycle's own.
    """

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind of the controller's primary objects."""
        ...

    @property
    def request(self) -> Request:
        """Return the key in hand."""
        ...

    @property
    def stopping(self) -> bool:
        """Say whether the controller is to stop, so that nobody should wait long for anything."""
        ...

    @property
    def status_metrics(self) -> Any:
        """Return what hears of each flush of a batcher that is given nothing else; None for nobody.

        It is a `reconciler.status.StatusMetrics`, which this room does not know.
        """
        ...

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        """Hear that the cycle read an object at a version."""
        ...

    def wrote(
        self, gvk: GroupVersionKind, request: Request, uid: str, *, before: Version, after: Version, exact: bool
    ) -> None:
        """Hear of a conditional write by the batcher or the finalizer helper.

        Args:
            gvk: the kind of the object written.
            request: its name and namespace.
            uid: its uid.
            before: the version that the write was conditional on.
            after: the version in the answer; equal to `before` when nothing was stored.
            exact: whether the answer is what was computed, that is, carries no foreign change.
        """
        ...

    def may_write(self, gvk: GroupVersionKind, request: Request, document: Mapping[str, Any]) -> bool:
        """Say whether a write may be repeated on a newer version of an object; not when it is another process's by now.

        Args:
            gvk: the kind of the object.
            request: its name and namespace.
            document: the newer version.
        """
        ...

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        """Take what a batcher recorded for the cycle's object and could not save, for the next cycle."""
        ...

    def take_unsaved(self, uid: str) -> object | None:
        """Give what an earlier cycle could not save for an object of this uid, once; None when there is nothing."""
        ...


current_cycle: ContextVar[Cycle | None] = ContextVar("current_cycle", default=None)
"""The reconcile that this task works for, or None."""
