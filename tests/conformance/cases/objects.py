"""Identity, conflicts, status and no-op writes (1 to 4)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import GROUP, JSON_PATCH, Api
from tests.conformance.cases._case import case, table, version, widget

# 1 identity and versions


@case("create fills in uid, version, generation and time")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.get("widgets", "a")


@case("create of an existing name is AlreadyExists")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("a", size=2))


@case("create with a resourceVersion is refused")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["resourceVersion"] = "7"
    await api.create("widgets", body)


@case("generateName makes a name")
async def _(api: Api) -> None:
    made = await api.create("widgets", {"metadata": {"generateName": "generated-"}, "spec": {"size": 1}})
    assert len(made["metadata"]["name"]) == len("generated-") + 5


@case("an object without any name is refused")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {}, "spec": {"size": 1}})


@case("names follow RFC 1123")
async def _(api: Api) -> None:
    await api.create("widgets", widget("Not_A_Name"))


@case("create in a missing namespace is NotFound")
async def _(api: Api) -> None:
    await api.call(
        "POST",
        f"/apis/{GROUP}/v1/namespaces/nowhere/widgets",
        {"apiVersion": f"{GROUP}/v1", "kind": "Widget", **widget("a")},
    )


@case("a namespace in the body that differs from the path is refused")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["namespace"] = "other"
    await api.create("widgets", body)


@case("versions rise over kinds and are strings")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.create("gadgets", widget("a"))
    await api.patch("widgets", "a", {"spec": {"size": 2}})
    await api.list("widgets")


@case("client-set server fields are ignored on create")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"] |= {
        "uid": "11111111-2222-3333-4444-555555555555",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "generation": 9,
        "deletionTimestamp": "2001-01-01T00:00:00Z",
    }
    made = await api.create("widgets", body)
    assert made["metadata"]["uid"] != "11111111-2222-3333-4444-555555555555"


@case("cluster-scoped objects have no namespace")
async def _(api: Api) -> None:
    await api.create("clusterwidgets", widget("one-of-a-kind"))
    await api.get("clusterwidgets", "one-of-a-kind")
    await api.delete("clusterwidgets", "one-of-a-kind")


@case("kind and apiVersion must fit the path")
async def _(api: Api) -> None:
    await api.call("POST", api.path("widgets"), {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", **widget("a")})
    await api.call("POST", api.path("widgets"), {"apiVersion": "other.io/v1", "kind": "Widget", **widget("a")})


# 2 conflicts


@case("PUT with a stale version conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    first["spec"]["size"] = 3
    await api.put("widgets", "a", first)


@case("PUT without a version is refused for custom resources")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.put("widgets", "a", widget("a", size=2))


@case("PUT without a version overwrites a ConfigMap")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "1"}}, quiet=True)
    await api.put("configmaps", "a", {"metadata": {"name": "a"}, "data": {"k": "2"}})


@case("a merge patch with a stale version conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": version(first)}, "spec": {"size": 3}})


@case("a stale version in a status patch conflicts, also when nothing would change")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", quiet=True)
    stale = {"metadata": {"resourceVersion": version(first)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", stale, "status")


@case("a version of the future conflicts")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": "99999999"}, "status": {"phase": "X"}}, "status")


@case("the version of a predecessor conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.create("widgets", widget("a"), quiet=True)
    stale = {"metadata": {"resourceVersion": version(first)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", stale, "status")


@case("a foreign uid is accepted by a status patch and refused by one of the main resource")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    foreign = "11111111-2222-3333-4444-555555555555"
    await api.patch("widgets", "a", {"metadata": {"uid": foreign}, "status": {"phase": "X"}}, "status", keep=["status"])
    await api.patch("widgets", "a", {"metadata": {"uid": foreign}, "spec": {"size": 2}})


@case("a foreign uid in a PUT is a failed precondition")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    response = await api.put("widgets", "a", made, quiet=False, keep=["none"])
    assert response["code"] == 409


@case("an empty or broken version in a patch is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": "soon"}, "spec": {"size": 2}})


# 3 status and generation


@case("a write of the main resource leaves status alone")
async def _(api: Api) -> None:
    await api.create("widgets", {**widget("a"), "status": {"phase": "Born"}})
    await api.patch("widgets", "a", {"spec": {"size": 2}, "status": {"phase": "Lie"}})


@case("a status write leaves spec, labels and annotations alone")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch(
        "widgets",
        "a",
        {"metadata": {"labels": {"x": "y"}}, "spec": {"size": 9}, "status": {"phase": "Ready"}},
        "status",
    )


@case("a PUT of status takes only status")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["spec"]["size"] = 9
    made["status"] = {"phase": "Ready"}
    await api.put("widgets", "a", made, "status")


@case("generation counts changes of spec, not of status or metadata")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    keep = ["metadata.generation"]
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", keep=keep)
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": "y"}}}, keep=keep)
    await api.patch("widgets", "a", {"metadata": {"annotations": {"x": "y"}}}, keep=keep)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, keep=keep)


@case("without the status subresource status counts for generation")
async def _(api: Api) -> None:
    await api.create("gadgets", widget("a"), quiet=True)
    await api.patch("gadgets", "a", {"status": {"phase": "X"}}, keep=["metadata.generation", "status"])


@case("a status write to a kind without the subresource is NotFound, like a missing object")
async def _(api: Api) -> None:
    await api.create("gadgets", widget("a"), quiet=True)
    await api.patch("gadgets", "a", {"status": {"phase": "X"}}, "status")
    await api.patch("gadgets", "absent", {"status": {"phase": "X"}}, "status")


@case("the status of a missing object is NotFound")
async def _(api: Api) -> None:
    await api.patch("widgets", "absent", {"status": {"phase": "X"}}, "status")
    await api.get("widgets", "absent")


@case("the status subresource can be read")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.get("widgets", "a", "status")


# 4 no-op writes


@case("a patch that changes nothing keeps the version")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.patch("widgets", "a", {"spec": {"size": 1}})


@case("a status patch that changes nothing keeps the version")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status")
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status")


@case("a PUT that changes nothing keeps the version and brings no event")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"))
    await api.put("widgets", "a", made)
    await api.watch("widgets", {"resourceVersion": version(made)}, 0)


@case("a dry run stores nothing")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), query={"dryRun": "All"}, keep=["spec"])
    await api.get("widgets", "a")


@case("a dry run of an update, a status write and a delete changes nothing")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    dry = {"dryRun": "All"}
    made["spec"]["size"] = 2
    await api.put("widgets", "a", made, query=dry)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", query=dry)
    await api.delete("widgets", "a", query=dry)
    await api.get("widgets", "a")


@case("no-op writes of built-in kinds")
async def _(api: Api) -> None:
    made = await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"x": "1"}})
    await api.put("configmaps", "a", made)
    await api.patch("configmaps", "a", {"data": {"x": "1"}})
    del made["metadata"]["resourceVersion"]
    await api.put("configmaps", "a", made)


@case("an annotation that is set again changes nothing")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"] |= {"annotations": {"a": "1"}, "labels": {"b": "2"}}
    await api.create("widgets", body, keep=["metadata.resourceVersion"])
    patch = {"metadata": {"annotations": {"a": "1"}, "labels": {"b": "2"}}}
    await api.patch("widgets", "a", patch, keep=["metadata.resourceVersion"])


@case("generateName of built-in kinds, long ones too")
async def _(api: Api) -> None:
    made = await api.create("configmaps", {"metadata": {"generateName": "generated-"}})
    assert len(made["metadata"]["name"]) == len("generated-") + 5
    made = await api.create("widgets", {"metadata": {"generateName": "g" * 70}, "spec": {"size": 1}}, quiet=True)
    api.transcript.append({"length": len(made["metadata"]["name"])})


@case("a name wins over generateName")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {"name": "a", "generateName": "b-"}, "spec": {"size": 1}})


@case("a generateName that is not a valid name")
async def _(api: Api) -> None:
    answer = await api.create("widgets", {"metadata": {"generateName": "Bad_"}, "spec": {"size": 1}}, keep=["code"])
    body = api.transcript[-1]["body"]
    name = body["details"].pop("name")
    body["message"] = body["message"].replace(name, "<name>")
    for cause in body["details"]["causes"]:
        cause["message"] = cause["message"].replace(name, "<name>")
    assert answer["code"] == 422


async def _named(api: Api, plural: str, name: str) -> None:
    spec: dict[str, Any] = {}
    if plural == "widgets":
        spec = {"spec": {"size": 1}}
    elif plural == "services":
        spec = {"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
    await api.create(plural, {"metadata": {"name": name}, **spec}, query={"dryRun": "All"}, keep=["kind"])


table(
    [
        (f"the name {name!r} of a {plural}", plural, name)
        for plural, name in (
            ("widgets", "a.b"),
            ("widgets", "a..b"),
            ("widgets", "-a"),
            ("widgets", "a" * 254),
            ("widgets", "a_b"),
            ("configmaps", "A"),
            ("configmaps", "a" * 254),
            ("services", "1a"),
            ("services", "a.b"),
            ("services", "a" * 64),
            ("leases", "a.b"),
            ("leases", "a/b"),
            ("secrets", "a b"),
            ("roles", "a:b"),
            ("roles", "a/b"),
            ("roles", "."),
        )
    ],
)(_named)


@case("a create over a dying object is AlreadyExists")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.create("widgets", widget("a"))


@case("a PUT of a missing object is NotFound, and creates some built-in kinds")
async def _(api: Api) -> None:
    await api.put("widgets", "a", widget("a"))
    await api.put("configmaps", "a", {"metadata": {"name": "a"}})
    await api.put("leases", "a", {"metadata": {"name": "a"}})
    event = {"metadata": {"name": "a"}, "involvedObject": {"namespace": api.ns, "kind": "Pod", "name": "x"}}
    await api.put("events", "a", event)


@case("a PUT with another name, or without a name")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.put("widgets", "a", {**made, "metadata": {**made["metadata"], "name": "b"}})
    await api.put("widgets", "a", {**made, "metadata": {"resourceVersion": version(made)}})
    await api.put("configmaps", "a", {"metadata": {"name": "b"}})


@case("a PUT cannot change fields that the server owns")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["metadata"] |= {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7, "selfLink": "x"}
    await api.put("widgets", "a", made)
    made["metadata"]["deletionTimestamp"] = "2001-01-01T00:00:00Z"
    await api.put("widgets", "a", made)


@case("status on create is dropped, or kept without the subresource")
async def _(api: Api) -> None:
    await api.create("widgets", {**widget("a"), "status": {"phase": "X"}}, keep=["status"])
    await api.create("gadgets", {**widget("a"), "status": {"phase": "X"}}, keep=["status"])


@case("a JSON patch of the status")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    patch = [{"op": "add", "path": "/status", "value": {"phase": "X"}}]
    await api.patch("widgets", "a", patch, "status", content=JSON_PATCH, keep=["status", "metadata.generation"])
    patch = [{"op": "replace", "path": "/spec/size", "value": 9}]
    await api.patch("widgets", "a", patch, "status", content=JSON_PATCH, keep=["spec", "status"])


@case("a PUT of status with a stale version conflicts, and one without is refused")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.put("widgets", "a", {**made, "status": {"phase": "X"}}, "status")
    del made["metadata"]["resourceVersion"]
    await api.put("widgets", "a", {**made, "status": {"phase": "X"}}, "status")


@case("a status may be removed")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", quiet=True)
    await api.patch("widgets", "a", {"status": None}, "status")


@case("a status write to a namespace, a pod and a deployment that are missing")
async def _(api: Api) -> None:
    for plural in ("namespaces", "pods", "deployments"):
        await api.patch(plural, "missing", {"status": {"phase": "X"}}, "status")
