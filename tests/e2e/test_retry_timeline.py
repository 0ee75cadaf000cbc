"""The case that started the project: a working and a failing channel, retried with one status write per reconcile.

First the setup, then the timeline, then disturbances.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.notification import ConsoleChannel, FileChannel, Message, NotificationReconciler, NotificationRequest

pytestmark = pytest.mark.virtual_time

TIMELINE = [0, 30, 90, 210, 450]


@dataclass
class Recorder:
    """A channel that records when it is called and fails on demand."""

    name: str
    error: Exception | None = None
    calls: list[float] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        self.calls.append(round(asyncio.get_running_loop().time(), 3))
        if self.error is not None:
            raise self.error


def request(channels: list[str], **policy: Any) -> NotificationRequest:
    return NotificationRequest.from_dict(
        {
            "metadata": {"name": "disk-full", "namespace": "default"},
            "spec": {
                "type": "Escalation",
                "priority": "High",
                "subject": "Disk almost full",
                "body": "/var/lib is at 93 %.",
                "channels": channels,
                "retryPolicy": {"jitter": 0, **policy},
            },
        }
    )


@asynccontextmanager
async def operator(server: APIServer, client: Client, *channels: Any) -> AsyncIterator[Any]:
    manager = Manager(client)
    controller = manager.add_controller(NotificationReconciler(channels=list(channels)))
    async with manager.running():
        yield controller


async def status_of(client: Client) -> dict[str, Any]:
    found = await client.get(NotificationRequest, "disk-full", "default")
    return found.to_dict().get("status") or {}


def status_writes(server: APIServer) -> int:
    return len(server.requests(subresource="status", name="disk-full"))


async def test_attempts_are_at_0_30_90_210_450_and_each_reconcile_writes_once() -> None:
    console, pager = Recorder("console"), Recorder("pager", ConnectionError("no route to host"))
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, console, pager) as controller:
            await client.create(request(["console", "pager"]))
            start = asyncio.get_running_loop().time()
            await asyncio.sleep(449)
            assert (await status_of(client))["phase"] == "Retrying"
            await asyncio.sleep(2)
            assert (await status_of(client))["phase"] == "PartiallySent"  # with the last attempt, not one backoff later
            await asyncio.sleep(86_400)
            cycles = controller.statistics().reconciles
    assert [call - start for call in pager.calls] == pytest.approx(TIMELINE, abs=0.01)
    assert len(console.calls) == 1
    assert status_writes(server) == 5
    assert cycles == 5


async def test_file_channel_with_an_impossible_directory_is_retried_by_the_policy(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("not a directory")
    channels = [ConsoleChannel(stream=io.StringIO()), FileChannel(occupied / "notes")]
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, *channels):
            await client.create(request(["console", "file"]))
            await asyncio.sleep(3600)
            status = await status_of(client)
    assert status["phase"] == "PartiallySent"
    assert status["totalAttempts"] == 6
    assert status["successfulDeliveries"] == 1
    assert status["failedDeliveries"] == 1
    assert status_writes(server) == 5


async def test_writes_by_others_never_advance_an_attempt() -> None:
    pager = Recorder("pager", ConnectionError("no route to host"))
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, pager):
            await client.create(request(["pager"]))
            for moment in range(45):
                patch: dict[str, Any] = {"metadata": {"annotations": {"seen-by": f"somebody {moment}"}}}
                await client.patch(NotificationRequest, "disk-full", "default", patch=patch)
                await asyncio.sleep(11)
            status = await status_of(client)
    assert pager.calls == pytest.approx(TIMELINE, abs=0.06)
    assert status["phase"] == "Failed"  # no channel delivered


async def test_restart_during_a_wait_keeps_the_due_time() -> None:
    pager = Recorder("pager", ConnectionError("no route to host"))
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, pager):
            await client.create(request(["pager"]))
            await asyncio.sleep(50)
        await asyncio.sleep(20)
        async with operator(server, client, pager):
            await asyncio.sleep(3600)
    assert pager.calls == pytest.approx(TIMELINE, abs=0.06)


@pytest.mark.parametrize("status", [409, 500, 503])
async def test_failed_status_write_loses_no_attempt_and_repeats_no_delivery(status: int) -> None:
    console, pager = Recorder("console"), Recorder("pager", ConnectionError("no route to host"))
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, console, pager):
            server.faults.add(status=status, times=1, subresource="status")
            await client.create(request(["console", "pager"]))
            await asyncio.sleep(3600)
            final = await status_of(client)
    assert len(console.calls) == 1
    assert len(pager.calls) == 5
    assert final["phase"] == "PartiallySent"
    assert final["totalAttempts"] == 6


async def test_unknown_channel_fails_with_a_reason_and_never_loops() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        async with operator(server, client, Recorder("console")) as controller:
            await client.create(request(["telegraph"]))
            await asyncio.sleep(86_400)
            status = await status_of(client)
            cycles = controller.statistics().reconciles
    assert status["phase"] == "Failed"
    assert "telegraph" in status["message"]
    assert cycles <= 2
