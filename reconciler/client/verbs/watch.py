"""Watches: events of a kind, and waiting for the state of one object."""

# ruff: noqa: ASYNC109 - the server enforces one timeout; the error of the other contains the last state

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import msgspec

from reconciler._core.backoff import Backoff
from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.client.session.requests import Selector, selector_query
from reconciler.client.session.session import Session
from reconciler.client.verbs.read import list_all
from reconciler.errors import APIError, Expired, ServerError, TooManyRequests, TransportError, error_from_response
from reconciler.http import HTTPRequest, LineSplitter
from reconciler.meta import Request
from reconciler.objects import Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike, from_document, gvk_from

__all__ = ["EventType", "WatchEvent", "wait", "watch"]

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


class _EventReader:
    """The events in the chunks of a watch.

    Args:
        request: the request of the watch, for errors.
    """

    def __init__(self, request: HTTPRequest) -> None:
        self._request = request
        self._splitter = LineSplitter()

    def feed(self, chunk: bytes) -> Iterator[tuple[EventType, JSONObject]]:
        """Yield type and document of each event that a chunk completes.

        Raises:
            APIError: the server sent an error in place of an event, such as 410 `Expired`, or an invalid event.
            InvalidResponse: an event is longer than 32 MiB.
        """
        for line in self._splitter.feed(chunk):
            yield _event(self._request, line)


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
    session: Session,
    kind: KindLike,
    namespace: str | None,
    *,
    resource_version: str | None = None,
    label_selector: Selector | None = None,
    field_selector: Selector | None = None,
    timeout: float | None = None,
    bookmarks: bool = True,
    send_initial_events: bool = False,
) -> AsyncGenerator[WatchEvent[Any], None]:
    """Yield the events of one watch request."""
    options = {
        "allowWatchBookmarks": "true" if bookmarks or send_initial_events else None,
        "resourceVersion": resource_version,
        "sendInitialEvents": "true" if send_initial_events else None,
        "resourceVersionMatch": "NotOlderThan" if send_initial_events else None,
        "timeoutSeconds": None if timeout is None else str(max(1, -int(-timeout // 1))),
    }
    resource = await session.resource_for(kind, namespace=namespace)
    pairs = [
        *selector_query(label_selector, field_selector),
        *((name, value) for name, value in options.items() if value),
    ]
    request = session.watch_request(resource, namespace, pairs)
    response = await session.connection.once(request)
    reader = _EventReader(request)
    try:
        if response.chunks is None:
            return
        async for chunk in response.chunks:
            for type_, document in reader.feed(chunk):
                obj = Unstructured(document) if type_ == "BOOKMARK" else from_document(kind, document)
                yield WatchEvent(type_, obj)
    finally:
        await response.close()


async def wait(
    session: Session,
    kind: KindLike,
    name: str,
    namespace: str | None,
    *,
    wanted: Callable[[Any], object],
    timeout: float | None,
) -> TypedObject | Unstructured | None:
    """Return the first state of an object for which `wanted` is true; a missing object is None."""
    last: TypedObject | Unstructured | None = None
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
    raise TimeoutError(f"{subject}: not as wanted within {timeout} s; last seen: {_describe(last)}")


async def _states(
    session: Session, kind: KindLike, name: str, namespace: str | None
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
