"""The contents of answers: documents, pages of lists, typed errors."""

from __future__ import annotations

import contextlib
from datetime import datetime

import msgspec

from reconciler.client.session.listing import InvalidItem
from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, parse_retry_after
from reconciler.meta import UNDECODABLE, Request, json_elements, json_members
from reconciler.objects import InvalidObject
from reconciler.wire import JSONObject

__all__ = ["decode", "decode_page", "failure"]

_EXCERPT = 200
"""Characters of an answer that an error quotes."""


def decode(request: HTTPRequest, response: HTTPResponse) -> JSONObject:
    """Return the document in a successful answer.

    Raises:
        APIError: the answer is not a JSON object, such as a proxy's sign-in page.
        InvalidObject: the answer is a JSON object that cannot be decoded.
    """
    try:
        document = msgspec.json.decode(response.body)
    except UNDECODABLE as error:
        _members(request, response)
        raise InvalidObject(f"the answer to {request.label} cannot be decoded", [("$", str(error))]) from None
    if not isinstance(document, dict):
        raise _not_an_object(request, response)
    return document


def decode_page(request: HTTPRequest, response: HTTPResponse) -> tuple[list[JSONObject | InvalidItem], JSONObject]:
    """Return items and metadata of a page of a list. An item that cannot be decoded is returned as an `InvalidItem`.

    Raises:
        APIError: the answer is not a list.
    """
    try:
        document = decode(request, response)
        found = document.get("items") or ()
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
        members = json_members(json_members(text)["metadata"])
        for key in ("name", "namespace", "resourceVersion"):
            with contextlib.suppress(KeyError, *UNDECODABLE):
                found[key] = msgspec.json.decode(members[key], type=str)
    return found.get("name", ""), found.get("namespace"), found.get("resourceVersion", "")


def _members(request: HTTPRequest, response: HTTPResponse) -> dict[str, bytes]:
    try:
        return json_members(response.body)
    except ValueError:
        raise _not_an_object(request, response) from None


def _not_an_object(request: HTTPRequest, response: HTTPResponse) -> APIError:
    return APIError(
        f"the answer is not a JSON object: {_excerpt(response.body)!r}; is this an API server?",
        status=response.status,
        request=request.label,
    )


def failure(request: HTTPRequest, response: HTTPResponse, now: datetime) -> APIError:
    """Return the typed error for an answer that reports a failure."""
    body = _json_object(response.body)
    return error_from_response(
        response.status,
        body,
        text=_excerpt(response.body),
        retry_after=parse_retry_after(response.headers.get("retry-after", ""), now),
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
