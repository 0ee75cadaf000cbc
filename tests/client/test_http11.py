"""The parser of answers: split in any way they give the same result, and malformed ones are refused."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import weakref
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.client.credentials import ClusterSettings
from reconciler.client.http11 import HTTPConnection, MalformedResponse, ResponseReader
from reconciler.client.transport import HTTPTransport
from reconciler.errors import NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest
from tests.client.test_sockets import OK, Server, serving

BODY = b'{"kind":"List"}' * 20


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: 1\r\n\r\n"


ANSWERS = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY, 7),
    "up to the end": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "after a preliminary response": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(gzip.compress(BODY, mtime=0)), gzip.compress(BODY, mtime=0)),
}


@pytest.mark.parametrize("kind", ANSWERS)
@given(cuts=st.lists(st.integers(0, 600), max_size=12))
def test_an_answer_is_parsed_the_same_however_it_is_split(kind: str, cuts: list[int]) -> None:
    reader, answer = ResponseReader("GET"), ANSWERS[kind]
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    for begin, end in itertools.pairwise(places):
        reader.feed(answer[begin:end])
    assert reader.finish()
    assert reader.head is not None
    assert (reader.head.status, b"".join(reader.body), reader.surplus) == (200, BODY, False)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 2**17,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2**13,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
)
def test_malformed_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(MalformedResponse):
        ResponseReader("GET").feed(answer)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_answers_have_no_body(status: bytes) -> None:
    reader = ResponseReader("GET")
    reader.feed(b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n" % status)
    assert reader.done


def transport_to(port: int, **settings: object) -> HTTPTransport:
    own = ClusterSettings()
    own.host = f"http://127.0.0.1:{port}"
    for name, value in settings.items():
        setattr(own, name, value)
    return HTTPTransport(own)


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async def ok(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(ok) as server, transport_to(server.port) as transport:
        for _ in range(20):
            await transport.send(HTTPRequest("GET", "/x"))
        assert server.connections == 1
        await asyncio.gather(*(transport.send(HTTPRequest("GET", "/x")) for _ in range(5)))
        assert server.connections == 5


@pytest.mark.parametrize("closing", [b"Connection: close\r\n", b""])
async def test_a_connection_is_not_reused_after_close_or_surplus_bytes(closing: bytes) -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        surplus = b"" if closing else b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n{}%b" % (closing, surplus))

    async with serving(handler) as server, transport_to(server.port) as transport:
        for _ in range(3):
            assert (await transport.send(HTTPRequest("GET", "/x"))).body == b"{}"
        assert server.connections == 3


async def test_an_answer_that_is_not_http_is_an_unknown_outcome() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    async with serving(handler) as server, transport_to(server.port) as transport:
        with pytest.raises(
            OutcomeUnknown, match=r"PUT /x: invalid response: the response is not HTTP/1\.1; it may have"
        ):
            await transport.send(HTTPRequest("PUT", "/x", body=b"{}"))


async def test_waiters_get_the_next_free_connection_also_after_a_cancellation() -> None:
    busy, go_on = asyncio.Event(), asyncio.Event()

    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 2:
            busy.set()
        await go_on.wait()
        writer.write(OK)

    async with serving(handler) as server, transport_to(server.port, connection_pool_maxsize=2) as transport:
        tasks = [asyncio.create_task(transport.send(HTTPRequest("GET", f"/{number}"))) for number in range(8)]
        await busy.wait()
        for cancelled in (tasks.pop(3), tasks.pop(0)):
            cancelled.cancel()
        go_on.set()
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * 6
        assert server.connections <= 3


async def test_a_connection_is_not_reused_after_a_timeout() -> None:
    async def first_only(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if start.startswith("GET /first"):
            writer.write(OK)
        else:
            await server.left.wait()

    async with serving(first_only) as server, transport_to(server.port, connection_pool_maxsize=1) as transport:
        for _ in range(2):
            await transport.send(HTTPRequest("GET", "/first"))
            with pytest.raises(OutcomeUnknown, match="timed out"):
                await transport.send(HTTPRequest("GET", "/x", timeout=0.3))
        assert server.connections == 2


async def test_each_request_has_its_own_time_on_a_connection_that_others_used() -> None:
    async def slow(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(float(start.split("/")[1].split(maxsplit=1)[0]))
        writer.write(OK)

    async with serving(slow) as server, transport_to(server.port) as transport:
        for timeout, takes in [(0.4, 0), (0.6, 0.3), (60, 0), (0.5, 0.2), (None, 0.6), (60, 0.2)]:
            await transport.send(HTTPRequest("GET", f"/{takes}", timeout=timeout))
        assert server.connections == 1
        began = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown, match="timed out"):
            await transport.send(HTTPRequest("GET", "/30", timeout=0.2))
        assert asyncio.get_running_loop().time() - began < 20


def test_a_request_may_follow_one_whose_time_was_nearly_up_on_a_loop_of_another_kind() -> None:
    """A timer of uvloop that is due within half a millisecond has no time of its own."""
    uvloop = pytest.importorskip("uvloop")

    async def ok(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(ok) as server:
            _, connection = await loop.create_connection(HTTPConnection, "127.0.0.1", server.port)
            first = connection.exchange("GET", b"", whole=True, timeout=1e-4)
            first.send(None)
            connection.data_received(OK)
            with pytest.raises(StopIteration):
                first.send(None)
            assert connection.release()
            head = await connection.exchange("GET", b"GET / HTTP/1.1\r\n\r\n", whole=True, timeout=5)
            assert head.status == 200
            connection.abort()

    uvloop.run(main())


async def test_a_request_on_a_connection_that_is_lost_already_leaves_nothing_in_the_loop() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Nothing was sent."""

    loop = asyncio.get_running_loop()
    async with serving(handler) as server:
        _, connection = await loop.create_connection(HTTPConnection, "127.0.0.1", server.port)
        connection.abort()
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionError):
            await connection.exchange("GET", b"GET / HTTP/1.1\r\n\r\n", whole=True, timeout=60)
        connection.abort()
        ended = weakref.ref(connection)
        del connection, _
        gc.collect()
        assert ended() is None


@pytest.mark.parametrize(
    "request_",
    [
        HTTPRequest("GET", "/x y"),
        HTTPRequest("GET", "/x\r\nhost: other"),
        HTTPRequest("GET", "/x", headers={"a": "b\r\nc: d"}),
        HTTPRequest("GET", "/x", headers={"a\n": "b"}),
    ],
)
async def test_a_line_break_cannot_smuggle_a_request(request_: HTTPRequest) -> None:
    async def ok(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(ok) as server, transport_to(server.port) as transport:
        with pytest.raises(ValueError, match=r"is not a valid path|contains a line break"):
            await transport.send(request_)
        assert server.requests == []


async def test_an_unread_stream_uses_bounded_memory() -> None:
    sent = 0

    async def flood(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(640):
            writer.write(block)
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def lengths(chunks: AsyncIterator[bytes]) -> int:
        return sum([len(chunk) async for chunk in chunks])

    async with serving(flood) as server, transport_to(server.port) as transport:
        response = await transport.send(HTTPRequest("GET", "/x", stream=True))
        before = -1
        while before != sent:  # until the server is held up
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 640 * 65536 / 2
        assert response.chunks is not None
        assert await lengths(response.chunks) == 640 * 65536
        await response.close()


async def test_a_closed_pool_makes_no_connection() -> None:
    transport = transport_to(1)
    await transport.close()
    with pytest.raises(NotSent, match="closed"):
        await transport.send(HTTPRequest("GET", "/x"))
