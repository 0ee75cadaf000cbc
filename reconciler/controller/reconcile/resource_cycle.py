"""Carry one object through one cycle: read it, keep its finalizer, let the override work, write its status once.

The order of the writes: the finalizer first, before anything is done that would need it; then the status, one write
at most; for an object that may go, the removal of the finalizer last, since no write can follow it. All of them are
conditional on the version read or the one before, and reported to the cycle, so that none wakes the controller.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from reconciler.controller.reconcile.cycle import ReconcileCycle
from reconciler.controller.reconcile.finalizer import ensure_finalizer, release_finalizer
from reconciler.controller.reconcile.outcome import checked, is_terminal
from reconciler.controller.reconciler import Reconciler, binding_of, call
from reconciler.controller.result import Outcome, Result
from reconciler.errors import NotFound, NotServed, TerminalError, error_text
from reconciler.meta import Request, current_cycle, has_finalizer, parse_version, uid_of
from reconciler.objects import (
    InvalidObject,
    Resource,
    from_document,
    gvk_from,
    original_document,
    to_document,
)
from reconciler.status import OnError, StatusBatcher, StatusError, Strategy

__all__ = ["ResourceCycle"]

_log = logging.getLogger("reconciler.controller")

CORE_GROUP = "reconciler.dev"
"""Stands for the empty group of the core kinds in the name of a finalizer, which must have a domain."""

Override = Callable[[Any, StatusBatcher[Any]], Any]


class Unfit(InvalidObject, TerminalError):
    """The error for a living object that does not fit its model: only a change of the object can help."""


class ResourceCycle:
    """Be one cycle of one object.

    Args:
        reconciler: whose cycle it is; bound to a controller.
        request: the key.
        finalizer: the finalizer's name; None for the default.
        finalize: what cleans up; None when nothing has to be.
    """

    def __init__(
        self, reconciler: Reconciler, request: Request, *, finalizer: str | None, finalize: Override | None
    ) -> None:
        binding = binding_of(reconciler, "client")
        self._reconciler = reconciler
        self._request = request
        self._client = binding.client
        self._kind = binding.kind
        self._clock = binding.clock
        self._metrics = binding.status_metrics
        self._controller = binding.name
        self._named_finalizer = finalizer
        self._finalize = finalize
        self._may_go = False  # `finalize` has returned, and lets the object go
        cycle = current_cycle.get()
        self._cycle = cycle if isinstance(cycle, ReconcileCycle) else None

    @property
    def _finalizer(self) -> str:
        return self._named_finalizer or f"{gvk_from(self._kind).group or CORE_GROUP}/{self._controller}"

    async def run(
        self, override: Override, *, strategy: Strategy, subresource: str | None, on_error: OnError
    ) -> Outcome:
        """Run the cycle. Cancellation cancels the override and waits for the flush."""
        self._strategy: Strategy = strategy
        self._subresource = subresource
        self._on_error: OnError = on_error
        try:
            read = await self._client.get(gvk_from(self._kind), self._request.name, self._request.namespace)
        except NotServed:
            raise
        except NotFound:
            return None
        document = original_document(read)
        if self._cycle is not None:
            metadata = document["metadata"]
            self._cycle.start(metadata["uid"], parse_version(metadata["resourceVersion"]))
        obj: Any = from_document(self._kind, dict(document), lenient=True)
        if document["metadata"].get("deletionTimestamp"):
            return await self._let_go(obj)
        self._check_fit(obj)
        if self._cycle is not None and self._cycle.has_unsaved and self._cycle.unsaved_is_blocked(*_desired(obj)):
            batcher = await self._save_blocked(obj)
            if batcher.written:
                return Result(again=True)  # a reconcile writes the status once, and the body's write would be another
            obj = batcher.object
            if obj is None:
                return None
        if self._finalize is not None:
            obj = await ensure_finalizer(self._client, self._kind, obj, self._finalizer)
            if obj is None:
                return None
            self._check_fit(obj)  # again: what a write answered may be newer
        return await self._with_status(obj, override)

    def _check_fit(self, obj: Any) -> None:
        """Raise `Unfit` for an object that does not fit its model, and tell people.

        The Event names the fields alone: a message may come from a validator of the user's, and quote a value.
        """
        if not isinstance(obj, Resource) or not obj.problems:
            return
        fields = ", ".join(dict.fromkeys(path for path, _ in obj.problems))
        self._reconciler.events.warning(
            obj, "InvalidObject", f"not reconciled until it changes: these fields do not fit the model: {fields}"
        )
        raise Unfit(f"{obj.gvk.kind} {self._request} does not fit its model", obj.problems)

    async def _let_go(self, obj: Any) -> Outcome:
        if not has_finalizer(original_document(obj), self._finalizer):
            return None
        if self._finalize is not None:
            batcher = self._batcher(obj)
            try:
                outcome = await self._with_status(obj, self._finalize, dying=True, batcher=batcher)
            except StatusError as error:
                if error.retryable or not self._may_go:
                    raise
                _log.warning(
                    "%s goes without its last status: %s", self._request, error_text(error), extra=self._log_fields()
                )
                outcome = None
            if outcome is not None:
                return outcome
            if batcher.written:
                obj = batcher.object
        await release_finalizer(self._client, self._kind, dict(original_document(obj)), self._finalizer)
        return None

    async def _with_status(
        self, obj: Any, override: Override, *, dying: bool = False, batcher: StatusBatcher[Any] | None = None
    ) -> Outcome:
        """Call an override inside the cycle's batcher.

        What cannot be written never keeps the next cycle of a dying object from its `finalize`.
        """
        batcher = batcher or self._batcher(obj)
        outcome: Outcome = None
        terminal: Exception | None = None
        carries = self._cycle is not None and self._cycle.has_unsaved
        try:
            async with batcher as status:
                if carries:
                    obj = self._with_unsaved(obj, status, lenient=dying)
                try:
                    outcome = checked(await call(self._reconciler, override, obj, status))
                    self._may_go = dying and outcome is None
                except Exception as error:
                    if not is_terminal(error):
                        raise
                    terminal = error  # what it recorded is the whole truth, so the block ends well and writes it
                if not dying:
                    _stamp(obj, status)
        except Exception as error:
            failure = error if isinstance(error, StatusError) else batcher.failure
            if failure is error and terminal is not None:
                error.add_note(f"the reconcile itself ended with: {terminal}")
            if isinstance(failure, StatusError) and not dying:
                self._block(obj, failure)
            raise
        if carries and self._cycle is not None:
            self._cycle.unblock_unsaved()
        if terminal is not None:
            raise terminal
        return outcome

    async def _save_blocked(self, obj: Any) -> StatusBatcher[Any]:
        """Try again to write what the server refused, before anything is done whose result could not be written."""
        batcher = self._batcher(obj)
        try:
            async with batcher:
                pass
        except StatusError as error:
            self._block(obj, error)
            raise
        if self._cycle is not None:
            self._cycle.unblock_unsaved()
        return batcher

    def _block(self, obj: Any, error: StatusError) -> None:
        """Have the next cycles of this generation write first, if repeating cannot cure the fault; tell people once.

        A new generation is reconciled, with what is unsaved in place: it may be the cure, and its outcome goes out in
        one write with the rest.
        """
        if error.retryable or self._cycle is None or not self._cycle.block_unsaved(*_desired(obj)):
            return
        _log.error(
            "the status of %s cannot be saved; it is not reconciled until that has succeeded or its spec changes: %s",
            self._request,
            error,
            extra=self._log_fields(),
        )
        self._reconciler.events.warning(obj, "StatusNotSaved", error_text(error))

    def _batcher(self, obj: Any) -> StatusBatcher[Any]:
        return StatusBatcher(
            self._client,
            obj,
            strategy=self._strategy,
            subresource=self._subresource,
            on_error=self._on_error,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _with_unsaved(self, obj: Any, status: StatusBatcher[Any], *, lenient: bool) -> Any:
        """Return the object as the override is to see it: with what earlier cycles could not save in place.

        What does not even fit the model was no record of anything: the override sees the object as it is stored then.
        """
        try:
            return from_document(self._kind, {**to_document(obj), "status": status.current}, lenient=lenient)
        except InvalidObject:
            return obj

    def _log_fields(self) -> dict[str, object]:
        return self._cycle.run.log_fields() if self._cycle is not None else {}


def _desired(obj: Any) -> tuple[str, int | None]:
    """Return which object it is, and which generation of what is wanted of it."""
    document = original_document(obj)
    return uid_of(document), document["metadata"].get("generation")


def _stamp(obj: Any, status: StatusBatcher[Any]) -> None:
    """Record which generation the status is the outcome of.

    Also where it says so already: another writer may take it away before the write, which is then replayed.
    """
    if not (isinstance(obj, Resource) and obj.generation is not None and _observes(obj.status_model)):
        return
    if status.observed_generation is not None:
        status.set("observedGeneration", obj.generation)
    elif status.get("observedGeneration") is not None:  # of a time when it was not known: "behind" for ever
        status.remove("observedGeneration")


@functools.lru_cache(maxsize=256)  # asked in every cycle, of the few kinds of a program
def _observes(model: Any) -> bool:
    """Say whether a status model has the field ``observedGeneration``, under its name on the wire."""
    return any("observedGeneration" in (name, field.serialization_alias) for name, field in model.model_fields.items())
