"""Writes of objects (create, update, patch, apply, delete), and of subresources with a kind of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Unpack

from reconciler._core.durations import DurationLike
from reconciler._core.wire import JSONObject
from reconciler.client.memory import without_server_metadata
from reconciler.client.requests import (
    CONTENT_TYPES,
    ClientModel,
    DeleteOptions,
    ObjectLike,
    PatchDocument,
    PatchStrategy,
    Propagation,
    Selector,
    StatusSubresource,
    WriteOptions,
    answer_kind,
    apply_document,
    decode,
    delete_body,
    encode,
    patch_body,
    selector_query,
    split_kind_or_object,
)
from reconciler.client.retry import RetryOn
from reconciler.client.session import ClientSession, PendingWrite
from reconciler.errors import (
    AlreadyExists,
    Conflict,
    NotFound,
    NotServed,
    OutcomeUnknown,
)
from reconciler.http import HTTPResponse
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.documents import merge_diff, merge_patch
from reconciler.meta.metadata import controller_of, name_of, namespace_of, uid_of, version_of
from reconciler.objects import Unstructured
from reconciler.objects.kinds import KindLike, TypedObject, documents_to_compare, from_document, to_document

Body = Mapping[str, Any] | TypedObject | ClientModel
"""What is sent to a subresource: a document, or a model of it."""


async def create(
    session: ClientSession,
    obj: TypedObject | ObjectLike,
    **options: Unpack[WriteOptions],
) -> TypedObject | Unstructured:
    """Create an object and return it as stored."""
    query = session.write_options(**options)
    kind, resource, key, document = await session.resolve(obj)
    if resource.namespaced and not key.namespace:
        raise ValueError(f"{resource.gvk.kind} {key.name!r} needs a namespace")
    path = resource.path(namespace=key.namespace)
    write = session.begin_write("create", resource, key, encode(document), path=path, query=query, method="POST")
    try:
        response = await session.execute_write(write, RetryOn.UNKNOWN if key.name else RetryOn.REFUSED)
    except AlreadyExists as error:
        if not write.state.unknown:
            raise
        response = await _created_before(session, write, document, error)
    return session.accept(write, kind, response)


async def _created_before(
    session: ClientSession, write: PendingWrite, sent: JSONObject, error: AlreadyExists
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
    write.invalidate()
    raise OutcomeUnknown(
        f"{write.request.label}: the response to the first attempt was lost, and now {name_of(sent)!r} exists: "
        "read and compare it to find out whether that attempt or somebody else created it"
    ) from error


async def update(
    session: ClientSession,
    obj: TypedObject | ObjectLike,
    *,
    subresource: str | None = None,
    **options: Unpack[WriteOptions],
) -> TypedObject | Unstructured:
    """Replace an object and return it as stored."""
    query = session.write_options(**options)
    kind, resource, key, document = await session.resolve(obj)
    body = encode(document)
    write = session.begin_write("update", resource, key, body, subresource=subresource, query=query, method="PUT")
    return await session.store(write, kind)


async def delete(
    session: ClientSession,
    kind_or_obj: KindLike | TypedObject | ObjectLike,
    name: str | None = None,
    namespace: str | None = None,
    **options: Unpack[DeleteOptions],
) -> TypedObject | Unstructured | None:
    """Delete an object and return it if the response contains it."""
    options["dry_run"] = options.get("dry_run", False) or session.options.dry_run
    kind, document = split_kind_or_object(kind_or_obj)
    if document is not None:
        name, namespace = name_of(document), namespace_of(document)
        if options.get("uid") is None:
            options["uid"] = uid_of(document) or None
    body = delete_body(**options)
    name = name or ""
    resource = await session.resource_for(kind, name, namespace)
    key = session.key(resource, name, namespace)
    write = session.begin_write("delete", resource, key, body, method="DELETE", dry_run=options["dry_run"])
    try:
        response = await session.execute_write(write, RetryOn.UNKNOWN if options.get("uid") else RetryOn.REFUSED)
    except (NotFound, Conflict) as error:
        if not write.state.unknown:
            raise
        write.invalidate()
        if isinstance(error, Conflict) and options.get("resource_version"):
            raise OutcomeUnknown(
                f"{write.request.label}: the response to an attempt was lost, and the next one was refused: "
                f"{error.message}"
            ) from error
        return None  # the object with this uid is gone, as requested
    write.record(response.body)
    answer = decode(write.request, response)
    return from_document(kind, answer, lenient=True) if answer.get("kind") == resource.gvk.kind else None


async def delete_all_of(
    session: ClientSession,
    kind: KindLike,
    namespace: str | None = None,
    *,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    propagation: Propagation | None = None,
    grace_period: DurationLike | None = None,
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
    body = delete_body(propagation=propagation, grace_period=grace_period, dry_run=dry_run)
    query = selector_query(label_selector, field_selector)
    request = session.connection.request("DELETE", session.collection_path(resource, namespace), query, body=body)
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
    **options: Unpack[WriteOptions],
) -> Unstructured:
    """Send a body to a subresource and return the response."""
    query = session.write_options(**options)
    resource = await session.resource_for(kind, name, namespace)
    key, sent = session.key(resource, name, namespace), encode(body if isinstance(body, Mapping) else to_document(body))
    # To an observer it is an update of the object that the subresource belongs to.
    write = session.begin_write("update", resource, key, sent, subresource=subresource, query=query, method="POST")
    answer = await session.store(write, resource.gvk)
    assert isinstance(answer, Unstructured)  # noqa: S101 - no class was asked for
    return answer


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
    **options: Unpack[WriteOptions],
) -> TypedObject | Unstructured:
    """Patch an object and return it as stored."""
    query = session.write_options(**options)
    resource = await session.resource_for(kind, name, namespace)
    key, body = session.key(resource, name, namespace), patch_body(patch, strategy, resource_version)
    content_type = CONTENT_TYPES[strategy]
    write = session.begin_write(
        "patch", resource, key, body, subresource=subresource, query=query, content_type=content_type
    )
    return await session.store(write, kind)


async def patch_from(
    session: ClientSession,
    base: TypedObject | Unstructured | JSONObject,
    changed: TypedObject | Unstructured | JSONObject,
    *,
    optimistic_lock: bool = False,
    subresource: StatusSubresource | None = None,
    **options: Unpack[WriteOptions],
) -> TypedObject | Unstructured:
    """Patch an object with the difference of two states, and return it as stored."""
    session.write_options(**options)  # refuses an unknown keyword, also if nothing is sent
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
        **options,
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
    kind, resource, key, document = await session.resolve(obj)
    document = apply_document(document, None if owner is None else to_document(owner), resource_version)
    query = session.write_options(dry_run=dry_run, field_manager=field_manager)
    query += [("force", "true")] if force else []
    body, content_type = encode(document), CONTENT_TYPES["apply"]
    write = session.begin_write(
        "apply", resource, key, body, subresource=subresource, query=query, content_type=content_type
    )
    return await session.store(write, kind)


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
        self._kind, resource, request, document = await self._session.resolve(obj)
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
