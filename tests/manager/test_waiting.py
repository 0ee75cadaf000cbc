"""A manager whose start takes long says every 30 s what it waits for, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CacheNotSynced
from reconciler.client import Client
from reconciler.controller import CacheSyncTimeout
from reconciler.errors import ConfigurationError
from reconciler.manager.waiting import waits
from tests.manager.test_leader import elected, replica
from tests.manager.working import RecordingReconciler, config_map

pytestmark = pytest.mark.virtual_time


@contextlib.asynccontextmanager
async def starting(manager: Manager) -> AsyncIterator[None]:
    """Run a manager in the background; its start may fail."""
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        manager.stop()
        with contextlib.suppress(CacheSyncTimeout, CacheNotSynced, ConfigurationError):
            await task


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconciler.manager")


def reminders(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith("waiting for ")]


def manager_of(client: Client, resource: str = "v1/ConfigMap") -> Manager:
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=resource, sync_timeout=1000)
    return manager


async def test_missing_definition(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with starting(manager_of(client, "example.com/v1/Database")):
        await asyncio.sleep(65)
        first, second = reminders(caplog)
    assert first.startswith("waiting for 30 s: discover example.com/v1/Database: 404 Not Found: ")
    assert "is the CustomResourceDefinition installed? Install it ('reconciler crd MODULE:CLASS'" in first
    assert second.startswith("waiting for 60 s: ")


async def test_missing_right(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    server.faults.add(resource="configmaps", status=403, times=None)
    async with starting(manager_of(client)):
        await asyncio.sleep(31)
        (line,) = reminders(caplog)
    assert line.startswith("waiting for 30 s: list configmaps in all namespaces: 403 Forbidden: ")
    assert "Grant this identity the verb on the resource; 'reconciler manifests MODULE:ATTR'" in line


async def test_no_server(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """One line, whatever the number of kinds."""
    manager = manager_of(client)
    manager.add_controller(RecordingReconciler(), resource="v1/Secret", sync_timeout=1000)
    server.faults.add(lost=True, times=None)
    async with starting(manager):
        await asyncio.sleep(31)
        (line,) = reminders(caplog)
    assert line.startswith("waiting for 30 s: the API server does not answer: ")
    assert line.endswith("Check that it runs, and that its address is right and can be reached from here")


async def test_slow_first_list(client: Client) -> None:
    informer = await Cache(client, namespaces=["prod"]).informer("v1/ConfigMap")
    (wait,) = waits([informer], None)
    assert wait.text.startswith("the first list of v1/ConfigMap")
    assert "prod" in wait.text
    assert "namespaces= and selectors make it smaller" in wait.text


async def test_lease_of_another_process(server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
    """For a standby this is normal: INFO, and ever more rarely."""
    async with replica(server, "one").running() as first:
        await elected(first)
        async with replica(server, "two").running():
            await asyncio.sleep(31)
            (line,) = reminders(caplog)
            await asyncio.sleep(1800)
            lines = [each for each in caplog.records if each.getMessage().startswith("waiting for ")]
    assert "is held by one until 00:00:" in line
    assert "UTC unless it is renewed; this is a standby" in line
    assert {each.levelno for each in lines} == {logging.INFO}
    assert len(lines) == 5


async def test_missing_right_to_the_lease(server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
    server.faults.add(resource="leases", status=403, times=None)
    async with starting(replica(server, "one")):
        await asyncio.sleep(31)
        (line,) = reminders(caplog)
    assert "waiting for 30 s: lease " in line
    assert "'reconciler manifests MODULE:ATTR'" in line


async def test_no_reminder_once_everything_runs(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with manager_of(client).running():
        await asyncio.sleep(3600)
    assert reminders(caplog) == []


async def test_no_reminder_after_a_stop_during_the_start(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async with starting(manager_of(client, "example.com/v1/Database")):
        await asyncio.sleep(1)
    await asyncio.sleep(3600)
    assert reminders(caplog) == []


# Progress


def progress(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith("after ")]


async def test_a_long_list_tells_how_many_objects_it_has(
    server: APIServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1200):
        await client.create(config_map(f"a-{number}"))
    server.faults.add(resource="configmaps", verb="list", latency=4, times=None)
    manager = Manager(client)
    manager.cache.list_in_pages = True
    manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
    async with manager.running():
        pass
    first, second = progress(caplog)
    assert first == "after 7 s: listing v1/ConfigMap: 500 objects so far"
    assert second == "after 12 s: listing v1/ConfigMap: 1,000 objects so far"


async def test_a_long_drain_names_the_keys_that_are_in_progress(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(_: object) -> None:
        await asyncio.sleep(10)

    for number in range(9):
        await client.create(config_map(f"a-{number}"))
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(work), resource="v1/ConfigMap", workers=8)
    async with manager.running():
        await asyncio.sleep(1)
    keys = ", ".join(f"default/a-{number}" for number in range(5))
    named = f"draining controller configmap: {keys} and 3 more in progress, 1 ready"
    assert progress(caplog) == [
        f"after 2 s: {named}",
        f"after 7 s: {named}",
        "after 17 s: draining controller configmap: default/a-8 in progress, 0 ready",
    ]


async def test_what_is_quick_is_not_reported(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async def work(_: object) -> None:
        await asyncio.sleep(1.9)

    await client.create(config_map("a"))
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(work), resource="v1/ConfigMap")
    async with manager.running():
        await asyncio.sleep(0.1)
    await asyncio.sleep(100)
    assert progress(caplog) == []
