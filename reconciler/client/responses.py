"""The contents of responses: documents, lists, typed errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, overload

import msgspec

from reconciler._core.wire import UNDECODABLE, JSONObject, json_elements, json_members
from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, parse_retry_after
from reconciler.meta import Request
from reconciler.objects import InvalidObject

T_co = TypeVar("T_co", covariant=True)

_EXCERPT = 200
"""Characters of a response that an error quotes."""


@dataclass(frozen=True, slots=True)
class InvalidItem:
    """An object that a list left out because it could not be read.

    Attributes:
        name: its name; ``""`` if that is unreadable too.
        namespace: its namespace; None for a cluster-scoped object.
        resource_version: its version; ``""`` if there is none.
        error: what is wrong with the object, with the paths of the fields.
    """

    name: str
    namespace: str | None
    resource_version: str
    error: InvalidObject

    @property
    def key(self) -> Request:
        """Name and namespace."""
        return Request(self.name, self.namespace)


class ListResult(Sequence[T_co], Generic[T_co]):
    """The objects of a list, and the collection's version at which they were read.

    Args:
        items: the objects, in the server's order.
        resource_version: the version to watch from without missing an event.
        invalid: objects that exist but are not among the items, because they cannot be decoded or do not fit the
            requested class. Nearly always empty. Check it before you conclude that an object was deleted.
    """

    __slots__ = ("_items", "invalid", "resource_version")

    def __init__(self, items: Iterable[T_co], resource_version: str = "", invalid: Iterable[InvalidItem] = ()) -> None:
        self._items = tuple(items)
        self.resource_version = resource_version
        self.invalid = tuple(invalid)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ListResult):
            return self._items == other._items
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # of mutable objects

    def __repr__(self) -> str:
        invalid = f", {len(self.invalid)} invalid" if self.invalid else ""
        return f"<ListResult of {len(self)}{invalid} at {self.resource_version!r}>"


def decode(request: HTTPRequest, response: HTTPResponse) -> JSONObject:
    """Return the document in a successful response.

    Raises:
        APIError: the response is not a JSON object, such as a proxy's sign-in page.
        InvalidObject: the response is a JSON object that cannot be decoded.
    """
    try:
        document = msgspec.json.decode(response.body)
    except UNDECODABLE as error:
        _members(request, response)
        raise InvalidObject(f"the response to {request.label} cannot be decoded", [("$", str(error))]) from None
    if type(document) is not dict or ("metadata" in document and type(document["metadata"] or {}) is not dict):
        raise _not_an_object(request, response)
    return document


def decode_page(request: HTTPRequest, response: HTTPResponse) -> tuple[list[JSONObject | InvalidItem], JSONObject]:
    """Return items and metadata of a page of a list. An item that cannot be decoded is returned as an `InvalidItem`.

    Raises:
        APIError: the response is not a list.
    """
    try:
        document = decode(request, response)
        found = document.get("items") or []
        if type(found) is not list:
            raise _not_an_object(request, response)
        return [_item(item) for item in found], document.get("metadata") or {}
    except InvalidObject:
        members = _members(request, response)
    try:
        metadata = msgspec.json.decode(members.get("metadata", b"{}"), type=JSONObject)
        return [_decoded(item) for item in json_elements(members["items"])], metadata
    except (KeyError, ValueError, *UNDECODABLE):
        raise _not_an_object(request, response) from None


def _item(item: object) -> JSONObject | InvalidItem:
    if isinstance(item, dict):
        return item
    return InvalidItem("", None, "", InvalidObject("an item of the list", [("$", "not an object")]))


def _decoded(text: bytes) -> JSONObject | InvalidItem:
    try:
        return _item(msgspec.json.decode(text))
    except UNDECODABLE as error:
        name, namespace, version = _named(text)
        subject = f"{Request(name, namespace)} cannot be decoded"
        return InvalidItem(name, namespace, version, InvalidObject(subject, [("$", str(error))]))


def _named(text: bytes) -> tuple[str, str | None, str]:
    """Return name, namespace and version of an object that cannot be decoded, as far as they are readable."""
    found = {}
    with contextlib.suppress(KeyError, ValueError):
        names = ("name", "namespace", "resourceVersion")
        members = json_members(json_members(text, "metadata")["metadata"], *names)
        for key in names:
            with contextlib.suppress(KeyError, *UNDECODABLE):
                found[key] = msgspec.json.decode(members[key], type=str)
    return found.get("name", ""), found.get("namespace"), found.get("resourceVersion", "")


def _members(request: HTTPRequest, response: HTTPResponse) -> dict[str, bytes]:
    try:
        return json_members(response.body, "items", "metadata")
    except ValueError:
        raise _not_an_object(request, response) from None


def _not_an_object(request: HTTPRequest, response: HTTPResponse) -> APIError:
    return APIError(
        f"the response is not a JSON object: {_excerpt(response.body)!r}; is this an API server?",
        status=response.status,
        request=request.label,
    )


def failure(request: HTTPRequest, response: HTTPResponse, now: datetime) -> APIError:
    """Return the typed error for a response that reports a failure."""
    body = _json_object(response.body)
    return error_from_response(
        response.status,
        body,
        text=_excerpt(response.body),
        retry_after=parse_retry_after(response.headers, now),
        request=request.label,
    )


def _json_object(body: bytes) -> JSONObject | None:
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    return document if isinstance(document, dict) else None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:_EXCERPT].decode(errors="replace").split())
