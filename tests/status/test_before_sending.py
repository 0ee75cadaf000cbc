"""Failures of the official clients before a request is sent: a repetition counts nothing twice, so nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kubernetes
import kubernetes.aio
import kubernetes_asyncio
import pytest

from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.status import StatusBatcher, StatusError, StatusUnavailable, clients

HOST = "https://10.255.255.1:6443"
POD = GroupVersionKind("", "v1", "Pod")
OBJECT = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"}}
OPTIONS: dict[str, Any] = {"flush_timeout": 5, "max_conflicts": 2}
REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def proxy(answer: bytes) -> Iterator[str]:
    """Run a proxy that gives one answer to every request for a tunnel."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(65_536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://user:p4ssw0rd@127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def blocking(configure: Callable[[Any], None]) -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = HOST
    configure(configuration)
    with (
        kubernetes.client.ApiClient(configuration) as client,
        StatusBatcher(client, OBJECT, **OPTIONS) as status,
    ):
        status.increment("tries")


async def asynchronous(module: Any, configure: Callable[[Any], None]) -> None:
    configuration = module.client.Configuration()
    configuration.host = HOST
    configure(configuration)
    async with (
        module.client.ApiClient(configuration) as client,
        StatusBatcher(client, OBJECT, **OPTIONS) as status,
    ):
        status.increment("tries")


RUNS: dict[str, Callable[[Callable[[Any], None]], Awaitable[None]]] = {
    "kubernetes": lambda configure: asyncio.to_thread(blocking, configure),
    "kubernetes.aio": lambda configure: asynchronous(kubernetes.aio, configure),
    "kubernetes_asyncio": lambda configure: asynchronous(kubernetes_asyncio, configure),
}


async def failure(client: str, configure: Callable[[Any], None]) -> StatusError:
    """Return the error of a flush, which is that of a write that was certainly not made."""
    clients._served[HOST, POD] = ResourceType(POD, "pods", namespaced=True)
    with pytest.raises(StatusUnavailable, match=r"was not written after 2 writes and 0 reads") as caught:
        await RUNS[client](configure)
    return caught.value


@pytest.mark.parametrize("client", RUNS)
async def test_a_proxy_that_refuses_or_is_down_leaves_nothing_unknown_and_its_password_nowhere(
    client: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "reconciler"), proxy(REFUSED) as address:
        refused = await failure(client, lambda configuration: setattr(configuration, "proxy", address))
    down = await failure(client, lambda configuration: setattr(configuration, "proxy", address))
    assert "407" in str(refused)
    for error in (refused, down):
        assert "p4ssw0rd" not in "".join(traceback.format_exception(error)) + caplog.text


@pytest.mark.parametrize("client", RUNS)
async def test_credentials_that_cannot_be_renewed_leave_nothing_unknown_and_show_no_token(client: str) -> None:
    def fail(_: Any) -> None:
        raise FileNotFoundError(2, "no token p4ssw0rd", "/token")

    async def fail_later(_: Any) -> None:
        fail(_)

    def configure(configuration: Any) -> None:
        configuration.api_key = {"BearerToken": "x"}
        configuration.refresh_api_key_hook = fail if client == "kubernetes" else fail_later

    error = await failure(client, configure)
    assert "the credentials could not be renewed (FileNotFoundError)" in str(error)
    assert "p4ssw0rd" not in "".join(traceback.format_exception(error))
