"""Deletion, finalizers and preconditions (9)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case, version, widget

# 9 deletion and finalizers


@case("9.01", "a delete answers with a Status")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a")
    await api.delete("widgets", "a")


@case("9.02", "a finalizer holds a deleted object until it is removed")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body)
    await api.delete("widgets", "a")
    await api.get("widgets", "a")
    await api.patch("widgets", "a", {"metadata": {"finalizers": None}})
    await api.get("widgets", "a")


@case("9.03", "a dying object takes no new finalizer")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.patch("widgets", "a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    await api.patch("widgets", "a", {"status": {"phase": "Dying"}}, "status", keep=["status", "metadata.generation"])
    await api.patch("widgets", "a", {"metadata": {"finalizers": []}}, quiet=True)


@case("9.04", "deleting twice changes nothing more")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a")
    await api.delete("widgets", "a")
    await api.patch("widgets", "a", {"metadata": {"finalizers": []}}, quiet=True)


@case("9.05", "preconditions of a delete")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    wrong = "11111111-2222-3333-4444-555555555555"
    response = await api.delete("widgets", "a", {"preconditions": {"uid": wrong}}, keep=["none"])
    assert response["code"] == 409
    await api.delete("widgets", "a", {"preconditions": {"uid": made["metadata"]["uid"]}})


@case("9.06", "finalizers are qualified names")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["hold"]
    await api.create("widgets", body)


@case("9.07", "a collection is deleted by selector")
async def _(api: Api) -> None:
    for name, team in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = widget(name)
        body["metadata"]["labels"] = {"team": team}
        await api.create("widgets", body, quiet=True)
    await api.call("DELETE", api.path("widgets"), query={"labelSelector": "team=red"}, keep=["kind"])
    found = await api.list("widgets", quiet=True)
    api.transcript.append({"left": [item["metadata"]["name"] for item in found["items"]]})


@case("9.08", "a status write to a deleted object is NotFound")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", quiet=True)
    patch = {"metadata": {"resourceVersion": version(made)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", patch, "status")
