"""Find OpenTelemetry's tracer, if there is one. Without the package nothing is traced, and nothing is spent on it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from reconciler._version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["tracer"]


@cache
def tracer() -> Tracer | None:
    """Return the tracer ``reconciler``, or None when the package opentelemetry-api is not installed.

    It follows the provider that the process sets, also after this call. While none is set, spans are empty.
    """
    try:
        from opentelemetry.trace import get_tracer
    except ImportError:
        return None
    return get_tracer("reconciler", __version__)
