"""Write parts of objects: patch, apply."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, overload

from reconciler.client.session.answers import decode
from reconciler.client.session.requests import (
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
from reconciler.client.session.retry import Repeat
from reconciler.client.session.settled import own_part
from reconciler.client.session.takeover import names_former_manager
from reconciler.client.verbs.base import ClientBase, Write
from reconciler.errors import APIError, Conflict, FieldManagerConflict, TransportError
from reconciler.meta import GroupVersionKind, merge_diff, request_of, uid_of, version_of
from reconciler.objects import AnyResource, KindLike, Unstructured, to_document

__all__ = ["Patcher"]

R = TypeVar("R", bound=AnyResource)

_MAX_TAKEOVERS = 5
"""How often a newer version is read before the former fields are left as they are, until the next apply."""

_logger = logging.getLogger("reconciler.client")


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
        rt = await self._served(kind, name, namespace)
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
    async def patch_from(
        self,
        base: R,
        changed: R,
        *,
        optimistic_lock: bool = False,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> R: ...
    @overload
    async def patch_from(
        self,
        base: Unstructured | dict[str, Any],
        changed: Unstructured | dict[str, Any],
        *,
        optimistic_lock: bool = False,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured: ...
    async def patch_from(
        self,
        base: AnyResource | Unstructured | dict[str, Any],
        changed: AnyResource | Unstructured | dict[str, Any],
        *,
        optimistic_lock: bool = False,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> AnyResource | Unstructured:
        """Send what differs between two states of an object as a merge patch; nothing if they mean the same.

        A cancelled call may have done it.

        Args:
            base: the object as it was read.
            changed: the same object with changes: a copy that was changed in place.
            optimistic_lock: refuse with `Conflict` unless the stored version is still that of `base`. Without it the
                members that changed are set whatever else happened; lists are replaced whole.
            subresource: ``"status"`` sends what differs in the status alone; None everything else, and the status of a
                kind that has no such subresource.
            dry_run: let the server check, default and answer, but store nothing.
            field_manager: the name that the write is recorded under; the client's by default.
            field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``.

        Returns:
            What is stored; `changed` itself if there was nothing to send.

        Raises:
            ValueError: these are two objects, or `optimistic_lock` is wanted and `base` has no version.
            Conflict: with `optimistic_lock`, the object changed meanwhile.
            NotFound: there is no such object.
            Invalid: validation refused the result.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        before, after = to_document(base), to_document(changed)
        kind = kind_of(changed, after)
        rt = await self._served(kind, *request_of(after))
        before, after = self._placed(rt, before), self._placed(rt, after)
        version = _lock(before, after, optimistic_lock=optimistic_lock)
        apart = "status" in rt.subresources
        patch = merge_diff(
            _part(before, subresource, status_apart=apart), _part(after, subresource, status_apart=apart)
        )
        if not patch:
            return Unstructured(after) if isinstance(changed, dict) else changed
        answer: AnyResource | Unstructured = await self.patch(
            cast("Any", kind),
            *request_of(after),
            patch=patch,
            subresource=subresource,
            resource_version=version,
            dry_run=dry_run,
            field_manager=field_manager,
            field_validation=field_validation,
        )
        return answer

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
        rt = await self._served(kind, *request_of(document))
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
        version: str | None = None
        try:
            response = await self._execute_write(write, request, Repeat.REFUSED)
        except FieldManagerConflict as error:
            if field_manager is None and write.stores and names_former_manager(str(error)):
                version = await self._take_over(write, subresource)
            if version is None:
                raise
        else:
            if field_manager is None and write.stores and names_former_manager(response.body):
                version = await self._take_over(write, subresource, decode(request, response))
            if version is None:
                return self._take(write, kind, request, response)
        # What the manager owns now, and does not name, is removed by the same apply.
        if resource_version:
            document["metadata"]["resourceVersion"] = version
        request = replace(request, body=encode(document))
        response = await self._execute_write(write, request, Repeat.REFUSED)
        return self._take(write, kind, request, response)

    async def _take_over(
        self, write: Write, subresource: str | None, document: dict[str, Any] | None = None
    ) -> str | None:
        """Count what an earlier release wrote under the former name as applied by this client.

        A failure is logged: the apply itself does not depend on it.

        Args:
            write: the apply.
            subresource: where it goes.
            document: the object as it is stored; None reads it.

        Returns:
            The version that this made; None if nothing was to be done.
        """
        if not self._former_field_manager:
            return None
        key, manager, takeovers = write.key, self.field_manager, self._connection.takeovers
        try:
            for _ in range(_MAX_TAKEOVERS):
                if document is None:
                    get = self._connection.request("GET", self._object_path(write.rt, *key))
                    document = decode(get, await self._execute(write.rt, get, Repeat.UNKNOWN))
                fields = takeovers.due(document, manager, subresource)
                if fields is None:
                    return None
                patch = {"metadata": {"managedFields": fields}}
                try:
                    answer = await self.patch(write.rt.gvk, *key, patch=patch, resource_version=version_of(document))
                except Conflict:
                    document = None
                    continue
                takeovers.done(document, manager, subresource)
                return version_of(answer.to_dict())
        except (APIError, TransportError) as error:
            if document is not None and isinstance(error, APIError):
                takeovers.done(document, manager, subresource)  # or it would fail, and be logged, with each apply
            _logger.warning(
                "the fields of %s %s that were written as %r cannot be taken over by %r: %s",
                write.rt.gvk,
                key,
                self._former_field_manager,
                manager,
                error,
            )
        return None


def _lock(before: Mapping[str, Any], after: Mapping[str, Any], *, optimistic_lock: bool) -> str | None:
    """Return the version that a patch from one state to the other is conditional on, if it is."""
    if request_of(before) != request_of(after) or (uid_of(after) and uid_of(before) != uid_of(after)):
        raise ValueError(f"{request_of(before)} and {request_of(after)} are not two states of one object")
    if optimistic_lock and not version_of(before):
        raise ValueError(f"{request_of(before)} has no resourceVersion to lock on: give it as it was read")
    return version_of(before) if optimistic_lock else None


def _part(document: Mapping[str, Any], subresource: str | None, *, status_apart: bool) -> dict[str, Any]:
    if subresource:
        return {subresource: document.get(subresource)}
    return {key: value for key, value in own_part(document).items() if not (status_apart and key == "status")}
