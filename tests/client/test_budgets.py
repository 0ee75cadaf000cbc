"""Streams, requests and urgent requests have separate connections: none starves another."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes_asyncio.client import ApiClient, Configuration

from reconciler import Client, Manager, Model, Request, Resource
from reconciler.cache import Cache
from reconciler.client import KubernetesAsyncioTransport
from reconciler.client.credentials import ClusterSettings
from reconciler.client.transport import HTTPTransport
from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError, NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse
from tests.client.kubeconfigs import kubeconfig
from tests.client.test_sockets import OK, Server, serving

WATCH = HTTPRequest("GET", "/watch", stream=True, timeout=20)
READ = HTTPRequest("GET", "/read", timeout=20)
URGENT = HTTPRequest("PUT", "/lease", body=b"{}", timeout=5, urgent=True)


class Thing(Resource[Model], group="example.com", version="v1"):
    pass


async def answer(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Keep watches open, let slow requests wait forever, and answer all others."""
    if "/watch" in start:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.Event().wait()
    if "/slow" in start:
        await asyncio.Event().wait()
    writer.write(OK)


@contextlib.asynccontextmanager
async def direct(port: int, *, requests: int = 256, **options: Any) -> AsyncIterator[HTTPTransport]:
    own = ClusterSettings()
    own.host = f"http://127.0.0.1:{port}"
    own.connection_pool_maxsize = requests
    async with HTTPTransport(own, **options) as transport:
        yield transport


@contextlib.asynccontextmanager
async def borrowed(port: int, *, connections: int = 100, **options: Any) -> AsyncIterator[KubernetesAsyncioTransport]:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    configuration.connection_pool_maxsize = connections
    async with ApiClient(configuration) as api, KubernetesAsyncioTransport(api, **options) as transport:
        yield transport


async def opened(transport: Any, number: int) -> list[HTTPResponse]:
    return await asyncio.gather(*(transport.send(WATCH) for _ in range(number)))


async def test_watches_of_300_namespaces_do_not_delay_requests() -> None:
    async with serving(answer) as server, direct(server.port) as transport:
        streams = await opened(transport, 300)
        answers = await asyncio.gather(*(transport.send(READ) for _ in range(300)))
        assert [one.status for one in answers] == [200] * 300
        for stream in streams:
            await stream.close()


async def test_watches_over_an_api_client_leave_room_for_requests() -> None:
    async with serving(answer) as server, borrowed(server.port) as transport:
        streams = await opened(transport, transport.max_streams)
        assert len(streams) == 75
        answers = await asyncio.gather(*(transport.send(READ) for _ in range(100)))
        assert [one.status for one in answers] == [200] * 100
        with pytest.raises(ConfigurationError, match=r"raise Configuration\.connection_pool_maxsize \(100"):
            await transport.send(WATCH)
        for stream in streams:
            await stream.close()


@pytest.mark.parametrize("transport_to", [direct, borrowed])
async def test_one_watch_too_many_is_refused_at_once_and_a_closed_one_makes_room(transport_to: Any) -> None:
    async with serving(answer) as server, transport_to(server.port, max_streams=2) as transport:
        one, other = await opened(transport, 2)
        with pytest.raises(ConfigurationError, match=r"2 watches are open.*watch all namespaces.*max_streams"):
            await transport.send(WATCH)
        await one.close()
        await one.close()
        third = await transport.send(WATCH)
        with pytest.raises(ConfigurationError):
            await transport.send(WATCH)
        await other.close()
        await third.close()


@pytest.mark.parametrize(
    ("transport_to", "options"),
    [
        (direct, {"requests": 8, "max_streams": 4}),
        (borrowed, {"connections": 24, "max_streams": 4}),
        (borrowed, {"connections": 16}),
    ],
)
async def test_urgent_requests_do_not_wait_for_others(transport_to: Any, options: dict[str, int]) -> None:
    async with serving(answer) as server, transport_to(server.port, **options) as transport:
        streams = await opened(transport, 4)
        slow = [asyncio.create_task(transport.send(HTTPRequest("GET", "/slow"))) for _ in range(30)]
        await server.asked.wait()
        assert (await transport.send(URGENT)).status == 200
        with pytest.raises(NotSent, match="timed out"):
            await transport.send(HTTPRequest("GET", "/read", timeout=0.05))
        assert (await transport.send(URGENT)).status == 200
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        for stream in streams:
            await stream.close()


async def test_the_smallest_limit_of_an_api_client_leaves_one_request_at_a_time() -> None:
    async with serving(answer) as server, borrowed(server.port, connections=2, max_streams=1) as transport:
        slow = asyncio.create_task(transport.send(HTTPRequest("GET", "/slow", timeout=20)))
        second = asyncio.create_task(transport.send(READ))
        done, _ = await asyncio.wait({second}, timeout=0.2)
        assert not done
        slow.cancel()
        assert (await second).status == 200


async def test_slots_are_passed_on_in_order_when_earlier_waiters_are_cancelled() -> None:
    order: list[str] = []

    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        order.append(start.split()[1])
        await answer(server, start, body, writer)

    async with serving(handler) as server, direct(server.port, requests=1) as transport:
        holder = asyncio.create_task(transport.send(HTTPRequest("GET", "/slow")))
        await server.asked.wait()
        waiting = [asyncio.create_task(transport.send(HTTPRequest("GET", f"/{n}", timeout=20))) for n in range(6)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        waiting[4].cancel()
        holder.cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in answers] == [HTTPResponse, asyncio.CancelledError] + [HTTPResponse] * 2 + [
            asyncio.CancelledError,
            HTTPResponse,
        ]
        assert order == ["/slow", "/0", "/2", "/3", "/5"]


class Gate:
    """A listener that accepts connections and lets no TLS handshake pass until it is told to."""

    def __init__(self) -> None:
        self.connected = asyncio.Queue[asyncio.StreamWriter]()
        self.tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.connected.put_nowait(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()


@pytest.mark.parametrize("ending", ["cancelled", "refused by TLS", "times out"])
@pytest.mark.parametrize("waiters", [1, 3])
async def test_a_waiter_gets_the_slot_of_a_failed_open(ending: str, waiters: int) -> None:
    gate = Gate()
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as ca:
        own = ClusterSettings()
        own.ssl_ca_cert = ca
        own.connection_pool_maxsize = 1
        async with await asyncio.start_server(gate, "127.0.0.1", 0) as listener:
            own.host = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            async with HTTPTransport(own) as transport:
                timeout = 0.2 if ending == "times out" else 20
                requests = [HTTPRequest("GET", "/x", timeout=timeout if n == 0 else 20) for n in range(1 + waiters)]
                tasks = [asyncio.create_task(transport.send(request)) for request in requests]
                for n, task in enumerate(tasks):
                    writer = await gate.connected.get()  # one at a time: the slot of the one before was handed on
                    assert gate.connected.empty()
                    if n == 0 and ending == "times out":
                        with pytest.raises(NotSent, match="timed out"):
                            await task
                    elif n == 0 and ending == "refused by TLS":
                        writer.write(b"this is no TLS\r\n" * 10)
                        with pytest.raises(NotSent):
                            await task
                    else:
                        task.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await task
            await asyncio.gather(*gate.tasks)


async def test_a_refused_connection_releases_its_slot() -> None:
    async with serving(answer) as server:
        port = server.port
    async with direct(port, requests=1) as transport:
        answers = await asyncio.gather(*(transport.send(READ) for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in answers] == [NotSent] * 5
        assert not any("timed out" in str(one) for one in answers)


async def test_a_connection_closed_by_the_server_releases_its_slot() -> None:
    async def close(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(close) as server, direct(server.port, requests=2, max_streams=2) as transport:
        for request in (READ, WATCH):
            answers = await asyncio.gather(*(transport.send(request) for _ in range(2)), return_exceptions=True)
            assert [type(one) for one in answers] == [OutcomeUnknown] * 2
            with pytest.raises(OutcomeUnknown):
                await transport.send(request)


async def test_closing_fails_all_waiters() -> None:
    async with serving(answer) as server, direct(server.port, requests=1) as transport:
        tasks = [asyncio.create_task(transport.send(HTTPRequest("GET", "/slow", timeout=None))) for _ in range(4)]
        await server.asked.wait()
        await transport.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in answers] == [OutcomeUnknown] + [NotSent] * 3
        assert len(server.requests) == 1


async def test_closing_ends_a_connection_that_is_being_made() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    own = ClusterSettings()
    with authority.cert_pem.tempfile() as ca:
        own.ssl_ca_cert = ca
        async with serving(answer, context) as server:
            own.host = f"https://127.0.0.1:{server.port}"
            async with HTTPTransport(own) as transport:
                task = asyncio.create_task(transport.send(READ))
                await asyncio.sleep(0)
                await transport.close()
                with pytest.raises(NotSent):
                    await task
            assert server.requests == []


# what is too much is said at the beginning


async def test_a_cache_that_would_open_too_many_watches_is_refused_when_it_is_made(tmp_path: Path) -> None:
    client = Client.from_config(kubeconfig=kubeconfig(tmp_path / "config"), max_streams=10)
    with pytest.raises(ConfigurationError, match=r"11 watches.* 10: watch all namespaces.*raise max_streams"):
        Cache(client, namespaces=[f"ns{n}" for n in range(11)])
    with pytest.raises(ConfigurationError, match="2000 watches"):
        Manager(client, namespaces=[f"ns{n}" for n in range(2000)])
    cache = Cache(client, namespaces=[f"ns{n}" for n in range(6)])
    await cache.informer(Thing)
    await cache.informer(Thing)  # the same one
    with pytest.raises(ConfigurationError, match="12 watches"):
        await cache.informer(Thing, label_selector="a=b")
    await cache.informer(Thing, namespaces=None)


async def test_a_manager_whose_controllers_need_too_many_watches_does_not_start(tmp_path: Path) -> None:
    class Nothing(Reconciler):
        async def reconcile(self, request: Request) -> None: ...

    class Other(Resource[Model], group="example.com", version="v1"):
        pass

    async with serving(answer) as server:
        path = kubeconfig(tmp_path / "config", server=f"http://127.0.0.1:{server.port}")
        async with Client.from_config(kubeconfig=path, max_streams=10) as client:
            manager = Manager(client, namespaces=[f"ns{n}" for n in range(6)])
            manager.add_controller(Nothing(), resource=Thing, name="a")
            manager.add_controller(Nothing(), resource=Other, name="b")
            with pytest.raises(ConfigurationError, match="12 watches"):
                async with asyncio.timeout(20):
                    await manager.run()


def test_an_invalid_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_streams must be 1 or more, not 0"):
        Client.from_config(max_streams=0)


@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (4, 3), (100, 75), (2000, 1024)])
async def test_watches_take_three_quarters_of_an_api_clients_connections(connections: int, streams: int) -> None:
    configuration = Configuration(host="http://127.0.0.1:1")
    configuration.connection_pool_maxsize = connections
    async with ApiClient(configuration) as api:
        assert Client(KubernetesAsyncioTransport(api)).session.connection.max_streams == streams
