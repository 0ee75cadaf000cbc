"""Requests to webhooks over sockets."""

from __future__ import annotations

import base64
import ssl

from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.wire import JSONObject

__all__ = ["post_to_webhook"]

_LARGEST = 16 * 1024 * 1024
"""Bytes of a response that are read: more than five objects of the largest size that etcd accepts."""


async def post_to_webhook(url: str, request: HTTPRequest, client: JSONObject) -> HTTPResponse:
    """Send a review; the server's certificate must be signed by the CAs of the ``clientConfig``, or be one of them.

    Raises:
        OSError: the webhook cannot be reached, its CAs are not valid, or the response is too large.
    """
    from aiohttp import ClientError, ClientSession

    bundle = str(client.get("caBundle") or "")
    try:
        context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"the caBundle is not valid: {error}") from None
    # As in Go: a bundle may contain the certificate of the server itself, as that of envtest does.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
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
