"""A client that is closed while it is used."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from reconciler.client import Client, Retries
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


async def test_a_connection_that_is_being_opened_is_closed_with_the_client(tmp_path: Path) -> None:
    """The server completes the TLS handshake after the client is closed."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        path = kubeconfig(tmp_path / "kubeconfig", server=f"https://127.0.0.1:{listener.getsockname()[1]}")
        change(path, "clusters", **{"certificate-authority": str(tmp_path / "ca.crt")})
        loop, connected = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(listener, connected.set)
        async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
            request = asyncio.create_task(client.get("v1/ConfigMap", "c", "prod"))
            await connected.wait()
            loop.remove_reader(listener)
        assert await asyncio.to_thread(accept_until_closed, listener, context)
        with pytest.raises(NotSent, match="the client is closed"):
            await request
