"""Reads from the server: lists, their pages, and metadata alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.client.session.answers import InvalidItem, ListResult, decode_page
from reconciler.client.session.requests import Query, Selector, query_pairs, selector_query
from reconciler.client.session.retry import RetryOn
from reconciler.client.session.session import Session
from reconciler.errors import Expired, InvalidResponse
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import name_of, namespace_of, version_of
from reconciler.meta.reference import ResourceType
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects.kinds import KindLike, from_document, gvk_from

__all__ = ["PAGE_SIZE", "get_metadata", "list_all", "list_pages"]

PAGE_SIZE = 500
"""Objects in a page, as in client-go's pager."""

_Items = Sequence[JSONObject | InvalidItem]


@dataclass(frozen=True, slots=True)
class _Page:
    items: _Items
    version: str


async def get_metadata(session: Session, kind: KindLike, name: str, namespace: str | None) -> Unstructured:
    """Return the metadata of one object."""
    return _metadata_of(gvk_from(kind), await session.get(kind, name, namespace, metadata_only=True))


async def list_all(
    session: Session,
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
    page = await _all_pages(session, resource, namespace, query, limit, metadata_only=metadata_only)
    read = partial(_metadata_of, resource.gvk) if metadata_only else _reader_of(kind)
    return _list_result(session, resource.gvk, page, read)


async def list_pages(
    session: Session,
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
        yield _list_result(session, resource.gvk, page, _reader_of(kind))


def _reader_of(kind: KindLike) -> Callable[[JSONObject], Any]:
    return lambda document: from_document(kind, document)


async def _all_pages(
    session: Session,
    resource: ResourceType,
    namespace: str | None,
    query: Query,
    limit: int,
    *,
    metadata_only: bool,
) -> _Page:
    async def read(limit: int) -> _Page:
        items: list[JSONObject | InvalidItem] = []
        version = ""
        async for page in _pages(session, resource, namespace, query, limit, metadata_only=metadata_only):
            items += page.items
            version = page.version
        return _Page(items, version)

    try:
        return await read(limit)
    except Expired:
        return await read(0)


async def _pages(
    session: Session,
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
    session: Session, gvk: GroupVersionKind, page: _Page, read: Callable[[JSONObject], Any]
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
