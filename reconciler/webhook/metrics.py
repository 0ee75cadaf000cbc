"""Metrics of webhooks, with controller-runtime's names and buckets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["WebhookMetrics"]

_BUCKETS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""10 ns to 1000 s, one bucket per decade; controller-runtime's."""

_INITIAL_CODES = ("200", "500")
"""Codes exported from the start with 0, so that the first occurrence shows in a rate; controller-runtime's."""


class WebhookMetrics:
    """The metrics of a webhook server.

    Args:
        registry: the registry for the collectors.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "controller_runtime_webhook_latency_seconds",
            "Histogram of the latency of processing admission requests",
            ["webhook"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "controller_runtime_webhook_requests",
            "Total number of admission requests by HTTP status code.",
            ["webhook", "code"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "controller_runtime_webhook_requests_in_flight",
            "Current number of admission requests being served.",
            ["webhook"],
            registry=registry,
        )
        self.panics = Counter(
            "controller_runtime_webhook_panics",
            "Total number of webhook panics: unexpected exceptions of admission webhooks",
            registry=registry,
        )
        self.conversion_panics = Counter(
            "controller_runtime_conversion_webhook_panics",
            "Total number of conversion webhook panics: exceptions of conversion functions",
            registry=registry,
        )
        self.reads = Counter(
            "certwatcher_read_certificate",
            "Total number of certificate reads",
            registry=registry,
        )
        self.read_errors = Counter(
            "certwatcher_read_certificate_errors",
            "Total number of certificate read errors",
            registry=registry,
        )

    def record_read(self, valid: bool) -> None:
        """Called when the certificate was read."""
        (self.reads if valid else self.read_errors).inc()

    def expect(self, path: str) -> None:
        """Export the metrics of a path with 0 before its first request."""
        self.latency.labels(path)
        self.in_flight.labels(path)
        for code in _INITIAL_CODES:
            self.requests.labels(path, code)
