"""Speak to an API server: verbs, patches, discovery, configuration.

What it promises:

* Requests and answers are bytes; generated models are never on the way.
* Failures are typed (`reconciler.errors`) and carry verb, path and the server's Status.
* Nothing is repeated that could take effect twice; transports never repeat by themselves.
* No I/O before ``async with``, and no import of ``kubernetes_asyncio`` or ``aiohttp`` before it either.
* A warning of the server is logged once. No header and no body is ever logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.client.client import Client
from reconciler.client.conflicts import retry_on_conflict
from reconciler.client.session.listing import InvalidItem, ListResult
from reconciler.client.session.requests import FieldValidation, ObjectLike, PatchStrategy, Propagation, Query, Selector
from reconciler.client.session.retry import RetryPolicy
from reconciler.client.session.session import ClientStatistics
from reconciler.client.verbs.ensure import Written
from reconciler.client.verbs.watch_stream import WatchEvent

if TYPE_CHECKING:
    from reconciler.client.transport.api_client import KubernetesAsyncioTransport

__all__ = [
    "Client",
    "ClientStatistics",
    "FieldValidation",
    "InvalidItem",
    "KubernetesAsyncioTransport",
    "ListResult",
    "ObjectLike",
    "PatchStrategy",
    "Propagation",
    "Query",
    "RetryPolicy",
    "Selector",
    "WatchEvent",
    "Written",
    "retry_on_conflict",
]


def __getattr__(name: str) -> object:
    if name != "KubernetesAsyncioTransport":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reconciler.client.transport.api_client import KubernetesAsyncioTransport

    return KubernetesAsyncioTransport
