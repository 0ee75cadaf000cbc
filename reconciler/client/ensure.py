"""Create or update: a write only if the object differs from what is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from reconciler._core.wire import JSONObject
from reconciler.client.memory import without_server_metadata
from reconciler.client.requests import StatusSubresource
from reconciler.client.session import ClientSession
from reconciler.client.writes import create, patch, update
from reconciler.errors import NotFound, NotServed
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.documents import merge_diff
from reconciler.meta.metadata import version_of
from reconciler.objects import Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import from_document, to_document

Written = Literal["created", "updated", "updatedStatus", "updatedStatusOnly", "unchanged"]
"""What was done, in controller-runtime's words. ``"updatedStatus"``: the object and its status."""


@dataclass(slots=True)
class _Mutation:
    """An object before and after its mutation.

    Attributes:
        gvk: its kind.
        kind: what responses are read as.
        obj: the mutated object.
        before: its document as read; None if it does not exist.
        after: its document after the mutation.
        separate_status: whether the status is written through its own subresource.
    """

    gvk: GroupVersionKind
    kind: Any
    obj: Any
    before: JSONObject | None
    after: JSONObject
    separate_status: bool

    @property
    def request(self) -> Request:
        return request_of(self.after)

    def main(self, document: JSONObject) -> JSONObject:
        """Return what the main resource stores of a document."""
        return {key: value for key, value in document.items() if not (self.separate_status and key == "status")}

    def status_differs(self) -> bool:
        before, after = (document.get("status") or {} for document in (self.before or {}, self.after))
        return self.separate_status and not equal(before, after)


class Ensure:
    """One call of `Client.create_or_update` or `Client.create_or_patch`.

    Args:
        session: sends the writes.
        get: reads the object, possibly from a cache.
    """

    def __init__(self, session: ClientSession, get: Callable[[Any, str, str | None], Awaitable[Any]]) -> None:
        self._session = session
        self._get = get

    async def create_or_update(
        self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]
    ) -> tuple[Any, Written]:
        """Create the object, or replace it if it differs."""
        change = await self._mutate(obj, mutate)
        if change.before is None:
            return await self._create(change), "created"
        if self._is_stored(change, change.before):
            return change.obj, "unchanged"
        answer = await update(self._session, change.obj)
        return answer, "updated" if self._record(change, answer) else "unchanged"

    async def create_or_patch(
        self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]
    ) -> tuple[Any, Written]:
        """Create the object, or patch what differs: the object, its status, or both."""
        change = await self._mutate(obj, mutate)
        if change.before is None:
            return await self._patch_status(change, await self._create(change)), "created"
        answer, changed = change.obj, False
        difference = merge_diff(change.main(change.before), change.main(change.after))
        if difference and not self._is_stored(change, change.before):
            answer = await self._patch(change, difference, version_of(change.before))
            changed = self._record(change, answer)
        if not change.status_differs():
            return answer, "updated" if changed else "unchanged"
        answer = await self._patch_status(change, answer)
        return answer, "updatedStatus" if changed else "updatedStatusOnly"

    async def _mutate(self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]) -> _Mutation:
        kind, resource, document = await self._session.resolve(obj)
        request = request_of(document)
        before: JSONObject | None = None
        try:
            found = await self._get(kind, request.name, request.namespace)
            before = to_document(found)
        except NotServed:
            raise
        except NotFound:
            found = from_document(kind, Unstructured(document).to_dict())
        mutate(found)
        after = to_document(found)
        if request_of(after) != request:
            raise ValueError(f"mutate must not change name and namespace: {request} became {request_of(after)}")
        return _Mutation(resource.gvk, kind, found, before, after, "status" in resource.subresources)

    async def _create(self, change: _Mutation) -> Any:
        answer = await create(self._session, change.obj)
        self._record(change, answer)
        return answer

    async def _patch(
        self, change: _Mutation, difference: JSONObject, version: str, subresource: StatusSubresource | None = None
    ) -> Any:
        return await patch(
            self._session,
            change.kind,
            *change.request,
            patch=difference,
            resource_version=version or None,
            subresource=subresource,
        )

    async def _patch_status(self, change: _Mutation, current: Any) -> Any:
        """Patch the status of the current object if it differs, and return the response."""
        if not change.status_differs():
            return current
        before, after = ({"status": document.get("status")} for document in (change.before or {}, change.after))
        return await self._patch(change, merge_diff(before, after), version_of(current.to_dict()), "status")

    def _is_stored(self, change: _Mutation, before: JSONObject) -> bool:
        key = (change.gvk, change.request)
        return self._session.connection.written.is_stored(key, change.main(before), change.main(change.after))

    def _record(self, change: _Mutation, answer: Any) -> bool:
        """Record what the server stored, and return whether the write changed anything."""
        stored = answer.to_dict()
        if not self._session.options.dry_run:
            key = (change.gvk, change.request)
            self._session.connection.written.record(key, change.main(change.after), change.main(stored))
            return version_of(stored) != version_of(change.before or {})
        before = without_server_metadata(change.main(change.before or {}))
        return not equal(before, without_server_metadata(change.main(stored)))
