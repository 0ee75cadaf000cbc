"""Owners beyond the request's own version and kind: scales, statuses that are reset, and wishes for none (24)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, table, widget
from tests.conformance.cases.definitions import definition

_TEXT = {"type": "string"}
_TWINS = [{"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}]
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "note": _TEXT}},
        "status": {
            "type": "object",
            "properties": {
                "phase": _TEXT,
                "replicas": {"type": "integer"},
                "conditions": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                    "items": {"type": "object", "required": ["type"], "properties": {"type": _TEXT, "status": _TEXT}},
                },
            },
        },
    },
}
_SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
OWNED = definition(
    "owneds",
    "Owned",
    {"name": "v1", "schema": {"openAPIV3Schema": _SCHEMA}, "subresources": {"status": {}, "scale": _SCALE}},
    {"name": "v2", "schema": {"openAPIV3Schema": _SCHEMA}, "subresources": {"status": {}}},
)
_ONE, _TWO = "owneds:Owned:v1", "owneds:Owned:v2"
_ME = {"metadata": {"name": "a"}}


def _by(manager: str) -> dict[str, str]:
    return {"fieldManager": manager}


async def _scaled(api: Api, *writes: tuple[str, int]) -> None:
    api.with_owners = True
    await api.create(_ONE, {**_ME, "spec": {"replicas": 1, "note": "x"}}, query=_by("one"), quiet=True)
    for manager, replicas in writes:
        await api.patch(_ONE, "a", {"spec": {"replicas": replicas}}, "scale", query=_by(manager))
        await api.get(_ONE, "a")


table(
    [
        ("a scale write that changes nothing splits the entry of the owner of the replicas", ("two", 1)),
        ("of two entries of one manager the last counts in the next scale write", ("two", 1), ("three", 1)),
        ("a scale to zero has no owner, nor has the next one", ("two", 0), ("two", 2)),
        ("the owner of the replicas keeps them when another manager writes the same scale", ("two", 3), ("three", 3)),
        ("an owner of the replicas keeps them through a scale write", ("one", 3), ("one", 4)),
    ],
)(_scaled, OWNED)


@case("a scale write of the same replicas leaves them with the manager that applied them", OWNED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply(_ONE, "a", {**_ME, "spec": {"replicas": 1, "note": "x"}}, quiet=True)
    for replicas in (1, 2):
        await api.patch(_ONE, "a", {"spec": {"replicas": replicas}}, "scale", query=_by("two"), quiet=True)
        await api.get(_ONE, "a")


async def _scale_refused(api: Api, scale: dict[str, Any], query: dict[str, str]) -> None:
    made = await api.create(_ONE, {**_ME, "spec": {"replicas": 1}}, quiet=True)
    metadata = {"name": "a", "namespace": made["metadata"]["namespace"], **scale.get("metadata", {})}
    whole = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 2}, **scale, "metadata": metadata}
    await api.call("PUT", api.path(_ONE, "a", "scale"), whole, query=query)
    await api.patch(_ONE, "a", scale, "scale", query=query)


_NOBODY = "11111111-2222-3333-4444-555555555555"
table(
    [
        ("a scale with an unknown member is warned of", {"spec": {"replicas": 2, "bogus": 1}}, {}),
        ("a strict scale write refuses an unknown member", {"spec": {"bogus": 1}}, {"fieldValidation": "Strict"}),
        ("a scale is of the object that its path names", {"metadata": {"name": "b"}}, {}),
        ("a scale is in the namespace of its path", {"metadata": {"namespace": "other"}}, {}),
        ("a scale update with another uid conflicts", {"metadata": {"uid": _NOBODY}}, {}),
    ],
)(_scale_refused, OWNED)


@case("a status that a write to the object resets is lost to owners in other versions", OWNED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create(_ONE, {**_ME, "spec": {}}, query=_by("one"), quiet=True)
    await api.patch(_TWO, "a", {"status": {"phase": "X", "replicas": 1}}, "status", query=_by("two"), quiet=True)
    await api.patch(_ONE, "a", {"status": {"phase": "Y"}}, query=_by("three"))
    await api.apply(_ONE, "a", {**_ME, "status": {"replicas": 2}}, "four")
    await api.apply(_ONE, "a", {**_ME, "status": {"replicas": 2}}, "four", force=True)


@case("a status that a write to the object resets stays with owners in the same version", OWNED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create(_ONE, {**_ME, "spec": {}}, query=_by("one"), quiet=True)
    await api.patch(_ONE, "a", {"status": {"phase": "X"}}, "status", query=_by("two"), quiet=True)
    await api.patch(_ONE, "a", {"status": {"phase": "Y"}}, query=_by("three"))


@case("twins in a status are refused by the subresource, and cost other versions' owners all they have", OWNED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create(_TWO, {**_ME, "spec": {"note": "x"}}, query=_by("one"), quiet=True)
    await api.patch(_ONE, "a", {"status": {"conditions": _TWINS}}, "status", query=_by("two"))
    await api.patch(_ONE, "a", {"status": {"conditions": _TWINS}}, query=_by("two"))


async def _no_owners(api: Api, plural: str, body: dict[str, Any], wish: list[Any]) -> None:
    api.with_owners = True
    await api.create(plural, body, query=_by("one"), quiet=True)
    patch = {"metadata": {"managedFields": wish, "labels": {"x": "y"}}}
    await api.patch(plural, "a", patch, query=_by("two"))
    await api.patch(plural, "a", {"metadata": {"labels": {"x": "z"}}}, query=_by("three"))


table(
    [
        ("a built-in object is without owners after an empty list", "configmaps", _ME, []),
        ("a built-in object is without owners after a list of nothing", "configmaps", _ME, [{}]),
        ("a custom object keeps its owners after an empty list", "widgets", widget("a"), []),
        ("a custom object is without owners after a list of nothing", "widgets", widget("a"), [{}]),
    ],
)(_no_owners)


@case("a status write does not take owners away")
async def _(api: Api) -> None:
    api.with_owners = True
    body = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "main", "image": "app"}]}}
    await api.create("pods", body, query=_by("one"), quiet=True)
    patch = {"metadata": {"managedFields": [{}]}, "status": {"message": "x"}}
    await api.patch("pods", "a", patch, "status", query=_by("two"), keep=["metadata.managedFields"])


@case("a status write of a custom object changes no labels, in one version or another", OWNED)
async def _(api: Api) -> None:
    await api.create(_ONE, {"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {}}, quiet=True)
    for kind in (_ONE, _TWO):
        await api.patch(kind, "a", {"metadata": {"labels": {"x": kind[-2:]}}, "status": {"phase": kind[-2:]}}, "status")


@case("a dry run that creates answers with the version that was sent")
async def _(api: Api) -> None:
    dry = {"dryRun": "All"}
    lease = {"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {}}
    await api.put("leases", "a", lease, query=dry)
    await api.apply("configmaps", "a", {"metadata": {"name": "a", "resourceVersion": "7"}}, query=dry)
    await api.create("widgets", {**widget("a"), "metadata": {"name": "a", "resourceVersion": "7"}}, query=dry)


@case("a custom object that is posted to an item path has the name in its body")
async def _(api: Api) -> None:
    await api.call("POST", api.path("widgets", "b"), {"apiVersion": api.path("widgets").split("/")[2] + "/v1", **_TYPE})


_TYPE = {"kind": "Widget", **widget("a")}


@case("a kind without generations keeps the generation that it is created with")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a", "generation": 9}})
    await api.patch("configmaps", "a", {"metadata": {"generation": 10}, "data": {"k": "v"}})


table(
    [
        (f"an invalid creation time is refused: {plural}", plural, body)
        for plural, body in (("configmaps", {}), ("widgets", {"spec": {"size": 1}}))
    ],
)(lambda api, plural, body: api.create(plural, {**body, "metadata": {"name": "a", "creationTimestamp": "soon"}}))
