"""Find OpenTelemetry's tracer, if there is one. Without the package nothing is traced, and nothing is spent on it."""

from __future__ import annotations

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
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _trace() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace
