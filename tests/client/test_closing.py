"""A client that is closed while it is used."""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from reconciler.client import Client, Retries
from reconciler.client.http11 import HTTPConnection
from reconciler.errors import NotSent
from tests.client.kubeconfigs import change, kubeconfig


def accept_until_closed(listener: socket.socket, context: ssl.SSLContext) -> bool:
    """Accept a TLS connection; return whether the client closes it without a request."""
    connection, _ = listener.accept()
    connection.settimeout(10)
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            return stream.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def serve_tls(directory: Path) -> tuple[Path, socket.socket, ssl.SSLContext]:
    """Return a kubeconfig, the listener of its server, and that server's TLS."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(directory / "ca.crt")
    listener = socket.create_server(("127.0.0.1", 0))
    path = kubeconfig(directory / "kubeconfig", server=f"https://127.0.0.1:{listener.getsockname()[1]}")
    change(path, "clusters", **{"certificate-authority": str(directory / "ca.crt")})
    return path, listener, context


async def test_a_connection_that_is_being_opened_is_closed_with_the_client(tmp_path: Path) -> None:
    """The server completes the TLS handshake after the client is closed."""
    path, listener, context = serve_tls(tmp_path)
    with listener:
        loop, connected = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(listener, connected.set)
        async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
            request = asyncio.create_task(client.get("v1/ConfigMap", "c", "prod"))
            await connected.wait()
            loop.remove_reader(listener)
        assert await asyncio.to_thread(accept_until_closed, listener, context)
        with pytest.raises(NotSent, match="the client is closed"):
            await request


def test_a_request_that_is_cancelled_as_its_connection_opens_leaves_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake is complete, and the server never answers the end of TLS."""
    path, listener, context = serve_tls(tmp_path)
    made = HTTPConnection.connection_made
    sockets: list[socket.socket] = []

    async def main() -> None:
        async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
            request = asyncio.create_task(client.get("v1/ConfigMap", "c", "prod"))

            def cancel_then(connection: HTTPConnection, transport: asyncio.BaseTransport) -> None:
                made(connection, transport)
                sockets.append(transport.get_extra_info("socket"))
                request.cancel()

            monkeypatch.setattr(HTTPConnection, "connection_made", cancel_then)
            with pytest.raises(asyncio.CancelledError):
                await request

    with listener, ThreadPoolExecutor() as executor:
        stream = executor.submit(lambda: context.wrap_socket(listener.accept()[0], server_side=True))
        asyncio.run(main())
        stream.result().close()
    assert [each.fileno() for each in sockets] == [-1]
