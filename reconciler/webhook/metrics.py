"""Count what webhooks are asked, under controller-runtime's names and with its buckets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["WebhookMetrics"]

_BUCKETS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""10 ns to 1000 s, a bucket a decade: controller-runtime's."""

_LIKELY = ("200", "500")
"""Codes that are there from the beginning, so that a rate of the first one is seen; controller-runtime's."""


class WebhookMetrics:
    """Hold the metrics of a webhook server.

    Args:
        registry: where they are registered.
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
            "Total number of webhook panics: what a reviewer raised and no caller is told",
            registry=registry,
        )
        self.conversion_panics = Counter(
            "controller_runtime_conversion_webhook_panics",
            "Total number of conversion webhook panics: what a conversion raised",
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

    def expect(self, path: str) -> None:
        """Begin to count what is asked at a path, at zero."""
        self.latency.labels(path)
        self.in_flight.labels(path)
        for code in _LIKELY:
            self.requests.labels(path, code)
