"""Read answers: documents, failures, the server's wish to wait, its warnings."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, HTTPResponse, parse_retry_after

__all__ = ["WarningLog", "decode", "failure", "label"]

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
    """
    document = _json_object(response.body)
    if document is None:
        raise APIError(
            f"the answer is no JSON object but {_excerpt(response.body)!r}; is this an API server?",
            status=response.status,
            request=label(request),
        )
    return document


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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
