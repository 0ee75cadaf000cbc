"""The part of a kubelet that forwards ports, for tests: real WebSockets to a real kube-apiserver or to the tests' own.

It connects to ports of this machine in place of those in a pod's network, as a kubelet whose pods use the host network.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

PROTOCOL = "v4.channel.k8s.io"


class Kubelet:
    """A server of port forwarding.

    Attributes:
        port: where it listens.
        forwarded: the pods and ports that were asked for.
        status: the response to the next requests, if not to forward.
        opens: whether connections are opened.
        hangs: whether connections are opened and then ignored.
    """

    def __init__(self) -> None:
        self.port = 0
        self.forwarded: list[str] = []
        self.status: int | None = None
        self.opens = True
        self.hangs = False

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Kubelet]:
        app = web.Application()
        app.router.add_get("/portForward/{namespace}/{pod}", self.forward)
        async with serving(app, tls) as self.port:
            yield self

    async def forward(self, request: web.Request) -> web.StreamResponse:
        if self.status is not None:
            return web.Response(status=self.status)
        if not self.opens:
            await asyncio.sleep(3600)
        ports = request.query.get("port") or request.query["ports"]
        self.forwarded.append(f"{request.match_info['namespace']}/{request.match_info['pod']}:{ports}")
        websocket = web.WebSocketResponse(protocols=[PROTOCOL])
        await websocket.prepare(request)
        assert websocket.ws_protocol == PROTOCOL
        number = int(ports)
        for channel in (0, 1):
            await websocket.send_bytes(bytes([channel]) + number.to_bytes(2, "little"))
        if self.hangs:
            await asyncio.sleep(3600)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
        except OSError:  # the words of containerd
            refused = f"IPv4: dial tcp4 127.0.0.1:{number}: connect: connection refused"
            message = f"error forwarding port {number} to pod 1f: failed to connect to localhost: {refused}"
            await websocket.send_bytes(b"\x01" + message.encode())
            await websocket.close()
            return websocket
        down = asyncio.create_task(_copy(reader, websocket))
        try:
            async for message in websocket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data[:1] == b"\0":
                    writer.write(message.data[1:])
        finally:  # also if the server stops before the client is gone
            down.cancel()
            writer.transport.abort()  # close() would wait until everything is sent
        return websocket


async def _copy(reader: asyncio.StreamReader, websocket: web.WebSocketResponse) -> None:
    while data := await reader.read(1000):
        await websocket.send_bytes(b"\0" + data)
    await websocket.close()


class Front:
    """A server in front of the embedded API server that forwards ports as the real one does: by asking the kubelet."""

    def __init__(self, origin: str, kubelet: Kubelet) -> None:
        self._origin = origin
        self._kubelet = kubelet

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/{token}/api/v1/namespaces/{namespace}/pods/{pod}/portforward", self._kubelet.forward)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        async with serving(app) as port, aiohttp.ClientSession() as self._session:
            yield f"http://127.0.0.1:{port}"

    async def _pass_on(self, request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        url = self._origin + request.path_qs
        async with self._session.request(
            request.method, url, headers=headers, data=await request.read(), auto_decompress=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower().startswith("content-")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
