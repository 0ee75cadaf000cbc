"""The OpenTelemetry tracer. Without the package ``opentelemetry-api``, tracing is disabled and costs nothing."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler._version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@cache
def tracer() -> Tracer | None:
    """Return the tracer ``reconciler``, or None if the package opentelemetry-api is not installed.

    The tracer uses the process's tracer provider, even if it is set after this call. Until then its spans are no-ops;
    see `is_tracing`.
    """
    trace = _trace()
    return None if trace is None else trace.get_tracer("reconciler", __version__)


def is_tracing() -> bool:
    """Return whether the process has a tracer provider; without one a span still costs time and records nothing."""
    trace = _trace()
    if trace is None or (getattr(trace, "_TRACER_PROVIDER", trace) is None and not _is_set_by_environment()):
        return False  # called several times per reconcile: get_tracer_provider would read the environment each time
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _is_set_by_environment() -> bool:
    return "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


@cache
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace
