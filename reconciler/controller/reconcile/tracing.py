"""OpenTelemetry spans: one per reconcile, with its status flushes as span events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler._core.hooks import report
from reconciler.controller.reconcile.cycle import ReconcileCycle, ReconcileRun
from reconciler.controller.reconcile.worker import Reconcile
from reconciler.controller.result import Result, is_terminal, result_of
from reconciler.status import StatusMetrics
from reconciler.telemetry import is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["traced"]


def traced(reconcile: Reconcile, tracer: Tracer | None) -> Reconcile:
    """Return a reconcile with a span, or the given one without a tracer.

    The span is called ``reconcile <controller>`` and is the parent of the spans inside the reconcile, including the
    requests of its client. Its attributes are ``reconciler.controller``, ``reconciler.id``, ``reconciler.reasons``,
    ``reconciler.attempt``, ``k8s.namespace.name``, ``k8s.object.name``, and ``reconciler.result`` or
    ``reconciler.requeue_after`` (seconds). An exception is recorded, and sets the status ERROR.
    """
    if tracer is None:
        return reconcile

    async def in_span(cycle: ReconcileCycle) -> object:
        cycle.status_metrics = _TracedStatus(cycle.status_metrics)
        name = f"reconcile {cycle.controller}"
        with tracer.start_as_current_span(name, attributes=_attributes(cycle.run)) as span:
            try:
                outcome = await reconcile(cycle)
            except Exception as error:
                span.set_attribute("reconciler.result", "terminal_error" if is_terminal(error) else "error")
                raise
            span.set_attribute("reconciler.result", result_of(outcome))
            if isinstance(outcome, Result) and outcome.requeue_after is not None:
                span.set_attribute("reconciler.requeue_after", outcome.requeue_after)
            return outcome

    return lambda cycle: in_span(cycle) if is_tracing() else reconcile(cycle)


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
