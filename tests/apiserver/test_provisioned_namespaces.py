"""The namespace of a created object is created as well, unless provisioning is off."""

from __future__ import annotations

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import NotFound

pytestmark = pytest.mark.virtual_time


def config_map(namespace: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}


async def test_the_namespace_of_a_created_or_applied_object_is_created() -> None:
    async with APIServer() as server, Client(server) as client:
        await client.create(config_map("prod"))
        await client.apply(config_map("stage"))
        names = {namespace.name for namespace in await client.list("v1/Namespace")}
    assert {"prod", "stage"} <= names


async def test_an_invalid_namespace_name_is_not_found() -> None:
    async with APIServer() as server, Client(server) as client:
        with pytest.raises(NotFound, match="namespaces"):
            await client.create(config_map("Not_A_Name"))


async def test_a_late_write_does_not_bring_a_deleted_namespace_back() -> None:
    async with APIServer() as server, Client(server) as client:
        await client.create(config_map("prod"))
        await client.delete("v1/Namespace", "prod")
        for write in (client.create, client.apply):
            with pytest.raises(NotFound, match='namespaces "prod" not found'):
                await write(config_map("prod"))
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod"}})
        await client.create(config_map("prod"))


async def test_a_read_creates_no_namespace() -> None:
    async with APIServer() as server, Client(server) as client:
        with pytest.raises(NotFound):
            await client.get("v1/ConfigMap", "a", "prod")
        assert "prod" not in {namespace.name for namespace in await client.list("v1/Namespace")}


async def test_without_provisioning_a_missing_namespace_is_refused() -> None:
    async with APIServer(provision_namespaces=False) as server, Client(server) as client:
        with pytest.raises(NotFound, match='namespaces "prod" not found'):
            await client.create(config_map("prod"))
