"""Bring an object to a state, writing nothing when it is there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from reconciler.client.session.requests import kind_of
from reconciler.client.session.settled import own_part
from reconciler.client.verbs.patch import Patcher
from reconciler.client.verbs.read import Reader
from reconciler.client.verbs.write import Writer
from reconciler.errors import NotFound, NotServed
from reconciler.meta import GroupVersionKind, Request, equal, merge_diff, request_of, version_of
from reconciler.objects import AnyResource, Unstructured, from_document, to_document

__all__ = ["Ensurer", "Written"]

R = TypeVar("R", bound=AnyResource)

Written = Literal["created", "updated", "updatedStatus", "updatedStatusOnly", "unchanged"]
"""What had to be done; the words are controller-runtime's. ``"updatedStatus"``: the object and its status."""


@dataclass(slots=True)
class _Change:
    """Hold an object before and after its mutation.

    Attributes:
        gvk: its kind.
        kind: what answers are read as.
        found: the object itself, mutated.
        before: its document as read; None if there is none.
        after: its document after the mutation.
        status_apart: whether the status is written by its own subresource.
    """

    gvk: GroupVersionKind
    kind: Any
    found: Any
    before: dict[str, Any] | None
    after: dict[str, Any]
    status_apart: bool

    @property
    def request(self) -> Request:
        return request_of(self.after)

    def main(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return what the main resource stores of a document."""
        return {key: value for key, value in document.items() if not (self.status_apart and key == "status")}

    def status_differs(self) -> bool:
        before, after = (document.get("status") or {} for document in (self.before or {}, self.after))
        return self.status_apart and not equal(before, after)


class Ensurer(Reader, Writer, Patcher):
    """Create what is missing, change what differs, leave alone what does not."""

    @overload
    async def create_or_update(self, obj: R, mutate: Callable[[R], object]) -> tuple[R, Written]: ...
    @overload
    async def create_or_update(
        self, obj: Unstructured | dict[str, Any], mutate: Callable[[Unstructured], object]
    ) -> tuple[Unstructured, Written]: ...
    async def create_or_update(
        self, obj: AnyResource | Unstructured | dict[str, Any], mutate: Callable[[Any], object]
    ) -> tuple[AnyResource | Unstructured, Written]:
        """Let `mutate` change the object of this name, or `obj` if there is none, and store it if it differs.

        Reads with `get`, so from the cache where there is one. The update replaces the whole object but its status, and
        is conditional on the version read. Documents are compared by what they mean; defaults that the server filled in
        for this client are no difference, and a write that the server finds to change nothing is ``"unchanged"`` too.
        A cancelled call may have written.

        Args:
            obj: names the object, and is what is created.
            mutate: sets what is wanted, in place. It may run on an object that is as wanted already. What it does to a
                status that has a subresource is not written: `create_or_patch` and the `StatusBatcher` do that.

        Returns:
            The object as stored, and what was done: ``"created"``, ``"updated"`` or ``"unchanged"``.

        Raises:
            Conflict: the object changed meanwhile: reconcile again.
            AlreadyExists: it was created meanwhile: reconcile again.
            ValueError: `mutate` changed name or namespace.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came.
            NotSent: the connection could not be made.
        """
        change = await self._mutated(obj, mutate)
        if change.before is None:
            return await self._create_changed(change), "created"
        if self._is_settled(change, change.before):
            return change.found, "unchanged"
        answer = await self.update(change.found)
        return answer, "updated" if self._settle(change, answer) else "unchanged"

    @overload
    async def create_or_patch(self, obj: R, mutate: Callable[[R], object]) -> tuple[R, Written]: ...
    @overload
    async def create_or_patch(
        self, obj: Unstructured | dict[str, Any], mutate: Callable[[Unstructured], object]
    ) -> tuple[Unstructured, Written]: ...
    async def create_or_patch(
        self, obj: AnyResource | Unstructured | dict[str, Any], mutate: Callable[[Any], object]
    ) -> tuple[AnyResource | Unstructured, Written]:
        """Do as `create_or_update`, but send only the difference: a merge patch, conditional on the version read.

        A status that has a subresource is sent by a patch of its own, if it differs; after a creation too. Then it is
        ``"updatedStatus"`` or ``"updatedStatusOnly"``. A cancelled call may have written, one of two patches as well.
        """
        change = await self._mutated(obj, mutate)
        if change.before is None:
            return await self._patch_status(change, await self._create_changed(change)), "created"
        answer, changed = change.found, False
        patch = merge_diff(change.main(change.before), change.main(change.after))
        if patch and not self._is_settled(change, change.before):
            answer = await self._patch_changed(change, patch, version_of(change.before))
            changed = self._settle(change, answer)
        if not change.status_differs():
            return answer, "updated" if changed else "unchanged"
        answer = await self._patch_status(change, answer)
        return answer, "updatedStatus" if changed else "updatedStatusOnly"

    async def _mutated(
        self, obj: AnyResource | Unstructured | dict[str, Any], mutate: Callable[[Any], object]
    ) -> _Change:
        document = to_document(obj)
        kind: Any = kind_of(obj, document)
        rt = await self._served(kind, *request_of(document))
        document = self._placed(rt, document)
        request = request_of(document)
        before: dict[str, Any] | None = None
        try:
            found = await self.get(kind, request.name, request.namespace)
            before = found.to_dict()
        except NotServed:
            raise
        except NotFound:
            found = from_document(kind, Unstructured(document).to_dict())
        mutate(found)
        after = to_document(found)
        if request_of(after) != request:
            raise ValueError(f"{request} became {request_of(after)}: mutate must leave name and namespace alone")
        return _Change(rt.gvk, kind, found, before, after, "status" in rt.subresources)

    async def _create_changed(self, change: _Change) -> Any:
        answer = await self.create(change.found)
        self._settle(change, answer)
        return answer

    async def _patch_changed(
        self, change: _Change, patch: dict[str, Any], version: str, subresource: Literal["status"] | None = None
    ) -> Any:
        return await self.patch(
            change.kind, *change.request, patch=patch, resource_version=version, subresource=subresource
        )

    async def _patch_status(self, change: _Change, current: Any) -> Any:
        """Write the status if it differs, on top of what is there now."""
        if not change.status_differs():
            return current
        patch = merge_diff({"status": (change.before or {}).get("status")}, {"status": change.after.get("status")})
        return await self._patch_changed(change, patch, version_of(current.to_dict()), "status")

    def _is_settled(self, change: _Change, before: dict[str, Any]) -> bool:
        key = (change.gvk, change.request)
        return self._connection.settled.same(key, change.main(before), change.main(change.after))

    def _settle(self, change: _Change, answer: Any) -> bool:
        """Remember what the server made of the change; say whether it changed anything."""
        stored = answer.to_dict()
        if not self._defaults.dry_run:
            key = (change.gvk, change.request)
            self._connection.settled.learn(key, change.main(change.after), change.main(stored))
            return version_of(stored) != version_of(change.before or {})
        return not equal(own_part(change.main(change.before or {})), own_part(change.main(stored)))
