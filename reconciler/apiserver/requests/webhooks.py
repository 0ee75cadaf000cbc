"""Requests to webhooks: their addresses, which a ``clientConfig`` names, and sending them over sockets."""

from __future__ import annotations

import base64
import posixpath
import ssl
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from reconciler._core.tls import client_tls_context
from reconciler._core.wire import JSONObject
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["WebhookAddress", "post_to_webhook", "review_version", "webhook_address"]

_LARGEST = 16 * 1024 * 1024
"""Bytes of a response that are read: more than five objects of the largest size that etcd accepts."""


class WebhookAddress(NamedTuple):
    """The address of a webhook.

    Attributes:
        url: its URL, as messages show it; as on the real server, without empty segments and a slash at the end.
        path: the path in the URL.
        origin: ``namespace/name`` of its Service, or scheme and host of its URL; see `APIServer.connect_webhooks`.
        service: the name of its Service, or empty.
    """

    url: str
    path: str
    origin: str
    service: str

    def request(self, body: bytes, seconds: float) -> HTTPRequest:
        """Return the request that sends a review and waits some seconds for the response."""
        query = (("timeout", f"{seconds}s"),)
        return HTTPRequest("POST", self.path, query, {"content-type": "application/json"}, body)

    def failure(self, seconds: float, problem: str) -> str:
        """Return the message about a request that got no response."""
        return f'Post "{self.url}?timeout={seconds}s": {problem}'


def review_version(accepted: Sequence[str]) -> str:
    """Return the version of reviews to send to a webhook that accepts some versions."""
    return next((each for each in accepted if each in ("v1", "v1beta1")), "v1")


def webhook_address(client: JSONObject) -> WebhookAddress:
    """Return the address in a ``clientConfig``."""
    service = client.get("service")
    if service:
        namespace, name, path = service["namespace"], service["name"], service.get("path") or "/"
        url = f"https://{name}.{namespace}.svc:{service.get('port', 443)}{path}"
        return WebhookAddress(url, path, f"{namespace}/{name}", name)
    parts = urlsplit(str(client["url"]))
    origin, path = f"{parts.scheme}://{parts.netloc}", posixpath.normpath("/" + parts.path.lstrip("/"))
    return WebhookAddress(origin + path, path, origin, "")


async def post_to_webhook(url: str, request: HTTPRequest, client: JSONObject) -> HTTPResponse:
    """Send a review; the server's certificate must be signed by the CAs of the ``clientConfig``, or be one of them.

    Raises:
        OSError: the webhook cannot be reached, its CAs are not valid, or the response is too large.
    """
    from aiohttp import ClientError, ClientSession

    bundle = str(client.get("caBundle") or "")
    try:
        context = client_tls_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"the caBundle is not valid: {error}") from None
    try:
        async with (
            ClientSession(auto_decompress=False) as session,
            session.post(
                url,
                params=request.query,
                data=request.body,
                headers=dict(request.headers),
                ssl=context,
                allow_redirects=False,
            ) as response,
        ):
            content = await response.content.read(_LARGEST + 1)
            while len(content) <= _LARGEST and not response.content.at_eof():
                content += await response.content.read(_LARGEST + 1 - len(content))
    except ClientError as error:
        raise OSError(str(error)) from None
    if len(content) > _LARGEST:
        raise OSError(f"the response is larger than {_LARGEST} bytes")
    return HTTPResponse(response.status, body=content)
