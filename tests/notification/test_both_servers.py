"""The rules of the CRD and a reconcile, on a real API server and on the embedded one."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest

from reconciler.cache import Cache, CachedClient
from reconciler.controller import Controller
from reconciler.errors import Invalid
from reconciler.meta.documents import parse_time
from reconciler.notification import (
    ConsoleChannel,
    Message,
    NotificationReconciler,
    NotificationRequest,
    PermanentDeliveryError,
)
from reconciler.testing import Cluster


def document(cluster: Cluster, **spec: Any) -> dict[str, Any]:
    wanted = {"type": "Simple", "subject": "s", "body": "b", "channels": ["console", "console"]} | spec
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": "n", "namespace": cluster.namespace},
        "spec": wanted,
    }


async def test_the_server_fills_in_the_defaults(cluster: Cluster) -> None:
    await cluster.install(NotificationRequest)
    created = await cluster.client.create(document(cluster, retryPolicy={"maxAttempts": 3}), field_validation="Strict")
    assert created.to_dict()["spec"] == {
        "type": "Simple",
        "priority": "Medium",
        "subject": "s",
        "body": "b",
        "channels": ["console", "console"],
        "dryRun": False,
        "retryPolicy": {
            "maxAttempts": 3,
            "initialBackoffSeconds": 30,
            "backoffMultiplier": 2,
            "maxBackoffSeconds": 480,
            "jitter": 0.1,
        },
        "delivery": "AtLeastOnce",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "Alarm"}, "Escalation"),
        ({"subject": ""}, "subject"),
        ({"body": "b" * 65_537}, "body"),
        ({"channels": []}, "channels"),
        ({"channels": ["a b"]}, "channels"),
        ({"retryPolicy": {"maxAttempts": 11}}, "maxAttempts"),
        ({"retryPolicy": {"jitter": 1.5}}, "jitter"),
        ({"retryPolicy": {"initialBackoffSeconds": 600}}, "must not be smaller than initialBackoffSeconds"),
    ],
    ids=str,
)
async def test_the_server_rejects_invalid_values_and_names_the_field(
    cluster: Cluster, changes: dict[str, Any], words: str
) -> None:
    await cluster.install(NotificationRequest)
    with pytest.raises(Invalid, match=words):
        await cluster.client.create(document(cluster, **changes))


async def test_the_server_rejects_a_change_of_the_spec_with_advice(cluster: Cluster) -> None:
    await cluster.install(NotificationRequest)
    await cluster.client.create(document(cluster))
    with pytest.raises(Invalid, match="delete the request and create another one"):
        await cluster.client.patch(NotificationRequest, "n", cluster.namespace, patch={"spec": {"subject": "other"}})


class Down:
    """A channel that fails, temporarily or permanently."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name
        self.error = error

    async def deliver(self, message: Message) -> None:
        raise self.error


@pytest.mark.parametrize("strategy", ["auto", "merge", "apply"])
async def test_a_reconcile_stores_its_decision_with_one_write(cluster: Cluster, strategy: Any) -> None:
    await cluster.install(NotificationRequest)
    channels = [
        ConsoleChannel(io.StringIO()),
        Down("gone", PermanentDeliveryError("410")),
        Down("busy", OSError("503")),
    ]
    async with Cache(cluster.client, namespaces=[cluster.namespace]) as cache:
        client = CachedClient(cluster.client, cache)
        reconciler = NotificationReconciler(channels=channels)
        reconciler.status_strategy = strategy
        controller = Controller(reconciler, cache=cache, client=client)
        await controller.start()
        try:
            await cluster.client.create(document(cluster, channels=["console", "gone", "busy"]))
            found = await cluster.client.wait_for(
                NotificationRequest, "n", cluster.namespace, until=lambda n: n.status.phase is not None, timeout=30
            )
        finally:
            await controller.stop()
    assert cluster.writes(name="n") == [200]
    status = found.to_dict()["status"]
    assert (status["phase"], status["totalAttempts"], status["observedGeneration"]) == ("Retrying", 3, 1)
    assert [channel["state"] for channel in status["channels"]] == ["Delivered", "Failed", "Retrying"]
    busy = status["channels"][2]
    due, ended = parse_time(busy["nextAttemptTime"]), parse_time(busy["lastAttemptTime"])
    assert due - ended == timedelta(seconds=busy["delaySeconds"]), "microseconds were lost on the way"
