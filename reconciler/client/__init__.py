"""A client for the Kubernetes API: verbs, patches, discovery, configuration.

Guarantees:

* Requests and responses are bytes. Generated models are never involved.
* Failures are typed (`reconciler.errors`) and contain verb, path and the server's Status.
* No request is retried that could take effect twice. Transports never retry.
* There is no I/O before ``async with``, and no import of ``kubernetes_asyncio`` or ``aiohttp``.
* Each warning of the server is logged once. Headers and bodies are never logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.client.client import Client
from reconciler.client.session.answers import InvalidItem, ListResult
from reconciler.client.session.connection import ClientStatistics
from reconciler.client.session.requests import (
    ApplyOptions,
    DeleteOptions,
    FieldValidation,
    ListOptions,
    ObjectLike,
    PatchOptions,
    PatchStrategy,
    Propagation,
    Query,
    Selector,
    WatchOptions,
    WriteOptions,
)
from reconciler.client.session.retry import Retries, retry_on_conflict
from reconciler.client.verbs.ensure import Written
from reconciler.client.verbs.watch import WatchEvent

if TYPE_CHECKING:
    from reconciler.client.transport.kubernetes_asyncio import KubernetesAsyncioTransport

__all__ = [
    "ApplyOptions",
    "Client",
    "ClientStatistics",
    "DeleteOptions",
    "FieldValidation",
    "InvalidItem",
    "KubernetesAsyncioTransport",
    "ListOptions",
    "ListResult",
    "ObjectLike",
    "PatchOptions",
    "PatchStrategy",
    "Propagation",
    "Query",
    "Retries",
    "Selector",
    "WatchEvent",
    "WatchOptions",
    "WriteOptions",
    "Written",
    "retry_on_conflict",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name

    def __getattr__(name: str) -> object:
        if name != "KubernetesAsyncioTransport":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from reconciler.client.transport.kubernetes_asyncio import KubernetesAsyncioTransport

        return KubernetesAsyncioTransport
