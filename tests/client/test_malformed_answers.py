"""Malformed responses: a typed error at once, and the next request gets its own response.

``FUZZ_EXAMPLES`` sets how many random answers are sent (480 by default), ``FUZZ_SEED`` which (1 by default); a failure
names the seed and the response.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from reconciler import Client, ConditionedStatus, Model, Resource, StatusBatcher
from reconciler.client import Retries
from reconciler.client.credentials import ClusterSettings
from reconciler.client.transport import HTTPTransport
from reconciler.errors import APIError, InvalidResponse, OutcomeUnknown, ReconcilerError, TransportError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.objects import InvalidObject
from tests.client.test_budgets import borrowed

SEED = int(os.environ.get("FUZZ_SEED", "1"))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "480"))
PARTS = 12

H = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
FORGED = H + b'Content-Length: 10\r\n\r\n{"forged":'


def zipped(body: bytes, more: bytes = b"") -> bytes:
    data = gzip.compress(body, mtime=0) + more
    return H + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


BOMB = gzip.compress(b"0" * 2**26)
CUT = gzip.compress(b"{}")[:12]

INVALID = {
    "a banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a banner": b"SSH",
    "garbage": b"\x00\xff\xfe" * 10,
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status in other digits": "HTTP/1.1 ²²² OK\r\n\r\n".encode(),
    "a NUL in the status line": b"HTTP/1.1 200 O\x00K\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a bare line feed in a header": H + b"A: b\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return in a header": H + b"A: b\rContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": H + b"A: b\x00c\r\n\r\n",
    "a NUL in a name": H + b"A\x00: b\r\n\r\n",
    "a folded header": H + b"A: b\r\n c: d\r\n\r\n",
    "a header without colon": H + b"A\r\n\r\n",
    "a header without name": H + b": a\r\n\r\n",
    "a blank before the colon": H + b"Content-Length : 2\r\n\r\n{}",
    "headers without end": H + b"A: b\r\n" * 20_000,
    "a header without end": H + b"A: " + b"b" * 2**17,
    "too many headers": H + b"A: b\r\n" * 300 + b"\r\n",
    "two lengths": H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "two lengths in a list": H + b"Content-Length: 2, 2\r\n\r\n{}",
    "length and chunks": H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two transfer encodings": H + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another transfer encoding": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a negative length": H + b"Content-Length: -2\r\n\r\n{}",
    "a signed length": H + b"Content-Length: +2\r\n\r\n{}",
    "a length in hex": H + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with underscore": H + b"Content-Length: 1_0\r\n\r\n0123456789",
    "an empty length": H + b"Content-Length:\r\n\r\n{}",
    "a length without end": H + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length beyond the limit": H + b"Content-Length: 999999999999\r\n\r\n{}",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "preliminary responses without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
    "an invalid chunk size": CHUNKED + b"zz\r\n",
    "an empty chunk size": CHUNKED + b"\r\n",
    "a negative chunk size": CHUNKED + b"-1\r\n",
    "a signed chunk size": CHUNKED + b"+1\r\n",
    "a chunk size in Python's form": CHUNKED + b"0x1\r\n{\r\n0\r\n\r\n",
    "a chunk size with underscore": CHUNKED + b"1_0\r\n" + b"x" * 16,
    "a chunk size behind a blank": CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"fffffffffffffff\r\n{}",
    "a chunk size of many digits": CHUNKED + b"0" * 100 + b"2\r\n{}\r\n0\r\n\r\n",
    "a chunk extension without end": CHUNKED + b"2;" + b"a" * 2**13,
    "a chunk extension that is too long": CHUNKED + b"2;" + b"a" * 2**13 + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk extension with a line feed": CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a chunk with bare line feeds": CHUNKED + b"2\n{}\n0\n\n",
    "a chunk without its end": CHUNKED + b"2\r\n{}0\r\n\r\n",
    "trailers without end": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 20_000,
    "a malformed trailer": CHUNKED + b"2\r\n{}\r\n0\r\nnone\r\n\r\n",
    "a body that is not compressed": H + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "a compressed body that is cut off": H
    + b"Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n"
    + gzip.compress(b"{}")[:12],
    "something behind a compressed body": zipped(b"{}", b"more"),
    "another compression": H + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    "two compressions": H + b"Content-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\n{}",
    "a compressed bomb": H + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(BOMB), BOMB),
    "a compressed bomb in chunks": H
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BOMB), BOMB),
}
VALID = {
    "a response with a body that must not have one": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    "304 with a body": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{}",
    "a forged response behind it": H + b"Content-Length: 2\r\n\r\n{}" + FORGED,
    "a forged response behind chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + FORGED,
    "one byte behind it": H + b"Content-Length: 2\r\n\r\n{}x",
    "Connection: close": H + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    "Connection: close and keep-alive": H
    + b"Connection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "two equal lengths": H + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a preliminary response": b"HTTP/1.1 100 Continue\r\n\r\n" + H + b"Content-Length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "Latin-1 in a header": H + b"A: caf\xe9\r\nContent-Length: 2\r\n\r\n{}",
    "compressed": zipped(b"{}"),
}


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Serve on a port of this machine; leave no connection behind."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            await handler(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[1]
        for _ in range(3):  # a connection that was accepted becomes a task
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        for _ in range(3):
            await asyncio.sleep(0)


class Raw:
    """A server that answers ``/bad`` with given bytes and leaves the connection open, and other paths with the path."""

    def __init__(self) -> None:
        self.bad = b""
        self.then_close = False
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            if path.startswith(b"/bad"):
                writer.write(self.bad)
                await writer.drain()
                if self.then_close:
                    return
            else:
                body = b'{"path":"%b"}' % path
                writer.write(H + JSON + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


@contextlib.asynccontextmanager
async def raw() -> AsyncIterator[Raw]:
    server = Raw()
    async with listening(server) as server.port:
        yield server


@contextlib.asynccontextmanager
async def direct(port: int, **options: Any) -> AsyncIterator[HTTPTransport]:
    own = ClusterSettings()
    own.host = f"http://127.0.0.1:{port}"
    own.connection_pool_maxsize = 2
    async with HTTPTransport(own, **options) as transport:
        yield transport


async def gets_its_own_answer(transport: Any) -> None:
    for n in range(3):
        answer = await transport.send(HTTPRequest("GET", f"/good{n}", timeout=20))
        assert answer.body == b'{"path":"/good%d"}' % n


async def read(transport: Any, *, stream: bool) -> bytes:
    response = await transport.send(HTTPRequest("GET", "/bad", stream=stream, timeout=20))
    if response.chunks is None:
        return bytes(response.body)
    try:
        return b"".join([chunk async for chunk in response.chunks])
    finally:
        await response.close()


NO_LIMIT = {"a length beyond the limit", "a huge chunk size"}  # for streams


@pytest.mark.parametrize(
    ("kind", "stream"),
    [(kind, stream) for kind in INVALID for stream in (False, True) if not (stream and kind in NO_LIMIT)],
)
async def test_an_invalid_answer_is_an_error_at_once(kind: str, stream: bool) -> None:
    async with raw() as server, direct(server.port, max_response_bytes=2**20) as transport:
        server.bad = INVALID[kind]
        tracemalloc.start()
        try:
            with pytest.raises(InvalidResponse, match="GET /bad: invalid response: "):
                await read(transport, stream=stream)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()
        await gets_its_own_answer(transport)


@pytest.mark.parametrize("kind", VALID)
async def test_a_valid_answer_does_not_spill_into_the_next(kind: str) -> None:
    async with raw() as server, direct(server.port) as transport:
        server.bad = VALID[kind]
        for _ in range(3):
            answer = await transport.send(HTTPRequest("GET", "/bad", timeout=20))
            assert answer.body == (b"" if answer.status in (204, 304) else b"{}")
            await gets_its_own_answer(transport)


async def test_an_answer_to_head_has_no_body_even_if_one_is_sent() -> None:
    async with raw() as server, direct(server.port) as transport:
        server.bad = H + b"Content-Length: 2\r\n\r\n{}"
        assert (await transport.send(HTTPRequest("HEAD", "/bad", timeout=20))).body == b""
        await gets_its_own_answer(transport)


@pytest.mark.parametrize("cut", [3, 20, 40, 60, 70])
async def test_an_answer_that_ends_early_is_an_unknown_outcome(cut: int) -> None:
    async with raw() as server, direct(server.port) as transport:
        server.bad, server.then_close = (H + JSON + b"Content-Length: 20\r\n\r\n{}")[:cut], True
        with pytest.raises(OutcomeUnknown):
            await transport.send(HTTPRequest("GET", "/bad", timeout=20))
        await gets_its_own_answer(transport)


@pytest.mark.parametrize("part", range(PARTS))
async def test_answers_with_random_faults_end_in_an_answer_or_a_typed_error(part: int) -> None:
    rng = random.Random(f"{SEED} {part}")
    pieces = [b"\r\n", b"\n", b"\r", b"\x00", b"0", b"-1", b":", b" ", b"\r\n\r\n", b"9" * 30, b"\xff", H, FORGED]
    sources = [*VALID.values(), *(value for value in INVALID.values() if len(value) < 500)]
    async with raw() as server, direct(server.port, max_response_bytes=2**16) as transport:
        for number in range(-(-EXAMPLES // PARTS)):
            answer = bytearray(rng.choice(sources))
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(answer) + 1)
                change = rng.randrange(3)
                answer[at : at + (rng.randint(1, 8) if change else 0)] = b"" if change == 1 else rng.choice(pieces)
            server.bad, server.then_close = bytes(answer), rng.random() < 0.5
            try:
                with contextlib.suppress(TransportError):
                    await transport.send(HTTPRequest("GET", "/bad", timeout=0.1))
                await gets_its_own_answer(transport)
            except BaseException as error:
                error.add_note(f"FUZZ_SEED={SEED}, part {part}, answer {number}: {server.bad!r}")
                raise


# what comes while nobody has asked


async def _two_requests(between: Callable[[socket.socket], None]) -> tuple[bytes, bytes]:
    """Send two requests; `between` them something happens to the connection that the loop has no time to notice."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def serve(connection: socket.socket) -> None:
            path = (await loop.sock_recv(connection, 65536)).split(b" ")[1]
            await loop.sock_sendall(connection, H + b"Content-Length: %d\r\n\r\n%b" % (len(path), path))

        async with direct(listener.getsockname()[1]) as transport:
            first = asyncio.create_task(transport.send(HTTPRequest("GET", "/first", timeout=20)))
            connection, _ = await loop.sock_accept(listener)
            await serve(connection)
            one = (await first).body
            between(connection)
            second = asyncio.create_task(transport.send(HTTPRequest("GET", "/second", timeout=20)))
            new, _ = await loop.sock_accept(listener)
            await serve(new)
            two = (await second).body
            new.close()
            connection.close()
    return one, two


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda c: c.sendall(H + b"Content-Length: 7\r\n\r\n/forged"), id="a response"),
        pytest.param(lambda c: c.sendall(b"H"), id="one byte"),
        pytest.param(lambda c: c.shutdown(socket.SHUT_WR), id="the end"),
    ],
)
async def test_bytes_on_an_idle_connection_end_it(between: Callable[[socket.socket], None]) -> None:
    assert await _two_requests(between) == (b"/first", b"/second")


async def test_an_answer_before_the_request_is_sent_ends_the_connection() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(H + b"Content-Length: 2\r\n\r\n{}")  # and the body stays unread
        await asyncio.Event().wait()

    async with listening(serve) as port, direct(port) as transport:
        for _ in range(2):
            request = HTTPRequest("PUT", "/x", body=b"x" * 2**26, timeout=20)
            assert (await transport.send(request)).body == b"{}"
    assert connections == 2


# streams


async def test_a_watch_line_without_end_is_an_error() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b'14\r\n{"type":"ADDED","x":\r\n')
        while sent < 2**27:
            writer.write(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
            await writer.drain()
            sent += 2**20

    class Thing(Resource[Model], group="example.com", version="v1"):
        pass

    async with listening(serve) as port, direct(port) as transport:
        with pytest.raises(InvalidResponse, match="longer than 32 MiB"):
            await anext(Client(transport).watch(Thing, "default"))
    assert sent < 2**27


# over an ApiClient


async def test_an_api_client_has_the_same_limit_and_the_same_error() -> None:
    async with raw() as server, borrowed(server.port, max_response_bytes=2**20) as transport:
        for bad in (zipped(b"0" * 2**24), H + b"Content-Length: 2097152\r\n\r\n" + b"x" * 2**21, b"SSH-2.0\r\n\r\n"):
            server.bad = bad
            with pytest.raises(InvalidResponse, match="GET /bad: invalid response: "):
                await transport.send(HTTPRequest("GET", "/bad", timeout=20))
            await gets_its_own_answer(transport)


# what a client makes of it


async def test_an_invalid_answer_is_not_retried() -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.write(zipped(b"0" * 2**22))
        await writer.drain()

    async with listening(serve) as port, direct(port, max_response_bytes=2**20) as transport:
        client = Client(transport, retries=Retries(base=0))
        with pytest.raises(InvalidResponse, match=r"the body is larger than 1048576 bytes.*raise max_response_bytes"):
            await client.get("v1/ConfigMap", "a", "default")
    assert asked == 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"nonsense"])
async def test_a_body_that_is_not_json_is_a_typed_error(body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(H + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    class Thing(Resource[Model], group="example.com", version="v1"):
        pass

    async with listening(serve) as port, direct(port) as transport:
        with pytest.raises(APIError, match="the response is not a JSON object"):
            await Client(transport).get(Thing, "a", "default")


WEIRD = [None, 5, "x", [[1]], {"name": 5}]
THING = {
    "apiVersion": "example.com/v1",
    "kind": "Thing",
    "metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1},
    "status": {"phase": "New"},
}


def documents(weird: Any) -> list[Any]:
    """Return documents with a value in each place where a client looks."""
    metadata: dict[str, Any] = THING["metadata"]  # type: ignore[assignment]
    return [
        weird,
        *({**THING, name: weird} for name in THING),
        *({**THING, "metadata": {**metadata, name: weird}} for name in (*metadata, "managedFields")),
        {**THING, "status": {"log": weird, "conditions": weird}},
        {**THING, "status": {"log": [weird], "conditions": [weird]}},
        *(
            {"metadata": {}, "items": [THING], "resources": [], name: weird}
            for name in ("metadata", "items", "resources")
        ),
        {"metadata": {"continue": weird, "resourceVersion": weird}, "items": [weird, {**THING, "metadata": weird}]},
        {"resources": [weird, {"kind": "Thing", "name": weird, "namespaced": weird, "shortNames": weird}]},
        {"reason": weird, "message": weird, "code": weird, "details": weird},
        {"details": {"causes": weird, "retryAfterSeconds": weird}},
        {"details": {"causes": [weird, {"reason": weird, "message": weird, "field": weird}]}},
        *({"type": kind, "object": each} for kind in ("ADDED", "ERROR", weird) for each in (weird, THING)),
        {"type": "ERROR", "object": {"code": weird, "details": {"causes": weird}}},
    ]


class _Scripted:
    """A transport that gives one answer to every request."""

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = status, body

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        status, body = self._answer

        async def chunks() -> AsyncIterator[bytes]:
            yield body + b"\n"

        streamed = request.stream and status < 300
        return HTTPResponse(status, body=b"" if streamed else body, chunks=chunks() if streamed else None)


async def _watched(client: Client) -> None:
    async for event in client.watch(Thing, "default"):
        event.object.to_dict()


async def _recorded(client: Client, *named: Any, **options: Any) -> None:
    async with StatusBatcher(client, *named, max_conflicts=2, **options) as status:
        status.set(phase="Ready")
        status.append("log", {"id": 1}, key="id")
    status.object  # noqa: B018 - it is read from the response


class ThingStatus(ConditionedStatus):
    phase: str | None = None
    log: list[dict[str, Any]] = []


class Thing(Resource[Model, ThingStatus], group="example.com", version="v1"):
    pass


OBJECT = Thing.from_dict(THING)
CALLS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "get": lambda client: client.get(Thing, "a", "default"),
    "discovery": lambda client: client.get("example.com/v1/Other", "a", "default"),
    "list": lambda client: client.list(Thing, "default"),
    "watch": _watched,
    "create": lambda client: client.create(OBJECT),
    "patch": lambda client: client.patch(Thing, "a", "default", patch={"a": 1}),
    "delete": lambda client: client.delete(Thing, "a", "default"),
    "status by name": lambda client: _recorded(client, Thing, name="a", namespace="default"),
    "status": lambda client: _recorded(client, OBJECT),
    "status by update": lambda client: _recorded(client, OBJECT, strategy="update"),
    "status by apply": lambda client: _recorded(client, OBJECT, strategy="apply"),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("status", [200, 409, 422, 500])
@pytest.mark.parametrize("call", CALLS)
async def test_json_that_is_not_what_was_asked_for_is_an_answer_or_a_typed_error(call: str, status: int) -> None:
    for document in [each for weird in WEIRD for each in documents(weird)]:
        client = Client(_Scripted(status, json.dumps(document).encode()), retries=Retries(attempts=1))
        try:
            await CALLS[call](client)
        except (ReconcilerError, InvalidObject):
            pass
        except TypeError as error:  # nothing can be recorded in this status
            assert call.startswith("status"), document
            assert "not an object" in str(error) or "not a list" in str(error), (document, error)  # noqa: PT017
