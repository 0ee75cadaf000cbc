"""The HTTP listener of a server, on loopback only, and a server as one of its users sees it.

A token may be the first part of a request's path: kubectl and client-go send no credentials without TLS, so the server
of a kubeconfig without TLS ends with the token.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler._core.limits import BadBody, Limits
from reconciler._core.wire import JSONObject
from reconciler.apiserver.access import AccessControl
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.serving.handler import refusal_response
from reconciler.apiserver.serving.kubelet import CommandResponse
from reconciler.apiserver.store import encode
from reconciler.apiserver.verbs.decoding import MAX_BODY_BYTES
from reconciler.clock import Clock
from reconciler.errors import ConfigurationError, OutcomeUnknown, importing
from reconciler.http import HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from aiohttp import web

    from reconciler._core.server import HTTPServer
    from reconciler.apiserver.server import APIServer

_BEARER = "base64url.bearer.authorization.k8s.io."
"""The beginning of a WebSocket's subprotocol that is a token: a browser cannot send other headers."""
_MESSAGE_BYTES = 64 * 1024
_LIMITS = Limits(body_bytes=MAX_BODY_BYTES, line_bytes=1024 * 1024, connections=1024)


@dataclass(eq=False)
class SocketListener:
    """An HTTP/1.1 listener that sends requests to a server; not under virtual time.

    Attributes:
        send: sends a request to the server.
        access: returns the access control of the server.
        clock: the source of time.
        context: serves over TLS with this context; None without TLS.
    """

    send: Callable[[HTTPRequest], Awaitable[HTTPResponse]]
    access: Callable[[], AccessControl]
    clock: Clock
    context: ssl.SSLContext | None
    _url: str = ""
    _address: str = ""
    _loop: asyncio.AbstractEventLoop | None = None
    _socket: socket.socket | None = None
    _server: HTTPServer | None = None
    _starting: asyncio.Task[None] | None = None
    _others: list[HTTPServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the URL; start listening on a free port if nothing listens yet."""
        if not self._url:
            loop, _ = self._bind("127.0.0.1", 0)
            # The kernel queues connections from now on; the event loop accepts them as soon as it runs.
            loop.call_soon_threadsafe(self._start_soon)
        return self._url

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve on this event loop, even if `url` is first used in another thread."""
        self._loop = loop

    def _start_soon(self) -> None:
        if self._loop is not None and self._socket is not None:
            self._starting = self._loop.create_task(self._start(self._socket))

    async def listen(self, host: str, port: int) -> str:
        """Listen on an address and return the URL. If the listener listens already, port 0 returns that URL."""
        if self._url:
            if port or _loopback(host) != self._address:
                raise ConfigurationError(
                    f"the embedded API server already listens on {self._url}; call listen() before the first use of url"
                )
            if self._starting is not None:
                await self._starting
            return self._url
        _, bound = self._bind(host, port)
        await self._start(bound)
        return self._url

    def _bind(self, host: str, port: int) -> tuple[asyncio.AbstractEventLoop, socket.socket]:
        if getattr(self.clock, "virtual", False):
            raise ConfigurationError(
                "sockets do not work under virtual time, because other programs use real time: "
                "pass the server itself to the client, or run without virtual time"
            )
        if self._loop is None:
            raise ConfigurationError("listening needs a running event loop: use url inside 'async with'")
        self._address = address = _loopback(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            if not 0 <= port < 2**16:
                raise OSError(errno.EINVAL, "ports are numbers from 0 to 65535")
            self._socket = bound = socket.create_server((address, port), family=family, backlog=1024)
        except OSError as error:
            advice = "stop what uses the port, or choose port 0 for a free one"
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}; {advice}") from error
        bound.setblocking(False)
        shown = f"[{address}]" if family == socket.AF_INET6 else address
        self._url = f"{'http' if self.context is None else 'https'}://{shown}:{bound.getsockname()[1]}"
        return self._loop, bound

    async def _start(self, bound: socket.socket) -> None:
        self._server = await self._served(bound)

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a further socket that listens already, until it is closed or the listener is."""
        self._others.append(await self._served(listening))

    async def _served(self, bound: socket.socket) -> HTTPServer:
        from reconciler._core.server import HTTPServer

        server = HTTPServer(self._serve, _LIMITS)
        await server.start(sock=bound, context=self.context)
        return server

    def abort_connections(self) -> None:
        """Abort all open connections; keep listening."""
        for server in (self._server, *self._others):
            if server is not None:
                server.abort_connections()

    async def close(self) -> None:
        """Stop listening and abort open connections.

        Cancellation leaves the socket closed and connections to the event loop.
        """
        self._loop = None
        if self._starting is not None:
            await self._starting
            self._starting = None
        servers = [each for each in (self._server, *self._others) if each is not None]
        self._server, self._others = None, []
        for each in servers:
            await each.close(1.0)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._url = ""

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        from reconciler._core.server import read_body

        path, query = request.raw_path.partition("?")[0], tuple(request.query.items())
        asked = HTTPRequest(request.method, path, query, _headers(request), stream=True)
        cut = False
        try:
            self.access().authenticated(_authorization(asked))  # before the body is read
            answer = await self._handle(replace(asked, body=await read_body(request, _LIMITS)))
            if isinstance(answer, CommandResponse):
                from reconciler.apiserver.serving.command_streams import send_result

                return await send_result(request, answer)
            if answer.chunks is not None:
                upgrade = request.headers.get("upgrade", "").lower() == "websocket"
                return await (_stream_frames if upgrade else _stream)(request, answer, answer.chunks)
        except Refusal as refusal:
            answer = refusal_response(refusal)
        except BadBody as error:
            answer, cut = refusal_response(_refusal(error)), True
        except OutcomeUnknown:
            # aiohttp closes the connection of a cancelled handler without a response.
            raise asyncio.CancelledError from None
        response = web.Response(status=answer.status, body=answer.body)
        _set_headers(response, answer)
        if cut:
            response.force_close()
        return response

    async def _handle(self, request: HTTPRequest) -> HTTPResponse:
        headers = {**request.headers, "authorization": _authorization(request)}
        first, _, rest = request.path[1:].partition("/")
        if not self.access().is_token(first):
            return await self.send(replace(request, headers=headers))
        response = await self.send(replace(request, path=f"/{rest}", headers=headers))
        if rest == "openapi/v3":
            # Clients follow these links as they are.
            response.body = response.body.replace(b'"/openapi/', b'"/%b/openapi/' % first.encode())
        return response


def _headers(request: web.BaseRequest) -> dict[str, str]:
    """Return the headers; those of impersonation may be sent several times, and have a line for each value."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        found[key] = f"{found[key]}\n{value}" if key in found and key.startswith("impersonate-") else value
    return found


def _refusal(error: BadBody) -> Refusal:
    if error.status == 413:
        return Refusal.too_large(f"limit is {MAX_BODY_BYTES}")
    return Refusal(408, "Timeout", str(error)) if error.status == 408 else Refusal.bad_request(str(error))


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ConfigurationError(f"the embedded API server listens on loopback only, not on {host}; use 127.0.0.1")


def _set_headers(response: web.StreamResponse, answer: HTTPResponse) -> None:
    for name, value in answer.headers.items():
        if name != "warning":
            response.headers[name] = value
    for warning in answer.warnings:
        response.headers.add("warning", warning)


async def _stream(request: web.BaseRequest, answer: HTTPResponse, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    from aiohttp import web

    response = web.StreamResponse(status=answer.status)
    _set_headers(response, answer)
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass
    finally:
        await answer.close()
    return response


async def _stream_frames(
    request: web.BaseRequest, answer: HTTPResponse, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send a watch over a WebSocket, as browsers and fabric8 ask for it: an event in each message."""
    from aiohttp import web

    offered = _protocols(request.headers)
    protocols = [each for each in offered if len(offered) == 1 or not each.startswith(_BEARER)]
    if len(protocols) > 1 or "origin" not in request.headers:
        await answer.close()
        return web.Response(status=400 if len(protocols) > 1 else 403)
    response = web.WebSocketResponse(protocols=protocols, heartbeat=None, max_msg_size=_MESSAGE_BYTES)
    await response.prepare(request)

    async def until_closed() -> None:
        async for _ in response:
            pass  # a watch has nothing to be told
        await answer.close()

    reading = asyncio.create_task(until_closed())
    try:
        async for chunk in chunks:
            for event in chunk.splitlines(keepends=True):
                await response.send_str(event.decode())
    except ConnectionError:
        pass
    finally:
        reading.cancel()
        await answer.close()
    await response.close()
    if request.protocol is not None:
        request.protocol.force_close()  # it is closed by now: aiohttp would close it a second time
    return response


def _protocols(headers: Mapping[str, str]) -> list[str]:
    return [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",") if each.strip()]


def _authorization(request: HTTPRequest) -> str:
    """Return the Authorization header, or one with the token of a WebSocket, or with the first part of the path."""
    protocols = _protocols(request.headers)
    sent = [each.removeprefix(_BEARER) for each in protocols if each.startswith(_BEARER)]
    if sent and len(protocols) > 1:
        token = base64.urlsafe_b64decode(sent[0] + "=" * (-len(sent[0]) % 4)).decode(errors="replace")
    else:
        token = request.path[1:].partition("/")[0]
    return request.headers.get("authorization") or f"Bearer {token}"


def serving_certificate() -> tuple[ssl.SSLContext, str]:
    """Return a TLS context with a new certificate for loopback addresses, and its CA as it stands in a kubeconfig.

    Raises:
        MissingExtra: the extra ``develop`` is not installed.
    """
    with importing(extra="develop", purpose="the embedded API server over TLS"):
        import trustme
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "::1", "localhost").configure_cert(context)
    return context, base64.b64encode(authority.cert_pem.bytes()).decode()


class UserConnection:
    """A connection of one user to a server.

    It is a `Transport`: hand it to a client, or give other programs its kubeconfig.

    Attributes:
        token: the user's bearer token.
    """

    def __init__(self, token: str, server: APIServer) -> None:
        self.token = token
        self._server = server

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Return the response to a request of the user; as `APIServer.send`. A cancelled call may have taken effect.

        Raises:
            NotSent: the server is not running.
            OutcomeUnknown: a fault withheld the response, or the request's timeout passed.
        """
        headers = {**request.headers, "authorization": f"Bearer {self.token}"}
        return await self._server.send(replace(request, headers=headers))

    def kubeconfig(self) -> JSONObject:
        """Return a kubeconfig of the user.

        Over TLS, it holds the certificate of a CA. Otherwise it holds the token twice: as the user's token, and as the
        first part of the server's path, because kubectl and client-go send no credentials without TLS.

        Raises:
            ConfigurationError: as for `APIServer.url`.
        """
        name, url, authority = "reconciler", self._server.url, self._server.authority
        tls = {"server": url, "certificate-authority-data": authority}
        cluster = tls if authority else {"server": f"{url}/{self.token}"}
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
