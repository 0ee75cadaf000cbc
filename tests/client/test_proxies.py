"""Requests to a server behind an HTTP proxy go through a tunnel, with TLS from end to end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from reconciler.client.credentials import ClusterSettings
from reconciler.client.transport import HTTPTransport
from reconciler.errors import ConfigurationError, NotSent
from reconciler.http import HTTPRequest
from tests.client.kubeconfigs import SECRET, change, kubeconfig
from tests.client.test_sockets import Server, ok, serving

pytestmark = pytest.mark.usefixtures("bare_environment")


class Proxy:
    """A proxy that opens tunnels to one port of this machine, whatever host is asked for."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.heads: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(self.copy(reader, back), self.copy(there, writer))
        finally:
            for one in (back, writer):
                one.transport.abort()

    async def copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(2**16):
                target.write(data)
                await target.drain()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # until the aborted connections are closed


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def proxied(
    authority: trustme.CA, tmp_path: Path, *, secure: bool = False, host: str = "cluster.invalid"
) -> AsyncIterator[tuple[Server, Proxy, HTTPTransport]]:
    """Yield a TLS server for cluster.invalid, a proxy, and a transport that goes through it."""
    async with serving(ok, served_by(authority, "cluster.invalid")) as server:
        proxy = Proxy(server.port)
        tls = served_by(authority, "127.0.0.1") if secure else None
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls) as listener:
            proxy.port = listener.sockets[0].getsockname()[1]
            authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
            settings = ClusterSettings()
            settings.host = f"https://{host}"
            settings.ssl_ca_cert = str(tmp_path / "ca.crt")
            settings.proxy = f"http{'s' if secure else ''}://user:{SECRET}@127.0.0.1:{proxy.port}"
            async with HTTPTransport(settings) as transport:
                yield server, proxy, transport
            await proxy.end()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_tunnel_is_opened_once_and_reused(authority: trustme.CA, tmp_path: Path, *, secure: bool) -> None:
    async with proxied(authority, tmp_path, secure=secure) as (server, proxy, transport):
        for _ in range(3):
            answer = await transport.send(HTTPRequest("GET", "/x", headers={"authorization": "Bearer t"}, timeout=20))
            assert (answer.status, answer.body) == (200, b"{}")
    (head,) = proxy.heads
    assert head.startswith("CONNECT cluster.invalid:443 HTTP/1.1\r\nhost: cluster.invalid:443\r\n")
    assert f"proxy-authorization: Basic {base64.b64encode(f'user:{SECRET}'.encode()).decode()}" in head
    assert [start for start, _, _ in server.requests] == ["GET /x HTTP/1.1"] * 3
    assert all("proxy-authorization" not in headers for _, headers, _ in server.requests)


async def test_the_certificate_of_the_server_is_verified_through_the_tunnel(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with proxied(authority, tmp_path, host="other.invalid") as (server, _, transport):
        with pytest.raises(NotSent, match="its certificate is not trusted"):
            await transport.send(HTTPRequest("GET", "/x", timeout=20))
    assert server.requests == []


async def test_a_proxy_that_is_not_http_is_a_configuration_error() -> None:
    settings = ClusterSettings()
    settings.host, settings.proxy = "https://cluster.invalid", f"socks5://user:{SECRET}@127.0.0.1:1"
    with pytest.raises(ConfigurationError, match=r"'socks5://127\.0\.0\.1:1' is not a valid proxy address"):
        HTTPTransport(settings)


WITHOUT_THE_EXTRA = """
import asyncio, sys
sys.modules["kubernetes_asyncio"] = None  # an import of it fails
from reconciler import Client

async def main():
    async with Client.from_config(kubeconfig=sys.argv[1]) as client:
        print((await client.get("v1/ConfigMap", "c", "default")).name)

asyncio.run(main())
"""


@pytest.mark.parametrize("through", ["no proxy", "a proxy"])
async def test_a_client_of_a_kubeconfig_needs_no_other_client_library(tmp_path: Path, through: str) -> None:
    async def answer(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        resource = b'{"name":"configmaps","kind":"ConfigMap","namespaced":true}'
        found = b'{"kind":"ConfigMap","metadata":{"name":"c"}}'
        content = found if "/configmaps/" in start else b'{"kind":"APIResourceList","resources":[%b]}' % resource
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))

    async with serving(answer) as server:
        address = f"http://127.0.0.1:{server.port}"
        path = kubeconfig(tmp_path / "config", server=address if through == "no proxy" else "http://cluster.invalid")
        if through == "a proxy":
            change(path, "clusters", **{"proxy-url": address})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WITHOUT_THE_EXTRA, str(path), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert output.strip() == b"c"
