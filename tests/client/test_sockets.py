"""The transport over real sockets: what a server receives, and the error for each kind of failure."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes_asyncio.client import ApiClient, Configuration

from reconciler import Model, Resource
from reconciler.client import Client, KubernetesAsyncioTransport, Retries
from reconciler.client.kubeconfig import KubeconfigEntry, KubeconfigUser
from reconciler.client.pool import origin_of
from reconciler.client.transport import HTTPTransport
from reconciler.errors import ConfigurationError, NotSent, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.notification.channels.http import OutgoingRequest

Handler = Callable[["Server", str, bytes, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """A server with just enough HTTP for a test, which remembers each request."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.connections = 0
        self.port = 0
        self.tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                await self.one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.left.set()
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        start, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((start, headers, body))
        self.asked.set()
        await self.handler(self, start, body, writer)


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(handler)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await listener.wait_closed()
        await asyncio.sleep(0)


AnyTransport = KubernetesAsyncioTransport | HTTPTransport
direct = contextvars.ContextVar("direct", default=False)


@pytest.fixture(params=["of our own", "of kubernetes_asyncio"], autouse=True)
def _both_transports(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test with the transport of `Client.from_config` and with the one of a caller's ApiClient."""
    token = direct.set(request.param == "of our own")
    yield
    direct.reset(token)


@contextlib.asynccontextmanager
async def transport_to(
    port: int, *, scheme: str = "http", host: str = "", **settings: Any
) -> AsyncIterator[AnyTransport]:
    configuration = Configuration()
    configuration.host = host or f"{scheme}://127.0.0.1:{port}"
    for name, value in settings.items():
        setattr(configuration, name, value)
    if direct.get():
        async with HTTPTransport(configuration) as transport:
            yield transport
        return
    async with ApiClient(configuration) as api, KubernetesAsyncioTransport(api) as transport:
        yield transport


class Thing(Resource[Model], group="example.com", version="v1", scope="Cluster"):
    pass


async def ok(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def close_without_answer(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)  # makes closing send RST
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def never(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def ok_then_close(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection, and let the connection die under the second."""
    if len(server.requests) == 1:
        writer.write(OK)
    else:
        writer.close()


# one request, one answer


async def test_a_request_and_its_answer_arrive_unchanged() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-Upper: Value\r\n"
            b'Warning: 299 - "one"\r\nWarning: 299 - "two"\r\nContent-Length: 2\r\n\r\n{}'
        )

    request = HTTPRequest(
        "PATCH",
        "/api/v1/a%2Fb",
        [("labelSelector", "a=b,c in (d)")],
        {"content-type": "x/y", "user-agent": "me"},
        b"body",
    )
    async with serving(handler) as server, transport_to(server.port) as transport:
        response = await transport.send(request)
    ((start, headers, body),) = server.requests
    assert start == "PATCH /api/v1/a%2Fb?labelSelector=a%3Db%2Cc+in+%28d%29 HTTP/1.1"
    assert (headers["content-type"], headers["user-agent"], body) == ("x/y", "me", b"body")
    assert "authorization" not in headers
    assert (response.status, response.body, response.headers["x-upper"]) == (201, b"{}", "Value")
    assert list(response.warnings) == ['299 - "one"', '299 - "two"']


async def test_a_path_prefix_of_the_server_is_kept() -> None:
    async with (
        serving(ok) as server,
        transport_to(1, host=f"http://127.0.0.1:{server.port}/k8s/clusters/c1") as transport,
    ):
        await transport.send(HTTPRequest("GET", "/api/v1/nodes"))
    assert server.requests[0][0] == "GET /k8s/clusters/c1/api/v1/nodes HTTP/1.1"


async def test_redirects_are_answers() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as server, transport_to(server.port) as transport:
        assert (await transport.send(HTTPRequest("GET", "/x"))).status == 302


# nothing is ever sent twice


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "POST"])
async def test_a_request_on_a_kept_connection_that_breaks_is_sent_once(method: str) -> None:
    async with serving(ok_then_close) as server, transport_to(server.port) as transport:
        await transport.send(HTTPRequest("GET", "/first"))
        with pytest.raises(OutcomeUnknown):
            await transport.send(HTTPRequest(method, "/second", body=b"{}"))
        assert [start.split()[0] for start, _, _ in server.requests] == ["GET", method]
        assert server.connections == 1


async def test_the_session_of_the_api_client_is_unchanged() -> None:
    async with serving(ok) as server:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.port}"
        async with ApiClient(configuration) as api:
            session = api.rest_client.pool_manager
            async with KubernetesAsyncioTransport(api) as transport:
                await transport.send(HTTPRequest("GET", "/x"))
                assert session._retry_connection
            assert not session.closed
            async with session.get(configuration.host) as response:
                assert response.status == 200


async def test_the_client_retries_a_read_but_not_a_write() -> None:
    async with serving(close_without_answer) as server, transport_to(server.port) as transport:
        client = Client(transport, retries=Retries(attempts=3, base=0))
        with pytest.raises(OutcomeUnknown):
            await client.get(Thing, "n")
        with pytest.raises(OutcomeUnknown):
            await client.patch(Thing, "n", patch={})
        assert [start.split()[0] for start, _, _ in server.requests] == ["GET", "GET", "GET", "PATCH"]


# what each failure becomes


@pytest.mark.parametrize(
    ("handler", "words"),
    [(close_without_answer, "the server closed the connection"), (reset, "Connection reset by peer")],
)
async def test_a_connection_that_ends_after_sending_is_an_unknown_outcome(handler: Handler, words: str) -> None:
    async with serving(handler) as server, transport_to(server.port) as transport:
        with pytest.raises(OutcomeUnknown, match=f"PUT /x: no response: {words}; it may have been executed"):
            await transport.send(HTTPRequest("PUT", "/x", body=b"{}"))


async def test_an_answer_that_breaks_off_is_an_unknown_outcome() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async with serving(handler) as server, transport_to(server.port) as transport:
        with pytest.raises(OutcomeUnknown, match="GET /x: no response"):
            await transport.send(HTTPRequest("GET", "/x"))


@pytest.mark.parametrize("stream", [False, True])
async def test_no_answer_in_time_is_an_unknown_outcome(stream: bool) -> None:
    async def once(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        await (ok if len(server.requests) == 1 else never)(server, start, body, writer)

    async with serving(once) as server, transport_to(server.port) as transport:
        await transport.send(HTTPRequest("GET", "/first"))  # the time is not for connecting
        with pytest.raises(OutcomeUnknown, match="timed out"):
            await transport.send(HTTPRequest("GET", "/x", stream=stream, timeout=0.3))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_connection_was_not_sent(stream: bool) -> None:
    async with serving(ok) as server:
        port = server.port
    async with transport_to(port) as transport:
        with pytest.raises(NotSent, match=f"GET /x: no connection to http://127.0.0.1:{port}: Connect"):
            await transport.send(HTTPRequest("GET", "/x", stream=stream))


async def test_a_host_that_does_not_exist_was_not_sent() -> None:
    async with transport_to(1, host="http://no-such-host.invalid") as transport:
        with pytest.raises(NotSent, match=r"no connection to http://no-such-host\.invalid"):
            await transport.send(HTTPRequest("GET", "/x"))


async def test_secrets_in_an_address_are_not_shown() -> None:
    async with transport_to(1, host="http://user:password@127.0.0.1:1/token") as transport:
        with pytest.raises(NotSent) as raised:
            await transport.send(HTTPRequest("GET", "/x"))
        told = "".join(traceback.format_exception(raised.value)) + transport.host
    assert "http://127.0.0.1:1:" in told
    assert "password" not in told
    assert "token" not in told


async def test_an_invalid_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="is not a valid server address: write it as https://host"):
        async with transport_to(1, host="http://"):
            pass


async def test_no_free_connection_in_time_was_not_sent() -> None:
    async with (
        serving(never) as server,
        transport_to(server.port, connection_pool_maxsize=1) as transport,
        asyncio.TaskGroup() as tasks,
    ):
        blocker = tasks.create_task(transport.send(HTTPRequest("GET", "/slow")))
        await server.asked.wait()
        with pytest.raises(NotSent, match="timed out"):
            await transport.send(HTTPRequest("GET", "/x", timeout=0.05))
        assert len(server.requests) == 1
        blocker.cancel()


async def test_cancelling_a_request_drops_its_connection() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Go on to read, which ends when the client leaves."""

    async with serving(handler) as server, transport_to(server.port) as transport:
        task = asyncio.create_task(transport.send(HTTPRequest("GET", "/x")))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


async def test_a_closed_transport_sends_nothing() -> None:
    async with serving(ok) as server, transport_to(server.port) as transport:
        await transport.close()
        await transport.close()
        with pytest.raises(NotSent, match="closed"):
            await transport.send(HTTPRequest("GET", "/x"))
    assert server.requests == []


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_trusted_certificate_is_accepted(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    with authority.cert_pem.tempfile() as ca:
        async with serving(ok, tls) as server, transport_to(server.port, scheme="https", ssl_ca_cert=ca) as transport:
            assert (await transport.send(HTTPRequest("GET", "/x"))).status == 200


async def test_an_untrusted_certificate_means_not_sent(tls: ssl.SSLContext) -> None:
    with trustme.CA().cert_pem.tempfile() as ca:
        async with serving(ok, tls) as server, transport_to(server.port, scheme="https", ssl_ca_cert=ca) as transport:
            with pytest.raises(NotSent, match=r"certificate is not trusted \(.*\); check the certificate-authority"):
                await transport.send(HTTPRequest("PUT", "/x", body=b"{}"))
    assert server.requests == []


async def test_tls_to_a_server_without_tls_was_not_sent() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with transport_to(port, scheme="https") as transport:
            with pytest.raises(NotSent):
                await transport.send(HTTPRequest("GET", "/x"))


# streams


async def test_a_stream_comes_in_chunks_and_has_no_time_limit_after_its_headers() -> None:
    go_on = asyncio.Event()

    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await go_on.wait()
        writer.write(b"5\r\nworld\r\n0\r\n\r\n")

    async with serving(handler) as server, transport_to(server.port) as transport:
        response = await transport.send(HTTPRequest("GET", "/x", stream=True, timeout=5))
        assert (response.status, response.body) == (200, b"")
        assert response.chunks is not None
        assert await anext(response.chunks) == b"hello"
        go_on.set()
        assert [chunk async for chunk in response.chunks] == [b"world"]
        await response.close()


async def test_a_broken_stream_is_an_unknown_outcome() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        writer.close()

    async with serving(handler) as server, transport_to(server.port) as transport:
        response = await transport.send(HTTPRequest("GET", "/x", stream=True))
        assert response.chunks is not None
        with pytest.raises(OutcomeUnknown, match="GET /x: the stream broke"):
            _ = [chunk async for chunk in response.chunks]
        await response.close()


async def test_a_refused_stream_has_a_body() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone")

    async with serving(handler) as server, transport_to(server.port) as transport:
        response = await transport.send(HTTPRequest("GET", "/x", stream=True))
        assert (response.status, response.body, response.chunks) == (410, b"gone", None)


async def test_closing_a_stream_ends_its_connection() -> None:
    async def handler(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async with serving(handler) as server, transport_to(server.port) as transport:
        response = await transport.send(HTTPRequest("GET", "/x", stream=True))
        await response.close()
        await server.left.wait()


# credentials


async def test_the_authorization_is_asked_for_each_request() -> None:
    async with serving(ok) as server, transport_to(server.port) as transport:
        tokens = iter(["one", "two\n"])

        async def hook(configuration: Any) -> None:
            configuration.api_key["BearerToken"] = f"Bearer {next(tokens)}"

        transport._configuration.refresh_api_key_hook = hook
        for _ in range(2):
            await transport.send(HTTPRequest("GET", "/x"))
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer one", "Bearer two"]


async def test_credentials_that_cannot_be_renewed_mean_not_sent_and_no_secret_in_the_text() -> None:
    async with serving(ok) as server, transport_to(server.port) as transport:

        def hook(configuration: Any) -> None:
            raise ValueError("token hunter2 is bad")

        transport._configuration.refresh_api_key_hook = hook
        with pytest.raises(NotSent, match=r"could not be renewed \(ValueError\)") as caught:
            await transport.send(HTTPRequest("GET", "/x"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert server.requests == []


async def test_default_headers_of_the_api_client_are_sent_except_its_user_agent() -> None:
    async with serving(ok) as server:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.port}"
        async with ApiClient(configuration) as api:
            api.set_default_header("Impersonate-User", "jane")
            async with KubernetesAsyncioTransport(api) as transport:
                await transport.send(HTTPRequest("GET", "/x", headers={"user-agent": "me"}))
    (_, headers, _) = server.requests[0]
    assert (headers["impersonate-user"], headers["user-agent"]) == ("jane", "me")


# proxies


async def test_the_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(ok) as proxy, serving(ok) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with transport_to(server.port) as transport:
            await transport.send(HTTPRequest("GET", "/near"))
        configuration = Configuration()
        configuration.host = "http://cluster.invalid"
        async with ApiClient(configuration) as api, KubernetesAsyncioTransport(api) as transport:
            await transport.send(HTTPRequest("GET", "/far"))
    assert [start for start, _, _ in server.requests] == ["GET /near HTTP/1.1"]
    assert [start for start, _, _ in proxy.requests] == ["GET http://cluster.invalid/far HTTP/1.1"]


# virtual time


@pytest.mark.virtual_time
async def test_virtual_time_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot run under virtual time.*Client\(server\)"):
        HTTPTransport(Configuration())
    async with ApiClient(Configuration()) as api:
        with pytest.raises(ConfigurationError, match=r"cannot run under virtual time.*Client\(server\)"):
            KubernetesAsyncioTransport(api)


@pytest.mark.parametrize(
    "shown",
    [
        HTTPRequest("POST", "/a", headers={"authorization": "Bearer hidden"}, body=b"hidden"),
        HTTPResponse(200, headers={"set-cookie": "hidden"}, body=b"hidden"),
        origin_of("http://user:hidden@proxy:3128"),
        OutgoingRequest("https://hooks.example.com/hidden", b"hidden", headers={"authorization": "hidden"}),
        KubeconfigEntry("admin", KubeconfigUser(token="hidden"), Path("config")),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_secrets_are_not_in_a_repr(shown: object) -> None:
    encoded = base64.b64encode(b"user:hidden").decode()
    assert not any(secret in repr(shown) for secret in ("hidden", encoded))
    assert type(shown).__name__ in repr(shown)
