"""Writes of objects (create, update, delete), and of subresources with a kind of their own (scale, eviction …)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from reconciler._core.wire import JSONObject
from reconciler.client.session.answers import decode
from reconciler.client.session.requests import (
    CONTENT_TYPES,
    ClientModel,
    FieldValidation,
    ObjectLike,
    Propagation,
    Selector,
    StatusSubresource,
    check_conditions,
    delete_options,
    encode,
    selector_query,
    split_kind_or_object,
)
from reconciler.client.session.retry import Attempts, RetryOn
from reconciler.client.session.session import Session, Write
from reconciler.errors import AlreadyExists, Conflict, NotFound, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import request_of
from reconciler.meta.documents import merge_diff, merge_patch
from reconciler.meta.metadata import controller_of, name_of, namespace_of, uid_of
from reconciler.objects import Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike, from_document, to_document

__all__ = ["Body", "apply_subresource", "create", "delete", "delete_all_of", "update", "write_subresource"]

Body = Mapping[str, Any] | TypedObject | ClientModel
"""What is sent to a subresource: a document, or a model of it."""

_METHODS = {"create": "POST", "update": "PUT"}


async def create(
    session: Session,
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
    attempts = Attempts()
    try:
        retry_on = RetryOn.UNKNOWN if name else RetryOn.REFUSED
        response = await session.execute_write(write, request, retry_on, attempts)
    except AlreadyExists as error:
        if not attempts.unknown:
            raise
        response = await _created_before(session, write, request, document, error)
    return session.accept(write, kind, request, response)


async def _created_before(
    session: Session, write: Write, request: HTTPRequest, sent: JSONObject, error: AlreadyExists
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
    session: Session,
    obj: TypedObject | ObjectLike,
    *,
    subresource: StatusSubresource | None = None,
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
    session: Session,
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
    attempts = Attempts()
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
    session: Session,
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


async def write_subresource(
    session: Session,
    verb: Literal["create", "update"],
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
        _METHODS[verb],
        session.object_path(resource, name, namespace, subresource),
        session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
        body=_encoded(body),
    )
    # To an observer, a POST is an update of the object that the subresource belongs to.
    write = session.write(resource, "update", session.key(resource, name, namespace), dry_run=dry_run)
    return await _send_to_subresource(session, write, request)


async def apply_subresource(
    session: Session,
    kind: KindLike,
    name: str,
    namespace: str | None,
    *,
    subresource: str,
    body: Body,
    force: bool,
    dry_run: bool,
    field_manager: str | None,
) -> Unstructured:
    """Apply a body to a subresource and return the response."""
    resource = await session.resource_for(kind, name, namespace)
    options = session.write_options(dry_run=dry_run, field_manager=field_manager)
    request = session.connection.request(
        "PATCH",
        session.object_path(resource, name, namespace, subresource),
        [*options, ("force", "true")] if force else options,
        body=_encoded(body),
        content_type=CONTENT_TYPES["apply"],
    )
    write = session.write(resource, "apply", session.key(resource, name, namespace), dry_run=dry_run)
    return await _send_to_subresource(session, write, request)


async def _send_to_subresource(session: Session, write: Write, request: HTTPRequest) -> Unstructured:
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    answer = session.accept(write, write.resource.gvk, request, response)
    assert isinstance(answer, Unstructured)  # noqa: S101 - no class was asked for
    return answer


def _encoded(body: Body) -> bytes:
    return encode(body if isinstance(body, Mapping) else to_document(body))
