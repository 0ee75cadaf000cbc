"""The adapter for an ApiClient of ``kubernetes_asyncio``, which is an extra of this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.client.transport.http11 import MAX_BODY
from reconciler.client.transport.network import proxy_from_environment
from reconciler.client.transport.pool import MAX_STREAMS, Budgets
from reconciler.client.transport.transport import HTTPTransport

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

__all__ = ["KubernetesAsyncioTransport"]


class KubernetesAsyncioTransport(HTTPTransport):
    """A transport to the server of an ApiClient, with its credentials.

    Address, certificates, proxy, credentials and default headers are the ApiClient's; the connections are this
    transport's own. The Authorization header is taken from the configuration for each request, so that its
    ``refresh_api_key_hook`` can renew it. No request is sent twice. The ApiClient remains yours to close.

    Args:
        api_client: made inside the running event loop.
        connect_timeout: seconds to make a connection, TLS included; 10 by default.
        max_streams: watches that may be open at once; 1024 by default, but no more than three quarters of
            ``Configuration.connection_pool_maxsize`` (100 by default).
        max_response_bytes: the largest decompressed response other than a stream; 256 MiB by default.

    Raises:
        ConfigurationError: time is virtual, or the proxy's address is invalid.
    """

    def __init__(
        self,
        api_client: ApiClient,
        *,
        connect_timeout: float = 10.0,
        max_streams: int = MAX_STREAMS,
        max_response_bytes: int = MAX_BODY,
    ) -> None:
        configuration: Any = api_client.configuration
        headers = {name: value for name, value in api_client.default_headers.items() if name.lower() != "user-agent"}
        super().__init__(
            configuration,
            headers=headers,
            connect_timeout=connect_timeout,
            max_response_bytes=max_response_bytes,
            budgets=Budgets.within(configuration.connection_pool_maxsize, max_streams),
            proxy=configuration.proxy or proxy_from_environment(str(configuration.host)),
        )
