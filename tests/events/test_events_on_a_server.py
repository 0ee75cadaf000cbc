"""API servers accept the recorder's requests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.events import EventRecorder
from reconciler.testing.control_plane import ControlPlane


@pytest_asyncio.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    if request.param == "embedded":
        async with APIServer() as server, Client(server) as client:
            yield client
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    async with plane.client() as client:
        yield client


async def test_events_are_created_counted_and_combined(client: Client) -> None:
    config_map = await client.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "events-", "namespace": "default"}}
    )
    recorder = EventRecorder(client, source="test-controller")
    running = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.normal(config_map, "Counted", "the same")
    for number in range(12):
        recorder.warning(config_map, "Tried", f"attempt {number}")
    await recorder.close(timeout=30)
    await running

    found = await client.list("v1/Event", "default", field_selector={"involvedObject.uid": config_map.uid})
    events: list[dict[str, Any]] = [event.to_dict() for event in found]
    (counted,) = [event for event in events if event["reason"] == "Counted"]
    assert (counted["count"], counted["type"], counted["message"]) == (3, "Normal", "the same")
    assert counted["involvedObject"]["name"] == config_map.name
    tried = [event for event in events if event["reason"] == "Tried"]
    assert len(tried) == 10
    assert [e["message"] for e in tried if e["count"] > 1] == ["(combined from similar events): attempt 11"]
    assert recorder.statistics().rejected == 0


async def test_event_of_a_cluster_scoped_object_is_accepted(client: Client) -> None:
    namespace = await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "events-"}})
    recorder = EventRecorder(client, source="test-controller", host="here")
    running = asyncio.create_task(recorder.run())
    recorder.normal(namespace, "Made", "m" * 2000)
    await recorder.close(timeout=30)
    await running
    (event,) = await client.list("v1/Event", "default", field_selector={"involvedObject.uid": namespace.uid})
    assert event["source"] == {"component": "test-controller", "host": "here"}
    assert len(event["message"].encode()) <= 1024
