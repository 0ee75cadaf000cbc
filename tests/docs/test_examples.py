"""The examples do what they say."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import Client, Manager, ObjectMeta
from reconciler.apiserver import APIServer
from reconciler.notification import NotificationRequest
from reconciler.notification.channels.services import RECEIVER_KINDS
from reconciler.notification.router import attributes_of
from reconciler.notification.routing_config import read_routing
from reconciler.objects import Quantity

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.virtual_time
async def test_the_typed_operator_follows_its_deployment() -> None:
    example = importlib.import_module("examples.typed_operator")
    async with APIServer() as server, Client(server) as client:
        await server.apply(example.Cache)
        manager = Manager(client)
        example.add_controllers(manager)
        async with manager.running():
            spec = example.CacheSpec(memory=Quantity("1Gi"), replicas=2)
            await client.create(example.Cache(metadata=ObjectMeta(name="c", namespace="default"), spec=spec))
            deployment = await client.wait_for("apps/v1/Deployment", "c", "default", until=bool, timeout=30)
            [container] = deployment["spec"]["template"]["spec"]["containers"]
            assert container["resources"] == {"limits": {"memory": "1152Mi"}}
            assert container["args"] == ["--memory-limit=1024", "--expiry=3600"]
            ready = {"status": {"replicas": 2, "readyReplicas": 2}}
            await client.patch("apps/v1/Deployment", "c", "default", patch=ready, subresource="status")
            await client.wait_for(
                example.Cache, "c", "default", until=lambda cache: cache.status.replicas == 2, timeout=30
            )
            scale = await client.get_subresource(example.Cache, "c", "default", subresource="scale")
            assert scale["status"] == {"replicas": 2, "selector": "cache=c"}
        rules = manager.rbac("cache-operator")[1]["rules"]
        assert any(rule["resources"] == ["deployments"] and "patch" in rule["verbs"] for rule in rules)


@pytest.mark.virtual_time
async def test_the_database_operator_follows_its_deployment() -> None:
    example = importlib.import_module("examples.database_operator")
    async with APIServer() as server, Client(server) as client:
        await server.apply(example.Database)
        manager = Manager(client)
        manager.add_controller(example.DatabaseReconciler(), owns=["apps/v1/Deployment"])
        async with manager.running():
            await client.create(
                example.Database(
                    metadata=ObjectMeta(name="db1", namespace="default"), spec=example.DatabaseSpec(size=3)
                )
            )
            await client.wait_for(
                example.Database, "db1", "default", until=lambda db: db.status.phase == "Provisioning", timeout=30
            )
            deployment = await client.get("apps/v1/Deployment", "db1", "default")
            assert deployment.to_dict()["metadata"]["ownerReferences"][0]["name"] == "db1"
            await client.patch(
                "apps/v1/Deployment",
                "db1",
                "default",
                patch={"status": {"replicas": 1, "readyReplicas": 1}},
                subresource="status",
            )
            await client.wait_for(
                example.Database, "db1", "default", until=lambda db: db.status.phase == "Ready", timeout=30
            )
            await asyncio.sleep(60)
        assert len(server.log.writes(example.Database, subresource="status")) == 2


@pytest.mark.parametrize("client", ["kubernetes", "kubernetes_aio", "kubernetes_asyncio", "reconciler_client"])
def test_the_batcher_in_a_loop_writes_once_where_the_loop_wrote_six_times(client: str) -> None:
    assert printed_by(f"batcher_{client}.py") == [
        "before: 6 status writes, woken 7 times",
        "after:  1 status write, woken 2 times",
    ]


def test_the_batcher_in_kopf_writes_once_and_adds_no_request_to_those_of_kopf() -> None:
    assert printed_by("batcher_kopf.py") == [
        "before: 6 status writes, and 1 of kopf's annotations",
        "after:  1 status write, and 1 of kopf's annotations",
    ]


def test_a_killed_worker_does_not_repeat_what_has_a_key() -> None:
    assert printed_by("idempotency_key.py") == [
        "before: 1 status write, recorded when killed: 0, in the end: 1, mails sent: 2",
        "after:  1 status write, recorded when killed: 0, in the end: 1, mails sent: 1",
    ]


def test_a_killed_worker_does_not_repeat_what_it_said_it_would_do() -> None:
    assert printed_by("intent_first.py") == [
        "before: 1 status write, recorded when killed: nothing, in the end: done, times done: 2",
        "after:  2 status writes, recorded when killed: intended, in the end: unknown, times done: 1",
    ]


def printed_by(example: str) -> list[str]:
    """Run an example as a reader would, and return what it prints; a warning is a failure."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.virtual_time
async def test_the_notification_of_the_example_is_accepted_and_routed() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest, EXAMPLES / "notification.yaml")
        found = await client.get(NotificationRequest, "disk-full", "default")
    assert found.spec.channels is None
    text = (EXAMPLES / "notification" / "receiver.yaml").read_text()
    routing = read_routing(text, name="receiver.yaml", kinds=RECEIVER_KINDS)
    (receiver,) = routing.route.receivers(attributes_of(found))
    assert routing.receivers[receiver].channel_names == ("webhook:pager",)


@pytest.mark.parametrize(("name", "tests"), [("test_kopf_operator.py", 5), ("test_plain_controller.py", 5)])
def test_the_tests_of_foreign_controllers_pass(name: str, tests: int) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"examples/{name}"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{tests} passed" in done.stdout
