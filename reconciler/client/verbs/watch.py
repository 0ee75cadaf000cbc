"""Follow objects: watch, wait."""

# ruff: noqa: ASYNC109 - one timeout is the server's, the other's message names what was seen last

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar, cast, overload

import msgspec

from reconciler.backoff import Backoff
from reconciler.client.session.requests import Query, Selector, pairs, selectors
from reconciler.client.session.session import accepted
from reconciler.client.verbs.read import Reader
from reconciler.client.verbs.watch_stream import EventReader, WatchEvent
from reconciler.errors import Expired, ServerError, TooManyRequests, TransportError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind, Request, ResourceType
from reconciler.objects import AnyResource, KindLike, Unstructured, from_document, gvk_from

__all__ = ["Watcher"]

R = TypeVar("R", bound=AnyResource)

_BETWEEN_WATCHES = Backoff(base=0.05, maximum=5.0, jitter=0.2)
_TRANSIENT = (TransportError, ServerError, TooManyRequests, Expired)
_LONGEST_STATUS = 500


class Watcher(Reader):
    """Follow what happens on the server."""

    async def open_watch(
        self, rt: ResourceType, namespace: str | None = None, query: Query = (), *, metadata_only: bool = False
    ) -> HTTPResponse:
        """Open a watch, once, and return the answer with its stream of chunks, which the caller closes.

        Cancellation closes the connection.

        Args:
            rt: how the kind is served; see `resource_type`.
            namespace: None for all namespaces, or for cluster-scoped kinds.
            query: parameters; ``watch=true`` is added.
            metadata_only: ask for PartialObjectMetadata.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no answer.
        """
        return await self._connection.once(self._watch_request(rt, namespace, query, metadata_only=metadata_only))

    def _watch_request(
        self, rt: ResourceType, namespace: str | None, query: Query, *, metadata_only: bool = False
    ) -> HTTPRequest:
        asked = [(name, value) for name, value in pairs(query) if name != "watch"]
        return self._connection.request(
            "GET",
            self._collection_path(rt, namespace),
            [("watch", "true"), *asked],
            accept=accepted("", metadata_only=metadata_only),
            stream=True,
        )

    @overload
    def watch(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        timeout: float | None = None,
        bookmarks: bool = True,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent[R], None]: ...
    @overload
    def watch(
        self,
        kind: str | GroupVersionKind,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        timeout: float | None = None,
        bookmarks: bool = True,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent[Unstructured], None]: ...
    async def watch(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        timeout: float | None = None,
        bookmarks: bool = True,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent[Any], None]:
        """Follow the events of a kind until the server ends the watch.

        One connection: it neither resumes nor repeats; `reconciler.cache` does. Cancellation closes it. So does leaving
        the loop early, at once if it runs inside of ``async with contextlib.aclosing(client.watch(…)) as events``.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for all namespaces, or for cluster-scoped kinds.
            resource_version: events after this version, as a list gave it. Without it, what exists now comes as ADDED
                first.
            label_selector: text in the API's syntax, or a mapping of what must be equal.
            field_selector: the same for fields.
            timeout: seconds after which the server ends the watch, rounded up; None leaves it to the server.
            bookmarks: let the server tell from time to time how far the watch has come; these events are yielded.
            send_initial_events: a consistent list as a stream: what exists comes as ADDED, then a bookmark with the
                annotation ``k8s.io/initial-events-end``.

        Raises:
            Expired: the version asked for is too old: list anew.
            APIError: another failure, typed.
            TransportError: the connection could not be made, or broke.
            InvalidObject: an object does not fit the class.
        """
        options = {
            "allowWatchBookmarks": "true" if bookmarks or send_initial_events else None,
            "resourceVersion": resource_version,
            "sendInitialEvents": "true" if send_initial_events else None,
            "resourceVersionMatch": "NotOlderThan" if send_initial_events else None,
            "timeoutSeconds": None if timeout is None else str(max(1, -int(-timeout // 1))),
        }
        query = [*selectors(label_selector, field_selector), *((k, v) for k, v in options.items() if v)]
        rt = await self._served(kind, namespace=namespace)
        request = self._watch_request(rt, namespace, query)
        response = await self._connection.once(request)
        reader = EventReader(request)
        try:
            if response.chunks is None:
                return
            async for chunk in response.chunks:
                for type_, document in reader.feed(chunk):
                    obj = Unstructured(document) if type_ == "BOOKMARK" else from_document(kind, document)
                    yield WatchEvent(type_, obj)
        finally:
            await response.close()

    @overload
    async def wait_for(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[R], object],
        timeout: float | None,
    ) -> R: ...
    @overload
    async def wait_for(
        self,
        kind: str | GroupVersionKind,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Unstructured], object],
        timeout: float | None,
    ) -> Unstructured: ...
    async def wait_for(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Any], object],
        timeout: float | None,
    ) -> AnyResource | Unstructured:
        """Wait until an object is as wanted, and return it; it need not exist yet.

        Watches the one object; broken watches and failures that pass are overcome. Cancellation ends the watch.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.
            until: called with each new state; the first for which it is true is returned. What it raises is raised.
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: naming the last state that was seen.
            NotServed: there is no such kind.
            APIError: a failure that does not pass, such as `Forbidden`.
            InvalidObject: the object does not fit the class.
        """
        found = await self._wait(kind, name, namespace, lambda obj: obj is not None and until(obj), timeout)
        return cast("AnyResource | Unstructured", found)

    async def wait_gone(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        timeout: float | None,
    ) -> None:
        """Wait until there is no object of this name; otherwise the same as `wait_for`.

        Cancellation ends the watch.
        """
        await self._wait(kind, name, namespace, lambda obj: obj is None, timeout)

    async def _wait(
        self, kind: KindLike, name: str, namespace: str | None, wanted: Callable[[Any], object], timeout: float | None
    ) -> AnyResource | Unstructured | None:
        last: AnyResource | Unstructured | None = None
        scope = asyncio.timeout(timeout)
        try:
            async with scope, aclosing(self._states(kind, name, namespace)) as states:
                async for last in states:
                    if wanted(last):
                        return last
        except TimeoutError:
            if not scope.expired():
                raise
        subject = f"{gvk_from(kind).kind} {Request(name, namespace)}"
        raise TimeoutError(f"{subject}: not as wanted within {timeout} s; last seen: {_describe(last)}")

    async def _states(
        self, kind: KindLike, name: str, namespace: str | None
    ) -> AsyncGenerator[AnyResource | Unstructured | None, None]:
        """Yield each state of one object, None while there is none, for ever."""
        self._object_path(await self._served(kind, name, namespace), name, namespace)
        selector = {"metadata.name": name}
        failures = 0
        while True:
            try:
                found = await self._list_live(kind, namespace, selectors(None, selector))
                if found.invalid:
                    raise found.invalid[0].error
                yield found[0] if found else None
                watch = self.watch(
                    kind, namespace, resource_version=found.resource_version, field_selector=selector, bookmarks=False
                )
                async with aclosing(watch) as events:
                    async for event in events:
                        failures = 0
                        yield None if event.type == "DELETED" else event.object
                asked = None
            except _TRANSIENT as error:
                asked = error.retry_after
            await asyncio.sleep(_BETWEEN_WATCHES.delay(failures, self._connection.rng, retry_after=asked))
            failures += 1


def _describe(obj: AnyResource | Unstructured | None) -> str:
    """Return what is worth knowing of an object that is not as it should be; nothing of spec or data."""
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
