"""The document of ``/debug/keys`` and ``/debug/queue``: the latest reconciles of each key, and what the key waits for.

The structs are its only description: the operator encodes them, ``reconciler explain`` and ``reconciler top`` decode
them, and the console shows them as plain JSON. A field that has its default is omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from reconciler._core.redaction import redact
from reconciler._core.wire import JSONObject
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.controller.reconcile.explanation import KeyExplanation, RunExplanation, state_of
from reconciler.controller.reconcile.progress import CodePlace
from reconciler.controller.wake.change import ObjectChange
from reconciler.errors import ReconcilerError
from reconciler.manager.endpoints.attention import Attention
from reconciler.manager.endpoints.handlers import Turns
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler
from reconciler.manager.waiting import Wait
from reconciler.meta import Request

_MAX_KEYS = 100
"""Keys per controller that are shown by default, and with all of their reconciles if a name is given."""

_MOST_KEYS = 500
"""Keys per controller that are shown at most, since they are read in the event loop, each in about 0.1 ms."""

_HOT = 60.0
"""Reconciles per minute of a key from which its own writes are looked for."""

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class FieldReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A field that changed; see `FieldChange`. Only trusted readers get the values."""

    path: str
    change: str
    before: str | None = None
    after: str | None = None
    managers: tuple[str, ...] = ()


class ChangeReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A change of an object that enqueued a key; see `ObjectChange`."""

    at: _Time
    type: str
    kind: str
    api_version: str | None = None
    namespace: str | None = None
    name: str
    version: str | None = None
    managers: tuple[str, ...] = ()
    fields: tuple[FieldReport, ...]
    fields_left_out: int = 0

    def __str__(self) -> str:
        return str(Request(self.name, self.namespace))


class ErrorReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The failure of a reconcile; see `Failure`. Only trusted readers get the message."""

    type: str
    message: str | None = None
    traceback: tuple[str, ...]
    terminal: bool | None = None
    timed_out: bool


class RunReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A reconcile that ended; see `RunExplanation`."""

    started: _Time
    seconds: float
    reasons: tuple[str, ...]
    changes: tuple[ChangeReport, ...] = ()
    result: str
    requeue_after_seconds: float | None = None
    writes: int | None = None
    status_written: bool
    echoes_dropped: int | None = None
    changed_meanwhile: bool
    reconcile_id: str | None = None
    error: ErrorReport | None = None


class KeyReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A key; see `KeyExplanation`. The latest reconcile comes first.

    Attributes:
        reasons: how many of its recent reconciles had each reason.
        own_writes: the fields whose write by the controller itself enqueued it for its latest reconcile.
        attention: why it needs attention, beside the error of its latest reconcile.
        status: the status of its object; only of a single key, and for trusted readers.
    """

    namespace: str | None = None
    name: str
    state: str
    waits_for: str
    in_progress_seconds: float | None = None
    stuck: bool = False
    place: CodePlace | None = None
    current_reasons: tuple[str, ...] = ()
    current_changes: tuple[ChangeReport, ...] = ()
    ready_seconds: float | None = None
    due_in_seconds: float | None = None
    due: _Time | None = None
    next_reasons: tuple[str, ...] = ()
    next_changes: tuple[ChangeReport, ...] = ()
    failures: int
    reconciles_per_minute: float
    reasons: dict[str, int] = {}
    own_writes: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    cached: bool
    cached_version: str | None = None
    observed_version: str | None = None
    warnings: tuple[str, ...] = ()
    status: dict[str, Any] | None = None
    unsaved_status: bool = False
    runs: tuple[RunReport, ...]

    def __str__(self) -> str:
        return str(Request(self.name, self.namespace))

    @property
    def error(self) -> ErrorReport | None:
        """Return how the latest reconcile failed; None if it did not."""
        return self.runs[0].error if self.runs else None


class ControllerReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A controller: its kind with the names that kubectl accepts, its counters and its keys.

    Attributes:
        objects: the objects in its cache.
        unhealthy: those that are not healthy by their own conditions.
        attention: why its workers need attention.
    """

    name: str
    kind: str
    api_version: str
    plural: str | None = None
    singular: str | None = None
    short_names: tuple[str, ...] = ()
    namespaced: bool | None = None
    workers: int
    active: int
    ready: int
    waiting: int
    in_progress: int | None = None
    reconciles: int
    errors: int
    storms: int | None = None
    objects: int | None = None
    unhealthy: int | None = None
    attention: tuple[str, ...] = ()
    keys: tuple[KeyReport, ...]
    keys_failing: int
    keys_left_out: int | None = None
    keys_forgotten: int | None = None


class WaitReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that the process waits for; see `Wait`. Only trusted readers get more than its name."""

    text: str
    normal: bool = False


class KeysDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole document. ``None`` stands for what an operator of another version does not tell."""

    now: _Time
    role: str
    shard: dict[str, Any] | None = None
    waits: tuple[WaitReport, ...] = ()
    controllers: tuple[ControllerReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedProcess:
    """The parts of a manager that the document describes.

    Attributes:
        controllers: returns the controllers.
        role: returns ``"running"``, ``"standby"``, or the state of the manager.
        waits: returns what the manager waits for.
        shard: the shard of this process; None without sharding.
        clock: source of time.
    """

    controllers: Callable[[], Sequence[Controller]]
    role: Callable[[], str]
    waits: Callable[[], Sequence[Wait]]
    shard: JSONObject | None
    clock: Clock


def debug_keys(process: ReportedProcess, turns: Turns, *, queued: bool = False) -> Handler:
    """Return the handler of ``/debug/keys``: the document of `read_document` as JSON.

    The query selects keys; ``?limit=`` is the number of keys per controller, 100 by default and at most 500. The
    messages of errors, and values of fields, are shown only to local requests and to users who have authenticated.

    Args:
        process: what is described.
        turns: shared by all handlers that take long.
        queued: show only keys that are in progress, ready or waiting, 500 by default; for ``/debug/queue``.
    """

    async def handle(request: EndpointRequest) -> EndpointResponse:
        query = dict(request.query) | ({"state": "queued"} if queued else {})
        given = query.get("limit", "")
        limit = _MOST_KEYS if queued else _MAX_KEYS
        if given.isdecimal():
            limit = min(int(given.lstrip("0")[:10] or 0), _MOST_KEYS)  # int() refuses thousands of digits
        async with turns.turn():
            document = read_document(process, query, limit=limit, trusted=request.is_trusted)
            body = msgspec.json.format(msgspec.json.encode(document)) + b"\n"
        return EndpointResponse(200, body, "application/json")

    return handle


def read_document(
    process: ReportedProcess, query: Mapping[str, str], *, limit: int = _MAX_KEYS, trusted: bool = True
) -> KeysDocument:
    """Collect the whole document: the role, what the process waits for, and the result of `read_keys`."""
    return KeysDocument(
        now=process.clock.now(),
        role=process.role(),
        shard=process.shard,
        waits=tuple(
            WaitReport(text=redact(each.text) if trusted else each.what, normal=each.normal) for each in process.waits()
        ),
        controllers=read_keys(process.controllers(), process.clock, query, limit=limit, trusted=trusted),
    )


def read_keys(
    controllers: Sequence[Controller], clock: Clock, query: Mapping[str, str], *, limit: int, trusted: bool
) -> tuple[ControllerReport, ...]:
    """Collect the report of each controller.

    Failing keys come first, then those that need attention for another reason, then those that were reconciled most
    often lately, with their latest reconcile. If the
    query has a name, the key is explained even if it is idle or unknown, with its latest ten reconciles, and with the
    changes that enqueued it. Of objects only values of changed fields and the status appear, and nothing that
    may be a secret.

    Args:
        controllers: the controllers.
        clock: source of time.
        query: selects keys. ``controller``, ``namespace`` and ``name`` are compared; ``search`` is a part of the
            namespace and name, in any case; ``state`` is a state of `Controller.explain`, ``"queued"`` for any but idle
            and unknown ones, ``"failing"``, or ``"attention"`` for keys that need it.
        limit: the number of keys per controller.
        trusted: whether the messages of errors, which are those of your code, and values of fields are included.
    """
    selected = [each for each in controllers if query.get("controller", each.name) == each.name]
    return tuple(_controller(each, query, limit, clock, trusted=trusted) for each in selected)


def _controller(
    controller: Controller, query: Mapping[str, str], limit: int, clock: Clock, *, trusted: bool
) -> ControllerReport:
    statistics, full, resource = controller.statistics(), "name" in query, controller.resource
    attention = Attention(controller)
    keys = _keys(attention, controller, query)
    return ControllerReport(
        name=controller.name,
        kind=controller.kind.kind,
        api_version=controller.kind.api_version,
        plural=resource.plural if resource else None,
        singular=(resource.singular or None) if resource else None,
        short_names=tuple(resource.short_names) if resource else (),
        namespaced=resource.namespaced if resource else None,
        workers=statistics.workers,
        active=statistics.active,
        ready=statistics.queue.ready,
        waiting=statistics.queue.waiting,
        in_progress=statistics.queue.in_progress,
        reconciles=statistics.reconciles,
        errors=statistics.results["error"],
        storms=statistics.storms,
        objects=controller.health.objects,
        unhealthy=len(attention.unhealthy),
        attention=tuple(attention.of_workers()),
        keys=tuple(
            _key(attention, controller, key, rows, clock, full=full, trusted=trusted) for key, rows in keys[:limit]
        ),
        keys_failing=sum(attention.is_failing(rows) for _, rows in keys),
        keys_left_out=max(0, len(keys) - limit),
        keys_forgotten=controller.history.dropped,
    )


def _keys(attention: Attention, controller: Controller, query: Mapping[str, str]) -> list[tuple[Request, list[int]]]:
    """Return the selected keys and their rows in the history, the most interesting ones first."""
    namespace, name, history = query.get("namespace"), query.get("name"), controller.history
    if name is not None and namespace is not None and "state" not in query:
        key = Request(name, namespace or None)
        return [(key, history.rows(key))]
    known: dict[Request, list[int]] = {key: [] for key in controller.queue.keys()}  # noqa: SIM118 - a queue is not a dict
    known |= {key: [] for key in attention.unhealthy}
    known |= history.keys()
    search, state = query.get("search", "").lower(), query.get("state", "")
    selected = [
        (key, rows)
        for key, rows in known.items()
        if (name in (None, key.name) and namespace in (None, key.namespace or ""))
        and (not search or search in str(key).lower())
        and _has_state(attention, controller, key, rows, state)
    ]
    return sorted(selected, key=lambda each: (*_rank(attention, controller, *each), str(each[0])))


def _has_state(attention: Attention, controller: Controller, key: Request, rows: Sequence[int], state: str) -> bool:
    if state in ("", "failing"):
        return not state or attention.is_failing(rows)
    if state == "attention":
        return attention.is_needed(key, rows)
    found = state_of(controller.queue.explain(key), remembered=bool(rows))
    return found not in ("idle", "unknown") if state == "queued" else found == state


def _rank(attention: Attention, controller: Controller, key: Request, rows: Sequence[int]) -> tuple[int, float]:
    """Return a sort key: what needs attention first, then what was reconciled most often in the shortest time."""
    order = 0 if attention.is_failing(rows) else 1 if attention.is_needed(key, rows) else 2
    if not rows:
        return order + (order == 2), 0.0
    elapsed = controller.history.since(rows[-1]) - controller.history.since(rows[0])
    return order, -round(len(rows) / (1.0 + elapsed), 3)


def _key(
    attention: Attention,
    controller: Controller,
    key: Request,
    rows: Sequence[int],
    clock: Clock,
    *,
    full: bool,
    trusted: bool,
) -> KeyReport:
    found = controller.explain(key, rows=rows if full else rows[-1:])
    rate = controller.history.rate(rows)

    def changes(given: Sequence[ObjectChange]) -> tuple[ChangeReport, ...]:  # none if many keys are asked for
        return tuple(_change(each, trusted=trusted) for each in given) if full else ()

    return KeyReport(
        namespace=key.namespace,
        name=key.name,
        state=found.state,
        waits_for=found.waits_for,
        in_progress_seconds=found.in_progress,
        stuck=attention.is_stuck(found.in_progress),
        place=found.place,
        current_reasons=tuple(sorted(found.current_reasons)),
        current_changes=changes(found.current_changes),
        ready_seconds=found.ready,
        due_in_seconds=found.due,
        due=None if found.due is None else clock.now() + timedelta(seconds=found.due),
        next_reasons=tuple(sorted(found.next_reasons)),
        next_changes=changes(found.next_changes),
        failures=found.failures,
        reconciles_per_minute=rate.per_minute,
        reasons=rate.reasons,
        own_writes=_own_writes(controller, found) if rate.per_minute >= _HOT else (),
        attention=tuple(attention.texts(found, rows, rate, clock.now(), trusted=trusted)),
        cached=found.exists,
        cached_version=_version(found.cached_version),
        observed_version=_version(found.observed_version),
        warnings=found.warnings,
        status=_status(controller, key) if full and trusted else None,
        unsaved_status=found.unsaved,
        runs=tuple(_run(run, changes(run.changes), trusted=trusted) for run in reversed(found.runs)),
    )


def _own_writes(controller: Controller, found: KeyExplanation) -> tuple[str, ...]:
    fields = [field for run in found.runs[-1:] for change in run.changes for field in change.fields()[0]]
    return tuple(field.path for field in fields if field.managers == (controller.field_manager,))


def _status(controller: Controller, key: Request) -> JSONObject | None:
    """Return the status of an object in the cache, without secrets; None if it has none that can be read."""
    cached = controller.health.get(key)
    try:
        status = None if cached is None else cached.decode().get("status")
        found = msgspec.json.decode(redact(msgspec.json.encode(status).decode()))
    except (ReconcilerError, msgspec.MsgspecError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def _run(run: RunExplanation, changes: tuple[ChangeReport, ...], *, trusted: bool) -> RunReport:
    failure = run.failure
    return RunReport(
        started=run.started,
        seconds=round(run.seconds, 6),
        reasons=tuple(sorted(run.reasons)),
        changes=changes,
        result=run.result,
        requeue_after_seconds=run.requeue_after,
        writes=run.writes,
        status_written=run.status_written,
        echoes_dropped=run.echoes,
        changed_meanwhile=run.overtaken,
        reconcile_id=run.reconcile_id,
        error=None
        if failure is None
        else ErrorReport(
            type=failure.type,
            message=failure.message if trusted else None,
            traceback=failure.traceback,
            terminal=failure.terminal,
            timed_out=failure.timed_out,
        ),
    )


def _change(change: ObjectChange, *, trusted: bool) -> ChangeReport:
    fields, left_out = change.fields()
    return ChangeReport(
        at=change.at,
        type=change.type,
        kind=change.gvk.kind,
        api_version=change.gvk.api_version,
        namespace=change.request.namespace,
        name=change.request.name,
        version=_version(change.version),
        managers=tuple(change.managers),
        fields=tuple(
            FieldReport(
                path=each.path,
                change=each.change,
                before=each.before if trusted else None,
                after=each.after if trusted else None,
                managers=each.managers,
            )
            for each in fields
        ),
        fields_left_out=left_out,
    )


def _version(version: object) -> str | None:
    return None if version is None else str(version)
