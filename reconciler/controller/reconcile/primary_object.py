"""Steps of a `ResourceReconciler` before and after your code: the finalizer, and status fields of every object.

Finalizers are added and removed by conditional writes that the echo rule recognizes. A merge patch replaces the whole
list of finalizers, so it has the resourceVersion of the list it was made from. On a conflict the object is read again
from the server and a new patch is made, so other finalizers are preserved.

The fields are ``observedGeneration`` and the conditions ``Reconciling`` and ``Stalled``, by the rules of kstatus, which
is how Flux and Helm, among others, decide for any kind whether an object is ready. An object is in progress while
``observedGeneration`` is not its generation or ``Reconciling`` is true. It has failed if ``Stalled`` is true. Both
conditions are absent from an object that is ready.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler._core.cycle import current_cycle
from reconciler._core.wire import JSONObject
from reconciler.controller.result import Outcome, error_message
from reconciler.errors import Conflict, NotFound, TerminalError
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.documents import parse_version
from reconciler.meta.metadata import add_finalizer, gvk_of, has_finalizer, remove_finalizer, uid_of, version_of
from reconciler.objects import Resource
from reconciler.objects.kinds import KindLike, from_document, gvk_from, original_document, to_document
from reconciler.status import StatusBatcher
from reconciler.status.mutations import Mutation, Set, SetCondition

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
                obj = from_document(kind, await _newest(client, kind, request), lenient=True)
            except NotFound:
                return None
            before = to_document(obj)
            if uid_of(before) != uid:
                return None
        else:
            _report(gvk_of(before), request, before, desired, to_document(obj))
            return obj
    raise AssertionError("unreachable: the last conflict is raised")


async def _newest(client: Client, kind: KindLike, request: Request) -> JSONObject:
    """Return the document on the server, whether it matches the kind's class or not."""
    return (await client.live.get(gvk_from(kind), request.name, request.namespace)).to_dict()


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

_CHECKS = 10
"""Reconciles of a controller that are checked, since a check costs the reading and dumping of the status."""


class AssignedStatus:
    """The check of one controller's first reconciles; it warns once.

    In controller-runtime, a reconcile assigns to the status of the object. Without this, nothing would show why the
    status stays empty.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _CHECKS

    def check(self, obj: Any) -> None:
        """Log a warning if the status of an object that a reconcile was given differs from the one that was read."""
        if not self._left or not isinstance(obj, Resource) or "status" not in vars(obj):  # not even read
            return
        self._left -= 1
        before = original_document(obj).get("status") or {}
        if not obj.problems and obj.status == obj.status_model.model_validate(before):
            return
        after = obj.to_dict().get("status") or {}
        fields = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if fields:
            self._left = 0
            _log.warning(
                "%s %s: the reconcile changed obj.status (%s), which is not written: "
                "record it with status.set(…), status.append(…) or status.set_condition(…)",
                obj.gvk.kind,
                obj.key,
                ", ".join(fields),
            )
