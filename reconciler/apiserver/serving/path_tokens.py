"""Requests over sockets, whose token may be the first part of their path.

kubectl and client-go send no credentials without TLS, so the server of a kubeconfig without TLS ends with the token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from reconciler.apiserver.access.control import AccessControl
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.serving.handler import refusal_response
from reconciler.http import HTTPRequest, HTTPResponse

__all__ = ["PathTokens"]


@dataclass(frozen=True, slots=True)
class PathTokens:
    """The handler of requests over sockets, which sends them to the server."""

    send: Callable[[HTTPRequest], Awaitable[HTTPResponse]]
    access: Callable[[], AccessControl]

    def refused(self, request: HTTPRequest) -> HTTPResponse | None:
        """Return the response to a request without a valid token, or None if it has one."""
        try:
            self.access().authenticated(_authorization(request))
        except Refusal as refusal:
            return refusal_response(refusal)
        return None

    async def handle(self, request: HTTPRequest) -> HTTPResponse:
        """Return the response to a request, as `APIServer.send`. A cancelled call may have taken effect."""
        headers = {**request.headers, "authorization": _authorization(request)}
        first, _, rest = request.path[1:].partition("/")
        if not self.access().is_token(first):
            return await self.send(replace(request, headers=headers))
        response = await self.send(replace(request, path=f"/{rest}", headers=headers))
        if rest == "openapi/v3":
            # Clients follow these links as they are.
            response.body = response.body.replace(b'"/openapi/', b'"/%b/openapi/' % first.encode())
        return response


def _authorization(request: HTTPRequest) -> str:
    """Return the Authorization header, or one with the first part of the path."""
    return request.headers.get("authorization") or f"Bearer {request.path[1:].partition('/')[0]}"
