"""The connections over which the result of a command is sent: a WebSocket, or SPDY/3.1 for older clients in Go.

Input of the client is read and ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from typing import Any, cast

from aiohttp import web

from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.serving.handler import refusal_response
from reconciler.apiserver.serving.kubelet import CommandResponse
from reconciler.apiserver.store import encode

_CHANNELS = {"stdout": b"\x01", "error": b"\x03"}
_WEBSOCKET = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_SPDY = "v4.channel.k8s.io"
_SECONDS = 10.0
"""How long a client may take to open its streams, and to close the connection at the end."""


async def send_result(request: web.BaseRequest, result: CommandResponse) -> web.StreamResponse:
    """Upgrade the connection of a request, send the result of its command, and close the connection."""
    upgrade = request.headers.get("upgrade", "").lower()
    if upgrade == "websocket":
        return await _over_websocket(request, result)
    versions = ",".join(request.headers.getall("x-stream-protocol-version", ())).replace(" ", "").split(",")
    if upgrade == "spdy/3.1" and _SPDY in versions:
        return await _over_spdy(request, result)
    refusal = Refusal.bad_request("Upgrade request required")
    if upgrade == "spdy/3.1":
        refusal = Refusal(403, "Forbidden", f"unable to upgrade: this server speaks {_SPDY} only")
    answer = refusal_response(refusal)
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def _over_websocket(request: web.BaseRequest, result: CommandResponse) -> web.StreamResponse:
    response = web.WebSocketResponse(protocols=_WEBSOCKET)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        if result.output and "stdout" in result.asked:
            await response.send_bytes(_CHANNELS["stdout"] + result.output)
        await response.send_bytes(_CHANNELS["error"] + encode(result.outcome()))
        await response.close()
    if request.protocol is not None:
        request.protocol.force_close()
    return response


async def _over_spdy(request: web.BaseRequest, result: CommandResponse) -> web.StreamResponse:
    upgraded = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": _SPDY}
    response = web.StreamResponse(status=101, headers=upgraded)
    session = _SPDYSession()
    protocol, transport = request.protocol, request.transport
    if transport is None or protocol is None:
        raise ConnectionResetError
    protocol.set_parser(cast("Any", session))
    await response.prepare(request)
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        async with asyncio.timeout(_SECONDS):
            streams = await session.accept(transport, result.asked)
            if "stdout" in streams:
                transport.write(_data(streams["stdout"], result.output))
            transport.write(_data(streams["error"], encode(result.outcome())))
            for name in streams.keys() - {"stdout", "error", "stdin", "resize"}:
                transport.write(_data(streams[name], b""))
            await session.ignore(transport)
    protocol.force_close()
    return response


_SYN_STREAM, _SYN_REPLY, _PING = 1, 2, 6
_CONTROL, _VERSION = 0x8000, 3
_FIN = 1
_MAX_DATA = 2**14


class _SPDYSession:
    """The server's side of a SPDY/3.1 session.

    The streams are known by their order: all versions of client-go open them in the same one. So the compressed headers
    of the client need not be read; those of the replies are empty.
    """

    def __init__(self) -> None:
        self._received = asyncio.StreamReader()
        self._compressor = zlib.compressobj()

    # as aiohttp calls a parser

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes of the client."""
        self._received.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the connection."""
        self._received.feed_eof()

    async def accept(self, transport: asyncio.Transport, names: tuple[str, ...]) -> dict[str, int]:
        """Wait until the client has opened all streams, and return their numbers by name."""
        streams: dict[str, int] = {}
        while len(streams) < len(names):
            number = await self._next_stream(transport)
            streams[names[len(streams)]] = number
            transport.write(_control(_SYN_REPLY, struct.pack("!I", number) + self._empty_headers()))
        return streams

    async def ignore(self, transport: asyncio.Transport) -> None:
        """Read until the client closes the connection."""
        while True:
            await self._next_stream(transport)

    def _empty_headers(self) -> bytes:
        return self._compressor.compress(bytes(4)) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    async def _next_stream(self, transport: asyncio.Transport) -> int:
        """Return the number of the next stream that the client opens; answer pings until then."""
        while True:
            first, kind, flags_and_length = struct.unpack("!HHI", await self._received.readexactly(8))
            content = await self._received.readexactly(flags_and_length & 0xFFFFFF)
            if first & _CONTROL and kind == _PING:
                transport.write(_control(_PING, content))
            elif first & _CONTROL and kind == _SYN_STREAM:
                (number,) = struct.unpack_from("!I", content)
                return int(number) & 0x7FFFFFFF


def _control(kind: int, content: bytes) -> bytes:
    return struct.pack("!HHI", _CONTROL | _VERSION, kind, len(content)) + content


def _data(stream: int, content: bytes) -> bytes:
    """Return the frames of a stream, of which the last one ends it."""
    parts = [content[start : start + _MAX_DATA] for start in range(0, len(content), _MAX_DATA)] or [b""]
    last = len(parts) - 1
    return b"".join(
        struct.pack("!II", stream, (_FIN << 24 if index == last else 0) | len(part)) + part
        for index, part in enumerate(parts)
    )
