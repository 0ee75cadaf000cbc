"""Writes of somebody else to the object of a request, right before it takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.testing.world import World, sending_run

TOUCHED = "explore.test/touched"
"""The annotation that somebody writes."""

CHANGED = "changed by somebody"
"""The text that somebody writes."""

_SERVERS = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp")


async def interfere(world: World, request: HTTPRequest, how: str) -> None:
    """Write to the object of a request as somebody else does; does nothing if there is none.

    Args:
        world: the world.
        request: the request of the operator.
        how: ``"touch"`` annotates the object, ``"owner"`` the one that is reconciled, ``"change"`` changes a text or a
            number of it, ``"delete"`` deletes it, and ``"recreate"`` creates another one after that. If the operator
            was about to delete it, the other one belongs to somebody else.
    """
    if how == "owner":
        await _touch_owner(world)
        return
    path = request.path.removesuffix("/status").removesuffix("/scale")
    found = await _send(world, "GET", path)
    if found.status != 200 or request.method == "POST":
        return
    document: JSONObject = msgspec.json.decode(found.body)
    if how == "touch":
        await _send(world, "PATCH", path, {"metadata": {"annotations": {TOUCHED: "true"}}})
    elif how == "change":
        patch = _other_value({name: value for name, value in document.items() if name in ("data", "spec")})
        if patch:
            await _send(world, "PATCH", path, patch)
    else:
        await _send(world, "DELETE", path)
    if how == "recreate":
        metadata = {name: value for name, value in document["metadata"].items() if name not in _SERVERS}
        if request.method == "DELETE":
            metadata = {name: value for name, value in metadata.items() if name in ("name", "namespace")}
        body = {name: value for name, value in document.items() if name != "status"} | {"metadata": metadata}
        await _send(world, "POST", path.rpartition("/")[0], body)


async def _touch_owner(world: World) -> None:
    run = sending_run()
    for process in world.processes:
        for controller in process.manager.controllers if process.manager is not None else ():
            if run is not None and controller.name == run.controller:
                patch = {"metadata": {"annotations": {TOUCHED: "true"}}}
                await world.somebody.patch(controller.kind, run.request.name, run.request.namespace, patch=patch)
                return


async def _send(world: World, method: str, path: str, body: Mapping[str, Any] | None = None) -> HTTPResponse:
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    request = HTTPRequest(
        method,
        path,
        headers={"user-agent": "somebody", "content-type": content},
        body=b"" if body is None else msgspec.json.encode(body),
    )
    return await world.somebody.session.connection.transport.send(request)


def _other_value(document: Any) -> Any:
    """Return a merge patch that changes the first text or number in a document; None if there is none."""
    if isinstance(document, dict):
        for name, value in document.items():
            inner = _other_value(value)
            if inner is not None:
                return {name: inner}
        return None
    if isinstance(document, bool) or document is None:
        return None
    if isinstance(document, str):
        return CHANGED
    return document + 1 if isinstance(document, int) else None
