"""Find OpenTelemetry's tracer, if there is one. Without the package nothing is traced, and nothing is spent on it."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler._version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["is_tracing", "tracer"]


@cache
def tracer() -> Tracer | None:
    """Return the tracer ``reconciler``, or None when the package opentelemetry-api is not installed.

    It follows the provider that the process sets, also after this call. While none is set, spans are empty; see
    `is_tracing`.
    """
    trace = _trace()
    return None if trace is None else trace.get_tracer("reconciler", __version__)


def is_tracing() -> bool:
    """Say whether the process has set a provider: while there is none, a span costs much and tells nobody."""
    trace = _trace()
    if trace is None or (getattr(trace, "_TRACER_PROVIDER", trace) is None and not _is_chosen_by_the_environment()):
        return False  # asked several times a reconcile, so not by get_tracer_provider, which reads the environment
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _is_chosen_by_the_environment() -> bool:
    return "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


@cache
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace
