"""`ResourceReconciler`: a reconciler that gets the object, and a batcher for its status.

Before and after your code it takes care of the finalizer and of the status fields of every object. Finalizers are added
and removed by conditional writes that the echo rule recognizes. A merge patch replaces the whole list of finalizers, so
it has the resourceVersion of the list it was made from. On a conflict the object is read again from the server and a
new patch is made, so other finalizers are preserved.

The fields are ``observedGeneration`` and the conditions ``Reconciling`` and ``Stalled``, by the rules of kstatus, which
is how Flux and Helm, among others, decide for any kind whether an object is ready. An object is in progress while
``observedGeneration`` is not its generation or ``Reconciling`` is true. It has failed if ``Stalled`` is true. Both
conditions are absent from an object that is ready.
"""

from __future__ import annotations

import functools
import logging
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from typing_extensions import TypeVar

from reconciler._core.user_code import FAILURES, check_hooks
from reconciler._core.wire import JSONObject
from reconciler.client.session import ClientStatusWriter
from reconciler.controller.reconcile.cycle import Reconcile
from reconciler.controller.reconcile.reports import FAILURES_TO_REPORT
from reconciler.controller.reconciler import ControllerBinding, Reconciler
from reconciler.controller.result import NotBound, Outcome, Result, check_outcome, error_message, is_terminal
from reconciler.errors import Conflict, NotFound, TerminalError, error_text
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import parse_version
from reconciler.meta.metadata import add_finalizer, gvk_of, has_finalizer, remove_finalizer, uid_of, version_of
from reconciler.objects import AnyResource, InvalidObject, Resource
from reconciler.objects.kinds import (
    KindLike,
    from_document,
    gvk_from,
    is_built_in,
    kind_argument,
    original_document,
    to_document,
)
from reconciler.status import StatusBatcher, StatusError, StatusRejected, StatusSubresourceMissing
from reconciler.status.batcher import prepared_batcher
from reconciler.status.mutations import Mutation, Set, SetCondition
from reconciler.status.strategies import OnError
from reconciler.status.writer import Strategy

if TYPE_CHECKING:
    from reconciler.client import Client


_MAX_CONFLICTS = 5
"""How often a newer version is read before the conflict is raised; the reconcile is then retried with backoff."""


async def ensure_finalizer(client: Client, kind: KindLike, obj: Any, finalizer: str) -> Any | None:
    """Add a finalizer to an object.

    Cancellation leaves the finalizer there or not; the next reconcile checks it.

    Args:
        client: writes, and reads from the server after a conflict.
        kind: the kind of the returned object.
        obj: the object as it was read.
        finalizer: the name of the finalizer.

    Returns:
        The object in the response, read leniently; the given one if it had the finalizer; None if it is gone or being
        deleted, so that no finalizer can be added.

    Raises:
        Conflict: the object was newer each time.
        APIError: the server refused the write.
        TransportError: there was no response; the finalizer may be there.
    """
    if _has(obj, finalizer):
        return obj
    return await _write(client, kind, obj, finalizer, add=True)


async def release_finalizer(client: Client, kind: KindLike, obj: Any, finalizer: str) -> Any | None:
    """Remove a finalizer from an object, every copy of it.

    Cancellation leaves the finalizer there or not; the next reconcile checks it.

    Returns:
        The object in the response, read leniently; the given one if it had no such finalizer; None if it is gone.

    Raises:
        Conflict: the object was newer each time.
        APIError: the server refused the write.
        TransportError: there was no response; the finalizer may be gone.
    """
    return await _write(client, kind, obj, finalizer, add=False)


async def _write(client: Client, kind: KindLike, obj: Any, finalizer: str, *, add: bool) -> Any | None:
    before = to_document(obj)
    uid, request = uid_of(before), request_of(before)
    for conflicts in range(_MAX_CONFLICTS + 1):
        desired = _desired(before, finalizer, add=add)
        if desired is None:
            return obj
        if add and before["metadata"].get("deletionTimestamp"):
            return None
        patch = {"metadata": {"resourceVersion": version_of(before), "finalizers": desired["metadata"]["finalizers"]}}
        try:
            obj = await client.patch(kind, request.name, request.namespace, patch=patch)
        except NotFound:
            return None
        except Conflict:
            if conflicts == _MAX_CONFLICTS:
                raise
            try:
                newest = await client.live.get(gvk_from(kind), request.name, request.namespace)
            except NotFound:
                return None
            obj = from_document(kind, newest.to_dict(), lenient=True)  # whether it matches the kind's class or not
            before = to_document(obj)
            if uid_of(before) != uid:
                return None
        else:
            _report(gvk_of(before), request, before, desired, to_document(obj))
            return obj
    raise AssertionError("unreachable: the last conflict is raised")


def _has(obj: Any, finalizer: str) -> bool:
    """Return whether an object has a finalizer, without copying it: True in every reconcile but the first."""
    if isinstance(obj, Resource):
        return finalizer in obj.metadata.finalizers
    return has_finalizer(original_document(obj), finalizer)


def _desired(document: Mapping[str, Any], finalizer: str, *, add: bool) -> JSONObject | None:
    """Return a copy of the document with or without the finalizer; None if there is nothing to change."""
    desired = {**document, "metadata": dict(document["metadata"])}
    changed = add_finalizer(desired, finalizer) if add else remove_finalizer(desired, finalizer)
    return desired if changed else None


def _report(
    gvk: GroupVersionKind,
    request: Request,
    before: Mapping[str, Any],
    desired: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    """Report a write to the current reconcile, so that its event is recognized as an echo."""
    cycle = current_cycle.get()
    if cycle is None:
        return
    cycle.wrote(
        gvk,
        request,
        uid_of(before),
        before=parse_version(version_of(before)),
        after=parse_version(version_of(after)),
        exact=equal(_comparable(desired), _comparable(after)),
        is_status=False,
    )


def _comparable(document: Mapping[str, Any]) -> JSONObject:
    """Return a document without the fields that every write changes; an absent list of finalizers is an empty one."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    metadata["finalizers"] = metadata.get("finalizers") or []
    return {**document, "metadata": metadata}


RECONCILING = "Reconciling"
STALLED = "Stalled"

_MAX_MESSAGE = 1024
"""Characters of a message, as in Events."""

_MAX_REASON = 1024
_NOT_IN_REASON = re.compile(r"[^A-Za-z0-9_]+")

_CANCELLED = "the reconcile was cancelled: its timeout expired, or something that it awaited was cancelled"


def record_outcome(status: StatusBatcher[Any], outcome: Outcome, terminal: BaseException | None) -> None:
    """Record the conditions after a reconcile that returned, or ended with a terminal error.

    Args:
        status: the object's batcher.
        outcome: what it returned.
        terminal: the terminal error; None if it returned.
    """
    if terminal is not None:
        _set(status, STALLED, _reason_of(terminal), error_message(terminal))
        _remove(status, RECONCILING)
        return
    _remove(status, STALLED)
    if outcome is not None and outcome.again:
        _set(status, RECONCILING, "Progressing", "a further step follows")
    else:
        _remove(status, RECONCILING)


def record_retry(status: StatusBatcher[Any], error: BaseException) -> None:
    """Record the conditions after a reconcile that is retried: it raised this, or was cancelled by its timeout."""
    message = error_message(error) if isinstance(error, Exception) else _CANCELLED
    _set(status, RECONCILING, "ProgressingWithRetry", message)
    _remove(status, STALLED)


def record_failing(status: StatusBatcher[Any], type: str, error: BaseException) -> None:
    """Record that nobody knows whether an object is ready, because its reconciles fail with this error."""

    def is_other(mutation: Mutation) -> bool:
        return isinstance(mutation, SetCondition) and mutation.type == type and mutation.status not in (True, "True")

    reason = _reason_of(error)
    known: JSONObject = next((each for each in status.get("conditions", ()) if each.get("type") == type), {})
    if status.has_recorded(is_other) or (known.get("status"), known.get("reason")) == ("Unknown", reason):
        return
    message = error_message(error) if isinstance(error, Exception) else _CANCELLED
    status.set_condition(type, "Unknown", reason=reason, message=message[:_MAX_MESSAGE])


def record_observed_generation(obj: Any, status: StatusBatcher[Any]) -> None:
    """Record which generation the status is the outcome of.

    Also if the status has it already: another writer may remove it before the write, which is then replayed.
    """
    if not isinstance(obj, Resource) or not has_status_field(obj.status_model, "observedGeneration"):
        return
    generation = original_document(obj)["metadata"].get("generation")
    if generation is None:
        return
    if status.observed_generation is not None:
        status.record(Set(("observedGeneration",), generation))
    elif status.get("observedGeneration") is not None:  # written when the generation was unknown: outdated forever
        status.remove("observedGeneration")


@functools.lru_cache(maxsize=256)  # called in every reconcile, with the few kinds of a program
def has_status_field(model: Any, wire_name: str) -> bool:
    """Return whether a status model has a field of this name on the wire."""
    return any(wire_name in (name, field.serialization_alias) for name, field in model.model_fields.items())


def _reason_of(error: BaseException) -> str:
    """Return the name of an error's class if the API server accepts it as a reason; otherwise what it accepts of it."""
    name = _NOT_IN_REASON.sub("", type(error).__name__).strip("_").lstrip("_0123456789")
    otherwise = "TerminalError" if isinstance(error, TerminalError) else "ReconcileFailed"
    return name[:_MAX_REASON].rstrip("_") or otherwise


def _set(status: StatusBatcher[Any], type: str, reason: str, message: str) -> None:
    status.set_condition(type, True, reason=reason, message=message[:_MAX_MESSAGE])


def _remove(status: StatusBatcher[Any], type: str) -> None:
    if any(condition.get("type") == type for condition in status.get("conditions", ())):
        status.remove("conditions", item={"type": type})


_log = logging.getLogger("reconciler.controller")


def warn_of_assigned_status(binding: ControllerBinding, obj: Any) -> None:
    """Log a warning if the status of an object that a reconcile was given differs from the one that was read.

    In controller-runtime, a reconcile assigns to the status of the object. Without this, nothing would show why the
    status stays empty. It costs the reading and dumping of the status, so a controller's first reconciles are checked,
    and it warns once.
    """
    if not isinstance(obj, Resource) or "status" not in vars(obj):  # not even read
        return
    binding.status_checks -= 1
    before = original_document(obj).get("status") or {}
    if not obj.problems and obj.status == obj.status_model.model_validate(before):
        return
    after = obj.to_dict().get("status") or {}
    fields = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if fields:
        binding.status_checks = 0
        _log.warning(
            "%s %s: the reconcile changed obj.status (%s), which is not written: "
            "record it with status.set(…), status.append(…) or status.set_condition(…)",
            obj.gvk.kind,
            obj.key,
            ", ".join(fields),
        )


CORE_GROUP = "reconciler.dev"
"""The domain in the finalizer of core kinds, whose group is empty: a finalizer must have a domain."""

R = TypeVar("R", default=Any)

Override = Callable[[Any, StatusBatcher[Any]], Any]

_HOOKS = {
    "reconcile": "reconcile_object",
    "reconcile_object": "reconcile_object",
    "finalize": "finalize",
    "finalize_object": "finalize",
}


class ResourceReconciler(Reconciler, Generic[R]):
    """A reconciler of objects of one kind: subclass ``ResourceReconciler[Database]``, implement `reconcile_object`.

    For each key it reads the object from the cache and returns if there is none, adds the finalizer if `finalize` is
    defined, opens the reconcile's `StatusBatcher`, and records ``status.observedGeneration``.

    ``observedGeneration`` is recorded if the kind's status model has the field: with the generation of the version that
    was read, and only if `reconcile_object` returned or raised `TerminalError`. So it says that the status is the
    outcome for that generation; after an error that is retried there is no outcome yet. It only rises, and `finalize`
    does not record it.

    For a kind without a class, name it: ``class Maps(ResourceReconciler[Unstructured], resource="v1/ConfigMap")``.

    The class states what follows from its code; how it is run are the `ControllerOptions`. The attributes of the status
    have the names of `StatusBatcher`'s options with ``status_`` before them, because an ``on_error`` of a reconciler
    would be read as what follows an error. Two defaults differ: ``"auto"``, since a controller knows whether it has
    the whole object, and ``"ledgers"``, since a reconcile that failed is repeated.

    Class keywords:
        resource: the kind. Default: the type argument.

    Attributes:
        resource: the kind; None if the class header does not state it, so that ``add_controller(resource=)`` must.
        finalizer: the name of the finalizer that `finalize` needs. Default None: ``<group>/<controller name>``.
        status_strategy: how the status is sent: ``"merge"``, a merge patch; ``"update"``, a PUT of the whole status,
            which costs the API server a fifth less, needs the verb ``update``, and requires the default of
            `status_subresource`; or ``"apply"``: see `StatusBatcher`. Default ``"auto"``: an update for custom kinds,
            and a merge patch for built-in ones and without the subresource.
        status_subresource: ``"status"`` (default) or None, which writes the object itself, for a kind whose CRD has no
            status subresource. A class with ``status_subresource=False`` needs no more.
        status_on_error: what is written when the body fails. ``"ledgers"`` (default): conditions, list entries and
            counters, but not what `set`, `merge` and `remove` recorded, which may be incomplete. ``"flush"``:
            everything. ``"discard"``: nothing. After a `TerminalError` everything is written, because the body is
            complete.
        kstatus_conditions: keep the conditions ``Reconciling`` and ``Stalled`` by the rules of kstatus, for Flux,
            Helm and others. Default False. ``Stalled`` is true after a `TerminalError`, whose type and text are its
            reason and message. ``Reconciling`` is true while a retry, or the next step of ``Result(again=True)``, is
            pending. Otherwise both are absent. They are part of the one status write; an object that is being deleted
            keeps what it has. The status model must have ``conditions``.
        ready_condition: the type of the condition, such as ``"Ready"``, of the object's health. From the
            third failure in a row on it is ``Unknown``, with the name and the text of the exception, unless the
            override has recorded it in this reconcile with another status than ``True``. It is part of the one status
            write, and is written again only for another exception. When a reconcile succeeds, the override records it.
            Default None: a condition stays as the override recorded it last.
    """

    resource: ClassVar[KindLike | None] = None
    finalizer: ClassVar[str | None] = None
    status_strategy: ClassVar[Strategy | Literal["auto"]] = "auto"
    status_subresource: ClassVar[str | None] = "status"
    status_on_error: ClassVar[OnError] = "ledgers"
    kstatus_conditions: ClassVar[bool] = False
    ready_condition: ClassVar[str | None] = None

    def __init_subclass__(cls, *, resource: KindLike | None = None, **keywords: Any) -> None:
        if "resource" in vars(cls):
            header = f"class {cls.__name__}(ResourceReconciler[…], resource=…)"
            raise TypeError(f"{cls.__name__}.resource: the kind stands in the header of the class: write {header}")
        declared = resource or kind_argument(cls, ResourceReconciler)
        if declared is not None:
            cls.resource = declared
        check_hooks(cls, ResourceReconciler, _HOOKS)
        super().__init_subclass__(**keywords)

    async def reconcile(self, request: Request, /) -> Outcome:
        """Reconcile one object; override `reconcile_object` instead of this.

        Cancellation cancels the override and waits for the status flush, ten seconds at most.

        Raises:
            InvalidObject: the stored object does not match the kind's class, and is not being deleted. It is a
                `TerminalError` as well: the key is only reconciled again when the object changes.
            StatusError: the status could not be saved; what was recorded is written with the next reconcile.
            APIError, TransportError: the finalizer could not be written.
            Exception: what the override raised.
            NotBound: called by something other than a controller.
        """
        binding, cycle = self._binding, current_cycle.get()
        if binding is None or not isinstance(cycle, Reconcile):
            raise NotBound(f"{type(self).__name__}.reconcile is called by its controller: await controller.start()")
        return await _ObjectReconcile(self, binding, cycle, request).run()

    @abstractmethod
    def reconcile_object(self, obj: R, status: StatusBatcher[Any], /) -> Outcome | Awaitable[Outcome]:
        """Bring the actual state closer to the desired state of the object.

        Override it with ``async def``, or with a plain ``def``, which runs in a thread; see `Reconciler.reconcile`. It
        is not called for an object that is being deleted.

        Args:
            obj: a private copy of the object in the cache, including own writes.
            status: records changes of the status; written once, at the end.

        Returns:
            None to wait for the next event, or a `Result`.

        Raises:
            TerminalError: a retry cannot help. The status is written, and only a change enqueues the key again.
            Exception: any other error is retried with exponential backoff.
        """

    def finalize(self, obj: R, status: StatusBatcher[Any], /) -> Outcome | Awaitable[Outcome]:
        """Clean up for an object that is being deleted; a class that defines it puts a finalizer on every object.

        It may be called several times, also after it succeeded in part. Override it with ``async def`` or ``def``.

        Args:
            obj: the object. One that does not match its model is read leniently (see `Resource.from_dict`), so that it
                can be deleted: valid fields are typed, invalid ones are as stored, missing ones are None, and
                ``obj.problems`` lists them. The metadata is correct, and ``obj.to_dict()`` returns the whole document.
            status: records changes of the status; written before the finalizer is removed.

        Returns:
            None releases the object: the finalizer is removed, and no status write follows. A `Result` keeps the object
            and requeues it.

        Raises:
            TerminalError: keeps the object; only a change enqueues it again.
            Exception: keeps the object and retries with backoff.
        """
        raise NotImplementedError(f"{type(self).__name__} has no finalize")


def defines_finalize(reconciler: ResourceReconciler[Any]) -> bool:
    """Return whether a reconciler's class overrides `ResourceReconciler.finalize`."""
    return type(reconciler).finalize is not ResourceReconciler.finalize


def status_target(reconciler: ResourceReconciler[Any], kind: KindLike) -> tuple[Strategy, str | None]:
    """Return how a reconciler's status is sent, and the subresource that it is sent to; None for the object itself.

    An update needs the whole object as the server sent it. A controller's informer has that, without managedFields,
    which an update need not contain. For some built-in kinds the server takes more than the status from an update.
    """
    subresource = reconciler.status_subresource
    if isinstance(kind, type) and issubclass(kind, Resource) and "status" not in kind.resource_type.subresources:
        subresource = None
    if reconciler.status_strategy != "auto":
        return reconciler.status_strategy, subresource
    return "merge" if subresource is None or is_built_in(gvk_from(kind).group) else "update", subresource


class InvalidPrimary(InvalidObject, TerminalError):
    """The error for a primary object that does not match its model: only a change of the object can help."""


class _ObjectReconcile:
    """One reconcile of one object.

    The order of the writes: the finalizer first, before anything is done that needs it; then the status, at most one
    write; for an object that may be deleted, the removal of the finalizer last, since no write can follow it. All of
    them are conditional on the version that was read or on the previous write, and are reported to the cycle, so that
    none wakes the controller.

    Args:
        reconciler: the reconciler.
        binding: its binding to the controller; a subclass may use every public name for itself.
        cycle: the reconcile.
        request: the key.
    """

    def __init__(
        self, reconciler: ResourceReconciler[Any], binding: ControllerBinding, cycle: Reconcile, request: Request
    ) -> None:
        self._reconciler = reconciler
        self._request = request
        self._binding = binding
        self._cycle = cycle
        self._finalized = False  # `finalize` has returned None

    @property
    def _finalizer(self) -> str:
        group = gvk_from(self._binding.kind).group or CORE_GROUP
        return self._reconciler.finalizer or f"{group}/{self._binding.name}"

    async def run(self) -> Outcome:
        """Read the object and reconcile it. Cancellation cancels the override and waits for the flush."""
        kind = self._binding.kind
        read = await self._binding.client.peek(self._cycle.gvk, self._request)
        if read is None:
            return None
        if read.version != self._cycle.basis or read.uid != self._cycle.uid:  # rarely: the worker has just looked
            self._cycle.set_basis(read.uid, read.version)
        obj: Any = read.read_as(kind, lenient=True)
        if read.deletion_timestamp is not None:
            return await self._reconcile_deleted(obj)
        if isinstance(obj, Resource) and obj.problems:
            raise self._invalid(obj)
        unsaved = self._cycle.unsaved
        if self._request in unsaved.entries and unsaved.is_blocked(self._request, *_revision(obj)):
            batcher = await self._write_unsaved(obj)
            if batcher.written:
                # A reconcile writes the status once, and the override's write would be another.
                return Result(again=True)
            obj = batcher.object
            if obj is None:
                return None
        if defines_finalize(self._reconciler):
            obj = await ensure_finalizer(self._binding.client, self._binding.kind, obj, self._finalizer)
            if obj is None:
                return None
            if isinstance(obj, Resource) and obj.problems:  # again: the response to the write may be newer
                raise self._invalid(obj)
        return await self._call(self._reconciler.reconcile_object, obj, self._batcher(obj))

    async def _reconcile_deleted(self, obj: Any) -> Outcome:
        if not has_finalizer(original_document(obj), self._finalizer):
            return None
        if defines_finalize(self._reconciler):
            batcher = self._batcher(obj)
            try:
                outcome = await self._call(self._reconciler.finalize, obj, batcher, deleted=True)
            except StatusError as error:
                if error.retryable or not self._finalized:
                    raise
                _log.warning(
                    "the last status of %s cannot be saved; its finalizer is removed all the same: %s",
                    self._request,
                    error_text(error),
                    extra=self._cycle.run.log_fields(),
                )
                outcome = None
            if outcome is not None:
                return outcome
            if batcher.written:
                obj = batcher.object
        await release_finalizer(self._binding.client, self._binding.kind, dict(original_document(obj)), self._finalizer)
        return None

    async def _call(
        self, override: Override, obj: Any, batcher: StatusBatcher[Any], *, deleted: bool = False
    ) -> Outcome:
        """Call an override inside the batcher.

        A status that cannot be written never keeps the next reconcile of a deleted object from its `finalize`.
        """
        terminal: Exception | None = None
        has_unsaved = self._request in self._cycle.unsaved.entries
        try:
            async with batcher as status:
                if has_unsaved:
                    obj = self._with_unsaved(obj, status, lenient=deleted)
                try:
                    outcome, terminal = await self._outcome_of(override, obj, status)
                except FAILURES as error:
                    if not deleted and self._is_retried(error):
                        self._record_retry(status, error)
                    raise
                self._finalized = deleted and outcome is None and terminal is None
                if not deleted:
                    record_observed_generation(obj, status)
                    if self._reconciler.kstatus_conditions:
                        record_outcome(status, outcome, terminal)
        except Exception as error:
            failure = error if isinstance(error, StatusError) else batcher.failure
            if failure is error and terminal is not None:
                error.add_note(f"the reconcile itself ended with: {error_text(terminal)}")
            is_news = isinstance(failure, StatusError) and not deleted and self._block_unsaved(obj, failure)
            if is_news and failure is not error:
                fields = self._cycle.run.log_fields()
                _log.error("the status of %s cannot be saved: %s", self._request, failure, extra=fields)
            raise
        if has_unsaved:
            self._cycle.unsaved.unblock(self._request)
        if terminal is not None:
            raise terminal
        return outcome

    async def _outcome_of(
        self, override: Override, obj: Any, status: StatusBatcher[Any]
    ) -> tuple[Outcome, Exception | None]:
        """Call an override; return its outcome, and its error if that is terminal.

        After a terminal error the recorded status is complete, so the batcher must exit without an error to write it.
        """
        try:
            outcome: Outcome = await self._cycle.call(override, obj, status)
            if outcome is not None:
                check_outcome(outcome)
        except Exception as error:
            if not is_terminal(error):
                raise
            return None, error
        if self._binding.status_checks:
            warn_of_assigned_status(self._binding, obj)
        return outcome, None

    def _is_retried(self, error: BaseException) -> bool:
        """Return whether to record that a retry follows; after a cancellation not if the controller is stopping."""
        return isinstance(error, Exception) or not self._cycle.stopping

    def _record_retry(self, status: StatusBatcher[Any], error: BaseException) -> None:
        if self._reconciler.kstatus_conditions:
            record_retry(status, error)
        ready = self._reconciler.ready_condition
        if ready is not None and self._cycle.run.attempt + 1 >= FAILURES_TO_REPORT:
            record_failing(status, ready, error)

    def _invalid(self, obj: AnyResource) -> InvalidPrimary:
        """Record an Event about an object that does not match its model, and return the error.

        The Event has the fields alone: the message may come from a validator of the user, and quote a value.
        """
        fields = ", ".join(dict.fromkeys(path for path, _ in obj.problems))
        self._binding.events.warning(
            obj, "InvalidObject", f"not reconciled until it changes, because these fields are invalid: {fields}"
        )
        return InvalidPrimary(f"{obj.gvk.kind} {self._request} is invalid", obj.problems)

    async def _write_unsaved(self, obj: Any) -> StatusBatcher[Any]:
        """Retry the write that the server refused, before anything is done whose result could not be written."""
        batcher = self._batcher(obj)
        try:
            async with batcher:
                pass
        except StatusError as error:
            self._block_unsaved(obj, error)
            raise
        self._cycle.unsaved.unblock(self._request)
        return batcher

    def _block_unsaved(self, obj: Any, error: StatusError) -> bool:
        """Make the next reconciles of this generation write first, if the server refuses; return whether that is new.

        If it is, record an Event; the log line about the failed reconcile says what follows. A new generation is
        reconciled, with the unsaved mutations applied: it may fix the cause, and its outcome is written together with
        them.
        """
        refused = isinstance(error, (StatusRejected, StatusSubresourceMissing))
        if not refused or not self._cycle.unsaved.block(self._request, *_revision(obj)):
            return False
        self._binding.events.warning(obj, "StatusNotSaved", error_text(error))
        return True

    def _batcher(self, obj: Any) -> StatusBatcher[Any]:
        binding, cycle = self._binding, self._cycle
        writer = ClientStatusWriter(binding.client.session, binding.kind, cycle.gvk, self._request)
        return prepared_batcher(writer, obj, original_document(obj), binding.policy)

    def _with_unsaved(self, obj: Any, status: StatusBatcher[Any], *, lenient: bool) -> Any:
        """Return the object with the mutations that earlier reconciles could not save.

        Mutations that make the object invalid are ignored here: the override gets the object as it is stored.
        """
        try:
            return from_document(self._binding.kind, {**to_document(obj), "status": status.current}, lenient=lenient)
        except InvalidObject:
            return obj


def _revision(obj: Any) -> tuple[str, int | None]:
    """Return the uid and the generation of an object: which object it is, and which desired state it has."""
    document = original_document(obj)
    return uid_of(document), document["metadata"].get("generation")
