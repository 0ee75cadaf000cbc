"""Strategic merge patches of built-in kinds (13)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import APPLY, STRATEGIC, Api
from tests.conformance.cases._case import case, table


def pod(**spec: Any) -> dict[str, Any]:
    """Return a pod with two containers."""
    containers = [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "b:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
    ]
    return {"metadata": {"name": "p", "labels": {"k": "v"}}, "spec": {"containers": containers, **spec}}


def deployment(**template: Any) -> dict[str, Any]:
    """Return a deployment of such a pod."""
    return {
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"k": "v"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"k": "v"}}, "spec": {**pod()["spec"], **template}},
        },
    }


def _containers(*items: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(items), **spec}}}}


async def _patched(api: Api, patch: Any, path: str = "spec.template.spec") -> None:
    await api.create("deployments", deployment(), quiet=True)
    await api.patch("deployments", "d", patch, content=STRATEGIC, keep=[path])


table(
    [
        ("an item with a known merge key is merged", _containers({"name": "a", "image": "a:2"})),
        ("an item with a new merge key comes first", _containers({"name": "c", "image": "c:1"})),
        ("$patch: delete removes an item", _containers({"name": "a", "$patch": "delete"})),
        ("$patch: delete of a missing item is nothing", _containers({"name": "z", "$patch": "delete"})),
        ("$patch: replace replaces a list", _containers({"name": "z", "image": "z:1"}, {"$patch": "replace"})),
        ("an item without its merge key is refused", _containers({"image": "z:1"})),
        ("a nested list merges too", _containers({"name": "a", "env": [{"name": "X", "value": "9"}, {"name": "Z"}]})),
        ("a nested item is deleted", _containers({"name": "a", "env": [{"name": "X", "$patch": "delete"}]})),
        ("null removes a member", _containers({"name": "a", "env": None})),
        (
            "$setElementOrder orders a list",
            _containers(**{"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        (
            "$setElementOrder places new items",
            _containers(
                {"name": "c", "image": "c:1"},
                **{"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}]},
            ),
        ),
        (
            "$setElementOrder that does not name a patched item is refused",
            _containers({"name": "c", "image": "c:1"}, **{"$setElementOrder/containers": [{"name": "a"}]}),
        ),
        (
            "$patch: replace replaces an object",
            _containers({"name": "a", "resources": {"limits": {"cpu": "1"}, "$patch": "replace"}}),
        ),
        ("an unknown $patch is refused", _containers({"name": "a", "$patch": "swap"})),
        ("$retainKeys needs a list", _containers(**{"$retainKeys": "x"})),
        ("ports merge by containerPort", _containers({"name": "b", "ports": [{"containerPort": 81}]})),
        ("a list without a merge key is replaced", _containers({"name": "a", "command": ["x", "y"]})),
        (
            "tolerations are replaced",
            {"spec": {"template": {"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}}},
        ),
        ("a wrong type", {"spec": {"template": {"spec": {"containers": "none"}}}}),
        ("a list for an object", {"spec": {"template": []}}),
    ],
)(_patched)


@case("$retainKeys clears the members that it does not name")
async def _(api: Api) -> None:
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    await _patched(api, patch, "spec.strategy")


@case("without $retainKeys the old member stays, and is refused")
async def _(api: Api) -> None:
    await _patched(api, {"spec": {"strategy": {"type": "Recreate"}}}, "spec.strategy")


@case("$deleteFromPrimitiveList takes values from a list of strings")
async def _(api: Api) -> None:
    body = {"metadata": {"name": "a", "finalizers": ["example.com/x", "example.com/y"]}}
    await api.create("configmaps", body, quiet=True)
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/x"]}}
    await api.patch("configmaps", "a", patch, content=STRATEGIC)
    patch = {"metadata": {"finalizers": ["example.com/z"]}}
    await api.patch("configmaps", "a", patch, content=STRATEGIC)
    patch = {"metadata": {"$setElementOrder/finalizers": ["example.com/z", "example.com/y"]}}
    await api.patch("configmaps", "a", patch, content=STRATEGIC)


@case("maps merge, and null removes a key")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}}, quiet=True)
    await api.patch("configmaps", "a", {"data": {"y": None, "z": "3"}}, content=STRATEGIC)
    await api.patch("configmaps", "a", {"data": {"$patch": "replace", "q": "9"}}, content=STRATEGIC)
    await api.patch("configmaps", "a", {"data": {"$patch": "delete"}}, content=STRATEGIC)


@case("owner references merge by uid")
async def _(api: Api) -> None:
    owners = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": f"o{n}", "uid": f"{n * 8}-2222-3333-4444-555555555555"}
        for n in "12"
    ]
    await api.create("configmaps", {"metadata": {"name": "a", "ownerReferences": owners[:1]}}, quiet=True)
    await api.patch("configmaps", "a", {"metadata": {"ownerReferences": owners[1:]}}, content=STRATEGIC)
    gone = {"$patch": "delete", "uid": owners[0]["uid"]}
    await api.patch("configmaps", "a", {"metadata": {"ownerReferences": [gone]}}, content=STRATEGIC)


@case("conditions of a status merge by type")
async def _(api: Api) -> None:
    await api.create("deployments", deployment(), quiet=True)
    for kind, state in (("Available", "True"), ("Progressing", "True"), ("Available", "False")):
        condition = {"type": kind, "status": state}
        await api.patch(
            "deployments", "d", {"status": {"conditions": [condition]}}, "status", content=STRATEGIC, keep=["status"]
        )


@case("ports of a service merge by port")
async def _(api: Api) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "ports": [{"name": "a", "port": 80}]}}
    await api.create("services", body, quiet=True)
    patch = {"spec": {"ports": [{"name": "b", "port": 81}]}}
    await api.patch("services", "s", patch, content=STRATEGIC, keep=["spec.ports"])


@case("a stale version conflicts")
async def _(api: Api) -> None:
    made = await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    await api.patch("configmaps", "a", {"data": {"x": "1"}}, content=STRATEGIC, quiet=True)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "2"}}
    await api.patch("configmaps", "a", stale, content=STRATEGIC)


@case("a strategic merge patch that changes nothing keeps the version")
async def _(api: Api) -> None:
    await api.create("deployments", deployment(), quiet=True)
    before = await api.get("deployments", "d", quiet=True)
    after = await api.patch(
        "deployments", "d", _containers({"name": "a", "image": "a:1"}), content=STRATEGIC, quiet=True
    )
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    api.transcript.append({"same version": same})


@case("strict field validation of a strategic merge patch")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    for level in ("Strict", "Warn", "Ignore"):
        await api.patch(
            "configmaps", "a", {"data": {"x": "1"}, "bogus": 1}, content=STRATEGIC, query={"fieldValidation": level}
        )


@case("apply merges containers, environment and ports by their keys")
async def _(api: Api) -> None:
    api.with_owners = True
    document = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment()}
    path = api.path("deployments", "d")
    keep = ["spec.template.spec.containers", "metadata.managedFields"]
    await api.call("PATCH", path, document, content=APPLY, query={"fieldManager": "one"}, keep=keep)
    more = {"containers": [{"name": "a", "env": [{"name": "Z", "value": "3"}]}, {"name": "c", "image": "c:1"}]}
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": more}},
    }
    await api.call("PATCH", path, document, content=APPLY, query={"fieldManager": "two"}, keep=keep)
    document["spec"]["template"]["spec"]["containers"] = [{"name": "a", "image": "a:2"}]  # type: ignore[index]
    await api.call("PATCH", path, document, content=APPLY, query={"fieldManager": "two"}, keep=keep)
    await api.call("PATCH", path, document, content=APPLY, query={"fieldManager": "two", "force": "true"}, keep=keep)
