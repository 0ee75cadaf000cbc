"""Adding and removing finalizers, by conditional writes that the echo rule recognizes.

A merge patch replaces the whole list of finalizers, so it has the resourceVersion of the list it was made from. On a
conflict the object is read again from the server and a new patch is made, so other finalizers are preserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler._core.cycle import current_cycle
from reconciler._core.wire import JSONObject
from reconciler.controller.reconcile.cycle import ReconcileCycle
from reconciler.errors import Conflict, NotFound
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.metadata import add_finalizer, gvk_of, has_finalizer, remove_finalizer, uid_of, version_of
from reconciler.meta.scalars import parse_version
from reconciler.objects import Resource
from reconciler.objects.kinds import KindLike, from_document, gvk_from, original_document, to_document

if TYPE_CHECKING:
    from reconciler.client import Client

__all__ = ["ensure_finalizer", "release_finalizer"]

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
    wrote = partial(cycle.wrote, is_status=False) if isinstance(cycle, ReconcileCycle) else cycle.wrote
    wrote(
        gvk,
        request,
        uid_of(before),
        before=parse_version(version_of(before)),
        after=parse_version(version_of(after)),
        exact=equal(_comparable(desired), _comparable(after)),
    )


def _comparable(document: Mapping[str, Any]) -> JSONObject:
    """Return a document without the fields that every write changes; an absent list of finalizers is an empty one."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    metadata["finalizers"] = metadata.get("finalizers") or []
    return {**document, "metadata": metadata}
