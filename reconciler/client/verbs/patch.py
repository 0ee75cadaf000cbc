"""Writes of parts of objects: patch and server-side apply."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.client.session.answers import decode
from reconciler.client.session.memory import names_former_manager, without_server_metadata
from reconciler.client.session.requests import (
    CONTENT_TYPES,
    FieldValidation,
    ObjectLike,
    PatchDocument,
    PatchStrategy,
    StatusSubresource,
    answer_kind,
    apply_document,
    encode,
    patch_body,
)
from reconciler.client.session.retry import RetryOn
from reconciler.client.session.session import Session, Write
from reconciler.errors import APIError, Conflict, FieldManagerConflict, TransportError
from reconciler.meta import request_of
from reconciler.meta.documents import merge_diff
from reconciler.meta.metadata import uid_of, version_of
from reconciler.objects import Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike, documents_to_compare, to_document

__all__ = ["apply", "patch", "patch_from"]

_MAX_TAKEOVERS = 5
"""How often a conflicting takeover is tried, before the former fields are left as they are until the next apply."""

_logger = logging.getLogger("reconciler.client")


async def patch(
    session: Session,
    kind: KindLike,
    name: str,
    namespace: str | None = None,
    *,
    patch: PatchDocument,
    strategy: PatchStrategy = "merge",
    subresource: str | None = None,
    resource_version: str | None = None,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> TypedObject | Unstructured:
    """Patch an object and return it as stored."""
    resource = await session.resource_for(kind, name, namespace)
    request = session.connection.request(
        "PATCH",
        session.object_path(resource, name, namespace, subresource),
        session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
        body=patch_body(patch, strategy, resource_version),
        content_type=CONTENT_TYPES[strategy],
    )
    write = session.write(resource, "patch", session.key(resource, name, namespace), dry_run=dry_run)
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    return session.accept(write, kind, request, response)


async def patch_from(
    session: Session,
    base: TypedObject | Unstructured | JSONObject,
    changed: TypedObject | Unstructured | JSONObject,
    *,
    optimistic_lock: bool = False,
    subresource: StatusSubresource | None = None,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> TypedObject | Unstructured:
    """Patch an object with the difference of two states, and return it as stored."""
    before, after = documents_to_compare(base, changed)
    kind = answer_kind(changed, after)
    resource = await session.resource_for(kind, *request_of(after))
    before, after = session.with_namespace(resource, before), session.with_namespace(resource, after)
    version = _locked_version(before, after, optimistic_lock=optimistic_lock)
    separate_status = "status" in resource.subresources
    difference = merge_diff(
        _patched_part(before, subresource, separate_status=separate_status),
        _patched_part(after, subresource, separate_status=separate_status),
    )
    if not difference:
        return Unstructured(after) if isinstance(changed, dict) else changed
    return await patch(
        session,
        kind,
        *request_of(after),
        patch=difference,
        subresource=subresource,
        resource_version=version,
        dry_run=dry_run,
        field_manager=field_manager,
        field_validation=field_validation,
    )


def _locked_version(before: Mapping[str, Any], after: Mapping[str, Any], *, optimistic_lock: bool) -> str | None:
    """Return the version that the patch requires, if any."""
    if request_of(before) != request_of(after) or (uid_of(after) and uid_of(before) != uid_of(after)):
        raise ValueError(f"{request_of(before)} and {request_of(after)} are not two states of one object")
    if optimistic_lock and not version_of(before):
        raise ValueError(
            f"optimistic_lock: {request_of(before)} has no resourceVersion; pass the object as it was read"
        )
    return version_of(before) if optimistic_lock else None


def _patched_part(document: Mapping[str, Any], subresource: str | None, *, separate_status: bool) -> JSONObject:
    if subresource:
        return {subresource: document.get(subresource)}
    own = without_server_metadata(document)
    return {key: value for key, value in own.items() if not (separate_status and key == "status")}


async def apply(
    session: Session,
    obj: TypedObject | ObjectLike,
    *,
    owner: TypedObject | ObjectLike | None = None,
    field_manager: str | None = None,
    force: bool = True,
    subresource: StatusSubresource | None = None,
    resource_version: str | None = None,
    dry_run: bool = False,
) -> TypedObject | Unstructured:
    """Apply an object and return it as stored."""
    kind, resource, document = await session.resolve(obj)
    document = apply_document(document, None if owner is None else to_document(owner), resource_version)
    options = session.write_options(dry_run=dry_run, field_manager=field_manager)
    request = session.connection.request(
        "PATCH",
        session.object_path(resource, *request_of(document), subresource),
        [*options, ("force", "true")] if force else options,
        body=encode(document),
        content_type=CONTENT_TYPES["apply"],
    )
    write = session.write(resource, "apply", request_of(document), dry_run=dry_run)
    may_take_over = field_manager is None and write.stores and bool(session.former_field_manager)
    version: str | None = None
    try:
        response = await session.execute_write(write, request, RetryOn.REFUSED)
    except FieldManagerConflict as error:
        if may_take_over and names_former_manager(str(error)):
            version = await _take_over(session, write, subresource)
        if version is None:
            raise
    else:
        if may_take_over and names_former_manager(response.body):
            version = await _take_over(session, write, subresource, decode(request, response))
        if version is None:
            return session.accept(write, kind, request, response)
    # The same apply again: it removes what the manager owns now and does not specify.
    if resource_version:
        document["metadata"]["resourceVersion"] = version
    request = replace(request, body=encode(document))
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    return session.accept(write, kind, request, response)


async def _take_over(
    session: Session, write: Write, subresource: str | None, document: JSONObject | None = None
) -> str | None:
    """Move what earlier releases wrote as the former field manager to this client's.

    A failure is logged and not raised: the apply does not depend on it.

    Args:
        session: sends the requests.
        write: the apply.
        subresource: the subresource of the apply.
        document: the object as it is stored; None to read it.

    Returns:
        The object's new version; None if nothing was changed.
    """
    key, manager, takeovers = write.key, session.field_manager(), session.connection.takeovers
    try:
        for _ in range(_MAX_TAKEOVERS):
            if document is None:
                get = session.connection.request("GET", session.object_path(write.resource, *key))
                document = decode(get, await session.execute(write.resource, get, RetryOn.UNKNOWN))
            fields = takeovers.managed_fields(document, manager, subresource)
            if fields is None:
                return None
            body = {"metadata": {"managedFields": fields}}
            try:
                answer = await patch(
                    session, write.resource.gvk, *key, patch=body, resource_version=version_of(document) or None
                )
            except Conflict:
                document = None
                continue
            takeovers.record(document, manager, subresource)
            return version_of(answer.to_dict())
    except (APIError, TransportError) as error:
        if document is not None and isinstance(error, APIError):
            takeovers.record(document, manager, subresource)  # or each apply would fail, and log, again
        _logger.warning(
            "%s %s: field manager %r cannot take over the fields that were written as %r: %s",
            write.resource.gvk,
            key,
            manager,
            session.former_field_manager,
            error,
        )
    return None
