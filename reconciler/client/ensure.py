"""Create or update: a write only if the object differs from what is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


class Ensure:
    """One call of `Client.create_or_update` or `Client.create_or_patch`.

    Args:
        session: sends the writes.
        get: reads the object, possibly from a cache.
    """

    def __init__(self, session: ClientSession, get: Callable[[Any, str, str | None], Awaitable[Any]]) -> None:
        self._session = session
        self._get = get
        self._kind: Any = None  # what responses are read as
        self._key: tuple[GroupVersionKind, Request]
        self._obj: Any = None  # the mutated object
        self._before: JSONObject | None = None  # its document as read; None if it does not exist
        self._after: JSONObject = {}  # its document after the mutation
        self._has_status_subresource = False

    async def create_or_update(
        self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]
    ) -> tuple[Any, Written]:
        """Create the object, or replace it if it differs."""
        await self._mutate(obj, mutate)
        if self._before is None:
            return await self._create(), "created"
        if self._is_stored(self._before):
            return self._obj, "unchanged"
        answer = await update(self._session, self._obj)
        return answer, "updated" if self._record(answer) else "unchanged"

    async def create_or_patch(
        self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]
    ) -> tuple[Any, Written]:
        """Create the object, or patch what differs: the object, its status, or both."""
        await self._mutate(obj, mutate)
        before, after = ((document or {}).get("status") or {} for document in (self._before, self._after))
        status_differs = self._has_status_subresource and not equal(before, after)
        if self._before is None:
            answer = await self._create()
            return await self._patch_status(answer) if status_differs else answer, "created"
        answer, changed = self._obj, False
        difference = merge_diff(self._main(self._before), self._main(self._after))
        if difference and not self._is_stored(self._before):
            answer = await self._patch(difference, version_of(self._before))
            changed = self._record(answer)
        if not status_differs:
            return answer, "updated" if changed else "unchanged"
        return await self._patch_status(answer), "updatedStatus" if changed else "updatedStatusOnly"

    async def _mutate(self, obj: TypedObject | Unstructured | JSONObject, mutate: Callable[[Any], object]) -> None:
        self._kind, resource, document = await self._session.resolve(obj)
        request = request_of(document)
        try:
            self._obj = await self._get(self._kind, request.name, request.namespace)
            self._before = to_document(self._obj)
        except NotServed:
            raise
        except NotFound:
            self._obj = from_document(self._kind, Unstructured(document).to_dict())
        mutate(self._obj)
        self._after = to_document(self._obj)
        if request_of(self._after) != request:
            raise ValueError(f"mutate must not change name and namespace: {request} became {request_of(self._after)}")
        self._key = resource.gvk, request
        self._has_status_subresource = "status" in resource.subresources

    def _main(self, document: JSONObject) -> JSONObject:
        """Return what the main resource stores of a document."""
        return {key: value for key, value in document.items() if not (self._has_status_subresource and key == "status")}

    async def _create(self) -> Any:
        answer = await create(self._session, self._obj)
        self._record(answer)
        return answer

    async def _patch(self, difference: JSONObject, version: str, subresource: StatusSubresource | None = None) -> Any:
        condition = version or None
        return await patch(
            self._session,
            self._kind,
            *self._key[1],
            patch=difference,
            resource_version=condition,
            subresource=subresource,
        )

    async def _patch_status(self, current: Any) -> Any:
        """Patch the status of the current object, and return the response."""
        before, after = ({"status": document.get("status")} for document in (self._before or {}, self._after))
        return await self._patch(merge_diff(before, after), version_of(current.to_dict()), "status")

    def _is_stored(self, before: JSONObject) -> bool:
        written = self._session.connection.written
        return written.is_stored(self._key, self._main(before), self._main(self._after))

    def _record(self, answer: Any) -> bool:
        """Record what the server stored, and return whether the write changed anything."""
        stored, before = answer.to_dict(), self._before or {}
        if not self._session.options.dry_run:
            self._session.connection.written.record(self._key, self._main(self._after), self._main(stored))
            return version_of(stored) != version_of(before)
        return not equal(*(without_server_metadata(self._main(document)) for document in (before, stored)))
