"""What kubectl relies on: last-applied configurations, allocated addresses, ephemeral containers, tables (38)."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.api import GROUP, STRATEGIC, Api
from tests.conformance.cases._case import case, table, widget
from tests.conformance.cases.built_in import TEMPLATE

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def _applied_by_client(api: Api, applied: dict[str, Any], **spec: Any) -> None:
    """Create an object as ``kubectl apply`` does."""
    body = widget("a", **spec)
    typed = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", **applied}
    body["metadata"]["annotations"] = {_LAST_APPLIED: json.dumps(typed)}
    query = {"fieldManager": "kubectl-client-side-apply"}
    await api.create("widgets", body, query=query, quiet=True)


@case("kubectl takes over with a server-side apply what it has applied on the client's side")
async def _(api: Api) -> None:
    api.with_owners = True
    await _applied_by_client(api, widget("a", size=1), size=1)
    await api.apply("widgets", "a", widget("a", size=2), "kubectl")


@case("other managers do not take over what kubectl has applied")
async def _(api: Api) -> None:
    await _applied_by_client(api, widget("a", size=1), size=1)
    await api.apply("widgets", "a", widget("a", size=2), "other")


@case("kubectl does not take over what differs from its last configuration")
async def _(api: Api) -> None:
    await _applied_by_client(api, widget("a", size=3), size=1)
    await api.apply("widgets", "a", widget("a", size=2), "kubectl")


@case("a last configuration that cannot be read allows nothing")
async def _(api: Api) -> None:
    body = widget("a", size=1)
    body["metadata"]["annotations"] = {_LAST_APPLIED: "{"}
    await api.create("widgets", body, query={"fieldManager": "kubectl-client-side-apply"}, quiet=True)
    await api.apply("widgets", "a", widget("a", size=2), "kubectl")


@case("an address and a node port belong to one service")
async def _(api: Api) -> None:
    ports = [{"port": 80, "nodePort": 30007}]
    spec = {"type": "NodePort", "clusterIP": "10.0.0.177", "ports": ports}
    await api.create("services", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.create("services", {"metadata": {"name": "b"}, "spec": spec})
    await api.create("services", {"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": ports}})
    await api.delete("services", "a", quiet=True)


@case("system namespaces cannot be deleted")
async def _(api: Api) -> None:
    for name in ("default", "kube-system", "kube-public"):
        await api.call("DELETE", f"/api/v1/namespaces/{name}")


_DEBUGGER = {"name": "debugger", "image": "busybox"}


async def _ephemeral(api: Api, *containers: dict[str, Any], **spec: Any) -> None:
    patch = {"spec": {"ephemeralContainers": [*containers], **spec}}
    await api.patch("pods", "a", patch, "ephemeralcontainers", content=STRATEGIC)


@case("ephemeral containers are added to a pod, and nothing else is changed")
async def _(api: Api) -> None:
    await api.create("pods", {"metadata": {"name": "a"}, "spec": TEMPLATE["spec"]}, quiet=True)
    await _ephemeral(api, _DEBUGGER, activeDeadlineSeconds=7)
    await api.patch("pods", "a", {"spec": {"ephemeralContainers": []}}, keep=["spec.ephemeralContainers"])


async def _refused_container(api: Api, container: dict[str, Any]) -> None:
    await api.create("pods", {"metadata": {"name": "a"}, "spec": TEMPLATE["spec"]}, quiet=True)
    await api.patch("pods", "a", {"spec": {"ephemeralContainers": [container]}}, "ephemeralcontainers")


table(
    [
        ("an ephemeral container without an image", {"name": "x"}),
        ("an ephemeral container without a name", {"image": "x"}),
        ("an ephemeral container with the name of another", {**TEMPLATE["spec"]["containers"][0]}),
        ("an ephemeral container with an unknown target", {**_DEBUGGER, "targetContainerName": "absent"}),
    ],
)(_refused_container)


@case("the table of a scale")
async def _(api: Api) -> None:
    spec = {"replicas": 2, "selector": {"matchLabels": TEMPLATE["metadata"]["labels"]}, "template": TEMPLATE}
    await api.create("replicasets", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    found = await api.get("replicasets", "a", "scale", accept=_TABLE, quiet=True)
    found["rows"][0]["cells"][-1] = "<age>"
    api.transcript.append({"columns": found["columnDefinitions"], "cells": found["rows"][0]["cells"]})


@case("a pod with scheduling gates")
async def _(api: Api) -> None:
    spec = {**TEMPLATE["spec"], "schedulingGates": [{"name": "example.com/wait"}]}
    await api.create("pods", {"metadata": {"name": "a"}, "spec": spec}, keep=["status"])
