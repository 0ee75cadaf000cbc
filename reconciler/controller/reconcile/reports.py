"""Reports of reconciles: counters, metrics and spans; log lines and Events on the object if they fail.

The log lines are complete once per error, and few while nothing changes.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler._core.lru import LRU
from reconciler._core.user_code import FAILURES, log_metrics_failure, report
from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.observers import ControllerMetrics, ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.reconcile.watchdogs import is_foreign
from reconciler.controller.result import Completion, error_message
from reconciler.controller.wake import reasons
from reconciler.controller.wake.handlers import reference_to
from reconciler.errors import ReconcilerError, TerminalError, describe_error, error_text
from reconciler.events import EventRecorder
from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import InvalidObject
from reconciler.status import StatusError
from reconciler.status.recording import StatusMetrics
from reconciler.telemetry.tracing import is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


_MAX_REASONS, _OTHER_REASONS = 25, "exceeded_cardinality_limit"
"""Different reasons that are counted, and what further ones, of `WorkQueue.add`, are counted as."""


class Outcomes(ReconcileObserver):
    """The counters of reconciles since the start: plain integers, read by `Controller.statistics`.

    Args:
        metrics: receives the duration of each reconcile that ended, unless the shutdown cancelled it; None for none.
    """

    def __init__(self, metrics: ControllerMetrics | None) -> None:
        self._observe = None if metrics is None else metrics.observe_reconcile_duration
        self.reconciles = 0
        self.reasons: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.terminal = 0
        self.timed_out = 0
        self.panicked = 0
        self.cancelled = 0

    def ended(self, reconcile: Reconcile, /) -> None:
        """Count a reconcile."""
        completion = reconcile.completion
        if completion is None:
            self.cancelled += 1
            return
        self.reconciles += 1
        self.results[completion.result] += 1
        self.terminal += completion.terminal
        self.timed_out += completion.timed_out
        self.panicked += completion.panicked
        for word in reasons.words(reconcile.run.reasons):
            self.reasons[word if word in self.reasons or len(self.reasons) < _MAX_REASONS else _OTHER_REASONS] += 1
        if self._observe is not None:
            try:
                self._observe(reconcile.seconds)
            except FAILURES:
                log_metrics_failure(self._observe)


class Spans(ReconcileObserver):
    """The spans of reconciles, while a tracer provider is set.

    A span is called ``reconcile <controller>`` and is the parent of the spans inside the reconcile, including the
    requests of its client. Its attributes are ``reconciler.controller``, ``reconciler.id``, ``reconciler.reasons``,
    ``reconciler.attempt``, ``k8s.namespace.name``, ``k8s.object.name``, and ``reconciler.result`` or
    ``reconciler.requeue_after`` (seconds). An exception is recorded, and sets the status ERROR.

    Args:
        tracer: starts the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begun(self, reconcile: Reconcile, /) -> None:
        """Start the span, and make it the current one of the reconcile's context."""
        if not is_tracing():
            return
        from opentelemetry import context, trace

        reconcile.status_metrics = _TracedStatus(reconcile.status_metrics)
        span = self._tracer.start_span(f"reconcile {reconcile.controller}", attributes=_attributes(reconcile.run))
        reconcile.span = span
        context.attach(trace.set_span_in_context(span))

    def ended(self, reconcile: Reconcile, /) -> None:
        """End the span."""
        span = reconcile.span
        if span is None:
            return
        completion = reconcile.completion
        if completion is not None and completion.error is not None:
            from opentelemetry.trace import StatusCode

            with contextlib.suppress(Exception):  # of an error without a text
                span.record_exception(completion.error)
            span.set_status(StatusCode.ERROR, describe_error(completion.error))
            span.set_attribute("reconciler.result", "terminal_error" if completion.terminal else "error")
        elif completion is not None:
            span.set_attribute("reconciler.result", completion.result)
            if completion.outcome is not None and completion.outcome.requeue_after is not None:
                span.set_attribute("reconciler.requeue_after", completion.outcome.requeue_after)
        span.end()


class _TracedStatus:
    """Status metrics that add a span event for each flush.

    It is called ``status flush``; its attributes are ``reconciler.status.written``, ``…suppressed``, ``…conflicts``,
    ``…replays`` and ``…fields``.
    """

    def __init__(self, metrics: StatusMetrics | None) -> None:
        self._metrics = metrics

    def flushed(self, **figures: Any) -> None:
        """Called after each flush."""
        if self._metrics is not None:
            report(self._metrics.flushed, **figures)
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        if span.is_recording():  # a flush can outlive its reconcile, and a span that has ended accepts nothing
            del figures["seconds"]
            span.add_event("status flush", {f"reconciler.status.{name}": value for name, value in figures.items()})


def _attributes(run: ReconcileRun) -> dict[str, str | int | float | list[str]]:
    attributes: dict[str, str | int | float | list[str]] = {
        "k8s.object.name": run.request.name,
        "reconciler.controller": run.controller,
        "reconciler.id": run.reconcile_id,
        "reconciler.reasons": sorted(run.reasons),
        "reconciler.attempt": run.attempt,
    }
    if run.request.namespace is not None:
        attributes["k8s.namespace.name"] = run.request.namespace
    return attributes


_log = logging.getLogger("reconciler.controller")

FIRST_REPEAT = 10.0
"""Seconds before a key that keeps failing with the same error is logged again; doubled each time."""

REPEAT = 300.0
"""Seconds after which an error is logged again at the latest, with its traceback."""

_MAX_KEYS = 10_000
_MAX_ERRORS = 1_000
_MAX_TEXT = 500
_MAX_FRAMES = 50
_MAX_DEPTH = 4
_VARIABLE = re.compile(r"""'[^'\n]*'|"[^"\n]*"|\b[0-9a-fA-F-]*\d[\w.:-]*""")


class _Failing(msgspec.Struct, gc=False):
    """A key that fails: the hash of the error, the number of failures, and when the next one is logged."""

    error: int  # the error itself has its stack, which would be stored once per key
    failures: int
    next_log: float
    delay: float = FIRST_REPEAT


class FailureLog(ReconcileObserver):
    """The log of the failed reconciles of one controller.

    An error is its type, where it was raised, and its text without names and numbers. The first failure with an error
    is logged with its traceback, and again after five minutes; an error of this library without any of your code in
    its traceback is one line. In between, each key that fails with it is logged in one line. Further failures of the
    same key with the same error are counted, and logged after 10 s, 20 s, 40 s and so on; the others are logged at
    DEBUG.

    Args:
        clock: source of monotonic time.
        blocked: returns whether only the status write of a key is retried, because the server refuses it.
    """

    def __init__(self, *, clock: Clock, blocked: Callable[[Request], bool]) -> None:
        self._clock = clock
        self._blocked = blocked
        self._failing: LRU[Request, _Failing] = LRU(_MAX_KEYS)
        self._traced: LRU[Hashable, float] = LRU(_MAX_ERRORS)  # when an error was logged with its traceback

    def forgotten(self, key: Request, /) -> None:
        """Forget the failures of a key."""
        self._failing.pop(key, None)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Log a reconcile that ended: at DEBUG unless it failed."""
        completion = reconcile.completion
        if completion is None:
            return
        if completion.error is not None:
            self.report(reconcile.run, completion, completion.error)
            return
        if self._failing:
            self._failing.pop(reconcile.request, None)
        if _log.isEnabledFor(logging.DEBUG):
            outcome, fields = completion.outcome, reconcile.run.log_fields()
            _log.debug("reconciled in %.3f s: %s", reconcile.seconds, outcome, extra=fields)

    def report(self, run: ReconcileRun, completion: Completion, error: Exception) -> None:
        """Log a reconcile that failed."""
        now = self._clock.monotonic()
        identity = _identity(error, run.request)
        traced = self._is_due(identity, now)
        failures, logged = self._count(run.request, identity, now)
        _log.log(
            logging.ERROR if traced or logged else logging.DEBUG,
            "%s failed%s on %s%s and is %s: %s",
            run.controller,
            " again" if failures > 1 else "",
            run.request,
            f" ({failures} times, same error)" if failures > 1 else "",
            self._what_follows(run.request, completion),
            describe_error(error),
            exc_info=error if traced and not (isinstance(error, ReconcilerError) and is_foreign(error)) else None,
            extra=run.log_fields(),
        )

    def _what_follows(self, key: Request, completion: Completion) -> str:
        if completion.terminal:
            return "not retried"
        if self._blocked(key):
            return "not reconciled until its status can be saved, which is retried with backoff, or its spec changes"
        return "retried with backoff"

    def _is_due(self, identity: Hashable, now: float) -> bool:
        """Return whether the traceback of an error must be logged, and note that it is."""
        at = self._traced.get(identity)
        if at is not None and now - at < REPEAT:
            return False
        self._traced[identity] = now
        return True

    def _count(self, key: Request, identity: Hashable, now: float) -> tuple[int, bool]:
        """Count a failure of a key; return the number of failures with this error, and whether to log this one."""
        failing, error = self._failing.get(key), hash(identity)
        if failing is None or failing.error != error:
            self._failing[key] = _Failing(error, 1, now + FIRST_REPEAT)
            return 1, True
        failing.failures += 1
        if now < failing.next_log:
            return failing.failures, False
        failing.delay = min(2 * failing.delay, REPEAT)
        failing.next_log = now + failing.delay
        return failing.failures, True


def _identity(error: BaseException, key: Request, depth: int = _MAX_DEPTH) -> Hashable:
    """Return what makes an error the same one as another: its type, stack, text without names and numbers, causes."""
    text = error_text(error)[:_MAX_TEXT]
    if key.name and key.name in text:
        text = re.sub(rf"(?<![A-Za-z]){re.escape(key.name)}(?![A-Za-z])", "#", text)
    inner: list[BaseException] = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    if error.__cause__ is not None:
        inner.append(error.__cause__)
    causes = tuple(_identity(each, key, depth - 1) for each in inner[:_MAX_DEPTH]) if depth else ()
    return type(error), _stack(error), _VARIABLE.sub("#", text), causes


def _stack(error: BaseException) -> tuple[tuple[str, int | None], ...]:
    lines = []
    trace = error.__traceback__
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return tuple(lines[-_MAX_FRAMES:])


FAILED = "ReconcileFailed"
"""The reason of the Warning Event."""

SUCCEEDED = "ReconcileSucceeded"
"""The reason of the Normal Event that follows when the object is reconciled again."""

FAILURES_TO_REPORT = 3
"""Failures in a row that are worth an Event: one or two are mostly a conflict, or a cache that is behind."""

_INTERVAL = 60.0
"""Seconds between two Events of one object, so that an outage of something that all objects need is not a flood."""


class _Row(msgspec.Struct, gc=False):
    """Failures in a row of one object.

    Attributes:
        uid: of the object.
        failures: their number.
        reported_at: monotonic second of the latest Event; None if there was none.
        reported: the hash of its message.
    """

    uid: str
    failures: int = 0
    reported_at: float | None = None
    reported: int = 0


class FailureEvents(ReconcileObserver):
    """A recorder of Warning Events on objects whose reconciles fail, and of Normal ones when they succeed again.

    The third failure in a row is reported, and a terminal error, a timeout or a refused status at once; while it
    continues, once a minute. A terminal error is not retried, so one with another text than the latest Event is
    reported at once as well. Keys without an object in the cache are ignored. An object that does not match its
    model has an Event of its own (``InvalidObject``), which does not quote its values as the exception may.

    Args:
        gvk: the primary kind.
        events: records the Events.
        stored: returns the primary object of a key in the informer's store, or None.
        clock: source of monotonic time.
    """

    def __init__(
        self,
        gvk: GroupVersionKind,
        *,
        events: EventRecorder,
        stored: Callable[[Request], CachedObject | None],
        clock: Clock,
    ) -> None:
        self._gvk = gvk
        self._events = events
        self._stored = stored
        self._clock = clock
        self._failing: dict[Request, _Row] = {}

    def ended(self, reconcile: Reconcile, /) -> None:
        """Record a failure, or the first success after failures.

        An object that has taken the name of the reconciled one since is not affected.
        """
        completion, key = reconcile.completion, reconcile.request
        if reconcile.warnings and (obj := self._stored(key)) is not None:
            for reason, message in reconcile.warnings:
                self._events.warning(reference_to(self._gvk, obj), reason, message)
        if completion is None:
            return
        if completion.error is not None:
            if not _has_event(completion.error):
                self._note_failure(key, completion, completion.error, reconcile.uid)
        elif self._failing:
            row = self._failing.pop(key, None)
            if row is not None and row.reported_at is not None:
                self._record_success(key, row)

    def forgotten(self, key: Request, /) -> None:
        """Forget the failures of an object that is gone."""
        self._failing.pop(key, None)

    def _note_failure(self, key: Request, completion: Completion, error: Exception, uid: str | None) -> None:
        obj = self._stored(key)
        if obj is None or (uid is not None and uid != obj.uid):
            self._failing.pop(key, None)
            return
        row = self._failing.get(key)
        if row is None or row.uid != obj.uid:
            row = self._failing[key] = _Row(obj.uid)
        row.failures += 1
        now = self._clock.monotonic()
        at_once = completion.terminal or completion.timed_out or _is_refused(error)
        if row.failures < FAILURES_TO_REPORT and not at_once:
            return
        message = error_message(error)
        is_last_word = completion.terminal and row.reported != hash(message)
        if row.reported_at is None or now - row.reported_at >= _INTERVAL or is_last_word:
            row.reported_at, row.reported = now, hash(message)
            self._events.warning(reference_to(self._gvk, obj), FAILED, message)

    def _record_success(self, key: Request, row: _Row) -> None:
        obj = self._stored(key)
        if obj is not None and obj.uid == row.uid:
            self._events.normal(reference_to(self._gvk, obj), SUCCEEDED, "reconciled without an error again")


def _has_event(error: Exception) -> bool:
    """Return whether the error is that of an invalid primary object, which `ResourceReconciler` reports."""
    return isinstance(error, InvalidObject) and isinstance(error, TerminalError)


def _is_refused(error: Exception) -> bool:
    return isinstance(error, StatusError) and not error.retryable
