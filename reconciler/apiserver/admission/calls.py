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
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.wire import JSONObject

__all__ = ["CallFailed", "WebhookCaller"]

_JSON = {"content-type": "application/json"}
_LARGEST = 16 * 1024 * 1024
"""Bytes of a response that are read: more than five objects of the largest size that etcd accepts."""


class CallFailed(Exception):
    """A webhook could not be called; the message says why, in the words of the real server."""

    def __str__(self) -> str:
        return f"failed to call webhook: {super().__str__()}"


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
        timeout = webhook.document.get("timeoutSeconds") or 10
        address = webhook_address(client)
        request = HTTPRequest("POST", address.path, (("timeout", f"{timeout}s"),), _JSON, body)
        try:
            async with asyncio.timeout(timeout):
                response = await self._post(client, address, request)
        except TimeoutError:
            problem = "context deadline exceeded"
        except (OSError, ReconcilerError) as error:
            problem = str(error)
        else:
            if response.status == 200:
                return response.body
            text = response.body[:1024].decode(errors="replace").strip()
            raise CallFailed(f"the server responded with status {response.status}: {quoted(text)}")
        raise CallFailed(f'Post "{address.url}?timeout={timeout}s": {problem}')

    async def _post(self, client: JSONObject, address: WebhookAddress, request: HTTPRequest) -> HTTPResponse:
        transport = self._in_process.get(address.origin)
        if transport is not None:
            return await transport.send(request)
        if address.service:
            raise OSError(f'service "{address.service}" not found')
        if getattr(self._clock, "virtual", False):
            raise CallFailed(f"{address.origin} cannot be called under virtual time: use connect_webhooks()")
        return await _post_over_sockets(address.url, request, str(client.get("caBundle") or ""))


async def _post_over_sockets(url: str, request: HTTPRequest, bundle: str) -> HTTPResponse:
    """Send a review over sockets; the server's certificate must be signed by the bundle's CAs.

    Raises:
        OSError: the webhook cannot be reached.
        CallFailed: the bundle is not valid, or the response is too large.
    """
    from aiohttp import ClientError, ClientSession

    try:
        context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
    except (ssl.SSLError, ValueError) as error:
        raise CallFailed(f"the caBundle is not valid: {error}") from None
    # As in Go: a bundle may contain the certificate of the server itself, as that of envtest does.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        async with (
            ClientSession(auto_decompress=False) as session,
            session.post(
                url, params=request.query, data=request.body, headers=_JSON, ssl=context, allow_redirects=False
            ) as response,
        ):
            content = await response.content.read(_LARGEST + 1)
            while len(content) <= _LARGEST and not response.content.at_eof():
                content += await response.content.read(_LARGEST + 1 - len(content))
    except ClientError as error:
        raise OSError(str(error)) from None
    if len(content) > _LARGEST:
        raise CallFailed(f"the response is larger than {_LARGEST} bytes")
    return HTTPResponse(response.status, body=content)
