"""What a controller can notice of an API server, case by case.

Numbers: 1 identity and versions, 2 conflicts, 3 status and generation, 4 no-op writes, 5 validation, 6 defaulting and
pruning, 7 patches, 8 watches, 9 deletion and finalizers, 10 selectors and paging, 11 addresses and content types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.api import GROUP, JSON_PATCH, STRATEGIC, Api

Body = Callable[[Api], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """Be one case: a number, a title, and what to ask."""

    number: str
    title: str
    body: Body

    @property
    def slug(self) -> str:
        """Return the name of its golden file and of its namespace."""
        return f"case-{self.number.replace('.', '-')}"


CASES: list[Case] = []


def case(number: str, title: str) -> Callable[[Body], Body]:
    """Add a case."""

    def register(body: Body) -> Body:
        CASES.append(Case(number, title, body))
        return body

    return register


def widget(name: str, **spec: Any) -> dict[str, Any]:
    """Return a widget with the least spec, and more."""
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


def version(obj: dict[str, Any]) -> str:
    """Return an object's resourceVersion."""
    return str(obj["metadata"]["resourceVersion"])


# 1 identity and versions


@case("1.01", "create fills in uid, version, generation and time")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.get("widgets", "a")


@case("1.02", "create of an existing name is AlreadyExists")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("a", size=2))


@case("1.03", "create with a resourceVersion is refused")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["resourceVersion"] = "7"
    await api.create("widgets", body)


@case("1.04", "generateName makes a name")
async def _(api: Api) -> None:
    made = await api.create("widgets", {"metadata": {"generateName": "generated-"}, "spec": {"size": 1}})
    assert len(made["metadata"]["name"]) == len("generated-") + 5


@case("1.05", "an object without any name is refused")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {}, "spec": {"size": 1}})


@case("1.06", "names follow RFC 1123")
async def _(api: Api) -> None:
    await api.create("widgets", widget("Not_A_Name"))


@case("1.07", "create in a missing namespace is NotFound")
async def _(api: Api) -> None:
    await api.call(
        "POST",
        f"/apis/{GROUP}/v1/namespaces/nowhere/widgets",
        {"apiVersion": f"{GROUP}/v1", "kind": "Widget", **widget("a")},
    )


@case("1.08", "a namespace in the body that differs from the path is refused")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["namespace"] = "other"
    await api.create("widgets", body)


@case("1.09", "versions rise over kinds and are strings")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.create("gadgets", widget("a"))
    await api.patch("widgets", "a", {"spec": {"size": 2}})
    await api.list("widgets")


@case("1.10", "client-set server fields are ignored on create")
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


@case("1.11", "cluster-scoped objects have no namespace")
async def _(api: Api) -> None:
    await api.create("clusterwidgets", widget("one-of-a-kind"))
    await api.get("clusterwidgets", "one-of-a-kind")
    await api.delete("clusterwidgets", "one-of-a-kind")


@case("1.12", "kind and apiVersion must fit the path")
async def _(api: Api) -> None:
    await api.call("POST", api.path("widgets"), {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", **widget("a")})
    await api.call("POST", api.path("widgets"), {"apiVersion": "other.io/v1", "kind": "Widget", **widget("a")})


# 2 conflicts


@case("2.01", "PUT with a stale version conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    first["spec"]["size"] = 3
    await api.put("widgets", "a", first)


@case("2.02", "PUT without a version is refused for custom resources")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.put("widgets", "a", widget("a", size=2))


@case("2.03", "PUT without a version overwrites a ConfigMap")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "1"}}, quiet=True)
    await api.put("configmaps", "a", {"metadata": {"name": "a"}, "data": {"k": "2"}})


@case("2.04", "a merge patch with a stale version conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": version(first)}, "spec": {"size": 3}})


@case("2.05", "a stale version in a status patch conflicts, also when nothing would change")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", quiet=True)
    stale = {"metadata": {"resourceVersion": version(first)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", stale, "status")


@case("2.06", "a version of the future conflicts")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": "99999999"}, "status": {"phase": "X"}}, "status")


@case("2.07", "the version of a predecessor conflicts")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.create("widgets", widget("a"), quiet=True)
    stale = {"metadata": {"resourceVersion": version(first)}, "status": {"phase": "X"}}
    await api.patch("widgets", "a", stale, "status")


@case("2.08", "a foreign uid is accepted by a status patch and refused by one of the main resource")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    foreign = "11111111-2222-3333-4444-555555555555"
    await api.patch("widgets", "a", {"metadata": {"uid": foreign}, "status": {"phase": "X"}}, "status", keep=["status"])
    await api.patch("widgets", "a", {"metadata": {"uid": foreign}, "spec": {"size": 2}})


@case("2.09", "a foreign uid in a PUT is a failed precondition")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    response = await api.put("widgets", "a", made, quiet=False, keep=["none"])
    assert response["code"] == 409


@case("2.10", "an empty or broken version in a patch is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"resourceVersion": "soon"}, "spec": {"size": 2}})


# 3 status and generation


@case("3.01", "a write of the main resource leaves status alone")
async def _(api: Api) -> None:
    await api.create("widgets", {**widget("a"), "status": {"phase": "Born"}})
    await api.patch("widgets", "a", {"spec": {"size": 2}, "status": {"phase": "Lie"}})


@case("3.02", "a status write leaves spec, labels and annotations alone")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch(
        "widgets",
        "a",
        {"metadata": {"labels": {"x": "y"}}, "spec": {"size": 9}, "status": {"phase": "Ready"}},
        "status",
    )


@case("3.03", "a PUT of status takes only status")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["spec"]["size"] = 9
    made["status"] = {"phase": "Ready"}
    await api.put("widgets", "a", made, "status")


@case("3.04", "generation counts changes of spec, not of status or metadata")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    keep = ["metadata.generation"]
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", keep=keep)
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": "y"}}}, keep=keep)
    await api.patch("widgets", "a", {"metadata": {"annotations": {"x": "y"}}}, keep=keep)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, keep=keep)


@case("3.05", "without the status subresource status counts for generation")
async def _(api: Api) -> None:
    await api.create("gadgets", widget("a"), quiet=True)
    await api.patch("gadgets", "a", {"status": {"phase": "X"}}, keep=["metadata.generation", "status"])


@case("3.06", "a status write to a kind without the subresource is NotFound, like a missing object")
async def _(api: Api) -> None:
    await api.create("gadgets", widget("a"), quiet=True)
    await api.patch("gadgets", "a", {"status": {"phase": "X"}}, "status")
    await api.patch("gadgets", "absent", {"status": {"phase": "X"}}, "status")


@case("3.07", "the status of a missing object is NotFound")
async def _(api: Api) -> None:
    await api.patch("widgets", "absent", {"status": {"phase": "X"}}, "status")
    await api.get("widgets", "absent")


@case("3.08", "the status subresource can be read")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.get("widgets", "a", "status")


# 4 no-op writes


@case("4.01", "a patch that changes nothing keeps the version")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"))
    await api.patch("widgets", "a", {"spec": {"size": 1}})


@case("4.02", "a status patch that changes nothing keeps the version")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status")
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status")


@case("4.03", "a PUT that changes nothing keeps the version and brings no event")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"))
    await api.put("widgets", "a", made)
    await api.watch("widgets", {"resourceVersion": version(made)}, 0)


@case("4.04", "a dry run stores nothing")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), query={"dryRun": "All"}, keep=["spec"])
    await api.get("widgets", "a")


# 5 validation


@case("5.01", "bounds, enums, patterns and lengths")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", size=0))
    await api.create("widgets", widget("a", size=101))
    await api.create("widgets", widget("a", ratio=0))
    await api.create("widgets", widget("a", mode="Slow"))
    await api.create("widgets", widget("a", code="ABC"))
    await api.create("widgets", widget("a", code="x"))
    await api.create("widgets", widget("a", code="toolong"))


@case("5.02", "types")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", size="1"))
    await api.create("widgets", widget("a", on="yes"))
    await api.create("widgets", widget("a", size=1.5))


@case("5.03", "required fields")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {}})
    await api.create("widgets", widget("a", ports=[{"number": 1}]))


@case("5.04", "sets and maps refuse duplicates")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["x", "x"]))
    await api.create("widgets", widget("a", ports=[{"name": "p"}, {"name": "p"}]))


@case("5.05", "too many items")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["1", "2", "3", "4"]))


@case("5.06", "a rule over two fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", low=3, high=2))


@case("5.07", "a transition rule")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", fixed="x"), keep=["spec"])
    await api.patch("widgets", "a", {"spec": {"fixed": "y"}})
    await api.patch("widgets", "a", {"spec": {"fixed": "x", "size": 2}}, keep=["spec"])


@case("5.08", "status is validated too")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"count": "many"}}, "status")


@case("5.09", "date-time must be one")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", since="yesterday"))
    await api.create("widgets", widget("a", since="2026-01-01T00:00:00.123456Z"), keep=["spec"])


@case("5.10", "strict field validation refuses unknown fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", bogus=1), query={"fieldValidation": "Strict"})
    await api.create("widgets", widget("a", bogus=1), query={"fieldValidation": "Warn"}, keep=["spec"])
    await api.create("widgets", widget("b", bogus=1), query={"fieldValidation": "Ignore"}, keep=["spec"])
    await api.patch("widgets", "a", {"status": {"bogus": 1}}, "status", keep=["status"])


@case("5.11", "int or string")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", either="50%"), keep=["spec"])
    await api.create("widgets", widget("b", either=50), keep=["spec"])
    await api.create("widgets", widget("c", either=True))


@case("5.12", "labels and annotations have a form")
async def _(api: Api) -> None:
    for labels in ({"bad key": "x"}, {"good": "bad value!"}):
        body = widget("a")
        body["metadata"]["labels"] = labels
        await api.create("widgets", body)
    body = widget("a")
    body["metadata"]["annotations"] = {"bad key": "x"}
    await api.create("widgets", body)


@case("5.13", "a body that is no JSON")
async def _(api: Api) -> None:
    response = await api.call("POST", api.path("widgets"), b"{", keep=["code"])
    assert response["code"] == 400
    api.transcript[-1]["body"].pop("message", None)


# 6 defaulting and pruning


@case("6.01", "defaults are filled in, nested ones only where the parent is")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", nested={}, ports=[{"name": "p"}]), keep=["spec"])
    await api.create("widgets", widget("b"), keep=["spec"])


@case("6.02", "unknown fields are pruned, but not below preserve-unknown-fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", bogus=1, free={"any": {"thing": [1, None]}}, plain=[{"a": "x", "z": 1}]))


@case("6.03", "null is dropped where it is not allowed and kept where it is")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", mode=None, maybe=None), keep=["spec"])


@case("6.04", "unknown members of metadata are dropped")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["bogus"] = "x"
    await api.create("widgets", body, keep=["metadata.bogus"])


@case("6.05", "a label that is null is refused or dropped")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": "y", "z": None}}}, keep=["metadata.labels"])
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": None}}}, keep=["metadata.labels"])


# 7 patches


@case("7.01", "merge patch replaces lists and removes nulls")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["x", "y"], labels={"k": "v", "l": "w"}), quiet=True)
    await api.patch("widgets", "a", {"spec": {"tags": ["z"], "labels": {"k": None, "m": "n"}}}, keep=["spec"])


@case("7.02", "merge patch strips null members inside list items")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"items": [{"a": "x", "e": None}]}}, "status", keep=["status"])


@case("7.03", "JSON patch")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["x"]), quiet=True)
    await api.patch(
        "widgets",
        "a",
        [
            {"op": "test", "path": "/spec/size", "value": 1},
            {"op": "replace", "path": "/spec/size", "value": 2},
            {"op": "add", "path": "/spec/tags/-", "value": "y"},
        ],
        content=JSON_PATCH,
        keep=["spec"],
    )


@case("7.04", "a failing test in a JSON patch is Invalid")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", [{"op": "test", "path": "/spec/size", "value": 7}], content=JSON_PATCH)


@case("7.05", "a JSON patch to a missing path is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", [{"op": "remove", "path": "/spec/absent"}], content=JSON_PATCH)


@case("7.06", "strategic merge patch is refused for custom resources")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, content=STRATEGIC)


@case("7.07", "a patch of a missing object is NotFound")
async def _(api: Api) -> None:
    await api.patch("widgets", "absent", {"spec": {"size": 2}})


@case("7.08", "a patch cannot rename or move")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"name": "b"}})
    await api.patch("widgets", "a", {"metadata": {"namespace": "b"}})


# 8 watches


@case("8.01", "a watch from a version brings what came after it, in order")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made)}, 3)


@case("8.02", "a watch without a version begins with what is there")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.watch("widgets", {}, 1)


@case("8.03", "a streamed list ends with a marked bookmark")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    events = await api.watch(
        "widgets",
        {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"},
        3,
    )
    events[-1]["object"]["metadata"].pop("resourceVersion")


@case("8.04", "sendInitialEvents needs its match rule")
async def _(api: Api) -> None:
    await api.watch("widgets", {"sendInitialEvents": "true"}, 1)


@case("8.05", "a watch from a compacted version is Expired")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.compact()
    await api.watch("widgets", {"resourceVersion": "1"}, 1)


@case("8.06", "a watch with a label selector sees objects enter and leave")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"team": "red"}}}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"team": "blue"}}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made), "labelSelector": "team=red"}, 3)


@case("8.07", "a watch of one name")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(first), "fieldSelector": "metadata.name=a"}, 1)


@case("8.08", "a watch with a broken version is refused")
async def _(api: Api) -> None:
    await api.watch("widgets", {"resourceVersion": "soon"}, 1)


@case("8.09", "a delete event carries the version of the deletion")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"))
    await api.delete("widgets", "a")
    events = await api.watch("widgets", {"resourceVersion": version(made)}, 1)
    assert version(events[0]["object"]) != version(made)


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


# 10 selectors and paging


async def _many(api: Api) -> None:
    for number in range(5):
        body = widget(f"w{number}", mode="Fast" if number % 2 else "Safe")
        body["metadata"]["labels"] = {"n": str(number), **({"odd": ""} if number % 2 else {})}
        await api.create("widgets", body, quiet=True)


def _names(answer: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in answer.get("items") or []]


@case("10.01", "label selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("n=1", "n!=1", "n in (1,2)", "n notin (1,2)", "odd", "!odd", "n==3,odd", "n>2"):
        found = await api.list("widgets", {"labelSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": _names(found)})


@case("10.02", "a broken label selector is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"labelSelector": "n in 1"})


@case("10.03", "field selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("metadata.name=w3", "metadata.name!=w3", "spec.mode=Fast", "spec.mode=Fast,metadata.name=w1"):
        found = await api.list("widgets", {"fieldSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": _names(found)})
    await api.list("widgets", {"fieldSelector": "spec.size=1"})


@case("10.04", "paging gives every object once, at one version")
async def _(api: Api) -> None:
    await _many(api)
    first = await api.list("widgets", {"limit": "2"}, keep=["metadata.remainingItemCount"])
    await api.create("widgets", widget("w9"), quiet=True)
    token = first["metadata"]["continue"]
    path = api.path("widgets")
    second = await api.call("GET", path, query={"limit": "2", "continue": token}, quiet=True)
    third = await api.call("GET", path, query={"limit": "2", "continue": second["metadata"]["continue"]}, quiet=True)
    same = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    api.transcript.append(
        {
            "pages": [_names(page) for page in (first, second, third)],
            "versions": len(same),
            "more": bool(third["metadata"].get("continue")),
        }
    )


@case("10.05", "a broken continue token is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"limit": "1", "continue": "nonsense"})


@case("10.06", "an empty list has a version and no items")
async def _(api: Api) -> None:
    await api.list("widgets")


@case("10.07", "a list at a version of the future is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"resourceVersion": "999999999", "resourceVersionMatch": "NotOlderThan"})


@case("10.08", "a match rule needs a version, and must be known")
async def _(api: Api) -> None:
    await api.list("widgets", {"resourceVersionMatch": "NotOlderThan"})
    await api.list("widgets", {"resourceVersion": "1", "resourceVersionMatch": "Nearly"})


@case("10.09", "a list of metadata only")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.list("widgets", accept="application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")


# 11 addresses and content types


@case("11.01", "an unknown group, version or plural is a plain 404")
async def _(api: Api) -> None:
    await api.call("GET", "/apis/nothing.example.com/v1/things")
    await api.call("GET", f"/apis/{GROUP}/v9/widgets")
    await api.call("GET", f"/apis/{GROUP}/v1/things")


@case("11.02", "an unknown content type is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, content="application/nonsense")


@case("11.03", "a method that the resource does not have")
async def _(api: Api) -> None:
    await api.call("PUT", api.path("widgets"), widget("a"))


@case("11.04", "a custom kind is discovered with its subresource")
async def _(api: Api) -> None:
    found = await api.call("GET", f"/apis/{GROUP}/v1", quiet=True)
    api.transcript.append(
        {
            "resources": sorted(
                [
                    {key: entry.get(key) for key in ("name", "singularName", "namespaced", "kind")}
                    | {"verbs": sorted(entry["verbs"])}
                    for entry in found["resources"]
                ],
                key=lambda entry: entry["name"],
            )
        }
    )


@case("11.05", "an object over etcd's limit is an error of the server")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", free={"text": "x" * 1_700_000}), keep=["none"])


@case("11.06", "a subresource that no kind has")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.get("widgets", "a", "nonsense")
    await api.get("widgets", "a", "scale")
