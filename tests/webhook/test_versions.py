"""A kind with two versions and a conversion webhook, on the embedded server and on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from reconciler import Client, Manager, Reconciler, Request
from reconciler.apiserver import APIServer
from reconciler.errors import APIError, NotFound
from reconciler.testing.control_plane import ControlPlane
from reconciler.webhook import Converter, ServiceReference, WebhookServer, conversion_configuration
from tests.definitions import definition, version
from tests.webhook.database import write_certificate
from tests.webhook.test_server import serving

NEW, OLD = "versions.reconciler.dev/v1/Disk", "versions.reconciler.dev/v1alpha1/Disk"


def gigabytes(document: dict[str, Any]) -> None:
    size = document["spec"]["size"]
    if not size.endswith("G"):
        raise ValueError(f"{size} is not in gigabytes")
    document["spec"]["size"] = int(size.removesuffix("G"))


def text(document: dict[str, Any]) -> None:
    document["spec"]["size"] = f"{document['spec']['size']}G"
    document["metadata"].setdefault("annotations", {})["converted"] = "yes"
    document["metadata"]["generation"] = 77


def disks(conversion: dict[str, Any], storage: str = "v1") -> dict[str, Any]:
    def of(name: str, size: str) -> dict[str, Any]:
        spec = {"size": {"type": size}, "media": {"type": "string", "default": f"disk of {name}"}}
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
        return version(name, schema, storage=name == storage, subresources={"status": {}})

    versions = of("v1", "integer"), of("v1alpha1", "string")
    return definition("versions.reconciler.dev", "Disk", *versions, conversion=conversion)


def webhooks(certificates: Path | None = None) -> tuple[WebhookServer, Converter]:
    converter = Converter("versions.reconciler.dev", "Disk", hub="v1")
    converter.add("v1alpha1", to_hub=gigabytes, from_hub=text)
    server = WebhookServer("127.0.0.1:0", certificates=certificates)
    server.add(converter)
    return server, converter


def disk(version: str, name: str, size: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": f"versions.reconciler.dev/{version}",
        "kind": "Disk",
        "metadata": metadata,
        "spec": {"size": size},
    }


async def specs(client: Client, kind: str) -> dict[str, Any]:
    return {each.name: each.to_dict()["spec"] for each in await client.list(kind, "default")}


async def each_version_reads_and_writes_in_its_own_form(client: Client) -> None:
    await client.create(disk("v1", "new", 5))
    made = (await client.create(disk("v1alpha1", "old", "7G"))).to_dict()
    assert made["spec"] == {"size": "7G", "media": "disk of v1alpha1"}
    assert await specs(client, NEW) == {
        "new": {"size": 5, "media": "disk of v1"},
        "old": {"size": 7, "media": "disk of v1alpha1"},
    }
    assert await specs(client, OLD) == {
        "new": {"size": "5G", "media": "disk of v1"},
        "old": {"size": "7G", "media": "disk of v1alpha1"},
    }
    read = (await client.get(OLD, "new", "default")).to_dict()
    assert (read["metadata"]["annotations"], read["metadata"]["generation"]) == ({"converted": "yes"}, 1)
    await client.patch(OLD, "new", "default", patch={"spec": {"size": "6G"}})
    assert (await client.get(NEW, "new", "default")).to_dict()["spec"]["size"] == 6


async def a_watch_shows_the_watched_version(client: Client) -> None:
    found = await client.list(OLD, "default")
    await client.create(disk("v1", "new", 5))
    async for event in client.watch(OLD, "default", resource_version=found.resource_version):
        assert event.object.to_dict()["spec"]["size"] == "5G"
        break


async def a_failed_conversion_is_a_500(client: Client) -> None:
    with pytest.raises(APIError) as caught:
        await client.create(disk("v1alpha1", "bad", "7 bytes"))
    assert caught.value.status == 500
    begins = "conversion webhook for versions.reconciler.dev/v1alpha1, Kind=Disk failed: "
    assert caught.value.message == f"{begins}cannot convert Disk bad to v1: 7 bytes is not in gigabytes"
    assert await specs(client, NEW) == {}


BODIES: list[Callable[[Client], Awaitable[None]]] = [
    each_version_reads_and_writes_in_its_own_form,
    a_watch_shows_the_watched_version,
    a_failed_conversion_is_a_500,
]
EACH = pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)


@pytest.mark.virtual_time
@EACH
async def test_versions_on_the_embedded_server(body: Callable[[Client], Awaitable[None]]) -> None:
    server, converter = webhooks()
    async with APIServer() as apiserver, Client(apiserver) as client:
        apiserver.connect_webhooks("operators/disks", server)
        conversion = conversion_configuration(converter, service=ServiceReference("operators", "disks"))
        await apiserver.apply(disks(conversion))
        await body(client)


@EACH
async def test_versions_on_the_embedded_server_over_https(
    body: Callable[[Client], Awaitable[None]], tmp_path: Path
) -> None:
    ca = trustme.CA()
    write_certificate(tmp_path, ca)
    server, converter = webhooks(tmp_path)
    async with serving(server) as url, APIServer() as apiserver, Client(apiserver) as client:
        await apiserver.apply(disks(conversion_configuration(converter, url=url, ca_bundle=ca.cert_pem.bytes())))
        await body(client)


@pytest.mark.virtual_time
async def test_stored_objects_are_converted_when_the_storage_version_changes() -> None:
    server, converter = webhooks()
    async with APIServer() as apiserver, Client(apiserver) as client:
        apiserver.connect_webhooks("operators/disks", server)
        conversion = conversion_configuration(converter, service=ServiceReference("operators", "disks"))
        await apiserver.apply(disks(conversion))
        await client.create(disk("v1", "new", 5))
        await apiserver.apply(disks(conversion, storage="v1alpha1"))
        assert (await specs(client, NEW))["new"]["size"] == 5
        assert (await specs(client, OLD))["new"]["size"] == "5G"


@pytest.mark.virtual_time
async def test_webhook_that_is_not_connected_is_named() -> None:
    _, converter = webhooks()
    async with APIServer() as apiserver, Client(apiserver) as client:
        conversion = conversion_configuration(converter, service=ServiceReference("operators", "disks"))
        await apiserver.apply(disks(conversion))
        await client.create(disk("v1", "new", 5))
        with pytest.raises(APIError, match=r"use connect_webhooks\('operators/disks', ...\)"):
            await client.get(OLD, "new", "default")


async def test_a_pod_is_ready_before_its_cache_which_needs_its_converter(tmp_path: Path) -> None:
    """A Service routes to ready pods only, so a pod that waits for its cache to be ready would wait forever."""
    write_certificate(tmp_path, trustme.CA())
    server, converter = webhooks(tmp_path)
    reconciled = asyncio.Event()

    class Disks(Reconciler):
        async def reconcile(self, request: Request) -> None:
            reconciled.set()

    async with APIServer() as apiserver, Client(apiserver) as client, aiohttp.ClientSession() as http:
        conversion = conversion_configuration(converter, service=ServiceReference("operators", "disks"))
        await apiserver.apply(disks(conversion, storage="v1alpha1"))
        await client.create(disk("v1alpha1", "old", "7G"))
        manager = Manager(client, health="127.0.0.1:0")
        manager.add_webhooks(server)
        manager.add_controller(Disks(), resource=NEW)
        running = asyncio.create_task(manager.run())
        try:
            await server.listening()
            async with http.get(f"{manager.health_url}/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
            assert not reconciled.is_set()
            apiserver.connect_webhooks("operators/disks", server)
            async with asyncio.timeout(30):
                await reconciled.wait()
        finally:
            manager.stop()
            await running


@pytest.mark.control_plane
@EACH
async def test_versions_on_the_real_server(
    body: Callable[[Client], Awaitable[None]], control_plane: ControlPlane, tmp_path: Path
) -> None:
    ca = trustme.CA()
    write_certificate(tmp_path, ca)
    server, converter = webhooks(tmp_path)
    async with serving(server) as url, control_plane.client() as client:
        crd = disks(conversion_configuration(converter, url=url, ca_bundle=ca.cert_pem.bytes()))
        await client.create(crd)
        kind = "apiextensions.k8s.io/v1/CustomResourceDefinition"
        try:
            await client.wait_for(kind, crd["metadata"]["name"], until=_established, timeout=30)
            for version in (NEW, OLD):
                await _served(client, version)
            await body(client)
        finally:
            await client.delete_all_of(NEW, "default")
            await client.delete(kind, crd["metadata"]["name"])
            with contextlib.suppress(NotFound):
                for _ in range(300):
                    await client.get(kind, crd["metadata"]["name"])
                    await asyncio.sleep(0.1)


async def _served(client: Client, kind: str) -> None:
    """Wait until a kind is served, which a real server does a moment after it has said so."""
    for _ in range(300):
        with contextlib.suppress(NotFound):
            await client.list(kind, "default")
            return
        await asyncio.sleep(0.1)


def _established(found: Any) -> bool:
    conditions = (found.to_dict().get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
