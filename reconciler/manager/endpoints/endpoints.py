"""Answer ``/healthz``, ``/readyz``, ``/metrics`` and ``/debug/queue``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.manager.endpoints.health import Checks, report
from reconciler.manager.endpoints.http import Answer, Asked, Handler
from reconciler.meta import Request, format_micro_time
from reconciler.telemetry import MetricsRegistry
from reconciler.workqueue import Explanation

__all__ = ["debug_queue", "health", "metrics"]

_SCRAPES = 4
"""Scrapes at once, each of which takes a thread."""

_SHOWN = 500
"""Keys a controller that ``/debug/queue`` shows unless asked for more or for one."""


def health(checks: Checks) -> Handler:
    """Return the handler of ``/healthz`` or ``/readyz``: all checks, or the one that the path names.

    ``?verbose`` lists them, ``?exclude=name`` leaves some out. 200 when all pass, 500 when one fails, 404 for a check
    that does not exist.
    """

    async def handle(asked: Asked) -> Answer:
        if asked.path and asked.path not in checks.names:
            return Answer(404, f"404: there is no {checks.endpoint} check {asked.path!r}\n".encode())
        query = list(asked.query)
        excluded = {value for name, value in query if name == "exclude"} & set(checks.names)
        names = [asked.path] if asked.path else [name for name in checks.names if name not in excluded]
        verdicts = await checks.run(names)
        failed = any(verdict.reason is not None for verdict in verdicts)
        if failed or any(name == "verbose" for name, _ in query):
            return Answer(500 if failed else 200, report(checks.endpoint, verdicts, sorted(excluded)).encode())
        return Answer(200, b"ok")

    return handle


def metrics(registry: MetricsRegistry) -> Handler:
    """Return the handler of ``/metrics``: a thread renders them, and a scrape beyond four at once gets 503."""
    rendering = 0

    async def handle(asked: Asked) -> Answer:
        nonlocal rendering
        if rendering == _SCRAPES:
            return Answer(503, f"503: {_SCRAPES} scrapes are in progress; try again later\n".encode())
        rendering += 1
        try:
            content_type, body = await asyncio.to_thread(registry.render, asked.accept)
        finally:
            rendering -= 1
        return Answer(200, body, content_type)

    return handle


def debug_queue(
    controllers: Callable[[], Sequence[Controller]], clock: Clock, shard: Mapping[str, Any] | None = None
) -> Handler:
    """Return the handler of ``/debug/queue``: which keys wait, are ready or in hand, why, and until when, as JSON.

    ``?controller=``, ``?namespace=`` and ``?name=`` choose; ``?limit=`` says how many keys of a controller are shown.

    Args:
        controllers: gives the controllers.
        clock: source of time.
        shard: what is told of the process's shard; None for nothing.
    """

    async def handle(asked: Asked) -> Answer:
        query = dict(asked.query)
        asked_for = query.get("limit", "")
        # Ten digits are more than any queue holds; Python refuses to read thousands of them.
        limit = int(asked_for.lstrip("0")[:10] or 0) if asked_for.isdecimal() else _SHOWN
        chosen = [each for each in controllers() if query.get("controller", each.name) == each.name]
        document: dict[str, Any] = {} if shard is None else {"shard": shard}
        document["controllers"] = [_controller(each, query, limit, clock) for each in chosen]
        return Answer(200, msgspec.json.format(msgspec.json.encode(document)) + b"\n", "application/json")

    return handle


def _controller(controller: Controller, query: dict[str, str], limit: int, clock: Clock) -> dict[str, Any]:
    queue, statistics = controller.queue, controller.statistics()
    keys = [key for key in queue.keys() if _is_asked_for(key, query)]  # noqa: SIM118 - a queue is no dict
    told = sorted((queue.explain(key) for key in keys[:limit]), key=_urgency)
    return {
        "name": controller.name,
        "ready": statistics.queue.ready,
        "waiting": statistics.queue.waiting,
        "in_hand": statistics.queue.in_progress,
        "unsaved_statuses": msgspec.to_builtins(statistics.unsaved),
        "keys": [_key(explanation, clock) for explanation in told],
        "keys_left_out": max(0, len(keys) - limit),
    }


def _is_asked_for(key: Request, query: dict[str, str]) -> bool:
    return query.get("name", key.name) == key.name and query.get("namespace", key.namespace or "") == (
        key.namespace or ""
    )


def _urgency(explanation: Explanation[Request]) -> tuple[float, float]:
    """Sort what is in hand first, the oldest first; then what is ready; then what waits, the nearest first."""
    if explanation.in_progress is not None:
        return 0.0, -explanation.in_progress
    if explanation.ready is not None:
        return 1.0, -explanation.ready
    return 2.0, explanation.due or 0.0


def _key(explanation: Explanation[Request], clock: Clock) -> dict[str, Any]:
    due = explanation.due
    fields = {
        "namespace": explanation.key.namespace,
        "name": explanation.key.name,
        "in_hand_seconds": explanation.in_progress,
        "run_reasons": sorted(explanation.current_reasons) or None,
        "ready_seconds": explanation.ready,
        "due_in_seconds": due,
        "due": None if due is None else format_micro_time(clock.now() + timedelta(seconds=due)),
        "priority": explanation.priority,
        "reasons": sorted(explanation.reasons) or None,
        "failures": explanation.failures,
        "explanation": str(explanation),
    }
    return {name: value for name, value in fields.items() if value is not None}
