"""Observers that report reconciles to metrics and to OpenTelemetry: one span each, with its flushes as span events."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from reconciler._core.cancellation import FAILURES
from reconciler._core.hooks import log_metrics_failure, report
from reconciler.controller.observers import ControllerMetrics, ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons
from reconciler.errors import describe_error
from reconciler.meta import Request
from reconciler.status.recording import StatusMetrics
from reconciler.telemetry.tracing import is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Outcomes(ReconcileObserver):
    """The counters of reconciles since the start: plain integers, read by `Controller.statistics`, and the metrics.

    Args:
        metrics: receives each reconcile that ended, unless the shutdown cancelled it.
    """

    def __init__(self, metrics: ControllerMetrics) -> None:
        self._metrics = metrics
        self._reconciled = metrics.reconciled
        self.reconciles = 0
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
        try:
            self._reconciled(
                completion.result,
                reconcile.seconds,
                reasons.words(reconcile.run.reasons),
                terminal=completion.terminal,
                timed_out=completion.timed_out,
                panicked=completion.panicked,
            )
        except FAILURES:
            log_metrics_failure(self._reconciled)

    def echo(self, _key: Request, /) -> None:
        """Count an event that was dropped."""
        report(self._metrics.echo_dropped)


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
        self._spans: dict[Request, Span] = {}  # of keys in progress

    def begun(self, reconcile: Reconcile, /) -> None:
        """Start the span, and make it the current one of the reconcile's context."""
        if not is_tracing():
            return
        from opentelemetry import context, trace

        reconcile.status_metrics = _TracedStatus(reconcile.status_metrics)
        span = self._tracer.start_span(f"reconcile {reconcile.controller}", attributes=_attributes(reconcile.run))
        self._spans[reconcile.request] = span
        context.attach(trace.set_span_in_context(span))

    def ended(self, reconcile: Reconcile, /) -> None:
        """End the span."""
        span = self._spans.pop(reconcile.request, None) if self._spans else None
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

    def flushed(
        self, *, written: bool, suppressed: bool, conflicts: int, replays: int, fields: int, seconds: float
    ) -> None:
        """Called after each flush."""
        if self._metrics is not None:
            report(
                self._metrics.flushed,
                written=written,
                suppressed=suppressed,
                conflicts=conflicts,
                replays=replays,
                fields=fields,
                seconds=seconds,
            )
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        if span.is_recording():  # a flush can outlive its reconcile, and a span that has ended accepts nothing
            attributes: dict[str, bool | int] = {"written": written, "suppressed": suppressed}
            attributes |= {"conflicts": conflicts, "replays": replays, "fields": fields}
            span.add_event("status flush", {f"reconciler.status.{name}": value for name, value in attributes.items()})


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
