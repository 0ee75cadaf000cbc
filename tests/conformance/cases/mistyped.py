"""Values of another type than their place has, and metadata that is read again on updates (25)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import APPLY, JSON, JSON_PATCH, MERGE, STRATEGIC, Api, resource
from tests.conformance.cases._case import case, each_once, in_any_order, table, widget
from tests.conformance.cases.built_in import OBJECTS, filled
from tests.conformance.cases.definitions import definition
from tests.conformance.cases.shapes import SHAPED, P

_DRY = {"dryRun": "All"}
_ODD = ([], [1], ["a"], [104, 105], [256], [-1], [1.5], [None], [True], [[1]], [{}], {}, {"a": 1}, 1, True, "%")
_MOMENT = "2001-01-01T00:00:00Z"
_TIMES = (1, 0, 1.5, True, [], {}, [1], "", "soon", _MOMENT, None)


async def _bytes(api: Api, content: str) -> None:
    """Put every kind of value where bytes belong."""
    await api.create("secrets", {"metadata": {"name": "a"}, "data": {"k": "aGk="}}, quiet=True)
    for value in _ODD:
        if content == JSON:
            await api.put("secrets", "a", {"metadata": {"name": "a"}, "data": {"k": value}}, keep=["data"])
        elif content == APPLY:
            await api.apply("secrets", "a", {"metadata": {"name": "a"}, "data": {"k": value}}, force=True)
        else:
            await api.patch("secrets", "a", {"data": {"k": value}}, content=content, keep=["data"])


table(
    [
        ("a list where bytes belong: update", JSON),
        ("a list where bytes belong: merge patch", MERGE),
        ("a list where bytes belong: strategic merge patch", STRATEGIC),
        ("a list where bytes belong: apply", APPLY),
    ],
)(_bytes)


@case("of several errors, the first of a type with a decoder of its own stops the decoding")
async def _(api: Api) -> None:
    hard, scopes = {"hard": {"cpu": "abc"}}, {"scopes": 5}
    for spec in ({**scopes, **hard}, {**hard, **scopes}, {**scopes, "hard": {"cpu": {}}}):
        for metadata in ({"name": "a"}, {"name": "a", "labels": 5}, {"name": "a", "creationTimestamp": "soon"}):
            await api.create("resourcequotas", {"metadata": metadata, "spec": spec})
            await api.create("resourcequotas", {"spec": spec, "metadata": metadata})
    await api.create("resourcequotas", {"metadata": {"name": "a"}, "spec": {"hard": {"cpu": "1"}}}, quiet=True)
    for content in (MERGE, STRATEGIC):
        await api.patch("resourcequotas", "a", {"spec": {**scopes, **hard}}, content=content)
    await api.create(
        "pods", {"metadata": {"name": "a"}, "spec": {"containers": ["x", {"name": 5}], "hostNetwork": True}}
    )


@case("null in place of bytes is dropped")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("secrets", {"metadata": {"name": "a"}, "data": {"k": None}})
    await api.apply("secrets", "b", {"metadata": {"name": "b"}, "data": {"k": None}})


@case("invalid strings of a built-in kind, restored from a strategic merge patch")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "1"}}, quiet=True)
    for value in _ODD:
        await api.patch("configmaps", "a", {"data": {"k": value}}, content=STRATEGIC, query=_DRY, keep=["data"])


async def _timed(api: Api, plural: str, content: str) -> None:
    """Put every kind of value where the time of creation belongs."""
    body = {"spec": {"size": 1}} if plural == "widgets" else {"data": {"k": "1"}}
    if content != "new":
        await api.create(plural, {"metadata": {"name": "a"}, **body}, quiet=True)
    for value in _TIMES:
        metadata = {"name": "a", "creationTimestamp": value}
        if content in ("new", APPLY):
            await api.apply(plural, "a", {"metadata": metadata, **body}, query=_DRY, keep=["metadata.name"])
        else:
            await api.patch(plural, "a", {"metadata": metadata}, content=content, query=_DRY, keep=["metadata.name"])


table(
    [
        ("an invalid creation time: apply over a built-in kind", "configmaps", APPLY),
        ("an invalid creation time: apply that creates a built-in kind", "configmaps", "new"),
        ("an invalid creation time: apply over a custom kind", "widgets", APPLY),
        ("an invalid creation time: apply that creates a custom kind", "widgets", "new"),
        ("an invalid creation time: strategic merge patch", "configmaps", STRATEGIC),
        ("an invalid creation time: merge patch of a built-in kind", "configmaps", MERGE),
        ("an invalid creation time: merge patch of a custom kind", "widgets", MERGE),
    ],
)(_timed)


async def _unowned(api: Api, plural: str) -> None:
    """Apply what nobody can own to an object without owners."""
    api.with_owners = True
    body = widget("a") if plural == "widgets" else {"metadata": {"name": "a"}, "data": {"k": "1"}}
    keep = ["metadata.resourceVersion", "metadata.managedFields"]
    for metadata in ({"creationTimestamp": _MOMENT}, {"generation": 7}, {"selfLink": "x"}, {}):
        await api.create(plural, body, keep=keep)
        await api.patch(plural, "a", {"metadata": {"managedFields": [{}]}}, keep=keep)
        await api.apply(plural, "a", {"metadata": {"name": "a", **metadata}}, keep=keep)
        await api.apply(plural, "a", {"metadata": {"name": "a", **metadata}}, keep=keep)
        await api.delete(plural, "a", keep=["status"])


table(
    [
        ("an apply of unowned fields over an object without owners: a built-in kind", "configmaps"),
        ("an apply of unowned fields over an object without owners: a custom kind", "widgets"),
    ],
)(_unowned)

_BAD_METADATA: tuple[Any, ...] = (
    *({"labels": value} for value in ({"a": 1}, {"a": 1.5}, {"a": True}, {"a": []}, {"a": None}, "x", [], 1, None)),
    *({"finalizers": value} for value in ("x", [1], [None], [{}], [[]], [""], ["bad one"], ["hold"], ["a/b/c"], {})),
    *({"generation": value} for value in ("x", 1.5, True, [], {}, 2)),
    *({"ownerReferences": value} for value in ("x", ["x"], [None], {}, [{"uid": 1}], [{"controller": 1, "uid": "a"}])),
    *({"uid": value} for value in (1, 1.5, [])),
    {"namespace": 1},
    {"generateName": 1},
    {"managedFields": "x"},
    {"managedFields": ["x"]},
    {"managedFields": {}},
    {"deletionGracePeriodSeconds": "x"},
    {"name": 1},
    {"name": None},
)


async def _metadata(api: Api, plural: str, content: str) -> None:
    """Put values of another type into every member of metadata."""
    body = {"spec": {"size": 1}} if plural == "widgets" else {"data": {"k": "1"}}
    await api.create(plural, {"metadata": {"name": "a"}, **body}, quiet=True)
    for metadata in _BAD_METADATA:
        if content == APPLY:
            about = {"metadata": {"name": "a", **metadata}}
            await api.apply(plural, "a", about, query=_DRY, keep=["metadata.labels", "metadata.finalizers"])
        else:
            keep = ["metadata.labels", "metadata.finalizers"]
            await api.patch(plural, "a", {"metadata": metadata}, content=content, query=_DRY, keep=keep)
        each_once(api)


table(
    [
        ("metadata of another type: merge patch of a built-in kind", "configmaps", MERGE),
        ("metadata of another type: strategic merge patch", "configmaps", STRATEGIC),
        ("metadata of another type: apply over a built-in kind", "configmaps", APPLY),
        ("metadata of another type: merge patch of a custom kind", "widgets", MERGE),
        ("metadata of another type: apply over a custom kind", "widgets", APPLY),
    ],
)(_metadata)


@case("invalid items in sets and keyed lists of an apply", SHAPED)
async def _(api: Api) -> None:
    for spec in (
        *({"numbers": items} for items in ([{}], [[]], [1, {"a": 1}, {}], [1, None, None])),
        *({"keyed": items} for items in ([[]], [1], ["x"], [None, None], [{}], [{"l": 1}])),
        *({"keyed": [{"k": value}]} for value in (1, True, [1, "a"], {"a": 1})),
    ):
        await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": spec}, query=_DRY, keep=["spec"])


@case("values of another type than a format is for", SHAPED)
async def _(api: Api) -> None:
    for key in ("int32", "int64", "float", "double", "date", "datetime", "email", "byte"):
        for value in (1, 1.5, True, {}, [], ["x"], "x"):
            await api.create(P, {"metadata": {"name": "a"}, "spec": {key: value}}, query=_DRY, keep=["spec"])
            in_any_order(api)
            await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": {key: value}}, query=_DRY, keep=["spec"])
            in_any_order(api)


@case("ports and quantities of another type")
async def _(api: Api) -> None:
    limits: list[Any] = [{"limits": {"cpu": value}} for value in ({}, [1], True)]
    more: list[dict[str, Any]] = [{"resources": value} for value in limits]
    more += [{"ports": [{"containerPort": value}]} for value in ({}, [1], True, 1.5, "x")]
    for each in more:
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "x", "image": "y", **each}]}}
        await api.create("pods", pod, query=_DRY, keep=["spec.containers"])
        await api.apply("pods", "a", pod, query=_DRY, keep=["spec.containers"])
    for port in ({}, [1], True, 1.5):
        service = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "targetPort": port}]}}
        await api.create("services", service, query=_DRY, keep=["spec.ports"])
        await api.apply("services", "a", service, query=_DRY, keep=["spec.ports"])


@case("items of another type in a strategic merge patch")
async def _(api: Api) -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    await api.create("pods", pod, quiet=True)
    specs: list[Any] = [{"containers": value} for value in (["x"], [1], [None], [[]], {}, "x", 1)]
    specs += [{"containers": [{"name": "x", "image": value}]} for value in ({}, [1], 1, 1.5, True)]
    specs += [{"containers": [{"name": "x", "stdin": value}]} for value in ({}, [1], 1, 1.5, "x")]
    for spec in (*specs, [], "x", 1):
        await api.patch("pods", "a", {"spec": spec}, content=STRATEGIC, query=_DRY, keep=["metadata.name"])


_SKIPPED = {"namespaces", "customresourcedefinitions", "events.events.k8s.io"}


async def _again(api: Api, metadata: dict[str, Any]) -> None:
    """Change metadata of every kind, and of its status."""
    for plural in sorted(OBJECTS.keys() - _SKIPPED):
        name = "a" if resource(plural)[2] else api.ns
        body = {"metadata": {"name": name}, **filled(OBJECTS[plural], api.ns)}
        await api.create(plural, body, quiet=True)
        for sub in ("", "status"):
            patch = {"metadata": metadata}
            await api.patch(plural, name, patch, sub, query=_DRY, keep=["metadata.name", "metadata.generateName"])
            each_once(api)


table(
    [
        ("generateName on update: no name of some kinds", {"generateName": "X_"}),
        ("generateName on update: no part of a path", {"generateName": "a/b"}),
        ("generateName on update: a name", {"generateName": "generated-"}),
        ("a finalizer without a domain on update", {"finalizers": ["hold"]}),
        ("an invalid finalizer on update", {"finalizers": ["bad one", "", "a/b/c"]}),
    ],
)(_again)


@case("a status without the subresource is applied and given up")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("gadgets", "a", {**widget("a"), "status": {"count": 1}})
    await api.apply("gadgets", "a", widget("a"))


@case("a Scale that is left as it is makes no version")
async def _(api: Api) -> None:
    api.with_owners = True
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, "replicas": 0}
    keep = ["metadata.resourceVersion", "metadata.managedFields"]
    await api.create("deployments", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.patch("deployments", "a", {"spec": {"replicas": 1}}, query={"fieldManager": "two"}, keep=keep)
    for patch in ({"spec": {"replicas": 1}}, {}, {"spec": {"replicas": 2}}, {"spec": {"replicas": 2}}):
        await api.patch("deployments", "a", patch, "scale", query={"fieldManager": "three"})
        await api.get("deployments", "a", keep=keep)


_SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
_SCALED = definition("scaledones", "ScaledOne", {"name": "v1", "subresources": {"status": {}, "scale": _SCALE}})


@case("patches of a Scale that cannot be read", _SCALED)
async def _(api: Api) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.create("deployments", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.create("scaledones:ScaledOne", {"metadata": {"name": "a"}, "spec": {"replicas": 1}}, quiet=True)
    for plural in ("deployments", "scaledones:ScaledOne"):
        for name in ("a", "b"):
            for content in ("application/nonsense", JSON, STRATEGIC, MERGE, JSON_PATCH):
                for body in (b"{", b"[]", b"{}", b"null"):
                    path = api.path(plural, name, "scale")
                    await api.call("PATCH", path, body, content=content, keep=["kind"])
            await api.call("PUT", api.path(plural, name, "scale"), b"{", keep=["kind"])


@case("a name that is taken though one could be generated")
async def _(api: Api) -> None:
    for plural in ("configmaps", "widgets"):
        body = {**widget("a"), "metadata": {"name": "a", "generateName": "generated-", "finalizers": ["x.io/y"]}}
        await api.create(plural, body if plural == "widgets" else {"metadata": body["metadata"]}, quiet=True)
        await api.create(plural, body if plural == "widgets" else {"metadata": body["metadata"]})
        await api.delete(plural, "a", keep=["metadata.name"])
        await api.create(plural, body if plural == "widgets" else {"metadata": body["metadata"]})


@case("empty fields of a built-in kind have no owner before the first apply")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply("leases", "a", {"metadata": {"name": "a"}})
    await api.apply("leases", "a", {"metadata": {"name": "a"}, "spec": {"leaseTransitions": 2}}, "two")
    await api.apply("leases", "a", {"metadata": {"name": "a"}}, "two")


def _with_status(plural: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    whole = {"type": "object", "properties": {"spec": schema, "status": schema}}
    return definition(
        plural, kind, {"name": "v1", "schema": {"openAPIV3Schema": whole}, "subresources": {"status": {}}}
    )


_TEXT = {"type": "string", "enum": ["a", "b"]}
_NESTED = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
_LOOSE = (
    _with_status("textmaps", "TextMap", {"type": "object", "additionalProperties": _TEXT}),
    _with_status("nestedmaps", "NestedMap", {"type": "object", "additionalProperties": _NESTED}),
    _with_status("listings", "Listing", {"type": "array", "items": {"type": "string"}}),
)
_IN_MAPS: tuple[Any, ...] = ({"k": None}, {"k": 1}, {"k": "c"}, {"k": {}}, {"k": {"x": "1"}}, {"k": {"x": None}})


@case("a status that is a map or a list as a whole", *_LOOSE)
async def _(api: Api) -> None:
    for plural in ("textmaps:TextMap", "nestedmaps:NestedMap", "listings:Listing"):
        listing = plural.startswith("listings")
        await api.create(plural, {"metadata": {"name": "a"}, "spec": [] if listing else {}}, quiet=True)
        for value in ([1], [None], ["a", {}]) if listing else _IN_MAPS:
            await api.create(plural, {"metadata": {"name": "b"}, "spec": value}, query=_DRY, keep=["spec"])
            in_any_order(api)
            patch = [{"op": "add", "path": "/status", "value": value}]
            await api.patch(plural, "a", patch, "status", content=JSON_PATCH, query=_DRY, keep=["status"])
            in_any_order(api)
            document = {"metadata": {"name": "a"}, "status": value}
            await api.apply(plural, "a", document, sub="status", query=_DRY, keep=["status"])
            in_any_order(api)


@case("members of a Scale of another type", _SCALED)
async def _(api: Api) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.create("deployments", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.create("scaledones:ScaledOne", {"metadata": {"name": "a"}, "spec": {"replicas": 1}}, quiet=True)
    bodies: list[dict[str, Any]] = [{"spec": {"replicas": value}} for value in ("2", 1.5, True, [], {}, None, 2**31)]
    bodies += [{"spec": value} for value in ("x", 1, [], None)]
    bodies += [{"status": value} for value in ("x", {"replicas": "2"}, {"replicas": 1.5}, {"selector": 1})]
    bodies += [{"metadata": value} for value in ("x", {"labels": {"a": 1}}, {"creationTimestamp": "soon"})]
    bodies += [{"kind": "x"}, {"apiVersion": "x"}, {"spec": {"replicas": "x"}, "metadata": {"creationTimestamp": "x"}}]
    for plural, contents in (("deployments", (STRATEGIC, MERGE, JSON)), ("scaledones:ScaledOne", (MERGE, JSON))):
        for content in contents:
            for body in bodies:
                if content == JSON:
                    whole = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, **body}
                    await api.call("PUT", api.path(plural, "a", "scale"), whole, query=_DRY, keep=["spec"])
                else:
                    await api.patch(plural, "a", body, "scale", content=content, query=_DRY, keep=["spec"])


@case("a different uid in a dry run")
async def _(api: Api) -> None:
    other = {"uid": "11111111-2222-3333-4444-555555555555"}
    await api.create("leases", {"metadata": {"name": "a"}}, quiet=True)
    made = await api.create("widgets", widget("a"), quiet=True)
    version = {"resourceVersion": made["metadata"]["resourceVersion"]}
    for query in ({}, _DRY):
        for name in ("a", "b"):
            await api.put("leases", name, {"metadata": {"name": name, **other}}, query=query)
            await api.apply("leases", name, {"metadata": {"name": name, **other}}, query=query)
        await api.put("widgets", "a", {**widget("a"), "metadata": {"name": "a", **other, **version}}, query=query)
        await api.patch("widgets", "a", {"metadata": other}, query=query)
        await api.delete("widgets", "a", {"preconditions": other}, query=query)


@case("how often findings in metadata are listed")
async def _(api: Api) -> None:
    for plural in ("configmaps", "deployments", "leases", "limitranges", "poddisruptionbudgets", "roles", "services"):
        await api.create(plural, {"metadata": {"name": "a"}, **filled(OBJECTS[plural], api.ns)}, quiet=True)
        for metadata in ({"labels": {"a": "bad!"}}, {"finalizers": ["hold"]}, {"uid": "other", "generateName": "a/b"}):
            await api.patch(plural, "a", {"metadata": metadata}, query=_DRY, keep=["kind"])
            in_any_order(api)


@case("a Scale of which the metadata alone is asked for", _SCALED)
async def _(api: Api) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await api.create("deployments", {"metadata": {"name": "a"}, "spec": spec}, quiet=True)
    await api.create("scaledones:ScaledOne", {"metadata": {"name": "a"}, "spec": {"replicas": 1}}, quiet=True)
    partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    for plural in ("deployments", "scaledones:ScaledOne"):
        await api.get(plural, "a", "scale", accept=partial)
        await api.patch(plural, "a", {"spec": {"replicas": 2}}, "scale", accept=partial)
