"""Discovery, OpenAPI and health."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest
from tests.apiserver.api import Api, definition

pytestmark = pytest.mark.virtual_time

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_the_version_is_that_of_the_reference_server(api: Api) -> None:
    version = await api.get("/version")
    assert version["gitVersion"].startswith("v1.36")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
async def test_health_is_ok(api: Api, path: str) -> None:
    assert (await api.get(path)).body == "ok"


async def test_groups_and_resources(api: Api) -> None:
    assert (await api.get("/api"))["versions"] == ["v1"]
    groups = {group["name"]: group for group in (await api.get("/apis"))["groups"]}
    assert groups["autoscaling"]["preferredVersion"]["version"] == "v2"
    assert "example.com" in groups
    listed = {entry["name"]: entry for entry in (await api.get("/apis/example.com/v1"))["resources"]}
    assert listed["widgets"]["namespaced"] is True
    assert listed["widgets"]["singularName"] == "widget"
    assert listed["widgets/status"]["verbs"] == ["get", "patch", "update"]
    assert (await api.get("/apis/nowhere.com")).status == 404


async def test_aggregated_discovery(api: Api) -> None:
    core = await api.get("/api", headers={"accept": AGGREGATED})
    named = await api.get("/apis", headers={"accept": f"{AGGREGATED},application/json"})
    assert core["kind"] == named["kind"] == "APIGroupDiscoveryList"
    groups = {item["metadata"].get("name", ""): item for item in named["items"]}
    (version,) = groups["example.com"]["versions"]
    (widgets,) = version["resources"]
    assert widgets["responseKind"] == {"group": "example.com", "version": "v1", "kind": "Widget"}
    assert [entry["subresource"] for entry in widgets["subresources"]] == ["status"]
    assert {entry["resource"] for entry in core["items"][0]["versions"][0]["resources"]} >= {"pods", "configmaps"}


async def test_a_cluster_scoped_kind_is_served_without_a_namespace(server: APIServer, api: Api) -> None:
    await server.apply(definition("Region", scope="Cluster"))
    path = "/apis/example.com/v1/regions"
    body = {"apiVersion": "example.com/v1", "kind": "Region", "metadata": {"name": "a", "namespace": "x"}, "spec": {}}
    made = await api.post(path, body)
    assert made.status == 201
    assert "namespace" not in made["metadata"]
    assert (await api.get("/apis/example.com/v1/namespaces/default/regions")).status == 404


async def test_openapi_describes_custom_and_built_in_kinds(api: Api) -> None:
    custom = await api.get("/openapi/v3/apis/example.com/v1")
    schema = custom["components"]["schemas"]["com.example.v1.Widget"]
    assert schema["properties"]["spec"]["properties"]["size"]["maximum"] == 10
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "example.com", "kind": "Widget", "version": "v1"}]
    item = custom["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]
    assert "fieldValidation" in [parameter["name"] for parameter in item["patch"]["parameters"]]
    core = await api.get("/openapi/v3/api/v1")
    _resolve(core.body, core["components"]["schemas"]["io.k8s.api.core.v1.Pod"])
    assert (await api.get("/openapi/v3/apis/nowhere/v1")).status == 404
    assert (await api.get("/openapi/v2"))["swagger"] == "2.0"


def _resolve(document: dict[str, Any], part: Any) -> None:
    """Check that every reference can be resolved."""
    seen: set[str] = set()
    waiting = [part]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            reference = found.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                waiting.append(document["components"]["schemas"][reference.rsplit("/", 1)[1]])
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
    assert len(seen) > 20


@pytest.mark.parametrize("kind", ["healthz", "livez", "readyz"])
async def test_health_lists_its_checks(server: APIServer, kind: str) -> None:
    async def text(path: str, **query: str) -> tuple[int, str]:
        response = await server.send(HTTPRequest("GET", f"/{kind}{path}", tuple(query.items())))
        return response.status, response.body.decode()

    assert await text("") == (200, "ok")
    assert await text("/etcd") == (200, "ok")
    assert await text("/nope") == (404, "404 page not found\n")
    assert await text("", exclude="etcd") == (200, "ok")
    first, *_, last = (await text("", verbose=""))[1].splitlines()
    assert (first, last) == ("[+]ping ok", f"{kind} check passed")
    assert "[+]etcd excluded: ok\n" in (await text("", verbose="", exclude="etcd"))[1]


async def test_the_only_healthy_component_is_the_storage(server: APIServer) -> None:
    path = "/api/v1/componentstatuses"
    names = ("", "/etcd-0", "/scheduler", "/nope")
    responses = [await server.send(HTTPRequest("GET", path + name)) for name in names]
    listed, healthy, unhealthy, missing = (json.loads(each.body) for each in responses)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["scheduler", "controller-manager", "etcd-0"]
    assert healthy["conditions"] == [{"type": "Healthy", "status": "True", "message": "ok"}]
    assert unhealthy["conditions"][0]["message"].endswith("connect: connection refused")
    assert (missing["code"], missing["message"]) == (404, 'componentstatus "nope" not found')
