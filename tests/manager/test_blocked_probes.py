"""Probes and endpoints while code blocks the event loop, and the thread that answers them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from reconciler.client import Client
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager, event_loop
from reconciler.manager.endpoints import handlers
from reconciler.meta import Request
from tests.manager.working import RecordingReconciler, config_map

LONG = 30.0


def fetch(url: str) -> tuple[int, str]:
    """Return status and text; blocks the calling thread."""
    try:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def fetch_until(url: str, condition: Callable[[int, str], bool]) -> tuple[int, str]:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        status, text = fetch(url)
        if condition(status, text):
            return status, text
        time.sleep(0.05)
    raise AssertionError(f"{url} still answers {status}: {text}")


async def blocking(client: Client, manager: Manager, block: Callable[[], None]) -> None:
    """Run a manager whose reconcile blocks the event loop by a call."""
    reconciled = asyncio.Event()

    async def work(request: Request) -> None:
        try:
            block()
        finally:
            reconciled.set()

    made = RecordingReconciler(work)
    manager.add_controller(made, resource="v1/ConfigMap")
    async with manager.running(), asyncio.timeout(2 * LONG):
        await client.create(config_map("a"))
        await reconciled.wait()
        while not manager.controllers[0].statistics().reconciles:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(fetch, f"{manager.health_url}/healthz") == (200, "ok")
        assert manager.controllers[0].statistics().results["error"] == 0


async def test_probes_are_answered_and_name_the_code_that_blocks(client: Client) -> None:
    found: dict[str, tuple[int, str]] = {}

    def call_a_slow_service() -> None:
        found["live"] = fetch_until(f"{manager.health_url}/healthz", lambda _, text: text != "ok")
        found["ready"] = fetch(f"{manager.health_url}/readyz")
        found["ping"] = fetch(f"{manager.health_url}/healthz/ping")
        found["unknown"] = fetch(f"{manager.health_url}/healthz/unknown")
        found["metrics"] = fetch(f"{manager.metrics_url}/metrics")

    manager = Manager(client, health="127.0.0.1:0", metrics="127.0.0.1:0")
    await blocking(client, manager, call_a_slow_service)
    status, text = found["live"]
    assert status == 200
    assert text.startswith("ok, but the event loop has been blocked for ")
    assert "test_blocked_probes.py" in text
    assert "in the task 'reconcile configmap default/a'. This check fails after 60 s" in text
    assert found["ready"][0] == 500
    assert found["ready"][1].startswith("[-]event-loop failed: the event loop has been blocked for ")
    assert found["ready"][1].endswith("\nreadyz check failed\n")
    assert found["ping"][0] == 200
    assert found["unknown"][0] == 404
    assert found["metrics"][0] == 503
    assert "test_blocked_probes.py" in found["metrics"][1]


async def test_liveness_fails_when_the_block_does_not_end(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_loop, "LIVENESS_LIMIT", 1.5)
    monkeypatch.setattr(handlers, "LIVENESS_LIMIT", 1.5)
    found: list[tuple[int, str]] = []

    def hang() -> None:
        found.append(fetch_until(f"{manager.health_url}/healthz", lambda status, _: status != 200))

    manager = Manager(client, health="127.0.0.1:0")
    with caplog.at_level(logging.ERROR, "reconciler.manager"):
        await blocking(client, manager, hang)
    ((status, text),) = found
    assert status == 500
    assert text.startswith("[-]event-loop failed: the event loop has been blocked for ")
    assert text.endswith("\nhealthz check failed\n")
    (line,) = [each.getMessage() for each in caplog.records if "/healthz fails now" in each.getMessage()]
    assert "test_blocked_probes.py" in line


def endpoint_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "endpoints"]


async def test_the_thread_ends_with_the_manager(client: Client) -> None:
    before = set(threading.enumerate())
    async with Manager(client, health="127.0.0.1:0", metrics="127.0.0.1:0").running():
        assert len(endpoint_threads()) == 1
    assert endpoint_threads() == []
    async with asyncio.timeout(LONG):
        while not before.issuperset(threading.enumerate()):  # noqa: ASYNC110 - that of the watchdog ends by itself
            await asyncio.sleep(0.01)
    async with Manager(client).running():
        assert endpoint_threads() == []


async def test_the_thread_ends_if_a_port_is_in_use(client: Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="cannot listen on this address"):
            await Manager(client, metrics="127.0.0.1:0", health=address).run()
    assert endpoint_threads() == []


async def test_the_stop_does_not_wait_for_open_connections(client: Client) -> None:
    """Clients that send half a request, or nothing, while the manager stops."""
    manager = Manager(client, health="127.0.0.1:0", metrics="127.0.0.1:0")
    open_connections = []
    async with asyncio.timeout(LONG):
        async with manager.running():
            for url in (manager.health_url, manager.metrics_url):
                host, _, port = (url or "").removeprefix("http://").partition(":")
                for sent in (b"", b"GET /healthz HTTP/1.1\r\nho", b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"):
                    reader, writer = await asyncio.open_connection(host, int(port))
                    writer.write(sent)
                    open_connections.append((reader, writer))
        for reader, writer in open_connections:
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()
    assert endpoint_threads() == []


async def test_the_thread_ends_if_the_run_is_cancelled(client: Client) -> None:
    manager = Manager(client, health="127.0.0.1:0")
    running = asyncio.create_task(manager.run())
    async with asyncio.timeout(LONG):
        while manager.health_url is None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()
    assert endpoint_threads() == []
