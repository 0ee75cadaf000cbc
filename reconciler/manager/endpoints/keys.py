"""The handler of ``/debug/keys``: the latest reconciles of each key, and what the key waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from reconciler.clock import Clock
from reconciler.controller import Controller, RunExplanation
from reconciler.controller.reconcile.history import MAX_RUNS
from reconciler.manager.endpoints.handlers import is_selected, limit_of
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler
from reconciler.meta import Request, format_micro_time
from reconciler.wire import JSONObject

__all__ = ["debug_keys", "read_keys"]

_MAX_KEYS = 100
"""Keys per controller that are shown by default, and with all of their reconciles if a name is given."""

_LONG = 60.0
"""Seconds after which a reconcile in progress needs attention; most take less than one."""


def debug_keys(
    controllers: Callable[[], Sequence[Controller]],
    clock: Clock,
    *,
    role: Callable[[], str],
    shard: JSONObject | None = None,
) -> Handler:
    """Return the handler of ``/debug/keys``: the document of `read_keys` as JSON, with the role and the shard.

    The query selects keys; ``?limit=`` is the number of keys per controller, 100 by default. The messages of errors are
    those of your code, so only local requests and users who have authenticated get them.

    Args:
        controllers: returns the controllers.
        clock: source of time.
        role: returns what this process does: ``"running"``, ``"standby"``, or the state of the manager.
        shard: the shard of this process; None without sharding.
    """

    async def handle(request: EndpointRequest) -> EndpointResponse:
        query = dict(request.query)
        document: JSONObject = {"now": format_micro_time(clock.now()), "role": role()}
        if shard is not None:
            document["shard"] = shard
        limit = limit_of(query, _MAX_KEYS)
        document["controllers"] = read_keys(controllers(), clock, query, limit=limit, messages=request.is_trusted)
        body = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        return EndpointResponse(200, body, "application/json")

    return handle


def read_keys(
    controllers: Sequence[Controller], clock: Clock, query: Mapping[str, str], *, limit: int, messages: bool
) -> list[JSONObject]:
    """Return each controller as JSON: its counters and its keys. Values of objects never appear.

    Failing keys come first, then those that were reconciled most often lately, with their latest reconcile. If the
    query has a name, the key is explained even if it is idle or unknown, with its latest ten reconciles.

    Args:
        controllers: the controllers.
        clock: source of time.
        query: selects keys. ``controller``, ``namespace`` and ``name`` are compared; ``search`` is a part of the
            namespace and name, in any case; ``state`` is a state of `Controller.explain`, ``"failing"``, or
            ``"attention"`` for keys that fail or are in progress for a minute.
        limit: the number of keys per controller.
        messages: whether the messages of errors, which are those of your code, are included.
    """
    selected = [each for each in controllers if query.get("controller", each.name) == each.name]
    return [_controller(each, query, limit, clock, messages=messages) for each in selected]


def _controller(
    controller: Controller, query: Mapping[str, str], limit: int, clock: Clock, *, messages: bool
) -> JSONObject:
    statistics, name = controller.statistics(), query.get("name")
    keys = _keys(controller, query)
    return {
        "name": controller.name,
        "kind": controller.kind.kind,
        "api_version": controller.kind.api_version,
        "workers": statistics.workers,
        "active": statistics.active,
        "ready": statistics.queue.ready,
        "waiting": statistics.queue.waiting,
        "in_progress": statistics.queue.in_progress,
        "reconciles": statistics.reconciles,
        "errors": statistics.results["error"],
        "storms": statistics.storms,
        "keys": [
            _key(controller, key, rows, clock, full=name is not None, messages=messages) for key, rows in keys[:limit]
        ],
        "keys_failing": sum(_is_failing(controller, rows) for _, rows in keys),
        "keys_left_out": max(0, len(keys) - limit),
        "keys_forgotten": controller.history.dropped,
    }


def _keys(controller: Controller, query: Mapping[str, str]) -> list[tuple[Request, list[int]]]:
    """Return the selected keys and their rows in the history, the most interesting ones first."""
    namespace, name, history = query.get("namespace"), query.get("name"), controller.history
    if name is not None and namespace is not None:
        key = Request(name, namespace or None)
        return [(key, history.keys().get(key, []))]
    known: dict[Request, list[int]] = {key: [] for key in controller.queue.keys()}  # noqa: SIM118 - a queue is not a dict
    known |= history.keys()
    search, state = query.get("search", "").lower(), query.get("state", "")
    selected = [
        (key, rows)
        for key, rows in known.items()
        if is_selected(key, query) and search in str(key).lower() and _has_state(controller, key, rows, state)
    ]
    return sorted(selected, key=lambda each: (*_rank(controller, each[1]), str(each[0])))


def _has_state(controller: Controller, key: Request, rows: Sequence[int], state: str) -> bool:
    if state in ("", "failing"):
        return not state or _is_failing(controller, rows)
    queued = controller.queue.explain(key)
    if state == "attention":
        return _is_failing(controller, rows) or (queued.in_progress or 0.0) >= _LONG
    if queued.in_progress is not None:
        return state == "in progress"
    if queued.ready is not None:
        return state == "ready"
    return state == ("idle" if queued.due is None else "waiting")


def _rank(controller: Controller, rows: Sequence[int]) -> tuple[bool, float]:
    """Return a sort key: failing keys first, then those with the most reconciles in the shortest time."""
    if not rows:
        return True, 0.0
    history = controller.history
    elapsed = history.since(rows[-1]) - history.since(rows[0])
    return history.failure(rows[-1]) is None, -round(len(rows) / (1.0 + elapsed), 3)


def _is_failing(controller: Controller, rows: Sequence[int]) -> bool:
    return bool(rows) and controller.history.failure(rows[-1]) is not None


def _key(
    controller: Controller, key: Request, rows: Sequence[int], clock: Clock, *, full: bool, messages: bool
) -> JSONObject:
    found = controller.explain(key)
    since = (clock.now() - controller.history.run(rows[0]).started).total_seconds() if rows else 0.0
    least = 60.0 if len(rows) < MAX_RUNS else 1.0  # fewer reconciles say nothing about a shorter time
    runs = found.runs if full else found.runs[-1:]
    fields = {
        "namespace": key.namespace,
        "name": key.name,
        "state": found.state,
        "waits_for": found.waits_for,
        "in_progress_seconds": found.in_progress,
        "current_reasons": sorted(found.current_reasons) or None,
        "ready_seconds": found.ready,
        "due_in_seconds": found.due,
        "due": None if found.due is None else format_micro_time(clock.now() + timedelta(seconds=found.due)),
        "next_reasons": sorted(found.next_reasons) or None,
        "failures": found.failures,
        "reconciles_per_minute": round(60 * len(rows) / max(since, least), 1),
        "cached": found.exists,
        "cached_version": _version(found.cached_version),
        "observed_version": _version(found.observed_version),
        "unsaved_status": found.unsaved or None,
        "runs": [_run(run, messages=messages) for run in reversed(runs)],
    }
    return {name: value for name, value in fields.items() if value is not None}


def _run(run: RunExplanation, *, messages: bool) -> JSONObject:
    fields: JSONObject = {
        "started": format_micro_time(run.started),
        "seconds": round(run.seconds, 6),
        "reasons": sorted(run.reasons),
        "result": run.result,
        "requeue_after_seconds": run.requeue_after,
        "writes": run.writes,
        "status_written": run.status_written,
        "echoes_dropped": run.echoes,
        "changed_meanwhile": run.overtaken,
        "reconcile_id": run.reconcile_id,
    }
    if run.failure is not None:
        fields["error"] = {
            "type": run.failure.type,
            "message": run.failure.message if messages else None,
            "traceback": list(run.failure.traceback),
            "terminal": run.failure.terminal,
            "timed_out": run.failure.timed_out,
        }
    return {name: value for name, value in fields.items() if value is not None}


def _version(version: object) -> str | None:
    return None if version is None else str(version)
