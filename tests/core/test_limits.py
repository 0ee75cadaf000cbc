"""Clients that are slow, idle, too many or too large are disconnected; other clients are still answered.

The limits are small here. A test waits until the server closes the connection, however long that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry

from reconciler import Client, Manager
from reconciler._core.limits import Limits
from reconciler._core.server import HTTPServer, read_body
from reconciler.apiserver import APIServer
from reconciler.apiserver.serving import listener
from reconciler.manager.endpoints import server as manager_http
from reconciler.webhook import WebhookServer
from tests.webhook.database import Rules, write_certificate

SHORT = {"head_seconds": 1.0, "body_seconds": 0.2, "idle_seconds": 0.2, "stalled_seconds": 0.2}
LONG = {"head_seconds": 600.0, "body_seconds": 600.0, "idle_seconds": 600.0, "stalled_seconds": 600.0}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/large":
        return web.Response(body=b"x" * 64_000_000)
    if request.path == "/broken":
        raise RuntimeError("secret of the handler")
    if request.path == "/wait":
        await asyncio.Event().wait()
    return web.Response(body=await read_body(request, Limits(**{**SHORT, "body_bytes": 1000})))


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Connect]:
    server = HTTPServer(echo, Limits(**limits))
    await server.start("127.0.0.1", 0)
    port = server.addresses[0][1]
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        await server.close(0.01)
        for writer in writers:
            writer.close()


async def end(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes until the server closes the connection."""
    received = bytearray()
    try:
        while chunk := await reader.read(65_536):
            received += chunk
    except ConnectionError:
        pass
    return bytes(received)


async def is_answered(connect: Connect) -> bool:
    reader, writer = await connect()
    writer.write(GET)
    line = await reader.readline()
    writer.close()
    return line == b"HTTP/1.1 200 OK\r\n"


async def test_an_incomplete_head_times_out_even_if_bytes_keep_coming() -> None:
    async with serving(**{**LONG, "head_seconds": 1.0}) as connect:
        reader, writer = await connect()

        async def trickle() -> None:
            writer.write(b"GET / HTTP/1.1\r\n")
            while True:
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert await end(reader) == b""
        task.cancel()
        assert await is_answered(connect)


async def test_a_second_incomplete_head_times_out_too() -> None:
    async with serving(**{**LONG, "head_seconds": 1.0}) as connect:
        reader, writer = await connect()
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /")
        assert await end(reader) == b""


async def test_a_client_that_sends_nothing_is_disconnected() -> None:
    async with serving(**{**LONG, "head_seconds": 1.0}) as connect:
        reader, _ = await connect()
        assert await end(reader) == b""


async def test_an_idle_connection_is_closed() -> None:
    async with serving(**{**LONG, "idle_seconds": 0.2}) as connect:
        reader, writer = await connect()
        writer.write(GET)
        assert (await end(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_incomplete_body_gets_408_and_the_connection_is_closed() -> None:
    async with serving(**SHORT) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx")
        assert (await end(reader)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"content-length: 1001\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + b"1ff\r\n" + b"x" * 511 + b"\r\n1ff\r\n" + b"x" * 511 + b"\r\n",
    ],
)
async def test_a_too_large_body_gets_413_and_the_connection_is_closed(sent: bytes) -> None:
    async with serving(**SHORT) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n" + sent)
        answer = await end(reader)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"the body has more than 1000 bytes\n")


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with serving(**LONG) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("after", [b"", GET])
async def test_a_client_that_does_not_read_its_response_is_disconnected(after: bytes) -> None:
    async with serving(**{**LONG, "stalled_seconds": 0.2}) as connect:
        _, known = await connect()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(known.get_extra_info("peername"))
            client.sendall(GET.replace(b"/ ", b"/large ") + after)
            poll = select.poll()
            poll.register(client, 0)  # errors and hang-ups are always told of
            await asyncio.to_thread(poll.poll)
        assert await is_answered(connect)


async def test_a_connection_beyond_the_limit_replaces_an_idle_one() -> None:
    async with serving(**LONG, connections=2) as connect:
        oldest, _ = await connect()
        second, second_writer = await connect()
        second_writer.write(GET)
        await second.readuntil(b"\r\n\r\n")
        assert await is_answered(connect)
        assert await end(oldest) == b""
        second_writer.write(GET)
        assert await second.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_a_connection_beyond_the_limit_is_closed_while_none_is_idle() -> None:
    async with serving(**LONG, connections=1) as connect:
        _, writer = await connect()
        writer.write(GET.replace(b"/ ", b"/wait "))
        while True:
            reader, _ = await connect()
            # Until the request has begun, the first connection counts as idle.
            if writer.is_closing() or await end(reader) == b"":
                break


@pytest.mark.parametrize(
    "sent", [b"\0\1\2\3\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 2000)]
)
async def test_invalid_http_gets_400_and_no_traceback(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(**SHORT, line_bytes=1000) as connect:
        reader, writer = await connect()
        writer.write(sent)
        answer = await end(reader)
        assert answer.split()[1] == b"400"
        assert b"xxx" not in answer
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_failing_handler_is_logged_and_its_message_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(**SHORT) as connect:
        reader, writer = await connect()
        writer.write(GET.replace(b"/ ", b"/broken "))
        answer = await end(reader)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer
    assert [record.name for record in caplog.records if record.exc_info] == ["reconciler.http"]


async def test_a_client_that_leaves_before_its_body_is_read_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    begun, errors = asyncio.Event(), list[BaseException]()

    async def read_late(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        while request.transport is not None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        try:
            return web.Response(body=await read_body(request, Limits(**LONG)))
        except BaseException as error:
            errors.append(error)
            raise

    server = HTTPServer(read_late, Limits(**LONG))
    await server.start("127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.addresses[0])
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")
    await begun.wait()
    writer.transport.abort()
    while not errors:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    await server.close(0.01)
    assert isinstance(errors[0], ConnectionError)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_embedded_server_disconnects_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_LIMITS", Limits(**SHORT))
    async with APIServer() as server:
        await server.listen()
        host, port = server.url.removeprefix("http://").split(":")
        for sent in (
            b"GET /",
            b"POST /api HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: 9\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent.replace(b"%b", server.token.encode()))
            await end(reader)
            writer.close()


async def test_the_webhook_server_disconnects_slow_clients(tmp_path: Path) -> None:
    ca = trustme.CA()
    write_certificate(tmp_path, ca)
    server = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    server.add(Rules())
    server.observe(CollectorRegistry())
    server._limits = Limits(**SHORT)
    task = asyncio.create_task(server.run())
    await server.listening()
    context = ssl.create_default_context()
    ca.configure_trust(context)
    path = next(iter(server.admissions)).encode()
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n" % path
    for sent, answer in ((b"POST /", b""), (head, b"HTTP/1.1 408 ")):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        writer.write(sent)
        assert (await end(reader))[:13] == answer
        writer.close()
    # A client that does not even begin TLS.
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await end(reader) == b""
    writer.close()
    task.cancel()
    await asyncio.wait({task})


async def test_the_servers_of_a_manager_disconnect_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_http, "_LIMITS", Limits(**SHORT))
    async with APIServer() as api, Client(api) as client:
        manager = Manager(client, health="127.0.0.1:0", metrics="127.0.0.1:0")
        async with manager.running():
            for url in (manager.health_url, manager.metrics_url):
                host, port = str(url).removeprefix("http://").split(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET /")
                assert await end(reader) == b""
                writer.close()


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a server and of a client that trusts it."""
    ca = trustme.CA()
    context, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(trusting)
    return context, trusting


async def test_closing_the_server_ends_a_tls_connection_whose_client_does_not_end_it() -> None:
    context, trusting = certified()
    server = HTTPServer(echo, Limits(**LONG))
    await server.start("127.0.0.1", 0, context=context)

    def ask() -> ssl.SSLSocket:
        plain = socket.create_connection(server.addresses[0])
        client = trusting.wrap_socket(plain, server_hostname="localhost")
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.recv(1).startswith(b"H")
        return client

    with await asyncio.to_thread(ask) as client:
        await server.close(0.01)
        client.setblocking(False)
        with contextlib.suppress(ConnectionResetError):
            while os.read(client.fileno(), 65_536):  # raises a BlockingIOError if the connection is still open
                pass


async def test_a_handshake_counts_as_a_connection() -> None:
    context, trusting = certified()

    server = HTTPServer(echo, Limits(**LONG, connections=2))
    await server.start("127.0.0.1", 0, context=context)
    port = server.addresses[0][1]

    async def secure() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")

    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    assert await end(silent[0][0]) == b"", "the third has replaced it"
    assert await is_answered(secure)
    assert await end(silent[1][0]) == b""
    silent[2][1].write(GET)  # not TLS
    await end(silent[2][0])
    first, second = await secure(), await secure()
    for reader, writer in (first, second):
        writer.write(GET)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    waiting, writer = await asyncio.open_connection("127.0.0.1", port)
    await end(first[0])
    await server.close(0.01)
    assert await end(waiting) == b""
    for each in (*silent, first, second, (waiting, writer)):
        each[1].close()


# Event loops


def test_requests_are_answered_and_silent_clients_are_disconnected_on_uvloop() -> None:
    async def answers() -> tuple[bytes, bytes]:
        async with serving(**{**LONG, "head_seconds": 1.0}) as connect:
            reader, writer = await connect()
            writer.write(GET)
            status = await reader.readline()
            silent, _ = await connect()
            try:
                return status, await silent.read()
            except ConnectionResetError:
                return status, b""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(answers()) == (b"HTTP/1.1 200 OK\r\n", b"")


def test_tls_is_served_on_uvloop() -> None:
    async def answer() -> bool:
        context, trusting = certified()
        server = HTTPServer(echo, Limits(**LONG))
        await server.start("127.0.0.1", 0, context=context)
        port = server.addresses[0][1]
        try:
            return await is_answered(
                lambda: asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
            )
        finally:
            await server.close(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(answer())
