"""Read a watch: lines out of chunks, events out of lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from reconciler.errors import APIError, error_from_response
from reconciler.http import HTTPRequest, LineSplitter
from reconciler.meta import UNDECODABLE

__all__ = ["EventKind", "EventReader", "WatchEvent"]

T_co = TypeVar("T_co", covariant=True)

EventKind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
"""What happened to an object; a bookmark tells only how far the watch has come."""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T_co]):
    """Hold one event of a watch.

    Attributes:
        type: what happened.
        object: the object afterwards; for DELETED its last state, at the version of its deletion. For BOOKMARK an
            `Unstructured`, whatever the kind, of which only ``resource_version`` (and, at the end of the initial
            events, the annotation ``k8s.io/initial-events-end``) means anything.
    """

    type: EventKind
    object: T_co


class _Line(msgspec.Struct):
    type: str
    object: dict[str, Any]


_decoder = msgspec.json.Decoder(_Line)


class EventReader:
    """Put the chunks of a watch together to events.

    Args:
        request: what the watch was asked with, for errors.
    """

    def __init__(self, request: HTTPRequest) -> None:
        self._request = request
        self._splitter = LineSplitter()

    def feed(self, chunk: bytes) -> Iterator[tuple[EventKind, dict[str, Any]]]:
        """Yield type and document of each event that a chunk completes.

        Raises:
            APIError: the server sent an error in place of an event, as 410 `Expired`; or something that is no event.
            InvalidResponse: an event is longer than 32 MiB.
        """
        for line in self._splitter.feed(chunk):
            yield _event(self._request, line)


def _event(request: HTTPRequest, line: bytes) -> tuple[EventKind, dict[str, Any]]:
    try:
        event = _decoder.decode(line)
    except UNDECODABLE as error:
        raise APIError(f"a line that is no event: {error}", status=200, request=f"watch {request.path}") from None
    if event.type == "ERROR":
        code = event.object.get("code")
        raise error_from_response(code if isinstance(code, int) else 500, event.object, request=f"watch {request.path}")
    return cast("EventKind", event.type), event.object
