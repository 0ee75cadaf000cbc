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

from reconciler._core import lazy_names as _lazy_names
from reconciler.client.client import Client
from reconciler.client.reads import WatchEvent
from reconciler.client.requests import FieldValidation, ListResult
from reconciler.client.retry import Retries, retry_on_conflict

if TYPE_CHECKING:
    from reconciler.client.transport import KubernetesAsyncioTransport

__all__ = [
    "Client",
    "FieldValidation",
    "KubernetesAsyncioTransport",
    "ListResult",
    "Retries",
    "WatchEvent",
    "retry_on_conflict",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name
    __getattr__ = _lazy_names(__name__, {"transport": "KubernetesAsyncioTransport"})
