"""A server as one of its users sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from reconciler.apiserver.storage.store import encode
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.wire import JSONObject

__all__ = ["UserConnection"]


class UserConnection:
    """A connection of one user to a server.

    It is a `Transport`: hand it to a client, or give other programs its kubeconfig.

    Args:
        token: the user's token.
        send: sends a request to the server.
        url: returns the server's URL.
        authority: the CA of the server's certificate, in base64; empty without TLS.

    Attributes:
        token: the user's bearer token.
    """

    def __init__(
        self, token: str, send: Callable[[HTTPRequest], Awaitable[HTTPResponse]], url: Callable[[], str], authority: str
    ) -> None:
        self.token = token
        self._send = send
        self._url = url
        self._authority = authority

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Return the response to a request of the user; as `APIServer.send`. A cancelled call may have taken effect.

        Raises:
            NotSent: the server is not running.
            OutcomeUnknown: a fault withheld the response, or the request's timeout passed.
        """
        headers = {**request.headers, "authorization": f"Bearer {self.token}"}
        return await self._send(replace(request, headers=headers))

    def kubeconfig(self) -> JSONObject:
        """Return a kubeconfig of the user; as `APIServer.kubeconfig`."""
        name, tls = "reconciler", {"certificate-authority-data": self._authority}
        cluster = {"server": self._url(), **tls} if self._authority else {"server": f"{self._url()}/{self.token}"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }

    def write_kubeconfig(self, path: str | Path) -> Path:
        """Write the kubeconfig to a file that only its owner can read, and return its path.

        Raises:
            OSError: the file cannot be written.
            ConfigurationError: as for `APIServer.url`.
        """
        place = Path(path)
        content = encode(self.kubeconfig())
        place.touch(mode=0o600)
        place.chmod(0o600)
        place.write_bytes(content + b"\n")
        return place
