"""Be what most users subclass: a reconciler that is handed the object, and a batcher for its status."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from reconciler.controller.reconcile.resource_cycle import ResourceCycle
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.result import Outcome
from reconciler.meta import Request
from reconciler.objects import KindLike, kind_argument
from reconciler.status import OnError, StatusBatcher, Strategy

__all__ = ["ResourceReconciler"]

R = TypeVar("R", default=Any)


class ResourceReconciler(Reconciler, Generic[R]):
    """Reconcile objects of one kind: subclass ``ResourceReconciler[Database]`` and implement `reconcile_object`.

    For each key it reads the object from the cache, ends if there is none, keeps the finalizer if `finalize` is
    defined, opens the cycle's `StatusBatcher`, and records ``status.observedGeneration``.

    ``observedGeneration`` is recorded when the kind's status model has the field: with the generation of the version
    that was read, and only for a `reconcile_object` that returned or raised `TerminalError`. So it says that the status
    is the outcome for that generation; after an error that is retried there is no outcome yet. It only rises, and
    `finalize` does not record it.

    For a kind without a class, name it: ``class Maps(ResourceReconciler[Unstructured], resource="v1/ConfigMap")``.

    Class keywords:
        resource: the kind. Default: the type argument. ``add_controller(resource=)`` stands over both.

    Attributes:
        resource: the kind, None when neither keyword nor type argument says it.
        finalizer: the name of the finalizer that `finalize` needs. Default None: ``<group>/<controller name>``.
        status_strategy: how the status is sent: ``"merge"`` (default), a merge patch; ``"update"``, a PUT of the whole
            status, which costs the API server a fifth less, needs the verb ``update``, and goes with the default of
            `status_subresource`; or ``"apply"``. See `StatusBatcher`.
        status_subresource: ``"status"`` (default) or None; see `StatusBatcher`.
        status_on_error: what is written when the body fails. ``"ledgers"`` (default): conditions, list entries and
            counters, not what `set`, `merge` and `remove` recorded, which may be half a truth. ``"flush"``: everything.
            ``"discard"``: nothing. A body that raises `TerminalError` has said everything: all of it is written.
    """

    resource: ClassVar[KindLike | None] = None
    finalizer: ClassVar[str | None] = None
    status_strategy: ClassVar[Strategy] = "merge"
    status_subresource: ClassVar[str | None] = "status"
    status_on_error: ClassVar[OnError] = "ledgers"

    def __init_subclass__(cls, *, resource: KindLike | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        declared = resource or kind_argument(cls, ResourceReconciler)
        if declared is not None:
            cls.resource = declared

    async def reconcile(self, request: Request, /) -> Outcome:
        """Carry one object through its cycle; override `reconcile_object` instead.

        Cancellation cancels the override and waits for the status flush, ten seconds at most.

        Raises:
            InvalidObject: the stored object does not fit the kind's class, and is not being deleted. It is a
                `TerminalError` as well: only a change of the object runs it again.
            StatusError: the status could not be saved; what was recorded goes out with the next cycle.
            APIError, TransportError: the finalizer could not be written.
            Exception: what the override raised.
        """
        finalize = self.finalize if type(self).finalize is not ResourceReconciler.finalize else None
        return await ResourceCycle(self, request, finalizer=self.finalizer, finalize=finalize).run(
            self.reconcile_object,
            strategy=self.status_strategy,
            subresource=self.status_subresource,
            on_error=self.status_on_error,
        )

    @abstractmethod
    def reconcile_object(self, obj: R, status: StatusBatcher[Any], /) -> Outcome | Awaitable[Outcome]:
        """Make the world as the object says.

        Override it with ``async def``, or with a plain ``def``, which runs in a thread; see `Reconciler.reconcile`. It
        is not called for an object that is being deleted.

        Args:
            obj: the object as the cache has it, own writes included; a copy of one's own.
            status: records what the status is to become; written once, at the end.

        Returns:
            None to wait for the next event, or a `Result`.

        Raises:
            TerminalError: retrying cannot help. The status is written, and only a change runs the key again.
            Exception: anything else runs the key again with exponential back-off.
        """

    def finalize(self, obj: R, status: StatusBatcher[Any], /) -> Outcome | Awaitable[Outcome]:
        """Clean up for an object that is being deleted; defining it puts a finalizer on every object.

        It may be called several times, also after a part of it was done. Override it with ``async def`` or ``def``.

        Args:
            obj: the object. One that does not fit its model is read leniently (see `Resource.from_dict`), so that it
                can be deleted: valid fields are typed, invalid ones are as stored, missing ones are None, and
                ``obj.problems`` names them. The metadata is right, and ``obj.to_dict()`` gives the whole document.
            status: records what the status is to become; written before the finalizer is removed.

        Returns:
            None lets the object go: the finalizer is removed, and no status write follows. A `Result` keeps the object
            and runs again as it says.

        Raises:
            TerminalError: keeps the object, and only a change runs it again.
            Exception: keeps the object and runs again with back-off.
        """
        raise NotImplementedError(f"{type(self).__name__} has no finalize")
