"""Versions that Kubernetes has removed, served as views of today's: ``served_until=``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_asyncio
import msgspec
import pytest
import yaml

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError, Invalid, NotFound
from reconciler.http import HTTPRequest

BUDGET, OLD_BUDGET = "policy/v1/PodDisruptionBudget", "policy/v1beta1/PodDisruptionBudget"
DEFINITION = "apiextensions.k8s.io/v1/CustomResourceDefinition"
OLD_DEFINITION = "apiextensions.k8s.io/v1beta1/CustomResourceDefinition"
SELECTOR = {"matchLabels": {"app": "web"}}


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer(served_until="1.21") as server:
        yield server


@pytest.fixture
async def client(server: APIServer) -> AsyncIterator[Client]:
    async with Client(server) as client:
        yield client


def document(kind: str, name: str, namespace: str | None = "default", **content: Any) -> dict[str, Any]:
    api_version, _, kind = kind.rpartition("/")
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def old_definition(**spec: Any) -> dict[str, Any]:
    names = {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"}
    whole = {"group": "example.com", "version": "v1", "scope": "Namespaced", "names": names, **spec}
    return document(OLD_DEFINITION, "widgets.example.com", None, spec=whole)


async def get(server: APIServer, path: str, **headers: str) -> Any:
    response = await server.send(HTTPRequest("GET", path, headers=headers))
    assert response.status == 200, response.body
    return msgspec.json.decode(response.body)


async def test_an_object_is_stored_once_and_visible_in_both_versions(client: Client) -> None:
    made = await client.create(document(OLD_BUDGET, "a", spec={"minAvailable": 1, "selector": SELECTOR}))
    assert made.to_dict()["apiVersion"] == "policy/v1beta1"
    today = await client.get(BUDGET, "a", "default")
    assert (today.uid, today["spec"]) == (made.uid, made["spec"])
    await client.patch(OLD_BUDGET, "a", "default", patch={"spec": {"minAvailable": 2}})
    changed = (await client.get(OLD_BUDGET, "a", "default")).to_dict()
    assert changed["spec"]["minAvailable"] == 2
    changed["metadata"]["labels"] = {"x": "y"}
    await client.update(changed)
    (listed,) = await client.list(OLD_BUDGET, "default")
    assert listed["metadata"]["labels"] == {"x": "y"}
    await client.delete(OLD_BUDGET, "a", "default")
    assert not await client.list(BUDGET, "default")


async def test_a_watch_shows_the_version_that_it_asks_for(server: APIServer, client: Client) -> None:
    response = await server.send(HTTPRequest("GET", "/apis/policy/v1beta1/poddisruptionbudgets", (("watch", "1"),)))
    assert response.chunks is not None
    await client.create(document(BUDGET, "a", spec={"minAvailable": 1, "selector": SELECTOR}))
    event = json.loads(await anext(response.chunks))
    await response.close()
    assert event["type"] == "ADDED"
    assert (event["object"]["apiVersion"], event["object"]["metadata"]["name"]) == ("policy/v1beta1", "a")


async def test_discovery_names_the_removed_versions_after_todays(server: APIServer) -> None:
    groups = {group["name"]: group for group in (await get(server, "/apis"))["groups"]}
    assert [each["version"] for each in groups["policy"]["versions"]] == ["v1", "v1beta1"]
    assert groups["policy"]["preferredVersion"]["version"] == "v1"
    assert groups["extensions"]["preferredVersion"]["groupVersion"] == "extensions/v1beta1"
    assert (await get(server, "/apis/extensions"))["versions"] == groups["extensions"]["versions"]
    found = await get(server, "/apis/policy/v1beta1")
    assert found["groupVersion"] == "policy/v1beta1"
    names = [each["name"] for each in found["resources"]]
    assert names == ["poddisruptionbudgets", "poddisruptionbudgets/status"]
    assert [each["name"] for each in (await get(server, "/apis/extensions/v1beta1"))["resources"]] == [
        "ingresses",
        "ingresses/status",
    ]


async def test_versions_that_were_removed_before_are_not_served(client: Client) -> None:
    for kind in ("apps/v1beta1/Deployment", "extensions/v1beta1/Deployment"):
        with pytest.raises(NotFound):
            await client.list(kind)


async def test_a_deployment_of_an_old_version_has_the_selector_of_its_template() -> None:
    async with APIServer(served_until="1.15") as server, Client(server) as client:
        pod = {"containers": [{"name": "c", "image": "i"}]}
        template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
        await client.create(document("extensions/v1beta1/Deployment", "web", spec={"template": template}))
        assert (await client.get("apps/v1/Deployment", "web", "default"))["spec"]["selector"] == SELECTOR


async def test_an_ingress_is_converted(client: Client) -> None:
    backend = {"serviceName": "web", "servicePort": 80}
    paths = [{"path": "/", "backend": {"serviceName": "web", "servicePort": "http"}}]
    spec = {"backend": backend, "rules": [{"host": "a.example", "http": {"paths": paths}}]}
    await client.create(document("extensions/v1beta1/Ingress", "web", spec=spec))
    today = (await client.get("networking.k8s.io/v1/Ingress", "web", "default"))["spec"]
    assert today["defaultBackend"] == {"service": {"name": "web", "port": {"number": 80}}}
    assert today["rules"][0]["http"]["paths"] == [
        {
            "path": "/",
            "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"name": "http"}}},
        }
    ]
    for version in ("extensions/v1beta1", "networking.k8s.io/v1beta1"):
        found = (await client.get(f"{version}/Ingress", "web", "default"))["spec"]
        assert found["backend"] == backend
        assert found["rules"][0]["http"]["paths"][0]["backend"] == paths[0]["backend"]


async def test_a_definition_is_converted_and_served(client: Client) -> None:
    schema = {"type": "object", "properties": {"spec": {"properties": {"size": {"type": "integer", "minimum": 1}}}}}
    columns = [{"name": "Size", "type": "integer", "JSONPath": ".spec.size"}]
    spec = {
        "validation": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
        "subresources": {"status": {}},
    }
    made = await client.create(old_definition(preserveUnknownFields=False, **spec))
    assert made["spec"]["validation"]["openAPIV3Schema"]["properties"].keys() == {"spec"}
    assert made["spec"]["version"] == "v1"
    assert made["spec"]["additionalPrinterColumns"] == columns
    assert made["spec"]["preserveUnknownFields"] is False
    (version,) = (await client.get(DEFINITION, "widgets.example.com"))["spec"]["versions"]
    assert version["additionalPrinterColumns"] == [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    assert version["subresources"] == {"status": {}}
    widget = "example.com/v1/Widget"
    await client.wait_for(
        OLD_DEFINITION, "widgets.example.com", until=lambda each: each["status"]["conditions"], timeout=5
    )
    kept = await client.create(document(widget, "a", spec={"size": 3}, other=1))
    assert "other" not in kept.to_dict()
    with pytest.raises(Invalid):
        await client.create(document(widget, "b", spec={"size": 0}))


async def test_a_definition_keeps_unknown_fields_unless_it_says_otherwise(client: Client) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {}}}}}
    made = await client.create(old_definition(validation={"openAPIV3Schema": schema}))
    assert made["spec"]["preserveUnknownFields"] is True
    content = {"spec": {"size": "3", "color": {"name": "red"}}, "extra": [1]}
    found = await client.create(document("example.com/v1/Widget", "a", **content))
    assert content.items() <= found.to_dict().items()


async def test_files_of_definitions_are_read_by_every_server(tmp_path: Path) -> None:
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump(old_definition()))
    async with APIServer() as server, Client(server) as client:
        await server.apply(tmp_path)
        found = await client.create(document("example.com/v1/Widget", "a", anything={"at": "all"}))
        assert found["anything"] == {"at": "all"}
        with pytest.raises(NotFound):
            await client.list(OLD_DEFINITION)
        with pytest.raises(ConfigurationError, match="serves no kind 'PodDisruptionBudget' in 'policy/v1beta1'"):
            await server.apply(document(OLD_BUDGET, "a", spec={}))


async def test_documents_of_removed_versions_can_be_applied(server: APIServer, client: Client) -> None:
    backend = {"serviceName": "web", "servicePort": 80}
    await server.apply(
        document(OLD_BUDGET, "a", spec={"minAvailable": 1, "selector": SELECTOR}),
        document("extensions/v1beta1/Ingress", "web", spec={"backend": backend}),
    )
    assert (await client.get(BUDGET, "a", "default"))["spec"]["minAvailable"] == 1
    assert "defaultBackend" in (await client.get("networking.k8s.io/v1/Ingress", "web", "default"))["spec"]


async def test_a_client_of_another_library_uses_them_over_sockets(server: APIServer) -> None:
    configuration = kubernetes_asyncio.client.Configuration(host=f"{server.url}/{server.token}")
    async with kubernetes_asyncio.client.ApiClient(configuration) as connection:
        api = kubernetes_asyncio.client.CustomObjectsApi(connection)
        place = ("policy", "v1beta1", "default", "poddisruptionbudgets")
        body = document(OLD_BUDGET, "a", spec={"minAvailable": 1, "selector": SELECTOR})
        await api.create_namespaced_custom_object(*place, body)
        watch = kubernetes_asyncio.watch.Watch()
        async with asyncio.timeout(10):
            async for event in watch.stream(api.list_namespaced_custom_object, *place):
                assert event["object"]["apiVersion"] == "policy/v1beta1"
                break
        await watch.close()


@pytest.mark.parametrize("release", ["1.30", "newest", "", "2.1"])
def test_a_release_without_removed_versions_is_refused(release: str) -> None:
    with pytest.raises(ConfigurationError, match=r"name a release of Kubernetes up to 1\.25, such as '1\.21'"):
        APIServer(served_until=release)
