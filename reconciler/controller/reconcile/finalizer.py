"""Put a finalizer on an object and take it off, by conditional writes that the echo rule knows.

A merge patch replaces the whole list of finalizers, so it names the resourceVersion of the list it was made from. When
the object is newer, it is read again from the server and the patch made anew: what others put into the list stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.errors import Conflict, NotFound
from reconciler.meta import (
    GroupVersionKind,
    Request,
    add_finalizer,
    current_cycle,
    equal,
    gvk_of,
    has_finalizer,
    parse_version,
    remove_finalizer,
    request_of,
    uid_of,
    version_of,
)
from reconciler.objects import KindLike, Resource, from_document, gvk_from, original_document, to_document

if TYPE_CHECKING:
    from reconciler.client import Client

__all__ = ["ensure_finalizer", "release_finalizer"]

_MAX_CONFLICTS = 5
"""How often a newer version is read before the conflict is raised; the reconcile then comes again with back-off."""


async def ensure_finalizer(client: Client, kind: KindLike, obj: Any, finalizer: str) -> Any | None:
    """Put a finalizer on an object.

    Cancellation leaves the finalizer there or not; the next reconcile finds out.

    Args:
        client: writes, and reads from the server when the object is newer.
        kind: what the answer is read as.
        obj: the object as it was read.
        finalizer: its name.

    Returns:
        The object in the answer, read leniently; the one given when it had the finalizer; None when it is gone or being
        deleted, so that it can take no finalizer any more.

    Raises:
        Conflict: the object was newer each time.
        APIError: the server refused.
        TransportError: no answer; the finalizer may be there.
    """
    if _carries(obj, finalizer):
        return obj
    return await _write(client, kind, obj, finalizer, add=True)


async def release_finalizer(client: Client, kind: KindLike, obj: Any, finalizer: str) -> Any | None:
    """Take a finalizer off an object, every copy of it.

    Cancellation leaves the finalizer there or not; the next reconcile finds out.

    Returns:
        The object in the answer, read leniently; the one given when it had no such finalizer; None when it is gone.

    Raises:
        Conflict: the object was newer each time.
        APIError: the server refused.
        TransportError: no answer; the finalizer may be gone.
    """
    return await _write(client, kind, obj, finalizer, add=False)


async def _write(client: Client, kind: KindLike, obj: Any, finalizer: str, *, add: bool) -> Any | None:
    before = to_document(obj)
    uid, request = uid_of(before), request_of(before)
    for conflicts in range(_MAX_CONFLICTS + 1):
        wanted = _with(before, finalizer) if add else _without(before, finalizer)
        if wanted is None:
            return obj
        if add and before["metadata"].get("deletionTimestamp"):
            return None
        patch = {"metadata": {"resourceVersion": version_of(before), "finalizers": wanted["metadata"]["finalizers"]}}
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
            _report(gvk_of(before), request, before, wanted, to_document(obj))
            return obj
    raise AssertionError("unreachable: the last conflict is raised")


async def _newest(client: Client, kind: KindLike, request: Request) -> dict[str, Any]:
    """Return the document on the server, whether it fits the kind's class or not."""
    return (await client.live.get(gvk_from(kind), request.name, request.namespace)).to_dict()


def _carries(obj: Any, finalizer: str) -> bool:
    """Say whether an object has a finalizer, without copying it: true in all cycles of an object but the first."""
    if isinstance(obj, Resource):
        return finalizer in obj.metadata.finalizers
    return has_finalizer(original_document(obj), finalizer)


def _with(document: Mapping[str, Any], finalizer: str) -> dict[str, Any] | None:
    wanted = {**document, "metadata": dict(document["metadata"])}
    return wanted if add_finalizer(wanted, finalizer) else None


def _without(document: Mapping[str, Any], finalizer: str) -> dict[str, Any] | None:
    wanted = {**document, "metadata": dict(document["metadata"])}
    return wanted if remove_finalizer(wanted, finalizer) else None


def _report(
    gvk: GroupVersionKind,
    request: Request,
    before: Mapping[str, Any],
    wanted: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    """Tell the running cycle, so that the event of this write is known as its echo."""
    cycle = current_cycle.get()
    if cycle is None:
        return
    cycle.wrote(
        gvk,
        request,
        uid_of(before),
        before=parse_version(version_of(before)),
        after=parse_version(version_of(after)),
        exact=equal(_comparable(wanted), _comparable(after)),
    )


def _comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without what every write changes; an absent list of finalizers is an empty one."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    metadata["finalizers"] = metadata.get("finalizers") or []
    return {**document, "metadata": metadata}
