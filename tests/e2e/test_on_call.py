"""Faults planted into a running operator: each is named by every screen that an engineer on call looks at."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from reconciler import (
    Client,
    ConditionedStatus,
    Model,
    ObjectMeta,
    Outcome,
    Resource,
    ResourceReconciler,
    StatusBatcher,
)
from reconciler.apiserver import APIServer
from reconciler.cli.explain import explanation, find_key
from reconciler.clock import current_clock
from reconciler.manager import LeaderElection
from reconciler.manager.endpoints.keys import read_document
from reconciler.meta import Request
from reconciler.objects import generate_crd
from reconciler.workqueue import ExponentialBackoff
from tests.e2e.on_call import Screens

pytestmark = pytest.mark.virtual_time


class DiskSpec(Model):
    size: int = 1


class DiskStatus(ConditionedStatus):
    phase: str | None = None


class Disk(Resource[DiskSpec, DiskStatus], group="example.com", version="v1"):
    """A disk."""


Body = Callable[[Disk, StatusBatcher[DiskStatus]], Awaitable[Outcome]]


class Disks(ResourceReconciler[Disk]):
    def __init__(self, body: Body | None = None) -> None:
        self.body = body

    async def reconcile_object(self, disk: Disk, status: StatusBatcher[DiskStatus]) -> Outcome:
        status.set(phase="Ready")
        return None if self.body is None else await self.body(disk, status)


def disk(name: str = "a") -> Disk:
    return Disk(metadata=ObjectMeta(name=name, namespace="default"), spec=DiskSpec())


@pytest_asyncio.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        yield server


@pytest_asyncio.fixture
async def client(server: APIServer) -> AsyncIterator[Client]:
    async with Client(server) as client:
        yield client


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconciler")


def new_screens(client: Client, body: Body | None = None, *, manager: Any = None, **options: Any) -> Screens:
    screens = Screens(client, **(manager or {}))
    screens.manager.add_controller(Disks(body), **options)
    return screens


async def test_a_reconcile_that_never_ends(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    await server.apply(Disk)
    await client.create(disk())

    async def body(*_: Any) -> Outcome:
        await asyncio.Event().wait()
        return None

    screens = new_screens(client, body)
    async with screens.running():
        await asyncio.sleep(5)
        place = "e2e/test_on_call.py:"
        assert f"It is at {place}" in screens.explain("Disk", "a")
        assert ", which waits in asyncio/locks.py:" in screens.explain("Disk", "a")
        page = await screens.console("/key", "controller=disk&namespace=default&name=a")
        assert f"It is at {place}" in page
        await asyncio.sleep(56)
        assert f"default/a is in progress for 60 s, at {place}" in caplog.text
        [event] = await screens.events("a")
        assert event.startswith(f"Warning ReconcileStuck: the reconcile is in progress for 60 s, at {place}")
        assert f"stuck for 61 s at {place}" in await screens.console()


MISSING = "is the CustomResourceDefinition installed? Install it ('reconciler crd MODULE:CLASS'"


async def test_a_definition_that_is_missing(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(31)
        for text in (
            caplog.text,
            screens.explain("Disk", "a"),
            await screens.console(),
            await screens.readyz(),
            str(screens.document().waits),
        ):
            assert ".example.com" in text
            assert "404 Not Found: " in text
            assert MISSING in text
        assert "leader" not in screens.explain("Disk", "a")
        assert "check the name" not in screens.explain("Disk", "a")
        assert "[-]manager failed" in await screens.readyz()
        strangers = await screens.readyz(local=False)
        assert "waiting: example.com/v1/Disk\n" in strangers
        assert "404" not in strangers


async def test_a_list_that_is_forbidden(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    await server.apply(Disk)
    await client.create(disk())
    server.faults.add(resource="disks", status=403, times=None)
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(31)
        for text in (
            caplog.text,
            screens.explain("Disk", "a"),
            await screens.console(),
            await screens.readyz(),
        ):
            assert "list disks.example.com in all namespaces: 403 Forbidden: " in text
            assert "Grant this identity the verb on the resource" in text


async def test_a_second_kind_that_is_forbidden(server: APIServer, client: Client) -> None:
    """The keys of the first kind are queued, and explained with what the start waits for."""
    await server.apply(Disk)
    await client.create(disk())
    server.faults.add(resource="secrets", status=403, times=None)
    screens = new_screens(client, owns=["v1/Secret"])
    async with screens.running():
        await asyncio.sleep(31)
        text = screens.explain("Disk", "a")
        assert "list secrets in all namespaces: 403 Forbidden" in text
        assert "leader" not in text.replace("is not the leader", "")


async def test_another_leader(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 3600}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    await client.create({**lease, "metadata": {"name": "lease", "namespace": "default"}, "spec": spec})
    screens = new_screens(client, manager={"leader_election": LeaderElection("lease", "default")})
    async with screens.running():
        await asyncio.sleep(31)
        for text in (
            screens.explain("Disk", "a"),
            await screens.console(),
            await screens.readyz(),
        ):
            assert "lease default/lease is held by another until " in text
        assert "Ask the leader." in screens.explain("Disk", "a")
        assert "[+]manager ok" in await screens.readyz()


async def test_a_token_that_dies(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    await server.apply(Disk)
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(5)
        assert "[+]credentials ok" in await screens.readyz()
        fault = server.faults.add(status=401, times=None)
        server.cut_watches()
        await asyncio.sleep(60)
        for text in (await screens.readyz(), screens.explain("Disk", "a"), await screens.console()):
            assert "the API server refuses the credentials (401 Unauthorized)" in text
        assert "[-]credentials failed" in await screens.readyz()
        assert "401" in caplog.text
        fault.remove()
        await asyncio.sleep(120)
        assert "[+]credentials ok" in await screens.readyz()
        assert "401" not in await screens.readyz()


async def test_a_status_field_that_the_definition_does_not_have(server: APIServer, client: Client) -> None:
    definition = generate_crd(Disk)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["phase"]
    await server.apply(definition)
    await client.create(disk())
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(5)
        problem = "the server did not store status.phase: the schema in the CRD has no such field"
        for text in (screens.explain("Disk", "a"), await screens.console()):
            assert problem in text
        assert await screens.events("a") == [f"Warning StatusFieldNotStored: {problem}"]
        await server.apply(Disk)
        for size in range(2, 20):  # the field is sent again after ten minutes
            await client.patch(Disk, "a", "default", patch={"spec": {"size": size}})
            await asyncio.sleep(700)
            if problem not in screens.explain("Disk", "a"):
                break
        assert problem not in screens.explain("Disk", "a")
        assert "Nothing fails" in await screens.console()


async def test_a_webhook_that_is_down(server: APIServer, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    await server.apply(Disk)
    await client.create(disk())
    await client.create(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "guard"},
            "webhooks": [
                {
                    "name": "guard.example.com",
                    "clientConfig": {"service": {"name": "guard", "namespace": "default"}},
                    "rules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
                    ],
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                }
            ],
        }
    )

    async def body(disk: Disk, _: StatusBatcher[DiskStatus]) -> Outcome:
        await client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "default"}})
        return None

    screens = new_screens(client, body)
    async with screens.running():
        await asyncio.sleep(30)
        texts = [screens.explain("Disk", "a"), await screens.console(), caplog.text]
        for text in (*texts, *await screens.events("a")):
            assert 'failed calling webhook "guard.example.com"' in text
        assert any("Warning ReconcileFailed: " in each for each in await screens.events("a"))


async def test_a_failure_in_the_library_alone_is_one_line(
    server: APIServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await server.apply(Disk)
    await client.create(disk())
    server.faults.add(subresource="status", status=403, times=None)
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(5)
        [failure, *_] = [each for each in caplog.records if "failed on" in each.getMessage()]
        assert failure.exc_info is None
        assert "403 Forbidden" in failure.getMessage()
        explained = screens.explain("Disk", "a").splitlines()
        at = next(number for number, line in enumerate(explained) if "403 Forbidden" in line)
        assert explained[at + 1].strip().startswith("status/")
        assert "reconcile_id" in explained[at + 2]


async def test_objects_that_are_not_ready(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())
    await client.create(disk("fine"))

    async def body(disk: Disk, status: StatusBatcher[DiskStatus]) -> Outcome:
        secret = "password=hunter2-hunter2"
        status.set_condition("Ready", disk.name == "fine", reason="NoSpace", message=f"the zone is full, {secret}")
        return None

    screens = new_screens(client, body)
    async with screens.running():
        await asyncio.sleep(120)
        for text in (screens.explain("Disk", "a"), await screens.console()):
            assert "Ready is False (NoSpace) for 2 min: the zone is full" in text
            assert "hunter2" not in text
        assert "default/fine" not in await screens.console()
        page = await screens.console("/key", "controller=disk&namespace=default&name=a")
        assert "Ready False 2 min NoSpace the zone is full" in page
        assert '"phase": "Ready"' in page
        assert "hunter2" not in page
        remote = str(read_document(screens.manager._process, {"name": "a", "namespace": "default"}, trusted=False))
        assert "Ready is False (NoSpace)" in remote
        assert "the zone is full" not in remote


async def test_green_means_green(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())
    screens = new_screens(client)
    async with screens.running():
        await asyncio.sleep(5)
        assert "Nothing fails, and nothing hangs." in await screens.console()


async def test_a_condition_is_unknown_while_the_reconciles_fail(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())
    fails = False

    async def body(disk: Disk, status: StatusBatcher[DiskStatus]) -> Outcome:
        if fails:
            raise ConnectionError(f"no route to the store, attempt at {current_clock().now()}")
        status.set_condition("Ready", True, reason="Provisioned")
        return None

    class Honest(Disks):
        ready_condition = "Ready"

    screens = Screens(client)
    controller = screens.manager.add_controller(Honest(body), rate_limiter=ExponentialBackoff(10, 10))

    async def ready() -> Any:
        stored = await client.get(Disk, "a", "default")
        return next(each for each in stored.status.conditions if each.type == "Ready")

    async with screens.running():
        await asyncio.sleep(5)
        assert (await ready()).status == "True"
        fails = True
        written = len(server.requests(subresource="status"))
        controller.enqueue(Request("a", "default"))
        await asyncio.sleep(15)
        assert (await ready()).status == "True"  # two failures may be a conflict
        await asyncio.sleep(300)
        found = await ready()
        assert (found.status, found.reason) == ("Unknown", "ConnectionError")
        assert found.message.startswith("ConnectionError: no route to the store")
        assert len(server.requests(subresource="status")) == written + 1
        assert "Ready is Unknown (ConnectionError) for 5 min" in await screens.console()
        fails = False
        await asyncio.sleep(15)
        assert (await ready()).status == "True"


async def test_what_the_body_says_about_a_failure_stays(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())

    async def body(disk: Disk, status: StatusBatcher[DiskStatus]) -> Outcome:
        status.set_condition("Ready", False, reason="NoSpace")
        raise ConnectionError("no space")

    class Honest(Disks):
        ready_condition = "Ready"

    screens = Screens(client)
    screens.manager.add_controller(Honest(body), rate_limiter=ExponentialBackoff(10, 10))
    async with screens.running():
        await asyncio.sleep(300)
    stored = await client.get(Disk, "a", "default")
    assert [(each.status, each.reason) for each in stored.status.conditions] == [("False", "NoSpace")]
    assert len(server.requests(subresource="status")) == 1


async def test_a_storm_with_its_cause(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    await client.create(disk())
    writes = 0

    class Storm(Disks):
        async def reconcile_object(self, disk: Disk, status: StatusBatcher[DiskStatus]) -> Outcome:
            nonlocal writes
            writes += 1
            await asyncio.sleep(0.05)
            patch = {"metadata": {"annotations": {"seen": str(writes)}}}
            await self.client.patch(Disk, "a", "default", patch=patch)
            return None

    screens = Screens(client)
    screens.manager.add_controller(Storm())
    async with screens.running():
        await asyncio.sleep(40)
        for text in (screens.explain("Disk", "a"), await screens.console()):
            assert "in a tight loop: 19." in text or "in a tight loop: 20.0 per second" in text
            assert "event ×" in text
        assert "ts own write of metadata.annotations" in screens.explain("Disk", "a")


async def test_workers_that_are_saturated(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    for number in range(5):
        await client.create(disk(f"d-{number}"))

    async def body(*_: Any) -> Outcome:
        await asyncio.sleep(20)
        return None

    screens = new_screens(client, body, workers=2)
    async with screens.running():
        await asyncio.sleep(15)
        saturated = "all 2 workers are busy, the longest for 15 s; keys that are ready: 3, the first for 15 s"
        assert saturated in await screens.console()
        assert "Nothing fails" not in await screens.console()


async def test_eighty_columns(server: APIServer, client: Client) -> None:
    await server.apply(Disk)
    for name in ("a", "b", "c", "d"):
        await client.create(disk(name))
    await client.create(disk("other"))

    async def body(disk: Disk, _: StatusBatcher[DiskStatus]) -> Outcome:
        if disk.name == "other":
            raise LookupError("no disk of 400 GB in zone eu-1a, where three of three requests for one were refused")
        raise RuntimeError("500 from billing")

    screens = new_screens(client, body, rate_limiter=ExponentialBackoff(600, 600))
    async with screens.running():
        await asyncio.sleep(5)
        explained = explanation(find_key(screens.document, "Disk", "other"), 80).splitlines()
        assert max(map(len, explained)) <= 80
        error = next(number for number, line in enumerate(explained) if "LookupError: " in line)
        assert explained[error].startswith("    LookupError: ")
        assert explained[error + 1].startswith("        ")
