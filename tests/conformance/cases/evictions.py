"""Evictions of pods, with and without budgets, and bindings of pods to nodes (28)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, table
from tests.conformance.cases.built_in import SELECTOR, TEMPLATE

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_RUNNING: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
_UNREADY: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
_HEALTH = {"currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1}
_SHOWN = [
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.generation",
    "status.conditions",
    "status.phase",
]


async def _pod(api: Api, name: str = "a", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Make a pod on a node, and its status."""
    body = {"metadata": {"name": name, "labels": {"k": "v"}}, "spec": {**TEMPLATE["spec"], "nodeName": "n", **spec}}
    made = await api.create("pods", body, quiet=True)
    if status is not None:
        made = await api.patch("pods", name, {"status": status}, "status", quiet=True)
    return made


async def _budget(api: Api, status: dict[str, Any] | None = None, name: str = "b", **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": SELECTOR, **spec}}
    await api.create("poddisruptionbudgets", body, quiet=True)
    if status is not None:
        await api.patch("poddisruptionbudgets", name, {"status": status}, "status", quiet=True)


async def _evict(api: Api, name: str = "a", query: dict[str, str] | None = None, **members: Any) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **members}
    await api.call("POST", api.path("pods", name, "eviction"), body, query=query)


async def _seen(api: Api, name: str = "a") -> None:
    await api.get("pods", name, keep=_SHOWN)


@case("an eviction deletes a pod that waits for a node")
async def _(api: Api) -> None:
    await _pod(api, nodeName=None)
    await _evict(api)
    await _seen(api)


@case("an eviction lets a pod on a node end in its time")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _evict(api)
    await _seen(api)
    await _evict(api)
    await _seen(api)
    await _evict(api, deleteOptions={"gracePeriodSeconds": 0})
    await _seen(api)


@case("a dry run of an eviction")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _evict(api, query={"dryRun": "All"})
    await _evict(api, deleteOptions={"dryRun": ["All"]})
    await _seen(api)
    await _evict(api, query={"dryRun": "Some"})


@case("an eviction that names no pod")
async def _(api: Api) -> None:
    await _evict(api, "none")
    await _pod(api)
    await _evict(api, metadata={"name": "other"})
    await _evict(api, metadata={})
    await _evict(api, metadata={"name": "a", "namespace": "other"})
    await _seen(api)


@case("an eviction of another kind")
async def _(api: Api) -> None:
    await _pod(api)
    path = api.path("pods", "a", "eviction")
    await _evict(api, apiVersion="policy/v1beta2")
    await _evict(api, kind="Pod")
    await api.call("POST", path, b"[]")
    await _seen(api)
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        await api.call(method, path, None if method in ("GET", "DELETE") else {})
    await api.call("POST", path, {"metadata": {"name": "a"}})
    await _seen(api)


@case("an eviction in the version of before")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _evict(api, apiVersion="policy/v1beta1")
    await _seen(api)


@case("preconditions of an eviction")
async def _(api: Api) -> None:
    made = await _pod(api, status=_RUNNING)
    await _evict(api, deleteOptions={"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}})
    await _evict(api, deleteOptions={"preconditions": {"resourceVersion": "1"}})
    await _seen(api)
    metadata = made["metadata"]
    both = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    await _evict(api, deleteOptions={"preconditions": both})
    await _seen(api)


@case("a budget that its controller has not seen forbids evictions")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _budget(api)
    await _evict(api)
    await _seen(api)


async def _under(api: Api, status: dict[str, Any], pod: dict[str, Any], spec: dict[str, Any]) -> None:
    """Evict a pod under a budget; show what became of both."""
    await _pod(api, status=pod)
    await _budget(api, {**_HEALTH, **status}, **spec)
    await _evict(api)
    await _seen(api)
    found = await api.get("poddisruptionbudgets", "b", keep=["status", "metadata.generation"])
    if "disruptedPods" in found["status"]:
        found["status"]["disruptedPods"] = sorted(found["status"]["disruptedPods"])


_FAILED = {
    "type": "DisruptionAllowed",
    "status": "False",
    "reason": "SyncFailed",
    "message": "no controller",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}

table(
    [
        ("a budget that allows one disruption", {"disruptionsAllowed": 1}, _RUNNING, {}),
        ("a budget that allows two disruptions", {"disruptionsAllowed": 2}, _RUNNING, {}),
        ("a budget that allows no disruption", {"disruptionsAllowed": 0, "currentHealthy": 1}, _RUNNING, {}),
        ("a budget that allows no disruption though enough are healthy", {"disruptionsAllowed": 0}, _RUNNING, {}),
        ("a budget that failed", {"disruptionsAllowed": 0, "conditions": [_FAILED]}, _RUNNING, {}),
        (
            "a budget that says why",
            {"disruptionsAllowed": 0, "conditions": [{**_FAILED, "reason": "Because"}]},
            _RUNNING,
            {},
        ),
        ("a pod that waits is not guarded", {"disruptionsAllowed": 0}, {"phase": "Pending"}, {}),
        ("a pod that is done is not guarded", {"disruptionsAllowed": 0}, {"phase": "Succeeded"}, {}),
        ("a pod that is not ready, of enough", {"disruptionsAllowed": 0}, _UNREADY, {}),
        ("a pod that is not ready, of too few", {"disruptionsAllowed": 0, "currentHealthy": 0}, _UNREADY, {}),
        (
            "a pod that is not ready may always go",
            {"disruptionsAllowed": 0, "currentHealthy": 0},
            _UNREADY,
            {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
        ),
        ("a budget of others", {"disruptionsAllowed": 0}, _RUNNING, {"selector": {"matchLabels": {"k": "w"}}}),
        ("a budget of all", {"disruptionsAllowed": 0}, _RUNNING, {"selector": {}}),
        ("a budget that matches no pod", {"disruptionsAllowed": 0}, _RUNNING, {"selector": None}),
    ],
)(_under)


@case("two budgets guard one pod")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _budget(api, {**_HEALTH, "disruptionsAllowed": 1})
    await _budget(api, {**_HEALTH, "disruptionsAllowed": 1}, name="c")
    await _evict(api)
    await _seen(api)


@case("a dry run takes nothing from a budget")
async def _(api: Api) -> None:
    await _pod(api, status=_RUNNING)
    await _budget(api, {**_HEALTH, "disruptionsAllowed": 1})
    await _evict(api, query={"dryRun": "All"})
    await api.get("poddisruptionbudgets", "b", keep=["status"])
    await _seen(api)


@case("discovery of evictions and bindings")
async def _(api: Api) -> None:
    found = await api.call("GET", "/api/v1", quiet=True)
    kept = [entry for entry in found["resources"] if entry["name"] in ("pods/eviction", "pods/binding")]
    api.transcript.append({"resources": sorted(kept, key=lambda entry: str(entry["name"]))})
    whole = await api.call("GET", "/api", accept=_AGGREGATED, quiet=True)
    pods = next(each for each in whole["items"][0]["versions"][0]["resources"] if each["resource"] == "pods")
    kept = [each for each in pods["subresources"] if each["subresource"] in ("eviction", "binding")]
    api.transcript.append({"subresources": sorted(kept, key=lambda entry: str(entry["subresource"]))})


async def _bind(api: Api, **members: Any) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n"},
        **members,
    }
    await api.call("POST", api.path("pods", "a", "binding"), body)


@case("a pod is bound once")
async def _(api: Api) -> None:
    await _bind(api)
    made = await _pod(api, nodeName=None)
    await _bind(api, metadata={"name": "other"})
    await _bind(api, target={})
    await _bind(api, target={"kind": "Pod", "name": "n"})
    await _bind(api, metadata={"name": "a", "uid": "00000000-0000-0000-0000-000000000000"})
    await _bind(api, metadata={"name": "a", "uid": made["metadata"]["uid"], "annotations": {"x": "y"}})
    shown = ["metadata.annotations", "metadata.generation", "spec.nodeName", "status"]
    await api.get("pods", "a", keep=shown)
    await _bind(api)


@case("a pod that waits for a gate is not bound")
async def _(api: Api) -> None:
    await _pod(api, nodeName=None, schedulingGates=[{"name": "example.com/g"}])
    await _bind(api)


@case("a pod is bound through the collection of bindings")
async def _(api: Api) -> None:
    await _pod(api, nodeName=None)
    bindings = f"/api/v1/namespaces/{api.ns}/bindings"
    for body in ({}, {"metadata": {"name": "missing"}, "target": {"name": "n"}}):
        await api.call("POST", bindings, body)
    for _ in range(2):
        await api.call("POST", bindings, {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}})
    await api.get("pods", "a", keep=["spec.nodeName", "status.conditions"])


@case("the finalizers of a namespace are written by finalize alone")
async def _(api: Api) -> None:
    path, keep = f"/api/v1/namespaces/{api.ns}", ("spec", "metadata.name", "status.phase", "message")
    document = {"metadata": {"name": api.ns}, "spec": {"finalizers": ["example.com/a", "kubernetes"]}}
    await api.call("PUT", path, document, keep=keep)
    await api.call("PUT", f"{path}/finalize", document, keep=keep)
    await api.call("PUT", f"{path}/finalize", {**document, "spec": {}, "status": {"phase": "X"}}, keep=keep)
    for method in ("GET", "PATCH", "POST", "DELETE"):
        await api.call(method, f"{path}/finalize", {} if method != "GET" else None)
    await api.call("PUT", f"/api/v1/namespaces/missing-{api.ns}/finalize", {"metadata": {"name": f"missing-{api.ns}"}})
    await api.call("PUT", f"{path}/finalize", {**document, "spec": {"finalizers": ["kubernetes"]}}, keep=keep)
