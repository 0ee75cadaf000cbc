"""Deletion, finalizers and preconditions (9)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, table, version, widget

# 9 deletion and finalizers


@case("a delete answers with a Status")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a")
    await api.delete("widgets", "a")


@case("a finalizer holds a deleted object until it is removed")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body)
    await api.delete("widgets", "a")
    await api.get("widgets", "a")
    await api.patch("widgets", "a", {"metadata": {"finalizers": None}})
    await api.get("widgets", "a")


@case("a dying object takes no new finalizer")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.patch("widgets", "a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    await api.patch("widgets", "a", {"status": {"phase": "Dying"}}, "status", keep=["status", "metadata.generation"])
    await api.patch("widgets", "a", {"metadata": {"finalizers": []}}, quiet=True)


@case("deleting twice changes nothing more")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a")
    await api.delete("widgets", "a")
    await api.patch("widgets", "a", {"metadata": {"finalizers": []}}, quiet=True)


@case("preconditions of a delete")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    wrong = "11111111-2222-3333-4444-555555555555"
    response = await api.delete("widgets", "a", {"preconditions": {"uid": wrong}}, keep=["none"])
    assert response["code"] == 409
    await api.delete("widgets", "a", {"preconditions": {"uid": made["metadata"]["uid"]}})


@case("finalizers are qualified names")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["hold"]
    await api.create("widgets", body)


@case("a collection is deleted by selector")
async def _(api: Api) -> None:
    for name, team in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = widget(name)
        body["metadata"]["labels"] = {"team": team}
        await api.create("widgets", body, quiet=True)
    await api.call("DELETE", api.path("widgets"), query={"labelSelector": "team=red"}, keep=["kind"])
    found = await api.list("widgets", quiet=True)
    api.transcript.append({"left": [item["metadata"]["name"] for item in found["items"]]})


@case("a status write to a deleted object is NotFound")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", quiet=True)
    patch = {"metadata": {"resourceVersion": version(made)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", patch, "status")


async def _held(api: Api, *finalizers: str, name: str = "a") -> dict[str, Any]:
    body = widget(name)
    body["metadata"]["finalizers"] = list(finalizers)
    return await api.create("widgets", body, quiet=True)


@case("a precondition of a version")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.delete("widgets", "a", {"preconditions": {"resourceVersion": version(made)}})
    now = await api.get("widgets", "a", quiet=True)
    await api.delete("widgets", "a", {"preconditions": {"resourceVersion": version(now)}})


async def _deleted(api: Api, body: Any, query: Any) -> None:
    """Delete as the row says, and show what is left; the garbage collector is not part of an API server."""
    await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", body, query=query)


table(
    [
        ("foreground", {"propagationPolicy": "Foreground"}, None),
        ("orphan", {"propagationPolicy": "Orphan"}, None),
        ("background", {"propagationPolicy": "Background"}, None),
        ("orphanDependents: true", {"orphanDependents": True}, None),
        ("orphanDependents: false", {"orphanDependents": False}, None),
        ("an unknown policy", {"propagationPolicy": "Slowly"}, None),
        ("two policies", {"propagationPolicy": "Background", "orphanDependents": True}, None),
        ("foreground by query", None, {"propagationPolicy": "Foreground"}),
        ("orphan by query", None, {"propagationPolicy": "Orphan"}),
        ("orphanDependents by query", None, {"orphanDependents": "true"}),
        ("a grace period", {"gracePeriodSeconds": 30}, None),
        ("a negative grace period", {"gracePeriodSeconds": -5}, None),
        ("a grace period by query", None, {"gracePeriodSeconds": "10"}),
        ("a dry run", {"dryRun": ["All"]}, None),
        ("a dry run by query", None, {"dryRun": "All"}),
        ("an unknown dry run", {"dryRun": ["Some"]}, None),
        ("options of another kind", {"apiVersion": "v1", "kind": "Pod"}, None),
        ("options with a kind", {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}, None),
        ("options of the group", {"apiVersion": f"{GROUP}/v1", "kind": "DeleteOptions"}, None),
        ("options with an unknown field", {"bogus": 1}, None),
        ("a grace period that is a string", {"gracePeriodSeconds": "30"}, None),
        ("a broken grace period by query", None, {"gracePeriodSeconds": "soon"}),
    ],
)(_deleted)


@case("a second delete changes the policy")
async def _(api: Api) -> None:
    await _held(api, "example.com/hold")
    keep = ["metadata.finalizers", "metadata.generation"]
    await api.delete("widgets", "a", {"propagationPolicy": "Foreground"}, keep=keep)
    await api.delete("widgets", "a", {"propagationPolicy": "Background"}, keep=keep)


@case("finalizers in an order")
async def _(api: Api) -> None:
    await _held(api, "example.com/one", "example.com/two")
    await api.delete("widgets", "a", keep=["metadata.finalizers"])
    await api.patch("widgets", "a", {"metadata": {"finalizers": ["example.com/two"]}}, keep=["metadata.finalizers"])
    await api.patch("widgets", "a", {"metadata": {"finalizers": []}}, keep=["metadata.finalizers"])
    await api.get("widgets", "a")


@case("a dying object may change its spec, labels and status")
async def _(api: Api) -> None:
    await _held(api, "example.com/hold")
    await api.delete("widgets", "a", quiet=True)
    keep = ["metadata.generation", "metadata.labels", "spec", "status"]
    await api.patch("widgets", "a", {"spec": {"size": 5}}, keep=keep)
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": "y"}}}, keep=keep)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", keep=keep)


@case("deletionTimestamp is the server's")
async def _(api: Api) -> None:
    await _held(api, "example.com/hold")
    await api.patch("widgets", "a", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    await api.delete("widgets", "a", quiet=True)
    await api.patch("widgets", "a", {"metadata": {"deletionTimestamp": None}}, keep=["metadata.deletionTimestamp"])


@case("a status write cannot take finalizers away")
async def _(api: Api) -> None:
    await _held(api, "example.com/hold")
    patch = {"metadata": {"finalizers": []}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", patch, "status", keep=["metadata.finalizers", "status"])


@case("finalizers have a form")
async def _(api: Api) -> None:
    for name in ("", "bad one", "a/b/c", "example.com/ok", "UPPER.com/x", "orphan", "kubernetes.io/x"):
        body = widget("a")
        body["metadata"]["finalizers"] = [name]
        await api.create("widgets", body, query={"dryRun": "All"}, keep=["metadata.finalizers"])
        await api.create(
            "configmaps",
            {"metadata": {"name": "a", "finalizers": [name]}},
            query={"dryRun": "All"},
            keep=["metadata.finalizers"],
        )


@case("orphan and foregroundDeletion exclude each other")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["orphan", "foregroundDeletion"]
    await api.create("widgets", body)


@case("a collection is deleted by field, and with a dry run not at all")
async def _(api: Api) -> None:
    for name in "abc":
        await api.create("widgets", widget(name, mode="Fast" if name == "b" else "Safe"), quiet=True)
    await api.call("DELETE", api.path("widgets"), {"dryRun": ["All"]}, keep=["kind"])
    found = await api.list("widgets", quiet=True)
    api.transcript.append({"left": [item["metadata"]["name"] for item in found["items"]]})
    await api.call("DELETE", api.path("widgets"), query={"fieldSelector": "spec.mode=Fast"}, keep=["kind"])
    found = await api.list("widgets", quiet=True)
    api.transcript.append({"left": [item["metadata"]["name"] for item in found["items"]]})


@case("a collection of held objects is marked")
async def _(api: Api) -> None:
    await _held(api, "example.com/hold", name="a")
    await api.create("widgets", widget("b"), quiet=True)
    await api.call("DELETE", api.path("widgets"), keep=["kind"])
    await api.list("widgets", keep=["items"])


@case("an empty collection is deleted")
async def _(api: Api) -> None:
    await api.call("DELETE", api.path("widgets"))
    await api.call("DELETE", api.path("configmaps"))


@case("the answer to a delete of built-in kinds")
async def _(api: Api) -> None:
    for plural in ("configmaps", "secrets", "leases", "serviceaccounts"):
        await api.create(plural, {"metadata": {"name": "a"}}, quiet=True)
        await api.delete(plural, "a")
        await api.delete(plural, "a")


@case("preconditions of a uid on a held object")
async def _(api: Api) -> None:
    made = await _held(api, "example.com/hold")
    wrong = "11111111-2222-3333-4444-555555555555"
    await api.delete("widgets", "a", {"preconditions": {"uid": wrong}}, keep=["metadata.deletionTimestamp"])
    await api.delete("widgets", "a", {"preconditions": {"uid": made["metadata"]["uid"]}}, keep=["metadata.finalizers"])
    await api.delete("widgets", "a", {"preconditions": {"uid": wrong}}, keep=["metadata.deletionTimestamp"])


@case("owner references have a form")
async def _(api: Api) -> None:
    good = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "11111111-2222-3333-4444-555555555555"}
    other = {**good, "name": "p", "uid": "21111111-2222-3333-4444-555555555555"}
    for owners in (
        [{**good, "uid": ""}],
        [{**good, "name": ""}],
        [{**good, "kind": ""}],
        [{**good, "apiVersion": ""}],
        [{**good, "apiVersion": "a/b/c"}],
        [{**good, "controller": True}, {**other, "controller": True}],
        [{**good, "controller": True}, other],
        [good, good],
        [{**good, "kind": "Event"}],
        [{**good, "bogus": 1}],
    ):
        body = widget("a")
        body["metadata"]["ownerReferences"] = owners
        await api.create("widgets", body, query={"dryRun": "All"}, keep=["metadata.ownerReferences"])


@case("a namespace is deleted with its phase")
async def _(api: Api) -> None:
    name = f"{api.ns}-inner"
    await api.call(
        "POST", "/api/v1/namespaces", {"metadata": {"name": name}}, keep=["spec", "status", "metadata.labels"]
    )
    await api.call(
        "DELETE", f"/api/v1/namespaces/{name}", {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}}
    )
