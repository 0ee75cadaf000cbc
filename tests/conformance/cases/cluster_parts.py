"""What every cluster has: namespaces that stay, the Service of the API server, API services, revisions (38)."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.api import MERGE, Api, kind_of
from tests.conformance.cases._case import case
from tests.conformance.protobuf import PROTOBUF, to_protobuf


@case("namespaces that cannot be deleted")
async def _(api: Api) -> None:
    for name in ("default", "kube-system", "kube-public"):
        await api.call("DELETE", f"/api/v1/namespaces/{name}")
        await api.call("DELETE", f"/api/v1/namespaces/{name}", query={"dryRun": "All"})
        await api.call("GET", f"/api/v1/namespaces/{name}", keep=("status.phase",))


@case("the Service of the API server")
async def _(api: Api) -> None:
    keep = ("metadata.labels", "spec.type", "spec.sessionAffinity", "spec.ipFamilies", "spec.ipFamilyPolicy")
    found = await api.call("GET", "/api/v1/namespaces/default/services/kubernetes", keep=keep)
    (port,) = found["spec"]["ports"]
    api.transcript.append({"port": {key: port.get(key) for key in ("name", "port", "protocol")}})


BASE = "/apis/apiregistration.k8s.io/v1"


@case("API services are served")
async def _(api: Api) -> None:
    await api.call("GET", BASE, keep=("groupVersion",))
    await api.call("GET", "/apis/apiregistration.k8s.io")


@case("reviews are discovered")
async def _(api: Api) -> None:
    for group in ("authentication.k8s.io", "authorization.k8s.io"):
        await api.call("GET", f"/apis/{group}")
        await api.call("GET", f"/apis/{group}/v1")
        for path in ("nothings", "tokenreviews/a", "subjectaccessreviews/a", "localsubjectaccessreviews"):
            await api.call("GET", f"/apis/{group}/v1/{path}")
    await api.call("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", {})
    await api.call("POST", f"/apis/authorization.k8s.io/v1/namespaces/{api.ns}/subjectaccessreviews", {})
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    found = await api.call("GET", "/apis", accept=accept, quiet=True)
    listed = {each["metadata"]["name"]: each for each in found["items"]}
    api.transcript += [
        {"versions": listed[f"{name}.k8s.io"]["versions"]} for name in ("authentication", "authorization")
    ]


def api_service(api: Api, **spec: Any) -> dict[str, Any]:
    """Return an API service of a group of its own."""
    group = f"{api.ns}.example.com"
    service = {"namespace": api.ns, "name": "metrics"}
    given = {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10, "service": service}
    kept = {key: value for key, value in {**given, **spec}.items() if value is not None}
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    return {**kind, "metadata": {"name": f"v1.{group}"}, "spec": kept}


@case("an API service is registered")
async def _(api: Api) -> None:
    made = await api.call("POST", f"{BASE}/apiservices", api_service(api), keep=("metadata.name", "spec"))
    path = f"{BASE}/apiservices/{made['metadata']['name']}"
    await api.call("PATCH", path, {"spec": {"versionPriority": 20}}, content=MERGE, keep=("spec",))
    await api.call("GET", f"{path}/status", keep=("spec",))
    await api.call("DELETE", path)


@case("API services that are refused")
async def _(api: Api) -> None:
    for spec in (
        {"group": "other.example.com"},
        {"version": "v2"},
        {"groupPriorityMinimum": 0},
        {"groupPriorityMinimum": 20001, "versionPriority": 1001},
        {"service": {"name": "a"}},
        {"service": {"namespace": "a", "port": 70000}},
        {"service": None, "caBundle": "QQ=="},
        {"service": None, "insecureSkipTLSVerify": True},
        {"insecureSkipTLSVerify": True, "caBundle": "QQ=="},
    ):
        await api.call("POST", f"{BASE}/apiservices", api_service(api, **spec))


@case("a controller revision keeps its data")
async def _(api: Api) -> None:
    body = {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"spec": {"$patch": "replace"}}, "revision": 3}
    # The real server compares the bytes of the data, which a patch writes without spaces.
    compact = json.dumps({**kind_of("controllerrevisions"), **body}, separators=(",", ":")).encode()
    await api.call("POST", api.path("controllerrevisions"), compact)
    await api.get("controllerrevisions", "a")
    await api.patch("controllerrevisions", "a", {"revision": 4})
    await api.patch("controllerrevisions", "a", {"data": {"spec": {"n": 2}}})
    await api.patch("controllerrevisions", "a", {"revision": -1})
    await api.apply("controllerrevisions", "a", {"metadata": {"name": "a", "annotations": {"b": "c"}}}, force=True)
    await api.delete("controllerrevisions", "a")


@case("controller revisions that are refused")
async def _(api: Api) -> None:
    for members in ({}, {"data": None}, {"data": "text"}, {"data": [1]}, {"data": {}, "revision": -1}):
        body = {"metadata": {"name": f"b{len(members)}"}, "revision": 1, **members}
        await api.create("controllerrevisions", body)
    await api.create("controllerrevisions", {"metadata": {"name": "empty"}, "data": {}})


async def rows(api: Api, path: str) -> None:
    """Note the table of an object, without its age and the descriptions of its columns."""
    found = await api.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io", quiet=True)
    titles = [column["name"] for column in found["columnDefinitions"]]
    cells = dict(zip(titles, found["rows"][0]["cells"], strict=True))
    # A controller of the real server writes at any time whether an API service is available.
    shown = {title: cell for title, cell in cells.items() if title not in ("Age", "Available")}
    api.transcript.append({"titles": titles, "cells": shown})


@case("tables of these kinds")
async def _(api: Api) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "u", "controller": True}
    metadata = {"name": "a", "ownerReferences": [owner]}
    await api.create("controllerrevisions", {"metadata": metadata, "data": {}, "revision": 7}, quiet=True)
    await api.create("controllerrevisions", {"metadata": {"name": "b"}, "data": {}}, quiet=True)
    for name in ("a", "b"):
        await rows(api, api.path("controllerrevisions", name))
    made = await api.call("POST", f"{BASE}/apiservices", api_service(api), quiet=True)
    path = f"{BASE}/apiservices/{made['metadata']['name']}"
    await rows(api, path)
    await api.call("DELETE", path, quiet=True)


@case("documents of other kinds than evictions, bindings, reviews and requests for tokens")
async def _(api: Api) -> None:
    reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    paths = [api.path("pods", "a", sub) for sub in ("eviction", "binding")]
    for path in (*paths, api.path("serviceaccounts", "robot", "token"), reviews):
        for version, kind in (
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("policy/v2", "Eviction"),
            ("a/v1", "Thing"),
            ("authorization.k8s.io/v9", "SubjectAccessReview"),
        ):
            await api.call("POST", path, {"apiVersion": version, "kind": kind})


@case("evictions, bindings and requests for tokens in protobuf")
async def _(api: Api) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    for name in ("a", "b"):
        await api.create("pods", {"metadata": {"name": name}, "spec": spec}, quiet=True)
    await api.create("serviceaccounts", {"metadata": {"name": "robot"}}, quiet=True)
    metadata = {"name": "a", "namespace": api.ns}
    target = {"kind": "Node", "name": "n"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    await api.call("POST", api.path("pods", "a", "binding"), to_protobuf(binding), content=PROTOBUF)
    await api.get("pods", "a", keep=("spec.nodeName",))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b", "namespace": api.ns}}
    options = {"gracePeriodSeconds": 0, "preconditions": {"resourceVersion": "1"}}
    wrong = to_protobuf({**eviction, "deleteOptions": options})
    await api.call("POST", api.path("pods", "b", "eviction"), wrong, content=PROTOBUF)
    await api.call("POST", api.path("pods", "b", "eviction"), to_protobuf(eviction), content=PROTOBUF)
    await api.get("pods", "b")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"]}}
    path = api.path("serviceaccounts", "robot", "token")
    await api.call("POST", path, to_protobuf(request), content=PROTOBUF, keep=("kind", "spec"))
