"""Reads from the server: lists, their pages, metadata alone, watches, and waiting for the state of one object."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, get_args

import msgspec

from reconciler._core.backoff import Backoff
from reconciler._core.durations import DurationLike, optional_seconds
from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.client.requests import (
    InvalidItem,
    ListResult,
    Query,
    Selector,
    decode_page,
    query_pairs,
    selector_query,
)
from reconciler.client.retry import RetryOn
from reconciler.client.session import ClientSession
from reconciler.errors import (
    APIError,
    Expired,
    InvalidResponse,
    ServerError,
    TooManyRequests,
    TransportError,
    error_from_response,
)
from reconciler.http import HTTPRequest, LineSplitter
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.metadata import ResourceType, name_of, namespace_of, version_of
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects.kinds import KindLike, TypedObject, from_document, gvk_from

PAGE_SIZE = 500
"""Objects in a page, as in client-go's pager."""


class _Page(NamedTuple):
    items: Sequence[JSONObject | InvalidItem]
    version: str


async def get_metadata(session: ClientSession, kind: KindLike, name: str, namespace: str | None) -> Unstructured:
    """Return the metadata of one object."""
    return _metadata_of(gvk_from(kind), await session.get(kind, name, namespace, metadata_only=True))


async def list_all(
    session: ClientSession,
    kind: KindLike,
    namespace: str | None,
    *,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    limit: int = PAGE_SIZE,
    metadata_only: bool,
) -> ListResult[Any]:
    """Return all objects of a kind, or the metadata of all."""
    resource = await session.resource_for(kind, namespace=namespace)
    query = selector_query(label_selector, field_selector)

    async def read(limit: int) -> list[_Page]:
        return [page async for page in _pages(session, resource, namespace, query, limit, metadata_only=metadata_only)]

    try:
        pages = await read(limit)
    except Expired:
        pages = await read(0)
    whole = _Page([item for page in pages for item in page.items], pages[-1].version)
    reader = partial(_metadata_of, resource.gvk) if metadata_only else partial(from_document, kind)
    return _list_result(session, resource.gvk, whole, reader)


async def list_pages(
    session: ClientSession,
    kind: KindLike,
    namespace: str | None,
    *,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    limit: int = PAGE_SIZE,
) -> AsyncGenerator[ListResult[Any], None]:
    """Yield the objects of a kind, page by page."""
    resource = await session.resource_for(kind, namespace=namespace)
    query = selector_query(label_selector, field_selector)
    async for page in _pages(session, resource, namespace, query, limit):
        yield _list_result(session, resource.gvk, page, partial(from_document, kind))


async def _pages(
    session: ClientSession,
    resource: ResourceType,
    namespace: str | None,
    query: Query,
    limit: int,
    *,
    metadata_only: bool = False,
) -> AsyncGenerator[_Page, None]:
    query = [*query_pairs(query), *([("limit", str(limit))] if limit else [])]
    token = ""
    while True:
        asked = [*query, ("continue", token)] if token else query
        request = session.list_request(resource, namespace, asked, metadata_only=metadata_only)
        items, metadata = decode_page(request, await session.execute(resource, request, RetryOn.UNKNOWN))
        yield _Page(items, str(metadata.get("resourceVersion") or ""))
        before, token = token, metadata.get("continue") or ""
        if not token:
            return
        if token == before:  # it would be the same page, forever
            raise InvalidResponse(
                f"{request.label}: two pages have the same continue token, so the server ignores it; list with limit=0"
            )


def _list_result(
    session: ClientSession, gvk: GroupVersionKind, page: _Page, read: Callable[[JSONObject], Any]
) -> ListResult[Any]:
    """Return the objects that can be read; the others are listed as invalid, and logged."""
    found: list[Any] = []
    invalid: list[InvalidItem] = []
    for item in page.items:
        if isinstance(item, InvalidItem):
            invalid.append(item)
            continue
        try:
            found.append(read(item))
        except InvalidObject as error:
            metadata = item.get("metadata")
            version = version_of(item) if isinstance(metadata, dict) else ""
            invalid.append(InvalidItem(name_of(item) or "", namespace_of(item), version, error))
    session.connection.invalid_items.log(gvk, invalid)
    return ListResult(found, page.version, invalid)


def _metadata_of(gvk: GroupVersionKind, document: JSONObject) -> Unstructured:
    """Return the metadata with the object's own kind. A server without PartialObjectMetadata sends the whole object."""
    return Unstructured({"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": document.get("metadata") or {}})


# ruff: noqa: ASYNC109 - the server enforces one timeout; the error of the other contains the last state


T_co = TypeVar("T_co", covariant=True)

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
"""The type of a watch event. A BOOKMARK only reports the version that the watch has reached."""

_BETWEEN_WATCHES = Backoff(base=0.05, maximum=5.0, jitter=0.2)
_TRANSIENT = (TransportError, ServerError, TooManyRequests, Expired)
_LONGEST_STATUS = 500


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T_co]):
    """An event of a watch.

    Attributes:
        type: what happened.
        object: the object after it. For DELETED, the last state, with the version of the deletion. For BOOKMARK, an
            `Unstructured` whatever the kind, of which only ``resource_version`` has a meaning and, at the end of the
            initial events, the annotation ``k8s.io/initial-events-end``.
    """

    type: EventType
    object: T_co


class _Line(msgspec.Struct):
    type: str
    object: JSONObject


_decoder = msgspec.json.Decoder(_Line)


def _event(request: HTTPRequest, line: bytes) -> tuple[EventType, JSONObject]:
    try:
        event = _decoder.decode(line)
    except UNDECODABLE as error:
        raise APIError(f"invalid watch event: {error}", status=200, request=f"watch {request.path}") from None
    if event.type == "ERROR":
        code = event.object.get("code")
        raise error_from_response(code if isinstance(code, int) else 500, event.object, request=f"watch {request.path}")
    if event.type not in get_args(EventType):
        text = f"invalid watch event: unknown type {event.type[:100]!r}"
        raise APIError(text, status=200, request=f"watch {request.path}")
    return cast("EventType", event.type), event.object


async def watch(
    session: ClientSession,
    kind: KindLike,
    namespace: str | None,
    *,
    resource_version: str | None = None,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    timeout: DurationLike | None = None,
    bookmarks: bool = True,
    send_initial_events: bool = False,
) -> AsyncGenerator[WatchEvent[Any], None]:
    """Yield the events of one watch request."""
    seconds = optional_seconds("timeout", timeout, zero=True)
    options = {
        "allowWatchBookmarks": "true" if bookmarks or send_initial_events else None,
        "resourceVersion": resource_version,
        "sendInitialEvents": "true" if send_initial_events else None,
        "resourceVersionMatch": "NotOlderThan" if send_initial_events else None,
        "timeoutSeconds": None if seconds is None else str(max(1, math.ceil(seconds))),
    }
    resource = await session.resource_for(kind, namespace=namespace)
    pairs = [
        *selector_query(label_selector, field_selector),
        *((name, value) for name, value in options.items() if value),
    ]
    request = session.watch_request(resource, namespace, pairs)
    response = await session.connection.once(request)
    splitter = LineSplitter()
    try:
        if response.chunks is None:
            return
        async for chunk in response.chunks:
            for line in splitter.feed(chunk):
                type_, document = _event(request, line)
                obj = Unstructured(document) if type_ == "BOOKMARK" else from_document(kind, document)
                yield WatchEvent(type_, obj)
    finally:
        await response.close()


async def wait(
    session: ClientSession,
    kind: KindLike,
    name: str,
    namespace: str | None,
    *,
    wanted: Callable[[Any], object],
    timeout: DurationLike | None,
) -> TypedObject | Unstructured | None:
    """Wait until `wanted` is true for an object, and return its state; a missing object is None."""
    last: TypedObject | Unstructured | None = None
    timeout = optional_seconds("timeout", timeout, zero=True)
    scope = asyncio.timeout(timeout)
    try:
        async with scope, aclosing(_states(session, kind, name, namespace)) as states:
            async for last in states:
                if wanted(last):
                    return last
    except TimeoutError:
        if not scope.expired():
            raise
    subject = f"{gvk_from(kind).kind} {Request(name, namespace)}"
    raise TimeoutError(f"{subject}: not as wanted within {timeout:g} s; last seen: {_describe(last)}")


async def _states(
    session: ClientSession, kind: KindLike, name: str, namespace: str | None
) -> AsyncGenerator[TypedObject | Unstructured | None, None]:
    """Yield each state of an object, None while it does not exist, without an end."""
    session.object_path(await session.resource_for(kind, name, namespace), name, namespace)
    selector = {"metadata.name": name}
    failures = 0
    while True:
        try:
            found = await list_all(session, kind, namespace, metadata_only=False, field_selector=selector)
            if found.invalid:
                raise found.invalid[0].error
            yield found[0] if found else None
            version = found.resource_version
            async with aclosing(
                watch(session, kind, namespace, field_selector=selector, resource_version=version, bookmarks=False)
            ) as events:
                async for event in events:
                    failures = 0
                    yield None if event.type == "DELETED" else event.object
            retry_after = None
        except _TRANSIENT as error:
            retry_after = error.retry_after
        await asyncio.sleep(_BETWEEN_WATCHES.delay(failures, session.connection.rng, retry_after=retry_after))
        failures += 1


def _describe(obj: TypedObject | Unstructured | None) -> str:
    """Return version, deletion and status of an object, for an error. Spec and data are left out."""
    if obj is None:
        return "there is no such object"
    document = obj.to_dict()
    metadata = document.get("metadata") or {}
    facts = [f"resourceVersion {metadata.get('resourceVersion')}"]
    if metadata.get("deletionTimestamp"):
        facts.append(f"deleted at {metadata['deletionTimestamp']}, finalizers {metadata.get('finalizers') or []}")
    status = msgspec.json.encode(document.get("status")).decode()
    facts.append(f"status {status[:_LONGEST_STATUS]}{'…' if len(status) > _LONGEST_STATUS else ''}")
    return ", ".join(facts)
