"""Read objects: get, list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from reconciler.client.session.answers import decode_page
from reconciler.client.session.listing import InvalidItem, ListResult
from reconciler.client.session.requests import Query, Selector, pairs, selectors
from reconciler.client.session.retry import Repeat
from reconciler.client.session.session import accepted
from reconciler.client.verbs.base import ClientBase
from reconciler.errors import Expired
from reconciler.meta import GroupVersionKind, ResourceType, name_of, namespace_of
from reconciler.objects import AnyResource, InvalidObject, KindLike, Unstructured, from_document, gvk_from

__all__ = ["Reader"]

R = TypeVar("R", bound=AnyResource)

_PAGE = 500
"""Objects a page, as in client-go's pager."""


_Items = Sequence[dict[str, Any] | InvalidItem]


@dataclass(frozen=True, slots=True)
class _Page:
    items: _Items
    version: str


class Reader(ClientBase):
    """Read from the server itself."""

    @overload
    async def get(self, kind: type[R], name: str, namespace: str | None = None) -> R: ...
    @overload
    async def get(self, kind: str | GroupVersionKind, name: str, namespace: str | None = None) -> Unstructured: ...
    async def get(self, kind: KindLike, name: str, namespace: str | None = None) -> AnyResource | Unstructured:
        """Read one object, consistently.

        Cancellation has no effect on the server.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.

        Raises:
            NotFound: there is no such object; `NotServed`: no such kind.
            APIError: another failure, typed.
            TransportError: no answer, after all attempts.
            ValueError: a namespaced kind without namespace.
            InvalidObject: the object does not fit the class.
        """
        return from_document(kind, await self._get_live(kind, name, namespace))

    @overload
    async def list(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> ListResult[R]: ...
    @overload
    async def list(
        self,
        kind: str | GroupVersionKind,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> ListResult[Unstructured]: ...
    async def list(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> ListResult[Any]:
        """Read all objects of a kind, consistently, following the pages.

        A list whose pages expire on the way is started again once, without pages. An object that cannot be decoded or
        does not fit the class is left out, named in `ListResult.invalid`, and logged once a version. Cancellation has
        no effect on the server.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for all namespaces, or for cluster-scoped kinds.
            label_selector: text in the API's syntax, or a mapping of what must be equal.
            field_selector: the same for fields.
            limit: objects a page, 500 by default; 0 asks for all in one answer.

        Raises:
            NotServed: there is no such kind.
            APIError: another failure, typed.
            TransportError: no answer, after all attempts.
        """
        return await self._list_live(kind, namespace, selectors(label_selector, field_selector), limit)

    @overload
    def list_pages(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> AsyncGenerator[ListResult[R], None]: ...
    @overload
    def list_pages(
        self,
        kind: str | GroupVersionKind,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> AsyncGenerator[ListResult[Unstructured], None]: ...
    async def list_pages(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> AsyncGenerator[ListResult[Any], None]:
        """Read all objects of a kind from the server page by page, without holding them all.

        All pages show the version of the first. Objects that cannot be read are left out as in `list`, each page naming
        its own. Leave early to read no more; cancellation has no effect on the server.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for all namespaces, or for cluster-scoped kinds.
            label_selector: text in the API's syntax, or a mapping of what must be equal.
            field_selector: the same for fields.
            limit: objects a page at most, 500 by default.

        Raises:
            Expired: the version was given up while the pages were read, usually after five minutes: begin anew. Unlike
                `list`, which does so by itself, this has handed out part of the objects already.
            NotServed: there is no such kind.
            APIError: another failure, typed.
            TransportError: no answer, after all attempts.
        """
        rt = await self._served(kind, namespace=namespace)
        async for page in self._pages(rt, namespace, selectors(label_selector, field_selector), limit):
            yield self._listed(rt.gvk, page.items, page.version, lambda document: from_document(kind, document))

    async def get_metadata(self, kind: KindLike, name: str, namespace: str | None = None) -> Unstructured:
        """Read an object's metadata alone from the server: no spec, status or data travels.

        Otherwise the same as `get`; what is returned has apiVersion and kind of the object. Such a part can be given to
        `delete` and named in `patch`. Cancellation has no effect on the server.
        """
        document = await self._get_live(kind, name, namespace, metadata_only=True)
        return _metadata_of(gvk_from(kind), document)

    async def list_metadata(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = _PAGE,
    ) -> ListResult[Unstructured]:
        """Read the metadata alone of all objects of a kind from the server; otherwise the same as `list`.

        Cancellation has no effect on the server.
        """
        rt = await self._served(kind, namespace=namespace)
        query = selectors(label_selector, field_selector)
        documents, version = await self._all_pages(rt, namespace, query, limit, metadata_only=True)
        return self._listed(rt.gvk, documents, version, lambda document: _metadata_of(rt.gvk, document))

    async def _list_live(
        self, kind: KindLike, namespace: str | None, query: Query, limit: int = _PAGE
    ) -> ListResult[Any]:
        rt = await self._served(kind, namespace=namespace)
        documents, version = await self._all_pages(rt, namespace, pairs(query), limit)
        return self._listed(rt.gvk, documents, version, lambda document: from_document(kind, document))

    def _listed(
        self, gvk: GroupVersionKind, items: _Items, version: str, read: Callable[[dict[str, Any]], Any]
    ) -> ListResult[Any]:
        """Return the objects that can be read, and name the others."""
        found: list[Any] = []
        invalid: list[InvalidItem] = []
        for item in items:
            if isinstance(item, InvalidItem):
                invalid.append(item)
                continue
            try:
                found.append(read(item))
            except InvalidObject as error:
                metadata = item.get("metadata")
                version_of = str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""
                invalid.append(InvalidItem(name_of(item) or "", namespace_of(item), version_of, error))
        self._connection.invalid.take(gvk, invalid)
        return ListResult(found, version, invalid)

    async def _all_pages(
        self, rt: ResourceType, namespace: str | None, query: Query, limit: int, *, metadata_only: bool = False
    ) -> tuple[_Items, str]:
        async def read(limit: int) -> tuple[_Items, str]:
            items: list[dict[str, Any] | InvalidItem] = []
            version = ""
            async for page in self._pages(rt, namespace, query, limit, metadata_only=metadata_only):
                items += page.items
                version = page.version
            return items, version

        try:
            return await read(limit)
        except Expired:
            return await read(0)

    async def _pages(
        self, rt: ResourceType, namespace: str | None, query: Query, limit: int, *, metadata_only: bool = False
    ) -> AsyncGenerator[_Page, None]:
        query = [*pairs(query), *([("limit", str(limit))] if limit else [])]
        token = ""
        while True:
            request = self._connection.request(
                "GET",
                self._collection_path(rt, namespace),
                [*query, ("continue", token)] if token else query,
                accept=accepted("List", metadata_only=metadata_only),
            )
            items, metadata = decode_page(request, await self._execute(rt, request, Repeat.UNKNOWN))
            yield _Page(items, str(metadata.get("resourceVersion") or ""))
            token = metadata.get("continue") or ""
            if not token:
                return

    async def raw_list(
        self, rt: ResourceType, namespace: str | None = None, query: Query = (), *, metadata_only: bool = False
    ) -> bytes:
        """Ask for one page of a list, once, and return its bytes. Cancellation has no effect on the server.

        Args:
            rt: how the kind is served; see `resource_type`.
            namespace: None for all namespaces, or for cluster-scoped kinds.
            query: parameters, such as limit and continue.
            metadata_only: ask for PartialObjectMetadata.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no answer.
        """
        request = self._connection.request(
            "GET",
            self._collection_path(rt, namespace),
            pairs(query),
            accept=accepted("List", metadata_only=metadata_only),
        )
        return (await self._connection.once(request)).body


def _metadata_of(gvk: GroupVersionKind, document: dict[str, Any]) -> Unstructured:
    """Return the metadata under the object's own kind; a server that knows no such form has sent the whole object."""
    return Unstructured({"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": document.get("metadata") or {}})
