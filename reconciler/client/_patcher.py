"""Write parts of objects: patch, apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from reconciler.client._base import ClientBase
from reconciler.client._requests import (
    CONTENT_TYPES,
    FieldValidation,
    ObjectLike,
    Own,
    PatchStrategy,
    applied,
    encode,
    kind_of,
    patch_body,
)
from reconciler.client._retry import Repeat
from reconciler.meta import GroupVersionKind, request_of
from reconciler.objects import AnyResource, KindLike, Unstructured, to_document

__all__ = ["Patcher"]

R = TypeVar("R", bound=AnyResource)


class Patcher(ClientBase):
    """Change parts of objects; what is returned is the server's answer."""

    @overload
    async def patch(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        strategy: PatchStrategy = "merge",
        subresource: Own | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> R: ...
    @overload
    async def patch(
        self,
        kind: str | GroupVersionKind,
        name: str,
        namespace: str | None = None,
        *,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        strategy: PatchStrategy = "merge",
        subresource: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured: ...
    async def patch(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        strategy: PatchStrategy = "merge",
        subresource: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> AnyResource | Unstructured:
        """Change parts of an object, and return what is stored. A cancelled call may have done it.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.
            patch: an object of the members to set, with None for those to remove; for ``"json"`` a list of operations.
            strategy: ``"merge"`` (RFC 7386, lists are replaced whole; the default), ``"json"`` (RFC 6902), or
                ``"strategic"`` (built-in kinds only).
            subresource: such as ``"status"``, or ``"scale"``, whose answer is an Unstructured.
            resource_version: refuse with `Conflict` unless this version is the stored one. Without it, the patch lands
                on whatever is stored.
            dry_run: let the server check, default and answer, but store nothing.
            field_manager: the name that the write is recorded under; the client's by default.
            field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``.

        Raises:
            Conflict: the stored version is not `resource_version`.
            NotFound: there is no such object, or the kind has no such subresource.
            Invalid: validation refused the result, or a ``test`` operation failed.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        rt = await self.resource_type(kind)
        request = self._connection.request(
            "PATCH",
            self._object_path(rt, name, namespace, subresource),
            self._options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
            body=patch_body(patch, strategy, resource_version),
            content_type=CONTENT_TYPES[strategy],
        )
        write = self._write(rt, "patch", self._key(rt, name, namespace), dry_run=dry_run)
        response = await self._execute_write(write, request, Repeat.REFUSED)
        return self._take(write, kind, request, response)

    @overload
    async def apply(
        self,
        obj: R,
        *,
        owner: AnyResource | ObjectLike | None = None,
        field_manager: str | None = None,
        force: bool = True,
        subresource: Own | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> R: ...
    @overload
    async def apply(
        self,
        obj: ObjectLike,
        *,
        owner: AnyResource | ObjectLike | None = None,
        field_manager: str | None = None,
        force: bool = True,
        subresource: Own | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Unstructured: ...
    async def apply(
        self,
        obj: AnyResource | ObjectLike,
        *,
        owner: AnyResource | ObjectLike | None = None,
        field_manager: str | None = None,
        force: bool = True,
        subresource: Own | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> AnyResource | Unstructured:
        """Make the server's object agree with the fields given, creating it if needed (server-side apply).

        What this field manager applied before and does not name now is removed; other managers' fields stay. Metadata
        that the server keeps (resourceVersion, uid, managedFields and the like) is left out, so that an object that was
        read can be applied. A cancelled call may have done it.

        Args:
            obj: all the fields that this manager wants to own: a Resource, an Unstructured, a dict, or a model of an
                official client.
            owner: an object as read from the server: becomes the controller of `obj`, which is deleted with it.
            field_manager: the client's by default.
            force: take over fields that other managers own (default); else `FieldManagerConflict` is raised.
            subresource: ``"status"`` applies the status alone.
            resource_version: refuse with `Conflict` unless this version is the stored one.
            dry_run: let the server check, default and answer, but store nothing.

        Raises:
            FieldManagerConflict: without force, another manager owns a field.
            AlreadyOwned: `obj` names another controller than `owner`.
            ValueError: `owner` was never stored, or cannot own `obj`.
            Invalid: validation refused the result.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        document = to_document(obj)
        kind = kind_of(obj, document)
        rt = await self.resource_type(kind)
        document = self._placed(rt, document)
        document = applied(document, None if owner is None else to_document(owner), resource_version)
        options = self._options(dry_run=dry_run, field_manager=field_manager)
        request = self._connection.request(
            "PATCH",
            self._object_path(rt, *request_of(document), subresource),
            [*options, *([("force", "true")] if force else [])],
            body=encode(document),
            content_type=CONTENT_TYPES["apply"],
        )
        write = self._write(rt, "apply", request_of(document), dry_run=dry_run)
        response = await self._execute_write(write, request, Repeat.REFUSED)
        return self._take(write, kind, request, response)
