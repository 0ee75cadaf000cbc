"""The handlers of ``/healthz``, ``/readyz``, ``/metrics`` and ``/debug/queue``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.endpoints.checks import Checks, report
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler
from reconciler.manager.endpoints.thread import LoopBlocked, MainLoop
from reconciler.manager.endpoints.turns import Turns
from reconciler.manager.event_loop import LIVENESS_LIMIT
from reconciler.meta import Request
from reconciler.meta.scalars import format_micro_time
from reconciler.telemetry import MetricsRegistry
from reconciler.workqueue import Explanation

__all__ = ["debug_queue", "health", "is_selected", "limit_of", "metrics"]

_LIVE_PATIENCE = 0.5
"""Seconds that ``/healthz`` waits for the event loop; a kubelet waits 1 s by default."""

_READY_PATIENCE = 5.0
"""Seconds that ``/readyz`` waits for the event loop, if it is not known that it is blocked."""

_MAX_SCRAPES = 4
"""Concurrent scrapes; each takes a thread."""

_MAX_KEYS = 500
"""Keys per controller that an answer shows at most, since they are read in the event loop, each in about 0.1 ms."""


def health(checks: Checks, main: MainLoop, *, live: bool) -> Handler:
    """Return the handler of ``/healthz`` or ``/readyz``: it runs all checks, or the one that the path names.

    ``?verbose`` lists the results, ``?exclude=name`` excludes a check. The status is 200 if all pass, 500 if one fails,
    and 404 if the named check does not exist.

    The handler is called in the thread of the servers, the checks in the event loop. While that is blocked, the
    response names the code that blocks it: ``/readyz`` fails at once, ``/healthz`` after `LIVENESS_LIMIT`, since a
    restart loses work and a block may end.
    """

    async def run(request: EndpointRequest) -> EndpointResponse:
        query = list(request.query)
        excluded = {value for name, value in query if name == "exclude"} & set(checks.names)
        names = [request.path] if request.path else [name for name in checks.names if name not in excluded]
        results = await checks.run(names)
        failed = any(result.reason is not None for result in results)
        if failed or any(name == "verbose" for name, _ in query):
            text = report(checks.endpoint, results, sorted(excluded))
            return EndpointResponse(500 if failed else 200, text.encode())
        return EndpointResponse(200, b"ok")

    async def handle(request: EndpointRequest) -> EndpointResponse:
        if request.path and request.path not in checks.names:
            return EndpointResponse(404, f"404: no {checks.endpoint} check named {request.path!r}\n".encode())
        try:
            return await main.run(lambda: run(request), patience=_LIVE_PATIENCE if live else _READY_PATIENCE)
        except LoopBlocked as error:
            block = main.watchdog.block
            if not live or (block is not None and block.seconds >= LIVENESS_LIMIT):
                return EndpointResponse(
                    500, f"[-]event-loop failed: {error}\n{checks.endpoint} check failed\n".encode()
                )
            if block is None:
                return EndpointResponse(200, b"ok")
            return EndpointResponse(200, f"ok, but {error}. This check fails after {LIVENESS_LIMIT:g} s\n".encode())

    return handle


def metrics(registry: MetricsRegistry) -> Handler:
    """Return the handler of ``/metrics``: it renders in a thread, and answers 503 to more than four scrapes at once."""
    scrapes = 0

    async def handle(request: EndpointRequest) -> EndpointResponse:
        nonlocal scrapes
        if scrapes == _MAX_SCRAPES:
            return EndpointResponse(503, f"503: {_MAX_SCRAPES} scrapes are in progress; try again later\n".encode())
        scrapes += 1
        try:
            content_type, body = await asyncio.to_thread(registry.render, request.accept)
        finally:
            scrapes -= 1
        return EndpointResponse(200, body, content_type)

    return handle


def debug_queue(
    controllers: Callable[[], Sequence[Controller]], clock: Clock, turns: Turns, shard: JSONObject | None = None
) -> Handler:
    """Return the handler of ``/debug/queue``: a JSON list of keys that are in progress, ready or waiting, with reasons.

    ``?controller=``, ``?namespace=`` and ``?name=`` select keys. ``?limit=`` is the number of keys per controller, 500
    by default and at most.
    """

    async def handle(request: EndpointRequest) -> EndpointResponse:
        query = dict(request.query)
        limit = limit_of(query)
        async with turns.turn():
            selected = [each for each in controllers() if query.get("controller", each.name) == each.name]
            document: JSONObject = {} if shard is None else {"shard": shard}
            document["controllers"] = [_controller(each, query, limit, clock) for each in selected]
            body = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        return EndpointResponse(200, body, "application/json")

    return handle


def _controller(controller: Controller, query: dict[str, str], limit: int, clock: Clock) -> JSONObject:
    queue, statistics = controller.queue, controller.statistics()
    keys = [key for key in queue.keys() if is_selected(key, query)]  # noqa: SIM118 - a queue is not a dict
    explanations = sorted((queue.explain(key) for key in keys[:limit]), key=_sort_key)
    return {
        "name": controller.name,
        "ready": statistics.queue.ready,
        "waiting": statistics.queue.waiting,
        "in_progress": statistics.queue.in_progress,
        "unsaved_statuses": msgspec.to_builtins(statistics.unsaved),
        "keys": [_key(explanation, clock) for explanation in explanations],
        "keys_left_out": max(0, len(keys) - limit),
    }


def limit_of(query: dict[str, str], default: int = _MAX_KEYS) -> int:
    """Return the number of keys per controller that a query asks for, at most `_MAX_KEYS`."""
    given = query.get("limit", "")
    # int() refuses thousands of digits.
    return min(int(given.lstrip("0")[:10] or 0), _MAX_KEYS) if given.isdecimal() else default


def is_selected(key: Request, query: Mapping[str, str]) -> bool:
    """Return whether a query selects a key by name and namespace."""
    return query.get("name", key.name) == key.name and query.get("namespace", key.namespace or "") == (
        key.namespace or ""
    )


def _sort_key(explanation: Explanation[Request]) -> tuple[float, float]:
    """Return a sort key: in progress, oldest first; then ready, oldest first; then waiting, next due first."""
    if explanation.in_progress is not None:
        return 0.0, -explanation.in_progress
    if explanation.ready is not None:
        return 1.0, -explanation.ready
    return 2.0, explanation.due or 0.0


def _key(explanation: Explanation[Request], clock: Clock) -> JSONObject:
    due = explanation.due
    fields = {
        "namespace": explanation.key.namespace,
        "name": explanation.key.name,
        "in_progress_seconds": explanation.in_progress,
        "current_reasons": sorted(explanation.current_reasons) or None,
        "ready_seconds": explanation.ready,
        "due_in_seconds": due,
        "due": None if due is None else format_micro_time(clock.now() + timedelta(seconds=due)),
        "priority": explanation.priority,
        "reasons": sorted(explanation.reasons) or None,
        "failures": explanation.failures,
        "explanation": str(explanation),
    }
    return {name: value for name, value in fields.items() if value is not None}
