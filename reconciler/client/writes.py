"""Writes of objects (create, update, patch, apply, delete), and of subresources with a kind of their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.client.memory import names_former_manager, without_server_metadata
from reconciler.client.requests import (
    CONTENT_TYPES,
    ClientModel,
    FieldValidation,
    ObjectLike,
    PatchDocument,
    PatchStrategy,
    Propagation,
    Selector,
    StatusSubresource,
    answer_kind,
    apply_document,
    check_conditions,
    delete_options,
    encode,
    patch_body,
    selector_query,
    split_kind_or_object,
)
from reconciler.client.responses import decode
from reconciler.client.retry import RetryOn, RetryState
from reconciler.client.session import ClientSession, PendingWrite
from reconciler.errors import (
    AlreadyExists,
    APIError,
    Conflict,
    FieldManagerConflict,
    NotFound,
    OutcomeUnknown,
    TransportError,
)
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import controller_of, request_of
from reconciler.meta.documents import merge_diff, merge_patch
from reconciler.meta.metadata import name_of, namespace_of, uid_of, version_of
from reconciler.objects import KindLike, TypedObject, Unstructured, documents_to_compare, from_document, to_document

Body = Mapping[str, Any] | TypedObject | ClientModel
"""What is sent to a subresource: a document, or a model of it."""


async def create(
    session: ClientSession,
    obj: TypedObject | ObjectLike,
    *,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> TypedObject | Unstructured:
    """Create an object and return it as stored."""
    kind, resource, document = await session.resolve(obj)
    name, namespace = name_of(document), namespace_of(document)
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource.gvk.kind} {name!r} needs a namespace")
    if name:
        session.object_path(resource, name, namespace)  # refuses an invalid name
    request = session.connection.request(
        "POST",
        session.collection_path(resource, namespace),
        session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
        body=encode(document),
    )
    write = session.write(resource, "create", request_of(document), dry_run=dry_run)
    attempts = RetryState()
    try:
        retry_on = RetryOn.UNKNOWN if name else RetryOn.REFUSED
        response = await session.execute_write(write, request, retry_on, attempts)
    except AlreadyExists as error:
        if not attempts.unknown:
            raise
        response = await _created_before(session, write, request, document, error)
    return session.accept(write, kind, request, response)


async def _created_before(
    session: ClientSession, write: PendingWrite, request: HTTPRequest, sent: JSONObject, error: AlreadyExists
) -> HTTPResponse:
    """Return the stored object if an attempt whose response was lost provably created it."""
    get = session.connection.request("GET", session.object_path(write.resource, *write.key))
    try:
        response = await session.execute(write.resource, get, RetryOn.UNKNOWN)
        stored = decode(get, response)
    except NotFound:
        response, stored = None, {}
    wanted, found = controller_of(sent), controller_of(stored)
    ours = wanted is not None and found is not None and wanted.get("uid") == found.get("uid")
    if response is not None and ours and not merge_diff(stored, merge_patch(stored, sent)):
        return response
    session.invalidate(write)
    raise OutcomeUnknown(
        f"{request.label}: the response to the first attempt was lost, and now {name_of(sent)!r} exists: read and "
        "compare it to find out whether that attempt or somebody else created it"
    ) from error


async def update(
    session: ClientSession,
    obj: TypedObject | ObjectLike,
    *,
    subresource: str | None = None,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> TypedObject | Unstructured:
    """Replace an object and return it as stored."""
    kind, resource, document = await session.resolve(obj)
    write = session.write(resource, "update", request_of(document), dry_run=dry_run)
    request = session.connection.request(
        "PUT",
        session.object_path(resource, *write.key, subresource),
        session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
        body=encode(document),
    )
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    return session.accept(write, kind, request, response)


async def delete(
    session: ClientSession,
    kind_or_obj: KindLike | TypedObject | ObjectLike,
    name: str | None = None,
    namespace: str | None = None,
    *,
    propagation: Propagation | None = None,
    grace_period: int | None = None,
    uid: str | None = None,
    resource_version: str | None = None,
    dry_run: bool = False,
) -> TypedObject | Unstructured | None:
    """Delete an object and return it if the response contains it."""
    check_conditions(uid=uid, resource_version=resource_version)
    kind, document = split_kind_or_object(kind_or_obj)
    if document is not None:
        name, namespace, uid = name_of(document), namespace_of(document), uid or uid_of(document)
    name = name or ""
    resource = await session.resource_for(kind, name, namespace)
    write = session.write(resource, "delete", session.key(resource, name, namespace), dry_run=dry_run)
    body = delete_options(
        dry_run=not write.stores,
        propagation=propagation,
        grace_period=grace_period,
        uid=uid,
        resource_version=resource_version,
    )
    request = session.connection.request("DELETE", session.object_path(resource, name, namespace), body=body)
    attempts = RetryState()
    try:
        retry_on = RetryOn.UNKNOWN if uid else RetryOn.REFUSED
        response = await session.execute_write(write, request, retry_on, attempts)
    except (NotFound, Conflict) as error:
        if not attempts.unknown:
            raise
        session.invalidate(write)
        if isinstance(error, Conflict) and resource_version:
            raise OutcomeUnknown(
                f"{request.label}: the response to an attempt was lost, and the next one was refused: {error.message}"
            ) from error
        return None  # the object with this uid is gone, as requested
    session.record_write(write, response.body)
    answer = decode(request, response)
    return from_document(kind, answer, lenient=True) if answer.get("kind") == resource.gvk.kind else None


async def delete_all_of(
    session: ClientSession,
    kind: KindLike,
    namespace: str | None = None,
    *,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    propagation: Propagation | None = None,
    grace_period: int | None = None,
    dry_run: bool = False,
) -> None:
    """Delete the selected objects of a kind in a namespace."""
    for name, selector in (("label_selector", label_selector), ("field_selector", field_selector)):
        if selector is not None and not (selector.strip() if isinstance(selector, str) else selector):
            raise ValueError(f"{name} is empty, which selects everything: leave it out to delete all objects")
    resource = await session.resource_for(kind, namespace=namespace)
    namespace = session.options.namespace_for(resource, namespace)
    if resource.namespaced and not namespace:
        raise ValueError(
            f"deleting all objects of kind {resource.gvk.kind} needs a namespace: the API deletes in one at a time"
        )
    dry_run = dry_run or session.options.dry_run
    request = session.connection.request(
        "DELETE",
        session.collection_path(resource, namespace),
        selector_query(label_selector, field_selector),
        body=delete_options(dry_run=dry_run, propagation=propagation, grace_period=grace_period),
    )
    try:
        await session.execute(resource, request, RetryOn.REFUSED)
    finally:
        # Whatever the response: some objects may be gone, and finalizers may hold others.
        if not dry_run and session.observer is not None:
            session.observer.invalidate_all(resource, namespace if resource.namespaced else None)


async def create_subresource(
    session: ClientSession,
    kind: KindLike,
    name: str,
    namespace: str | None,
    *,
    subresource: str,
    body: Body,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> Unstructured:
    """Send a body to a subresource and return the response."""
    resource = await session.resource_for(kind, name, namespace)
    request = session.connection.request(
        "POST",
        session.object_path(resource, name, namespace, subresource),
        session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
        body=encode(body if isinstance(body, Mapping) else to_document(body)),
    )
    # To an observer, it is an update of the object that the subresource belongs to.
    write = session.write(resource, "update", session.key(resource, name, namespace), dry_run=dry_run)
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    answer = session.accept(write, resource.gvk, request, response)
    assert isinstance(answer, Unstructured)  # noqa: S101 - no class was asked for
    return answer


_MAX_TAKEOVERS = 5
"""How often a conflicting takeover is tried, before the former fields are left as they are until the next apply."""

_logger = logging.getLogger("reconciler.client")


async def patch(
    session: ClientSession,
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
    session: ClientSession,
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
    session: ClientSession,
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
    session: ClientSession, write: PendingWrite, subresource: str | None, document: JSONObject | None = None
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
