"""The document of ``/debug/keys`` and ``/debug/queue``: the latest reconciles of each key, and what the key waits for.

The structs are its only description: the operator encodes them, ``reconciler explain`` decodes them, and
the console shows them as plain JSON. A field that has its default is omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import msgspec

from reconciler._core.redaction import redact
from reconciler._core.wire import JSONObject
from reconciler.clock import Clock
from reconciler.controller import Controller
from reconciler.controller.controller import ControllerStatistics
from reconciler.controller.reconcile.explanation import (
    EndedReconcile,
    KeyExplanation,
    KeyRate,
    ReconcileFailure,
    RunExplanation,
    state_of,
)
from reconciler.controller.reconcile.watchdogs import CodePlace
from reconciler.controller.wake.change import FieldChange, ObjectChange
from reconciler.errors import ReconcilerError
from reconciler.manager.endpoints.handlers import Turns
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler
from reconciler.manager.waiting import Wait
from reconciler.meta import Request
from reconciler.meta.documents import human_duration, parse_time

_MAX_KEYS = 100
"""Keys per controller that are shown by default, and with all of their reconciles if a name is given."""

_MOST_KEYS = 500
"""Keys per controller that are shown at most, since they are read in the event loop, each in about 0.1 ms."""

_HOT = 60.0
"""Reconciles per minute of a key from which its own writes are looked for."""

_LOOP_PAUSE = 15.0
"""Seconds without a reconcile after which a tight loop has ended."""

_SATURATED, _EXAMINED = 10.0, 1_000
"""Seconds that a ready key waits before the workers need attention, and how many keys are examined for it."""

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


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
    fields: tuple[FieldChange, ...]
    fields_left_out: int = 0

    def __str__(self) -> str:
        return str(Request(self.name, self.namespace))


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
    error: ReconcileFailure | None = None


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
    def error(self) -> ReconcileFailure | None:
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


def change_report(change: ObjectChange, *, trusted: bool = True) -> ChangeReport:
    """Return the report of a change.

    Args:
        change: the change.
        trusted: whether values of fields are included.
    """
    fields, left_out = change.fields()
    if not trusted:
        fields = [msgspec.structs.replace(each, before=None, after=None) for each in fields]
    return ChangeReport(
        at=change.at,
        type=change.type,
        kind=change.gvk.kind,
        api_version=change.gvk.api_version,
        namespace=change.request.namespace,
        name=change.request.name,
        version=None if change.version is None else str(change.version),
        managers=tuple(change.managers),
        fields=tuple(fields),
        fields_left_out=left_out,
    )


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
    """Collect the whole document.

    Failing keys come first, then those that need attention for another reason, then those that were reconciled most
    often lately, with their latest reconcile. If the query has a name, the key is explained even if it is idle or
    unknown, with its latest ten reconciles, and with the changes that enqueued it. Of objects only values of changed
    fields and the status appear, and nothing that may be a secret.

    Args:
        process: what is described.
        query: selects keys. ``controller``, ``namespace`` and ``name`` are compared; ``search`` is a part of the
            namespace and name, in any case; ``state`` is a state of `Controller.explain`, ``"queued"`` for any but idle
            and unknown ones, ``"failing"``, or ``"attention"`` for keys that need it.
        limit: the number of keys per controller.
        trusted: whether the messages of errors, which are those of your code, and values of fields are included.
    """
    selected = [each for each in process.controllers() if query.get("controller", each.name) == each.name]
    return KeysDocument(
        now=process.clock.now(),
        role=process.role(),
        shard=process.shard,
        waits=tuple(
            WaitReport(text=redact(each.text) if trusted else each.what, normal=each.normal) for each in process.waits()
        ),
        controllers=tuple(
            _ControllerReader(each, process.clock, trusted=trusted).report(query, limit) for each in selected
        ),
    )


class _ControllerReader:
    """Reads the report of one controller."""

    def __init__(self, controller: Controller, clock: Clock, *, trusted: bool) -> None:
        self._controller = controller
        self._history = controller.history
        self._now = clock.now()
        self._trusted = trusted
        self._unhealthy = controller.health.unhealthy()

    def report(self, query: Mapping[str, str], limit: int) -> ControllerReport:
        """Return the report with the selected keys."""
        controller, resource, full = self._controller, self._controller.resource, "name" in query
        statistics, keys = controller.statistics(), self._keys(query)
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
            unhealthy=len(self._unhealthy),
            attention=tuple(self._attention_of_workers(statistics)),
            keys=tuple(self._key(key, rows, full=full) for key, rows in keys[:limit]),
            keys_failing=sum(self._is_failing(rows) for _, rows in keys),
            keys_left_out=max(0, len(keys) - limit),
            keys_forgotten=self._history.dropped,
        )

    def _keys(self, query: Mapping[str, str]) -> list[tuple[Request, list[EndedReconcile]]]:
        """Return the selected keys and their rows in the history, the most interesting ones first."""
        namespace, name = query.get("namespace"), query.get("name")
        search, state = query.get("search", "").lower(), query.get("state", "")
        if name is not None and namespace is not None and not state:
            key = Request(name, namespace or None)
            return [(key, self._history.rows(key))]
        known: dict[Request, list[EndedReconcile]] = {key: [] for key in self._controller.queue.keys()}  # noqa: SIM118 - a queue is not a dict
        known |= {key: [] for key in self._unhealthy}
        known |= self._history.keys()
        selected = [
            (key, rows)
            for key, rows in known.items()
            if name in (None, key.name)
            and namespace in (None, key.namespace or "")
            and search in str(key).lower()
            and self._has_state(key, rows, state)
        ]
        return sorted(selected, key=lambda each: (*self._rank(*each), str(each[0])))

    def _has_state(self, key: Request, rows: Sequence[EndedReconcile], state: str) -> bool:
        if state in ("", "failing"):
            return not state or self._is_failing(rows)
        if state == "attention":
            return self._needs_attention(key, rows)
        found = state_of(self._controller.queue.explain(key), remembered=bool(rows))
        return found not in ("idle", "unknown") if state == "queued" else found == state

    def _rank(self, key: Request, rows: Sequence[EndedReconcile]) -> tuple[int, float]:
        """Return a sort key: what needs attention first, then what was reconciled most often in the shortest time."""
        order = 0 if self._is_failing(rows) else 1 if self._needs_attention(key, rows) else 2
        if not rows:
            return order + (order == 2), 0.0
        elapsed = rows[-1].since - rows[0].since
        return order, -round(len(rows) / (1.0 + elapsed), 3)

    def _key(self, key: Request, rows: Sequence[EndedReconcile], *, full: bool) -> KeyReport:
        found = self._controller.explain(key, rows=rows if full else rows[-1:])
        rate = self._history.rate(key, rows)

        def changes(given: Sequence[ObjectChange]) -> tuple[ChangeReport, ...]:  # none if many keys are asked for
            return tuple(change_report(each, trusted=self._trusted) for each in given) if full else ()

        return KeyReport(
            namespace=key.namespace,
            name=key.name,
            state=found.state,
            waits_for=found.waits_for,
            in_progress_seconds=found.in_progress,
            stuck=self._is_stuck(found.in_progress),
            place=found.place,
            current_reasons=tuple(sorted(found.current_reasons)),
            current_changes=changes(found.current_changes),
            ready_seconds=found.ready,
            due_in_seconds=found.due,
            due=None if found.due is None else self._now + timedelta(seconds=found.due),
            next_reasons=tuple(sorted(found.next_reasons)),
            next_changes=changes(found.next_changes),
            failures=found.failures,
            reconciles_per_minute=rate.per_minute,
            reasons=rate.reasons,
            own_writes=self._own_writes(found) if rate.per_minute >= _HOT else (),
            attention=tuple(self._attention(found, rows, rate)),
            cached=found.exists,
            cached_version=None if found.cached_version is None else str(found.cached_version),
            observed_version=None if found.observed_version is None else str(found.observed_version),
            warnings=found.warnings,
            status=self._status(key) if full and self._trusted else None,
            unsaved_status=found.unsaved,
            runs=tuple(self._run(run, changes(run.changes)) for run in reversed(found.runs)),
        )

    def _own_writes(self, found: KeyExplanation) -> tuple[str, ...]:
        own = (self._controller.field_manager,)
        fields = [field for run in found.runs[-1:] for change in run.changes for field in change.fields()[0]]
        return tuple(field.path for field in fields if field.managers == own)

    def _status(self, key: Request) -> JSONObject | None:
        """Return the status of an object in the cache, without secrets; None if it has none that can be read."""
        cached = self._controller.health.get(key)
        try:
            status = None if cached is None else cached.decode().get("status")
            found = msgspec.json.decode(redact(msgspec.json.encode(status).decode()))
        except (ReconcilerError, msgspec.MsgspecError, AttributeError):
            return None
        return found if isinstance(found, dict) else None

    def _run(self, run: RunExplanation, changes: tuple[ChangeReport, ...]) -> RunReport:
        error = run.failure
        if error is not None and not self._trusted:
            error = msgspec.structs.replace(error, message=None)
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
            error=error,
        )

    def _is_failing(self, rows: Sequence[EndedReconcile]) -> bool:
        return bool(rows) and rows[-1].ending.failure is not None

    def _is_stuck(self, seconds: float | None) -> bool:
        limit = self._controller.stuck_after
        return seconds is not None and limit is not None and seconds >= limit

    def _is_in_loop(self, key: Request, rows: Sequence[EndedReconcile]) -> bool:
        in_loop = bool(rows) and self._controller.tight_loops.is_in_loop(key)
        return in_loop and self._history.age(rows[-1]) < _LOOP_PAUSE

    def _needs_attention(self, key: Request, rows: Sequence[EndedReconcile]) -> bool:
        return (
            self._is_failing(rows)
            or key in self._unhealthy
            or bool(self._history.warnings(key))
            or self._is_in_loop(key, rows)
            or self._is_stuck(self._controller.queue.explain(key).in_progress)
        )

    def _attention(self, found: KeyExplanation, rows: Sequence[EndedReconcile], rate: KeyRate) -> Iterator[str]:
        """Yield why a key needs attention, beside the error of its latest reconcile, which is told elsewhere."""
        if self._is_stuck(found.in_progress):
            yield f"stuck for {human_duration(found.in_progress or 0.0)} at {found.place}"
        yield from found.warnings
        if self._is_in_loop(found.request, rows):
            yield f"in a tight loop: {rate_text(rate.per_minute)}, because of {reasons_text(rate.reasons)}"
        condition = self._unhealthy.get(found.request)
        if condition is not None:
            message = f": {redact(condition.message)}" if condition.message and self._trusted else ""
            yield f"{condition} for {since_text(condition.last_transition_time, self._now)}{message}"

    def _attention_of_workers(self, figures: ControllerStatistics) -> Iterator[str]:
        """Yield why the workers need attention."""
        queue = self._controller.queue
        if figures.active < figures.workers or not figures.queue.ready:
            return
        waits = [queue.explain(key).ready or 0.0 for key in islice(queue.keys(), _EXAMINED)]
        if max(waits, default=0.0) >= _SATURATED:
            yield (
                f"all {figures.workers} workers are busy, the longest for "
                f"{human_duration(figures.queue.longest_in_progress)}; keys that are ready: {figures.queue.ready}, the "
                f"first for {human_duration(max(waits))}. Find out what is slow, or raise workers="
            )


def rate_text(per_minute: float) -> str:
    """Return a rate for people: ``"12 per second"`` or ``"4.5 per minute"``."""
    return f"{per_minute / 60:,.1f} per second" if per_minute >= 60 else f"{per_minute:,.1f} per minute"


def reasons_text(reasons: Mapping[str, int]) -> str:
    """Return reasons with their counts."""
    return ", ".join(f"{reason} ×{count}" for reason, count in reasons.items())


def since_text(time: object, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was, for people."""
    try:
        return human_duration(max(0.0, (now - parse_time(str(time))).total_seconds()))
    except ValueError:
        return "an unknown time"
