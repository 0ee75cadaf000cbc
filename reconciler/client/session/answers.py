"""Read answers: documents, failures, the server's wish to wait, its warnings."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from reconciler.client.session.listing import InvalidItem
from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, parse_retry_after
from reconciler.meta import UNDECODABLE, Request, json_elements, json_members
from reconciler.objects import InvalidObject

__all__ = ["WarningLog", "decode", "decode_page", "failure", "label"]

_logger = logging.getLogger("reconciler.client")
_EXCERPT = 200
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def label(request: HTTPRequest) -> str:
    """Return verb and path, the subject of an error."""
    return f"{request.method} {request.path}"


def decode(request: HTTPRequest, response: HTTPResponse) -> dict[str, Any]:
    """Return the document in a successful answer.

    Raises:
        APIError: the answer is no JSON object, as from a proxy's sign-in page.
        InvalidObject: it is one, but cannot be decoded.
    """
    try:
        document = msgspec.json.decode(response.body)
    except UNDECODABLE as error:
        _members(request, response)
        raise InvalidObject(f"the answer to {label(request)} cannot be decoded", [("$", str(error))]) from None
    if not isinstance(document, dict):
        raise _no_object(request, response)
    return document


def decode_page(
    request: HTTPRequest, response: HTTPResponse
) -> tuple[list[dict[str, Any] | InvalidItem], dict[str, Any]]:
    """Return the items of a page of a list, and its metadata. An item that cannot be decoded does not stop it.

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
        metadata = msgspec.json.decode(members.get("metadata", b"{}"), type=dict[str, Any])
        return [_decoded(item) for item in json_elements(members["items"])], metadata
    except (KeyError, ValueError, *UNDECODABLE):
        raise _no_object(request, response) from None


def _item(item: object) -> dict[str, Any] | InvalidItem:
    if isinstance(item, dict):
        return item
    return InvalidItem("", None, "", InvalidObject("an item of the list", [("$", "not an object")]))


def _decoded(text: bytes) -> dict[str, Any] | InvalidItem:
    try:
        return _item(msgspec.json.decode(text))
    except UNDECODABLE as error:
        name, namespace, version = _named(text)
        subject = f"{Request(name, namespace)} cannot be decoded"
        return InvalidItem(name, namespace, version, InvalidObject(subject, [("$", str(error))]))


def _named(text: bytes) -> tuple[str, str | None, str]:
    """Return name, namespace and version of an object that cannot be decoded, as far as they can be read."""
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
        raise _no_object(request, response) from None


def _no_object(request: HTTPRequest, response: HTTPResponse) -> APIError:
    return APIError(
        f"the answer is no JSON object but {_excerpt(response.body)!r}; is this an API server?",
        status=response.status,
        request=label(request),
    )


def failure(request: HTTPRequest, response: HTTPResponse, now: datetime) -> APIError:
    """Return the typed error for a failed answer."""
    body = _json_object(response.body)
    return error_from_response(
        response.status,
        body,
        text=_excerpt(response.body),
        retry_after=parse_retry_after(response.headers.get("retry-after", ""), now),
        request=label(request),
    )


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    return document if isinstance(document, dict) else None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:_EXCERPT].decode(errors="replace").split())


class WarningLog:
    """Log what the server warns of, each text once.

    Args:
        most: how many texts are remembered; of more, the least recent is forgotten and would be logged again.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, request: HTTPRequest, warnings: Sequence[str]) -> None:
        """Log the new ones among the ``Warning`` headers of an answer."""
        for warning in warnings:
            text = warning_text(warning)
            if text not in self._seen:
                _logger.warning("the API server warns of %s: %s", label(request), text)
            self._seen[text] = None
            self._seen.move_to_end(text)
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)

    def __len__(self) -> int:
        return len(self._seen)


def warning_text(header: str) -> str:
    """Return the text in a Warning header (RFC 7234: code, agent, quoted text); all of it if it has another form."""
    found = _QUOTED.search(header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else header
