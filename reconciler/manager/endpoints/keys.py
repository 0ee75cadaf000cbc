"""The handler of ``/debug/keys``: the latest reconciles of each key, and what the key waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.clock import Clock
from reconciler.controller import Controller, FieldChange, ObjectChange, RunExplanation
from reconciler.controller.reconcile.explanation import state_of
from reconciler.controller.reconcile.history import MAX_RUNS
from reconciler.manager.endpoints.handlers import is_selected, limit_of
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler
from reconciler.manager.endpoints.turns import Turns
from reconciler.meta import Request
from reconciler.meta.reference import ResourceType
from reconciler.meta.scalars import format_micro_time

__all__ = ["debug_keys", "read_keys"]

_MAX_KEYS = 100
"""Keys per controller that are shown by default, and with all of their reconciles if a name is given."""

_LONG = 60.0
"""Seconds after which a reconcile in progress needs attention; most take less than one."""


def debug_keys(
    controllers: Callable[[], Sequence[Controller]],
    clock: Clock,
    turns: Turns,
    *,
    role: Callable[[], str],
    shard: JSONObject | None = None,
) -> Handler:
    """Return the handler of ``/debug/keys``: the document of `read_keys` as JSON, with the role and the shard.

    The query selects keys; ``?limit=`` is the number of keys per controller, 100 by default and at most 500. The
    messages of errors, and values of fields, are shown only to local requests and to users who have authenticated.
    """

    async def handle(request: EndpointRequest) -> EndpointResponse:
        query = dict(request.query)
        limit = limit_of(query, _MAX_KEYS)
        async with turns.turn():
            document: JSONObject = {"now": format_micro_time(clock.now()), "role": role()}
            if shard is not None:
                document["shard"] = shard
            document["controllers"] = read_keys(controllers(), clock, query, limit=limit, trusted=request.is_trusted)
            body = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        return EndpointResponse(200, body, "application/json")

    return handle


def read_keys(
    controllers: Sequence[Controller], clock: Clock, query: Mapping[str, str], *, limit: int, trusted: bool
) -> list[JSONObject]:
    """Return each controller as JSON: its counters and its keys.

    Failing keys come first, then those that were reconciled most often lately, with their latest reconcile. If the
    query has a name, the key is explained even if it is idle or unknown, with its latest ten reconciles, and with the
    changes that enqueued it. Of objects only values of changed fields appear, and none that may be a secret.

    Args:
        controllers: the controllers.
        clock: source of time.
        query: selects keys. ``controller``, ``namespace`` and ``name`` are compared; ``search`` is a part of the
            namespace and name, in any case; ``state`` is a state of `Controller.explain`, ``"failing"``, or
            ``"attention"`` for keys that fail or are in progress for a minute.
        limit: the number of keys per controller.
        trusted: whether the messages of errors, which are those of your code, and values of fields are included.
    """
    selected = [each for each in controllers if query.get("controller", each.name) == each.name]
    return [_controller(each, query, limit, clock, trusted=trusted) for each in selected]


def _controller(
    controller: Controller, query: Mapping[str, str], limit: int, clock: Clock, *, trusted: bool
) -> JSONObject:
    statistics, name = controller.statistics(), query.get("name")
    keys = _keys(controller, query)
    return {
        "name": controller.name,
        "kind": controller.kind.kind,
        "api_version": controller.kind.api_version,
        **_names(controller.resource),
        "workers": statistics.workers,
        "active": statistics.active,
        "ready": statistics.queue.ready,
        "waiting": statistics.queue.waiting,
        "in_progress": statistics.queue.in_progress,
        "reconciles": statistics.reconciles,
        "errors": statistics.results["error"],
        "storms": statistics.storms,
        "keys": [
            _key(controller, key, rows, clock, full=name is not None, trusted=trusted) for key, rows in keys[:limit]
        ],
        "keys_failing": sum(_is_failing(controller, rows) for _, rows in keys),
        "keys_left_out": max(0, len(keys) - limit),
        "keys_forgotten": controller.history.dropped,
    }


def _names(resource: ResourceType | None) -> JSONObject:
    """Return the names of a kind by which ``kubectl`` finds it, and its scope, once they are known."""
    if resource is None:
        return {}
    names = {"plural": resource.plural, "singular": resource.singular, "short_names": list(resource.short_names)}
    return {**{name: value for name, value in names.items() if value}, "namespaced": resource.namespaced}


def _keys(controller: Controller, query: Mapping[str, str]) -> list[tuple[Request, list[int]]]:
    """Return the selected keys and their rows in the history, the most interesting ones first."""
    namespace, name, history = query.get("namespace"), query.get("name"), controller.history
    if name is not None and namespace is not None:
        key = Request(name, namespace or None)
        return [(key, history.rows(key))]
    known: dict[Request, list[int]] = {key: [] for key in controller.queue.keys()}  # noqa: SIM118 - a queue is not a dict
    known |= history.keys()
    search, state = query.get("search", "").lower(), query.get("state", "")
    selected = [
        (key, rows)
        for key, rows in known.items()
        if is_selected(key, query)
        and (not search or search in str(key).lower())
        and _has_state(controller, key, rows, state)
    ]
    return sorted(selected, key=lambda each: (*_rank(controller, each[1]), str(each[0])))


def _has_state(controller: Controller, key: Request, rows: Sequence[int], state: str) -> bool:
    if state in ("", "failing"):
        return not state or _is_failing(controller, rows)
    queued = controller.queue.explain(key)
    if state == "attention":
        return _is_failing(controller, rows) or (queued.in_progress or 0.0) >= _LONG
    return state == state_of(queued, remembered=bool(rows))


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
    controller: Controller, key: Request, rows: Sequence[int], clock: Clock, *, full: bool, trusted: bool
) -> JSONObject:
    found = controller.explain(key, rows=rows if full else rows[-1:])
    since = (clock.now() - controller.history.run(rows[0]).started).total_seconds() if rows else 0.0
    least = 60.0 if len(rows) < MAX_RUNS else 1.0  # fewer reconciles say nothing about a shorter time
    fields = {
        "namespace": key.namespace,
        "name": key.name,
        "state": found.state,
        "waits_for": found.waits_for,
        "in_progress_seconds": found.in_progress,
        "current_reasons": sorted(found.current_reasons) or None,
        "current_changes": _changes(found.current_changes, full=full, trusted=trusted),
        "ready_seconds": found.ready,
        "due_in_seconds": found.due,
        "due": None if found.due is None else format_micro_time(clock.now() + timedelta(seconds=found.due)),
        "next_reasons": sorted(found.next_reasons) or None,
        "next_changes": _changes(found.next_changes, full=full, trusted=trusted),
        "failures": found.failures,
        "reconciles_per_minute": round(60 * len(rows) / max(since, least), 1),
        "cached": found.exists,
        "cached_version": _version(found.cached_version),
        "observed_version": _version(found.observed_version),
        "unsaved_status": found.unsaved or None,
        "runs": [_run(run, full=full, trusted=trusted) for run in reversed(found.runs)],
    }
    return {name: value for name, value in fields.items() if value is not None}


def _run(run: RunExplanation, *, full: bool, trusted: bool) -> JSONObject:
    fields: JSONObject = {
        "started": format_micro_time(run.started),
        "seconds": round(run.seconds, 6),
        "reasons": sorted(run.reasons),
        "changes": _changes(run.changes, full=full, trusted=trusted),
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
            "message": run.failure.message if trusted else None,
            "traceback": list(run.failure.traceback),
            "terminal": run.failure.terminal,
            "timed_out": run.failure.timed_out,
        }
    return {name: value for name, value in fields.items() if value is not None}


def _changes(changes: Sequence[ObjectChange], *, full: bool, trusted: bool) -> list[JSONObject] | None:
    """Return the changes that enqueued a key; None if there are none, or if many keys are asked for."""
    return [_change(change, trusted=trusted) for change in changes] if full and changes else None


def _change(change: ObjectChange, *, trusted: bool) -> JSONObject:
    fields, left_out = change.fields()
    document: JSONObject = {
        "at": format_micro_time(change.at),
        "type": change.type,
        "kind": change.gvk.kind,
        "api_version": change.gvk.api_version,
        "namespace": change.request.namespace,
        "name": change.request.name,
        "version": _version(change.version),
        "managers": list(change.managers) or None,
        "fields": [_field(field, trusted=trusted) for field in fields],
        "fields_left_out": left_out or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def _field(field: FieldChange, *, trusted: bool) -> JSONObject:
    document = {
        "path": field.path,
        "change": field.change,
        "before": field.before if trusted else None,
        "after": field.after if trusted else None,
        "managers": list(field.managers) or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def _version(version: object) -> str | None:
    return None if version is None else str(version)
