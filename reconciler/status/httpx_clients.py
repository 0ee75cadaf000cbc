"""Status writers over the clients that use httpx: lightkube and kr8s. Neither is imported here."""

from __future__ import annotations

import sys
from typing import Any

from reconciler.errors import NotSent, OutcomeUnknown, TransportError, describe_error, error_text
from reconciler.status.clients import (
    AsyncioClientWriter,
    BlockingClientWriter,
    OfficialRequest,
    RawResponse,
    network_errors,
)

_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError"}
"""Raised before anything of the request was sent."""


def from_httpx(request: str, error: Exception) -> TransportError | None:
    """Return what an error means for the request; None if it is not a network error."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NOT_SENT:
        return NotSent(f"{request}: {error_text(error)}")
    if isinstance(error, OSError) or names & {"TransportError", "APITimeoutError"}:
        return OutcomeUnknown(f"{request}: {describe_error(error)}")
    return None


def _raw(response: Any) -> RawResponse:
    return response.status_code, response.headers.multi_items(), response.content


def _arguments(request: OfficialRequest, seconds: float) -> dict[str, Any]:
    return {
        "params": list(request.query),
        "content": request.content,
        "headers": request.headers,
        "timeout": seconds,
    }


class AsyncLightkubeWriter(AsyncioClientWriter):
    """A `StatusWriter` over lightkube's ``AsyncClient``."""

    from_error = staticmethod(from_httpx)

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(_session(api_client).base_url)

    async def exchange(self, request: OfficialRequest) -> RawResponse:
        """Send a request once."""
        arguments = _arguments(request, self.request_timeout)
        return _raw(await _session(self._api_client).request(request.method, request.path, **arguments))


class LightkubeWriter(BlockingClientWriter):
    """A `SyncStatusWriter` over lightkube's ``Client``."""

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(_session(api_client).base_url)

    def exchange(self, request: OfficialRequest, limit: float) -> RawResponse:
        """Send a request once; it may take so many seconds."""
        with network_errors(from_httpx, request):
            return _raw(_session(self._api_client).request(request.method, request.path, **_arguments(request, limit)))


def _session(client: Any) -> Any:
    return client._client._client  # noqa: SLF001 - lightkube has no other way to send a status as it is


class AsyncKr8sWriter(AsyncioClientWriter):
    """A `StatusWriter` over kr8s's asynchronous ``Api``. It renews credentials that the server refuses."""

    from_error = staticmethod(from_httpx)

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(api_client.auth.server)

    async def exchange(self, request: OfficialRequest) -> RawResponse:
        """Send a request; it was not executed if it is repeated with other credentials."""
        return await _call(self._api_client, request, self.request_timeout)


class Kr8sWriter(BlockingClientWriter):
    """A `SyncStatusWriter` over kr8s's blocking ``Api``, which runs the asynchronous one in a thread."""

    def identify(self, api_client: Any) -> tuple[Any, str]:
        """Return the client, and the address of its server."""
        return api_client, str(api_client.auth.server)

    def exchange(self, request: OfficialRequest, limit: float) -> RawResponse:
        """Send a request; it may take so many seconds."""
        as_sync = sys.modules["kr8s._async_utils"].as_sync_func
        with network_errors(from_httpx, request):
            found: RawResponse = as_sync(_call)(self._api_client, request, limit)
            return found


async def _call(api: Any, request: OfficialRequest, seconds: float) -> RawResponse:
    parent, _, last = request.path.rpartition("/")
    arguments = _arguments(request, seconds)
    try:
        async with api.call_api(request.method, version="", base=parent, url=last, **arguments) as response:
            return _raw(response)
    except Exception as error:
        response = getattr(error, "response", None)
        if response is None:
            raise
        return _raw(response)
