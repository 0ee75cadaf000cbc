"""Mistakes of the notification operator's users: refused by the API server or reported in the status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.errors import Invalid
from reconciler.notification import FileChannel, LogChannel, NotificationReconciler, NotificationRequest

pytestmark = pytest.mark.virtual_time


def request(name: str = "n", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "Simple", "subject": "s", "body": "b", "channels": ["log"], **spec},
    }


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        yield client


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"maxAttempts": 0}, "spec.retryPolicy.maxAttempts in body should be greater than or equal to 1"),
        ({"maxAttempts": 11}, "spec.retryPolicy.maxAttempts in body should be less than or equal to 10"),
        ({"maxAttempts": "many"}, "spec.retryPolicy.maxAttempts in body must be of type integer"),
        ({"backoffMultiplier": 0.5}, "spec.retryPolicy.backoffMultiplier in body should be greater than or equal to 1"),
        ({"jitter": 2}, "spec.retryPolicy.jitter in body should be less than or equal to 1"),
        (
            {"initialBackoffSeconds": 100, "maxBackoffSeconds": 10},
            "maxBackoffSeconds must not be smaller than initialBackoffSeconds",
        ),
    ],
)
async def test_invalid_retry_policy_is_refused_with_the_field_and_the_bound(client: Client, policy, says) -> None:
    with pytest.raises(Invalid) as raised:
        await client.create(request(retryPolicy=policy))
    assert says in str(raised.value)
    assert raised.value.causes[0].field.startswith("spec.retryPolicy")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"channels": []}, "spec.channels"),
        ({"channels": ["not a name"]}, "spec.channels[0]"),
        ({"type": "Gossip"}, "spec.type"),
        ({"subject": ""}, "spec.subject"),
        ({"body": "b" * 70_000}, "spec.body"),
    ],
)
async def test_invalid_request_is_refused_with_the_field(client: Client, spec, field) -> None:
    with pytest.raises(Invalid) as raised:
        await client.create(request(**spec))
    assert raised.value.causes[0].field == field


async def test_unknown_channel_is_reported_with_the_known_ones(client: Client) -> None:
    manager = Manager(client)
    manager.add_controller(NotificationReconciler(channels=[LogChannel()]))
    async with manager.running():
        await client.create(request(channels=["pigeon", "log"]))
        await asyncio.sleep(5)
        status = (await client.get(NotificationRequest, "n", "default")).status
    assert status.phase == "PartiallySent"
    assert "unknown channel 'pigeon'; registered channels: log" in (status.message or "")


async def test_unwritable_directory_is_reported_and_retried(client: Client, tmp_path: Path) -> None:
    directory = tmp_path / "occupied" / "below"
    directory.parent.write_text("")
    manager = Manager(client)
    manager.add_controller(NotificationReconciler(channels=[FileChannel(directory)]))
    async with manager.running():
        await client.create(request(channels=["file"], retryPolicy={"jitter": 0}))
        await asyncio.sleep(5)
        before = (await client.get(NotificationRequest, "n", "default")).status
        directory.parent.unlink()
        await asyncio.sleep(60)
        after = (await client.get(NotificationRequest, "n", "default")).status
    assert before.phase == "Retrying"
    assert f"cannot write {directory}" in (before.channels[0].last_error or "")
    assert after.phase == "Sent"
