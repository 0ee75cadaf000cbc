"""The examples do what they say."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import pytest
from kubernetes_asyncio import client as k8s
from kubernetes_asyncio import config as k8s_config

from reconciler import Client, Manager, ObjectMeta
from reconciler.apiserver import APIServer
from reconciler.notification import NotificationRequest

EXAMPLES = Path(__file__).parents[2] / "examples"


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
                "apps/v1/Deployment", "db1", "default", patch={"status": {"readyReplicas": 1}}, subresource="status"
            )
            await client.wait_for(
                example.Database, "db1", "default", until=lambda db: db.status.phase == "Ready", timeout=30
            )
            await asyncio.sleep(60)
        assert len(server.requests(verb="patch", resource="databases", subresource="status")) == 2


async def test_the_batcher_in_a_kubernetes_asyncio_loop_writes_once(tmp_path: Path) -> None:
    example = importlib.import_module("examples.batcher_kubernetes_asyncio")
    operator = importlib.import_module("examples.database_operator")
    crd = operator.Database.crd()
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["status"]["x-kubernetes-preserve-unknown-fields"] = True
    async with APIServer() as server:
        await server.apply(crd)
        kubeconfig = tmp_path / "kubeconfig"
        server.write_kubeconfig(kubeconfig)
        await k8s_config.load_kube_config(str(kubeconfig))
        async with k8s.ApiClient() as api_client:
            api = k8s.CustomObjectsApi(api_client)
            address = (example.GROUP, example.VERSION, "default", example.PLURAL)
            body = {
                "apiVersion": "example.com/v1",
                "kind": "Database",
                "metadata": {"name": "db1"},
                "spec": {"size": 1},
            }
            obj = await api.create_namespaced_custom_object(*address, body)
            await example.work_on(api, obj)
            found = await api.get_namespaced_custom_object(*address, "db1")
        assert found["status"]["totalSteps"] == 3
        assert len(found["status"]["steps"]) == 3
        assert len(server.requests(verb="patch", subresource="status", name="db1")) == 1


@pytest.mark.virtual_time
async def test_the_notification_of_the_example_is_accepted() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest, EXAMPLES / "notification.yaml")
        found = await client.get(NotificationRequest, "disk-full", "default")
    assert found.spec.channels == ["console", "file"]
