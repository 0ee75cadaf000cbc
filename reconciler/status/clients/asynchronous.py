"""Write a status over kubernetes_asyncio or kubernetes.aio, whose ApiClients differ in how a raw request is made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.errors import NotSent, OutcomeUnknown, TransportError, error_text
from reconciler.meta import ResourceType
from reconciler.status.clients.official import AUTH, CONTENT_TYPES, OfficialWriter, not_sent_yet, read_answer
from reconciler.status.writer import Strategy

__all__ = ["AsyncioClientWriter"]

_NOT_SENT = {"ClientConnectorError", "ClientConnectorCertificateError", "ConnectionTimeoutError"}
"""Of aiohttp: raised before anything of the request was sent. Its other errors may come after."""


class AsyncioClientWriter(OfficialWriter):
    """Be a `StatusWriter` over an ApiClient with aiohttp below it.

    A PATCH is sent once: aiohttp repeats idempotent methods only, and so does kubernetes.aio.
    """

    async def read(self) -> dict[str, Any]:
        """Return the whole object by a consistent GET. Cancellation has no effect on the server.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        return await self._send("GET", self._requests.path(await self._served()))

    async def write(
        self, body: dict[str, Any], *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> dict[str, Any]:
        """Send a body once. A cancelled call may have been executed.

        Raises:
            APIError, NotSent, OutcomeUnknown: see `StatusWriter`.
            ConfigurationError: the server does not serve the kind.
        """
        with not_sent_yet():
            served = await self._served()
        return await self._send(
            "PATCH",
            self._requests.path(served, subresource),
            query=self._requests.query(strategy),
            headers={"Content-Type": CONTENT_TYPES[strategy]},
            body=body,
        )

    async def _served(self) -> ResourceType:
        served = self._requests.served()
        return served or self._requests.learn(await self._send("GET", self._requests.discovery_path))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        sent = {
            "query_params": list(query),
            "header_params": {"Accept": "application/json", **(headers or {})},
            "body": body,
            "auth_settings": AUTH,
        }
        try:
            async with asyncio.timeout(self.request_timeout):
                status, answered, content = await self._call(method, path, sent)
        except Exception as error:
            without_answer = _without_answer(f"{method} {path}", error)
            if without_answer is None:
                raise
            raise without_answer from error
        document, self.warnings = read_answer(f"{method} {path}", status, answered.items(), content)
        return document

    async def _call(self, method: str, path: str, sent: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        api_client = self._api_client
        if hasattr(api_client, "param_serialize"):
            response = await api_client.call_api(*await api_client.param_serialize(method, path, **sent))
        else:
            response = await api_client.call_api(path, method, **sent, _preload_content=False)
        return response.status, response.headers, await response.read()


def _without_answer(request: str, error: Exception) -> TransportError | None:
    """Say what an error of the client means for the request; None when it is no error of the network."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NOT_SENT:
        return NotSent(f"{request}: {error_text(error)}")
    if isinstance(error, OSError) or "ClientError" in names:
        return OutcomeUnknown(f"{request}: {type(error).__name__}: {error_text(error)}")
    return None
