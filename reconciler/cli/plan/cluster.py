"""The cluster of a plan: read on an event loop of its own, since the plan's time is virtual; asked by dry runs only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.apiserver.fork import ForkChange, ReadOnlyTransport
from reconciler.client.configuration import ConfiguredTransport
from reconciler.client.requests import CONTENT_TYPES, SERVER_METADATA
from reconciler.clock import keep_system_clock
from reconciler.errors import NotSent
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta.documents import merge_diff

T = TypeVar("T")

_DRY_RUN = ("dryRun", "All")
_SECONDS = 65.0


class DryRunTransport:
    """A transport that sends requests with ``dryRun=All`` alone: the cluster checks them, and stores nothing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a dry run once. A cancelled call has no effect either.

        Raises:
            NotSent: it is not a dry run, or there was no connection.
            OutcomeUnknown: there was no response.
        """
        if _DRY_RUN not in request.query:
            raise NotSent(f"{request.label}: not sent, because this transport sends dry runs only")
        return await self._transport.send(request)


class ClusterThread:
    """A connection to a cluster on an event loop in a thread, for code in virtual time; use it with ``with``.

    Args:
        kubeconfig: the path of the kubeconfig; None for the usual places.
        context: the context in it; None for the current one.
        dry_runs: whether dry runs are sent as well. Otherwise only GET requests are.
    """

    def __init__(self, kubeconfig: Path | None, context: str | None, *, dry_runs: bool) -> None:
        self._configured = ConfiguredTransport(kubeconfig=kubeconfig, context=context)
        self._reading = ReadOnlyTransport(self._configured)
        self._asking = DryRunTransport(self._configured) if dry_runs else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def __enter__(self) -> Self:
        """Read the configuration.

        Raises:
            ConfigurationError: there is none, or it cannot be used.
        """
        self._thread.start()
        try:
            self._start(self._configured.open()).result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._start(self._configured.close()).result()
        self._stop()

    def _run(self) -> None:
        keep_system_clock()
        self._loop.run_forever()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Virtual time does not pass while an executor works.
        found: T = await asyncio.get_running_loop().run_in_executor(None, self._start(work).result)
        return found

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request that changes nothing. Cancellation does not end it."""
        dry = self._asking is not None and _DRY_RUN in request.query
        transport = self._asking if dry and self._asking is not None else self._reading
        return await self._wait(transport.send(request))

    async def pause(self, seconds: float) -> None:
        """Wait in real time."""
        await self._wait(asyncio.sleep(seconds))


async def ask(cluster: Transport, change: ForkChange) -> str:
    """Send a change to a cluster as dry runs; return why it refuses, or an empty text.

    Raises:
        TransportError: the cluster does not respond.
    """
    for request in _dry_runs(change):
        response = await cluster.send(request)
        # A status that the kind has no subresource for is part of the object.
        if response.status >= 400 and not (response.status == 404 and request.path.endswith("/status")):
            try:
                return str(msgspec.json.decode(response.body, type=dict[str, Any]).get("message", response.status))
            except UNDECODABLE:
                return f"status {response.status}"
    return ""


def _dry_runs(change: ForkChange) -> Iterator[HTTPRequest]:
    before, after = change.before, change.after
    document: JSONObject = after or before or {}
    version, metadata = document["apiVersion"], document["metadata"]
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if metadata.get("namespace"):
        path += f"/namespaces/{metadata['namespace']}"
    path += f"/{change.resource.partition('.')[0]}"
    if before is None:
        yield _request("POST", path, _clean(document), "application/json")
        return
    path += f"/{metadata['name']}"
    if after is None or metadata.get("deletionTimestamp"):
        yield _request("DELETE", path, None, "application/json")
        return
    patch = merge_diff(_clean(before), _clean(after))
    status = patch.pop("status", None)
    if patch:
        yield _request("PATCH", path, patch, CONTENT_TYPES["merge"])
    if status is not None:
        yield _request("PATCH", f"{path}/status", {"status": status}, CONTENT_TYPES["merge"])


def _clean(document: JSONObject) -> JSONObject:
    metadata = {key: value for key, value in document["metadata"].items() if key not in SERVER_METADATA}
    return {**document, "metadata": metadata}


def _request(method: str, path: str, body: JSONObject | None, content_type: str) -> HTTPRequest:
    headers = {"accept": "application/json", "content-type": content_type, "user-agent": "kube-reconciler plan"}
    content = b"" if body is None else msgspec.json.encode(body)
    query = (_DRY_RUN, ("fieldManager", "reconciler-plan"))
    return HTTPRequest(method, path, query if body is not None else query[:1], headers, content, timeout=_SECONDS)
