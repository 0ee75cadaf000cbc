"""Put a span around each reconcile, and what became of its status on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reconciler.controller.reconcile.cycle import current_run
from reconciler.controller.reconcile.outcome import is_terminal
from reconciler.controller.result import Result
from reconciler.meta import Request
from reconciler.status import StatusMetrics
from reconciler.telemetry import is_tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["traced", "traced_status"]

Reconcile = Callable[[Request], Awaitable[object]]


def traced(reconcile: Reconcile, tracer: Tracer | None) -> Reconcile:
    """Return a reconcile that has a span of its own, or the one that was given when there is no tracer.

    The span is called ``reconcile <controller>`` and is the parent of what the reconcile traces itself, the requests of
    its client included. Its attributes are ``reconciler.controller``, ``reconciler.id``, ``reconciler.reasons``,
    ``reconciler.attempt``, ``k8s.namespace.name``, ``k8s.object.name``, and ``reconciler.result`` or
    ``reconciler.requeue_after`` (seconds). An exception is recorded, and makes its status ERROR.
    """
    if tracer is None:
        return reconcile

    async def run(request: Request) -> object:
        if not is_tracing():
            return await reconcile(request)
        running = current_run()
        name = running.controller if running is not None else "unknown"
        attributes: dict[str, str | int | float | list[str]] = {"k8s.object.name": request.name}
        if request.namespace is not None:
            attributes["k8s.namespace.name"] = request.namespace
        if running is not None:
            attributes["reconciler.controller"] = name
            attributes["reconciler.id"] = running.reconcile_id
            attributes["reconciler.reasons"] = sorted(running.reasons)
            attributes["reconciler.attempt"] = running.attempt
        with tracer.start_as_current_span(f"reconcile {name}", attributes=attributes) as span:
            try:
                outcome = await reconcile(request)
            except Exception as error:
                span.set_attribute("reconciler.result", "terminal_error" if is_terminal(error) else "error")
                raise
            span.set_attribute("reconciler.result", _word(outcome))
            if isinstance(outcome, Result) and outcome.requeue_after is not None:
                span.set_attribute("reconciler.requeue_after", outcome.requeue_after)
            return outcome

    return run


def traced_status(metrics: StatusMetrics | None, tracer: Tracer | None) -> StatusMetrics | None:
    """Return metrics that note each flush on the span under way too, or those that were given without a tracer.

    The span event is called ``status flush``; its attributes are ``reconciler.status.written``, ``…suppressed``,
    ``…conflicts``, ``…replays`` and ``…fields``.
    """
    return metrics if tracer is None else _TracedStatus(metrics)


class _TracedStatus:
    def __init__(self, metrics: StatusMetrics | None) -> None:
        self._metrics = metrics

    def flushed(
        self, *, written: bool, suppressed: bool, conflicts: int, replays: int, fields: int, seconds: float
    ) -> None:
        """Hear of one flush."""
        if self._metrics is not None:
            self._metrics.flushed(
                written=written,
                suppressed=suppressed,
                conflicts=conflicts,
                replays=replays,
                fields=fields,
                seconds=seconds,
            )
        if not is_tracing():
            return
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        if span.is_recording():  # a flush can outlive its reconcile, and what has ended takes no more
            told: dict[str, bool | int] = {"written": written, "suppressed": suppressed}
            told |= {"conflicts": conflicts, "replays": replays, "fields": fields}
            span.add_event("status flush", {f"reconciler.status.{name}": value for name, value in told.items()})


def _word(outcome: object) -> str:
    if not isinstance(outcome, Result):
        return "success"
    if outcome.again:
        return "requeue"
    return "success" if outcome.requeue_after is None else "requeue_after"
