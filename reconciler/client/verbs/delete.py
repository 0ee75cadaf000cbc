"""Delete objects."""

from __future__ import annotations

from typing import TypeVar, overload

from reconciler.client.session.answers import decode, label
from reconciler.client.session.requests import (
    ObjectLike,
    Propagation,
    Selector,
    delete_options,
    selectors,
    split_kind_or_object,
)
from reconciler.client.session.retry import Repeat, Trail
from reconciler.client.verbs.base import ClientBase
from reconciler.errors import Conflict, NotFound, OutcomeUnknown
from reconciler.meta import GroupVersionKind, ResourceType, name_of, namespace_of, uid_of
from reconciler.objects import AnyResource, KindLike, Unstructured, from_document

__all__ = ["Deleter"]

R = TypeVar("R", bound=AnyResource)


class Deleter(ClientBase):
    """Ask for the deletion of objects."""

    @overload
    async def delete(
        self,
        kind_or_obj: type[R] | R,
        name: str | None = None,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> R | None: ...
    @overload
    async def delete(
        self,
        kind_or_obj: str | GroupVersionKind | ObjectLike,
        name: str | None = None,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Unstructured | None: ...
    async def delete(
        self,
        kind_or_obj: KindLike | AnyResource | ObjectLike,
        name: str | None = None,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> AnyResource | Unstructured | None:
        """Ask for an object's deletion. A cancelled call may have done it.

        Returns the object if the server answers with it, as it does while finalizers hold it, else None.

        With a uid the deletion means one incarnation of the object, and is repeated when its outcome is unknown; an
        object that was given instead of a kind brings its uid along.

        Args:
            kind_or_obj: the kind, with `name` and `namespace`; or the object itself, as it was read.
            name: the object's name, for a kind.
            namespace: its namespace, for a kind; None for cluster-scoped kinds.
            propagation: what becomes of its dependents: ``"Background"``, ``"Foreground"``, ``"Orphan"``; the kind's
                default if None.
            grace_period: seconds; the kind's default if None, 0 for at once.
            uid: refuse with `Conflict` unless the object is this incarnation.
            resource_version: refuse with `Conflict` unless this version is the stored one.
            dry_run: let the server check and answer, but delete nothing.

        Raises:
            NotFound: there is no such object.
            Conflict: it is another incarnation or version.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came.
            NotSent: the connection could not be made.
        """
        kind, document = split_kind_or_object(kind_or_obj)
        if document is not None:
            name, namespace, uid = name_of(document), namespace_of(document), uid or uid_of(document)
        rt = await self._served(kind, name, namespace)
        write = self._write(rt, "delete", self._key(rt, name or "", namespace), dry_run=dry_run)
        body = delete_options(
            dry_run=not write.stores,
            propagation=propagation,
            grace_period=grace_period,
            uid=uid,
            resource_version=resource_version,
        )
        path = self._object_path(rt, name or "", namespace)
        request = self._connection.request("DELETE", path, body=body)
        trail = Trail()
        try:
            response = await self._execute_write(write, request, Repeat.UNKNOWN if uid else Repeat.REFUSED, trail)
        except (NotFound, Conflict) as error:
            if not trail.unknown:
                raise
            if write.stores:
                self._unsure(rt, write.key)
            if isinstance(error, Conflict) and resource_version:
                raise OutcomeUnknown(
                    f"{label(request)}: the answer to an attempt was lost, and now it is refused: {error.message}"
                ) from error
            return None  # this incarnation is gone, which is what was asked for
        if write.stores:
            self._wrote(rt, "delete", write.key, response.body)
        answer = decode(request, response)
        return from_document(kind, answer, lenient=True) if answer.get("kind") == rt.gvk.kind else None

    async def delete_all_of(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        propagation: Propagation | None = None,
        grace_period: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Ask for the deletion of all objects of a kind in a namespace. A cancelled call may have done part of it.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for cluster-scoped kinds only.
            label_selector: only those that it selects.
            field_selector: only those that it selects.
            propagation: what becomes of dependents; the kind's default if None.
            grace_period: seconds; the kind's default if None, 0 for at once.
            dry_run: let the server check and answer, but delete nothing.

        Raises:
            ValueError: a namespaced kind without namespace; the API serves no such deletion.
            APIError: the server's failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        rt = await self._served(kind, namespace=namespace)
        namespace = self._defaults.place(rt, namespace)
        if rt.namespaced and not namespace:
            raise ValueError(f"deleting all of {rt.gvk.kind} needs a namespace: the API deletes in one at a time")
        dry_run = dry_run or self._defaults.dry_run
        body = delete_options(dry_run=dry_run, propagation=propagation, grace_period=grace_period)
        query = selectors(label_selector, field_selector)
        request = self._connection.request("DELETE", self._collection_path(rt, namespace), query, body=body)
        try:
            await self._execute(rt, request, Repeat.REFUSED)
        finally:
            # Whatever the answer: some may be gone, and some held by their finalizers.
            if not dry_run:
                self._deleted_all(rt, namespace if rt.namespaced else None)

    def _deleted_all(self, rt: ResourceType, namespace: str | None) -> None:
        """Hear of every deletion of many objects, however it ended; for a cache to override.

        Args:
            rt: how the kind is served.
            namespace: where; None for a cluster-scoped kind.
        """
