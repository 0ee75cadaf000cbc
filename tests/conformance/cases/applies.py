"""Server-side apply and field ownership (12)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import APPLY, JSON_PATCH, Api
from tests.conformance.cases._case import case, table, version, widget
from tests.conformance.cases.definitions import definition


def config(name: str = "a", /, **spec: Any) -> dict[str, Any]:
    """Return a configuration."""
    return {"metadata": {"name": name}, "spec": spec}


def _kind(name: str, status: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a kind with a status."""
    parts = {"spec": {"type": "object"}, "status": status}
    schema = {"openAPIV3Schema": {"type": "object", "properties": parts}}
    return definition(f"{name.lower()}s", name, {"name": "v1", "schema": schema, "subresources": {"status": {}}})


_TEXT = {"type": "string"}
_CONDITION = {"type": "object", "required": ["type", "status"], "properties": {"type": _TEXT, "status": _TEXT}}
_DEEP = {"type": "object", "properties": {"a": _TEXT}}

_CONDITIONS = {
    "type": "array",
    "items": _CONDITION,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}
_HELD = {"phase": _TEXT, "conditions": _CONDITIONS, "below": {"type": "object", "properties": {"deep": _DEEP}}}
CONDITIONED = _kind("Conditioned", {"type": "object", "properties": _HELD})
DEFAULTED = _kind(
    "Defaulted",
    {"type": "object", "default": {}, "properties": {"phase": _TEXT, "mode": {"type": "string", "default": "Safe"}}},
)

# creating and owning


@case("an apply creates an object, and its manager owns the applied fields")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, labels={"k": "v"}, tags=["x"], ports=[{"name": "p", "number": 1}]))


@case("the same apply again changes nothing")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1))
    await api.apply("widgets", "a", config(size=1))


@case("a create owns the fields that it sent, by its field manager")
async def _(api: Api) -> None:
    api.with_owners = True
    body = widget("a", tags=["x", "y"], nested={"depth": 1}, plain=[{"a": "b"}], free={"any": {"thing": 1}})
    body["metadata"] |= {"labels": {"l": "1"}, "annotations": {"n": "2"}, "finalizers": ["example.com/f"]}
    await api.create("widgets", body, query={"fieldManager": "maker"})


@case("updates move ownership to the manager that changed a value")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a", labels={"x": "1", "y": "2"}), query={"fieldManager": "one"}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"labels": {"x": "9"}}}, query={"fieldManager": "two"})


@case("a removed field has no owner")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a", labels={"x": "1", "y": "2"}), query={"fieldManager": "one"}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"labels": {"x": None}}}, query={"fieldManager": "two"})


@case("a status write is owned under its subresource")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", query={"fieldManager": "one"})


@case("the status can be applied")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    await api.apply("widgets", "a", {"metadata": {"name": "a"}, "status": {"phase": "X", "count": 1}}, sub="status")
    await api.apply("widgets", "a", {"metadata": {"name": "a"}, "status": {"phase": "Y"}}, sub="status")


@case("an applied status does not touch the spec, and the other way round")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", {**config(size=1), "status": {"phase": "X"}})
    await api.apply("widgets", "a", {**config(size=2), "status": {"phase": "X"}}, sub="status")


@case("an apply to the status of a missing object is NotFound")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", {"metadata": {"name": "a"}, "status": {"phase": "X"}}, sub="status")


@case("the first apply of a manager takes no fields from earlier writers")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a", low=1), query={"fieldManager": "one"}, quiet=True)
    await api.apply("widgets", "a", config(high=2), "two")


# conflicts


@case("a value that another manager applied is a conflict")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.apply("widgets", "a", config(size=2), "two")


@case("a value that another manager wrote is a conflict")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), query={"fieldManager": "writer"}, quiet=True)
    await api.apply("widgets", "a", config(size=2), "two")


@case("conflicts are listed by manager and field")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, low=1, tags=["x"]), quiet=True)
    await api.apply("widgets", "a", config(high=9, ports=[{"name": "p", "number": 1}]), "three", quiet=True)
    await api.apply("widgets", "a", config(size=2, low=2, high=3, ports=[{"name": "p", "number": 2}]), "two")
    answer = api.transcript[-1]["body"]
    # The real server goes through the managers in a random order.
    answer["details"]["causes"].sort(key=lambda cause: cause["field"])
    answer["message"] = sorted(answer["message"].splitlines())
    answer["message"][-1:] = []


@case("force takes the field")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.apply("widgets", "a", config(size=2), "two", force=True)


@case("a manager that lost a field conflicts when it applies it again")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1), quiet=True)
    await api.apply("widgets", "a", config(size=2), "two", force=True, quiet=True)
    await api.apply("widgets", "a", config(size=1))


@case("the same value is owned by both, and stays until both let go")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.apply("widgets", "a", config(size=1, low=1), "two")
    await api.apply("widgets", "a", config(size=1))
    await api.apply("widgets", "a", config(size=1), "two")


@case("an update never conflicts and takes the field")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, query={"fieldManager": "two"})
    await api.apply("widgets", "a", config(size=1, low=1))


@case("a conflict with a status write names the subresource")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", query={"fieldManager": "one"}, quiet=True)
    await api.apply("widgets", "a", {"metadata": {"name": "a"}, "status": {"phase": "Y"}}, "two", sub="status")


@case("conflicts about labels, annotations and finalizers")
async def _(api: Api) -> None:
    meta = {"name": "a", "labels": {"a.b/c": "1"}, "annotations": {"d": "1"}, "finalizers": ["example.com/x"]}
    await api.apply("widgets", "a", {"metadata": meta, "spec": {"size": 1}}, quiet=True)
    other = {"name": "a", "labels": {"a.b/c": "2"}, "annotations": {"d": "2"}, "finalizers": ["example.com/x"]}
    await api.apply("widgets", "a", {"metadata": other}, "two")


# letting go


@case("a field that is left out is removed")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, low=1, high=2, labels={"x": "1", "y": "2"}), quiet=True)
    await api.apply("widgets", "a", config(size=1, labels={"y": "2"}))


@case("a field that is left out and has a default gets the default")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, mode="Fast"), quiet=True)
    await api.apply("widgets", "a", config(size=1))


@case("a field that others wrote stays when it is left out")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.patch("widgets", "a", {"spec": {"low": 2}}, query={"fieldManager": "two"}, quiet=True)
    await api.apply("widgets", "a", config(size=1))


@case("a required field cannot be let go")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, low=1), quiet=True)
    await api.apply("widgets", "a", config(low=1))


@case("labels that are left out are removed")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", {"metadata": {"name": "a", "labels": {"x": "1", "y": "1"}}, "spec": {"size": 1}})
    await api.apply("widgets", "a", {"metadata": {"name": "a", "labels": {"y": "1"}}, "spec": {"size": 1}})
    await api.apply("widgets", "a", {"metadata": {"name": "a"}, "spec": {"size": 1}})


# lists and maps


@case("sets merge by value")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, tags=["x", "y"]), quiet=True)
    await api.apply("widgets", "a", config(tags=["z", "y"]), "two")
    await api.apply("widgets", "a", config(size=1, tags=["y"]))


@case("lists of type map merge by key")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "p", "number": 1}, {"name": "q"}]), quiet=True)
    await api.apply("widgets", "a", config(ports=[{"name": "r", "number": 3}, {"name": "p"}]), "two")
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "q"}]))


@case("atomic lists have one owner")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, plain=[{"a": "x"}]), quiet=True)
    await api.apply("widgets", "a", config(plain=[{"a": "y"}]), "two")
    await api.apply("widgets", "a", config(plain=[{"a": "y"}]), "two", force=True)


@case("the order of a list of type map is that of the applier")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "p"}, {"name": "q"}, {"name": "r"}]), quiet=True)
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "r"}, {"name": "q"}, {"name": "p"}]))
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "s"}, {"name": "p"}]), keep=["spec.ports"])


@case("duplicates in a set or map are refused")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, tags=["x", "x"]))
    await api.apply("widgets", "a", config(size=1, ports=[{"name": "p"}, {"name": "p"}]))


@case("an item without its key is refused")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, ports=[{"number": 1}]))


@case("an applied empty map or list")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, labels={}, tags=[], nested={}))
    await api.apply("widgets", "a", config(size=1))


@case("an applied null")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, maybe=None, code=None))


@case("fields below preserve-unknown-fields are owned one by one")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1, free={"x": {"y": 1, "z": [1, 2]}}), quiet=True)
    await api.apply("widgets", "a", config(free={"x": {"w": 2}}), "two")


# options and refusals


@case("a dry run of an apply stores nothing")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("widgets", "a", config(size=1), query={"dryRun": "All"})
    await api.get("widgets", "a")
    await api.apply("widgets", "a", config(size=1), quiet=True)
    await api.apply("widgets", "a", config(size=2), query={"dryRun": "All"})
    await api.get("widgets", "a")


@case("an apply with a stale version conflicts")
async def _(api: Api) -> None:
    made = await api.apply("widgets", "a", config(size=1), quiet=True)
    await api.apply("widgets", "a", config(size=2), quiet=True)
    stale = {"metadata": {"name": "a", "resourceVersion": version(made)}, "spec": {"size": 3}}
    await api.apply("widgets", "a", stale)


@case("an apply with a version creates nothing")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", {"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"size": 3}})


@case("an apply with a uid creates nothing")
async def _(api: Api) -> None:
    uid = "11111111-2222-3333-4444-555555555555"
    await api.apply("widgets", "a", {"metadata": {"name": "a", "uid": uid}, "spec": {"size": 3}})


@case("an apply with a foreign uid conflicts")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1), quiet=True)
    uid = "11111111-2222-3333-4444-555555555555"
    await api.apply("widgets", "a", {"metadata": {"name": "a", "uid": uid}, "spec": {"size": 3}})


@case("an apply needs a field manager; force belongs to apply alone")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1), "")
    await api.call(
        "PATCH",
        api.path("widgets", "a"),
        {"spec": {"size": 2}},
        content="application/merge-patch+json",
        query={"force": "true"},
    )


@case("errors of an applied document")
async def _(api: Api) -> None:
    path, query = api.path("widgets", "a"), {"fieldManager": "one"}
    for body in (
        b"[]",
        b"text",
        b"kind: Widget\n",
        b"apiVersion: conformance.reconciler.dev/v1\nkind: Gadget\nmetadata: {name: a}\n",
        b"apiVersion: other.io/v1\nkind: Widget\nmetadata: {name: a}\n",
        b"apiVersion: conformance.reconciler.dev/v1\nkind: Widget\nmetadata: {name: b}\n",
        b"apiVersion: conformance.reconciler.dev/v1\nkind: Widget\nmetadata: {name: a, namespace: b}\n",
    ):
        await api.call("PATCH", path, body, content=APPLY, query=query)


@case("managedFields cannot be applied")
async def _(api: Api) -> None:
    body = config(size=1)
    body["metadata"]["managedFields"] = [{"manager": "x", "operation": "Apply"}]
    await api.apply("widgets", "a", body)


table(
    [
        ("an applied text where a number is wanted", {"size": "1"}),
        ("an applied number where a text is wanted", {"code": 1}),
        ("an applied object where a list is wanted", {"tags": {"x": "y"}}),
        ("an applied list where an object is wanted", {"labels": ["x"]}),
        ("an applied field that the schema does not know", {"bogus": 1}),
        ("an applied field that the schema does not know, below a list", {"ports": [{"name": "p", "bogus": 1}]}),
        ("an applied text where a truth value is wanted", {"on": "yes"}),
        ("an applied value out of bounds", {"size": 101}),
        ("an applied value that a rule forbids", {"low": 3, "high": 2}),
    ],
)(lambda api, spec: api.apply("widgets", "a", config(**{"size": 1, **spec})))


# managedFields themselves


@case("an update can take managedFields away")
async def _(api: Api) -> None:
    api.with_owners = True
    made = await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    made["metadata"]["managedFields"] = [{}]
    await api.put("widgets", "a", made, query={"fieldManager": "two"})


@case("an update without managedFields keeps them")
async def _(api: Api) -> None:
    api.with_owners = True
    made = await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    del made["metadata"]["managedFields"]
    made["spec"]["low"] = 1
    await api.put("widgets", "a", made, query={"fieldManager": "two"})


@case("an update can change managedFields by hand")
async def _(api: Api) -> None:
    api.with_owners = True
    made = await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    made["metadata"]["managedFields"][0]["manager"] = "somebody"
    await api.put("widgets", "a", made, query={"fieldManager": "two"})


@case("a JSON patch of managedFields")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    path = "/metadata/managedFields/0/manager"
    patch = [{"op": "replace", "path": path, "value": "renamed"}]
    await api.patch("widgets", "a", patch, content=JSON_PATCH, query={"fieldManager": "two"})


@case("the first apply of an object without managedFields owns with before-first-apply")
async def _(api: Api) -> None:
    api.with_owners = True
    made = await api.create("widgets", widget("a", low=1), query={"fieldManager": "one"}, quiet=True)
    made["metadata"]["managedFields"] = [{}]
    await api.put("widgets", "a", made, query={"fieldManager": "two"}, quiet=True)
    await api.apply("widgets", "a", config(high=9))
    await api.apply("widgets", "a", config(low=2))


@case("a field manager's name is at most 128 letters long and printable")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1), "m" * 129)
    await api.apply("widgets", "a", config(size=1), "with\ttab")


@case("many updaters are folded into one entry")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a"), query={"fieldManager": "m00"}, quiet=True)
    for number in range(1, 14):
        patch = {"spec": {"labels": {f"k{number:02}": "v"}}}
        await api.patch("widgets", "a", patch, query={"fieldManager": f"m{number:02}"}, quiet=True)
    found = await api.get("widgets", "a", quiet=True)
    entries = found["metadata"]["managedFields"]
    api.transcript.append({"entries": len(entries), "ancient": any("ancient" in e["manager"] for e in entries)})


# built-in kinds


@case("a config map is owned by its keys")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("configmaps", "a", {"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}})
    await api.apply("configmaps", "a", {"metadata": {"name": "a"}, "data": {"y": "3"}}, "two")
    await api.apply("configmaps", "a", {"metadata": {"name": "a"}, "data": {"x": "1"}})


@case("an applied secret with stringData")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("secrets", "a", {"metadata": {"name": "a"}, "stringData": {"x": "1"}})
    await api.apply("secrets", "a", {"metadata": {"name": "a"}, "data": {"x": "Mg=="}})


@case("a lease is applied and renewed")
async def _(api: Api) -> None:
    api.with_owners = True
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    await api.apply("leases", "a", {"metadata": {"name": "a"}, "spec": spec})
    await api.apply(
        "leases", "a", {"metadata": {"name": "a"}, "spec": {**spec, "renewTime": "2026-01-01T00:00:05.000000Z"}}
    )


@case("owner references merge by uid")
async def _(api: Api) -> None:
    api.with_owners = True
    owners = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": f"o{n}", "uid": f"{n * 8}-2222-3333-4444-555555555555"}
        for n in "12"
    ]
    await api.apply("configmaps", "a", {"metadata": {"name": "a", "ownerReferences": owners[:1]}})
    await api.apply("configmaps", "a", {"metadata": {"name": "a", "ownerReferences": owners[1:]}}, "two")
    await api.apply("configmaps", "a", {"metadata": {"name": "a"}})


@case("apply of a cluster-scoped object")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("clusterwidgets", "applied", config("applied", size=1))
    await api.call("DELETE", api.path("clusterwidgets", "applied"), quiet=True)


@case("an apply cannot revive a dying object, and can drop its finalizer")
async def _(api: Api) -> None:
    meta = {"name": "a", "finalizers": ["example.com/hold"]}
    await api.apply("widgets", "a", {"metadata": meta, "spec": {"size": 1}}, quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.apply("widgets", "a", config(size=1))
    await api.get("widgets", "a")


@case("generation follows an apply that changes the spec")
async def _(api: Api) -> None:
    keep = ["metadata.generation"]
    await api.apply("widgets", "a", config(size=1), keep=keep)
    await api.apply("widgets", "a", config(size=1), "two", keep=keep)
    await api.apply("widgets", "a", config(size=2), force=True, keep=keep)
    await api.apply("widgets", "a", {"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"size": 2}}, keep=keep)


table(
    [
        ("an applied number where an object is wanted", {"nested": 1}),
        ("an applied truth value where a text is wanted", {"code": True}),
        ("an applied object where a number is wanted", {"size": {"x": 1}}),
        ("an applied fraction where a text is wanted", {"code": 1.5}),
        ("an applied text where a list is wanted", {"tags": "x"}),
        ("an applied null where an object is wanted", {"nested": None}),
    ],
)(lambda api, spec: api.apply("widgets", "a", config(**{"size": 1, **spec})))


@case("empty lists and maps of a create, an update and a patch")
async def _(api: Api) -> None:
    api.with_owners = True
    body = widget("a", tags=[], ports=[], plain=[], labels={}, nested={})
    made = await api.create("widgets", body, query={"fieldManager": "one"})
    made["spec"] |= {"tags": ["x"], "ports": [{"name": "p"}]}
    made = await api.put("widgets", "a", made, query={"fieldManager": "two"})
    await api.patch(
        "widgets", "a", {"spec": {"tags": [], "ports": [], "labels": None}}, query={"fieldManager": "three"}
    )


@case("an apply that leaves its whole status out leaves none; an empty one is refused")
async def _(api: Api) -> None:
    api.with_owners = True
    me = {"metadata": {"name": "a"}}
    await api.create("widgets", widget("a"), query={"fieldManager": "maker"}, quiet=True)
    for last in ({}, {"status": {}}, {"status": None}):
        await api.apply("widgets", "a", {**me, "status": {"phase": "X", "count": 1}}, sub="status", quiet=True)
        await api.apply("widgets", "a", {**me, **last}, sub="status")
        await api.get("widgets", "a")


@case("an apply that lets go of its part of the status leaves the others'")
async def _(api: Api) -> None:
    me = {"metadata": {"name": "a"}}
    await api.create("widgets", widget("a"), query={"fieldManager": "maker"}, quiet=True)
    await api.apply("widgets", "a", {**me, "status": {"phase": "X"}}, sub="status", quiet=True)
    await api.apply("widgets", "a", {**me, "status": {"count": 1}}, "two", sub="status", quiet=True)
    await api.apply("widgets", "a", {**me, "status": {}}, sub="status")
    await api.apply("widgets", "a", me, "two", sub="status")


@case("an apply that lets go of all members of an object below the spec")
async def _(api: Api) -> None:
    await api.apply("widgets", "a", config(size=1, nested={"depth": 1}), quiet=True)
    await api.apply("widgets", "a", config(size=1, nested={}))
    await api.apply("widgets", "a", config(size=1, labels={"x": "1"}), quiet=True)
    await api.apply("widgets", "a", config(size=1, labels={}))
    await api.apply("widgets", "a", config(size=1, tags=["x"]), quiet=True)
    await api.apply("widgets", "a", config(size=1, tags=[]))


@case("an apply that lets go of the conditions, and of the status that held nothing else", CONDITIONED)
async def _(api: Api) -> None:
    kind, me = "conditioneds:Conditioned:v1", {"metadata": {"name": "a"}}
    ready = {"type": "Ready", "status": "True"}
    await api.create(kind, {**me, "spec": {}}, query={"fieldManager": "maker"}, quiet=True)
    for held in ({"conditions": [ready]}, {"phase": "X", "conditions": [ready]}, {"below": {"deep": {"a": "x"}}}):
        for last in ({"conditions": []}, {}, {"below": {}}, {"below": {"deep": {}}}):
            await api.apply(kind, "a", {**me, "status": held}, sub="status", quiet=True)
            await api.apply(kind, "a", {**me, "status": last}, sub="status")
            await api.apply(kind, "a", {**me, "status": held}, sub="status", quiet=True)
            await api.apply(kind, "a", me, sub="status")


@case("an applied null, and an object that lost all its fields, get the default", DEFAULTED)
async def _(api: Api) -> None:
    kind, me = "defaulteds:Defaulted:v1", {"metadata": {"name": "a"}}
    await api.create(kind, {**me, "spec": {}}, query={"fieldManager": "maker"}, quiet=True)
    for last in ({}, {"status": {}}, {"status": None}, {"status": {"phase": None}}, {"status": {"mode": None}}):
        await api.apply(kind, "a", {**me, "status": {"phase": "X", "mode": "Y"}}, sub="status", quiet=True)
        await api.apply(kind, "a", {**me, **last}, sub="status")
