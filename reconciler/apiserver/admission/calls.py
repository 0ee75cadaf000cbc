"""Calls of webhooks: in the same process, or over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.apiserver.admission.webhooks import Webhook
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.requests.webhooks import WebhookAddress, post_to_webhook, webhook_address
from reconciler.clock import Clock
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.wire import JSONObject

__all__ = ["CallFailed", "WebhookCaller"]


class CallFailed(Exception):
    """A webhook could not be called; the message says why, in the words of the real server."""

    def __str__(self) -> str:
        return f"failed to call webhook: {super().__str__()}"


@dataclass(frozen=True, slots=True)
class WebhookCaller:
    """A caller of webhooks.

    Attributes:
        clock: under virtual time, only webhooks in the same process can be called.
        in_process: the webhook servers in the same process, by the origin of their URL (``https://host:port``) or by
            ``namespace/name`` of their Service.
    """

    clock: Clock
    in_process: Mapping[str, Transport]

    async def call(self, webhook: Webhook, body: bytes) -> bytes:
        """Return the body of a webhook's response.

        Raises:
            CallFailed: there was no response, or its status is not 200.
        """
        client = webhook.document["clientConfig"]
        timeout = webhook.document.get("timeoutSeconds") or 10
        address = webhook_address(client)
        try:
            async with asyncio.timeout(timeout):
                response = await self._post(client, address, address.request(body, timeout))
        except TimeoutError:
            problem = "context deadline exceeded"
        except (OSError, ReconcilerError) as error:
            problem = str(error)
        else:
            if response.status == 200:
                return response.body
            text = response.body[:1024].decode(errors="replace").strip()
            raise CallFailed(f"the server responded with status {response.status}: {quoted(text)}")
        raise CallFailed(address.failure(timeout, problem))

    async def _post(self, client: JSONObject, address: WebhookAddress, request: HTTPRequest) -> HTTPResponse:
        transport = self.in_process.get(address.origin)
        if transport is not None:
            return await transport.send(request)
        if address.service:
            raise OSError(f'service "{address.service}" not found')
        if getattr(self.clock, "virtual", False):
            raise CallFailed(f"{address.origin} cannot be called under virtual time: use connect_webhooks()")
        return await post_to_webhook(address.url, request, client)
