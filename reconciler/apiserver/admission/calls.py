"""Calls of webhooks: in the same process, or over sockets."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping

from reconciler.apiserver.admission.webhooks import Webhook
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.webhook_address import WebhookAddress, webhook_address
from reconciler.clock import Clock
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, Transport
from reconciler.wire import JSONObject

__all__ = ["CallFailed", "WebhookCaller"]

_JSON = {"content-type": "application/json"}
_LARGEST = 16 * 1024 * 1024
"""Bytes of a response that are read: more than five objects of the largest size that etcd accepts."""


class CallFailed(Exception):
    """A webhook could not be called; the message says why, in the words of the real server."""


class WebhookCaller:
    """A caller of webhooks.

    Args:
        clock: under virtual time, only webhooks in the same process can be called.
        in_process: the webhook servers in the same process, by the origin of their URL (``https://host:port``) or by
            ``namespace/name`` of their Service.
    """

    def __init__(self, clock: Clock, in_process: Mapping[str, Transport]) -> None:
        self._clock = clock
        self._in_process = in_process

    async def call(self, webhook: Webhook, body: bytes) -> bytes:
        """Return the body of a webhook's response.

        Raises:
            CallFailed: there was no response, or its status is not 200.
        """
        client = webhook.document["clientConfig"]
        timeout = float(webhook.document.get("timeoutSeconds") or 10)
        address, limit = webhook_address(client), f"{timeout:.0f}s"
        shown = f"{address.url}?timeout={limit}"
        try:
            async with asyncio.timeout(timeout):
                status, content = await self._post(client, address, limit, body)
        except TimeoutError:
            raise CallFailed(f'failed to call webhook: Post "{shown}": context deadline exceeded') from None
        except (OSError, ReconcilerError) as error:
            raise CallFailed(f'failed to call webhook: Post "{shown}": {error}') from None
        if status != 200:
            text = content[:1024].decode(errors="replace").strip()
            raise CallFailed(f"failed to call webhook: the server responded with status {status}: {quoted(text)}")
        return content

    async def _post(self, client: JSONObject, address: WebhookAddress, limit: str, body: bytes) -> tuple[int, bytes]:
        query = (("timeout", limit),)
        transport = self._in_process.get(address.origin)
        if transport is not None:
            response = await transport.send(HTTPRequest("POST", address.path, query, _JSON, body))
            return response.status, response.body
        if address.service:
            raise CallFailed(
                f'failed to call webhook: Post "{address.url}?timeout={limit}": service "{address.service}" not found'
            )
        if getattr(self._clock, "virtual", False):
            raise CallFailed(
                f"failed to call webhook: {address.origin} cannot be called under virtual time: use connect_webhooks()"
            )
        return await _post_over_sockets(address.url, query, body, str(client.get("caBundle") or ""))


async def _post_over_sockets(
    url: str, query: tuple[tuple[str, str], ...], body: bytes, bundle: str
) -> tuple[int, bytes]:
    """Send a review over sockets; the server's certificate must be signed by the bundle's CAs.

    Raises:
        OSError: the webhook cannot be reached.
        CallFailed: the bundle is not valid, or the response is too large.
    """
    from aiohttp import ClientError, ClientSession

    try:
        context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
    except (ssl.SSLError, ValueError) as error:
        raise CallFailed(f"failed to call webhook: the caBundle is not valid: {error}") from None
    try:
        async with (
            ClientSession(auto_decompress=False) as session,
            session.post(url, params=query, data=body, headers=_JSON, ssl=context, allow_redirects=False) as response,
        ):
            content = await response.content.read(_LARGEST + 1)
            while len(content) <= _LARGEST and not response.content.at_eof():
                content += await response.content.read(_LARGEST + 1 - len(content))
    except ClientError as error:
        raise OSError(str(error)) from None
    if len(content) > _LARGEST:
        raise CallFailed(f"failed to call webhook: the response is larger than {_LARGEST} bytes")
    return response.status, content
