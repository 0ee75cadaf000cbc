"""Bring an object to a state, writing nothing when it is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from reconciler.client._patcher import Patcher
from reconciler.client._reader import Reader
from reconciler.client._requests import kind_of
from reconciler.client._writer import Writer
from reconciler.errors import NotFound, NotServed
from reconciler.meta import equal, merge_diff, request_of, version_of
from reconciler.objects import AnyResource, Unstructured, from_document, to_document

__all__ = ["Ensurer", "Written"]

R = TypeVar("R", bound=AnyResource)

Written = Literal["created", "updated", "unchanged"]
"""What had to be done."""


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
        is conditional on the version read. A cancelled call may have written.

        Args:
            obj: names the object, and is what is created.
            mutate: sets what is wanted, in place. It may run on an object that is as wanted already.

        Raises:
            Conflict: the object changed meanwhile: reconcile again.
            AlreadyExists: it was created meanwhile: reconcile again.
            ValueError: `mutate` changed name or namespace.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came.
            NotSent: the connection could not be made.
        """
        found, before, after = await self._mutated(obj, mutate)
        if before is None:
            return await self.create(found), "created"
        if equal(before, after):
            return found, "unchanged"
        return await self.update(found), "updated"

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

        A cancelled call may have written.
        """
        found, before, after = await self._mutated(obj, mutate)
        if before is None:
            return await self.create(found), "created"
        patch = merge_diff(before, after)
        if not patch:
            return found, "unchanged"
        request = request_of(after)
        answer = await self.patch(
            kind_of(found, after), request.name, request.namespace, patch=patch, resource_version=version_of(before)
        )
        return answer, "updated"

    async def _mutated(
        self, obj: AnyResource | Unstructured | dict[str, Any], mutate: Callable[[Any], object]
    ) -> tuple[Any, dict[str, Any] | None, dict[str, Any]]:
        """Return the object after `mutate`, its document before, None if it does not exist, and its document after."""
        document = to_document(obj)
        kind: Any = kind_of(obj, document)
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
        return found, before, after
