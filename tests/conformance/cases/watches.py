"""Watches (8)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case, table, version, widget

# 8 watches


@case("a watch from a version sends the later events, in order")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"status": {"phase": "X"}}, "status", quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made)}, 3)


@case("a watch without a version begins with the existing objects")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.watch("widgets", {}, 1)


@case("a streamed list ends with a marked bookmark")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    events = await api.watch(
        "widgets",
        {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"},
        3,
    )
    events[-1]["object"]["metadata"].pop("resourceVersion")


@case("sendInitialEvents needs its match rule")
async def _(api: Api) -> None:
    await api.watch("widgets", {"sendInitialEvents": "true"}, 1)


@case("a watch from a compacted version is Expired")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.compact()
    await api.watch("widgets", {"resourceVersion": "1"}, 1)


@case("a watch with a label selector sees objects enter and leave")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"team": "red"}}}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"team": "blue"}}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made), "labelSelector": "team=red"}, 3)


@case("a watch of one name")
async def _(api: Api) -> None:
    first = await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(first), "fieldSelector": "metadata.name=a"}, 1)


@case("a watch with a broken version is refused")
async def _(api: Api) -> None:
    await api.watch("widgets", {"resourceVersion": "soon"}, 1)


@case("a delete event carries the version of the deletion")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"))
    await api.delete("widgets", "a")
    events = await api.watch("widgets", {"resourceVersion": version(made)}, 1)
    assert version(events[0]["object"]) != version(made)


@case("a watch from version 0 begins with the existing objects")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    await api.watch("widgets", {"resourceVersion": "0"}, 2)


@case("a streamed list of nothing is a bookmark")
async def _(api: Api) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    events = await api.watch("widgets", query, 1)
    events[-1]["object"]["metadata"].pop("resourceVersion")


@case("a streamed list with a selector, and what comes after it")
async def _(api: Api) -> None:
    for name, team in (("a", "red"), ("b", "blue")):
        await api.create("widgets", {**widget(name), "metadata": {"name": name, "labels": {"team": team}}}, quiet=True)
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "labelSelector": "team=red",
    }
    events = await api.watch("widgets", query, 2)
    events[-1]["object"]["metadata"].pop("resourceVersion")


@case("without bookmarks a streamed list does not say where it ends")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.watch("widgets", {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, 1)


@case("sendInitialEvents: false sends only new events")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.watch("widgets", {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}, 0)


table(
    [
        ("resourceVersionMatch without sendInitialEvents", {"resourceVersionMatch": "NotOlderThan"}),
        ("sendInitialEvents with an unknown match", {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"}),
        ("a continue token in a watch", {"continue": "abc"}),
        ("a broken label selector", {"labelSelector": "a in"}),
        ("an unknown field", {"fieldSelector": "spec.size=1"}),
        ("a negative version", {"resourceVersion": "-1"}),
        ("a broken timeout", {"timeoutSeconds": "soon"}),
        ("a broken limit", {"limit": "few"}),
        ("a broken truth value", {"allowWatchBookmarks": "perhaps"}),
        (
            "sendInitialEvents at a version of the future",
            {
                "sendInitialEvents": "true",
                "resourceVersionMatch": "NotOlderThan",
                "resourceVersion": "99999999",
            },
        ),
    ],
)(lambda api, query: api.watch("widgets", query, 1))


@case("a watch ends after timeoutSeconds")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.watch("widgets", {"timeoutSeconds": "1"}, 99)


@case("a watch shows tables")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    events = await api.watch("widgets", {"resourceVersion": version(made)}, 1, accept=accept)
    for event in events:
        for row in event["object"].get("rows") or ():
            row["cells"] = row["cells"][:1]
        for column in event["object"].get("columnDefinitions") or ():
            del column["description"]  # the words of the API's documentation


@case("a watch of metadata only")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
    await api.watch("widgets", {}, 1, accept=accept)


@case("a streamed list of metadata ends with a bookmark of its kind")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    events = await api.watch("widgets", query, 2, accept=accept)
    events[-1]["object"]["metadata"].pop("resourceVersion")


@case("a watch by a selectable field sees objects enter and leave")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"mode": "Fast"}}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"mode": "Safe"}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made), "fieldSelector": "spec.mode=Fast"}, 2)


@case("an object that is deleted while its finalizers hold it is modified")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    made = await api.create("widgets", body, quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.patch("widgets", "a", {"metadata": {"finalizers": None}}, quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made)}, 2)


@case("a delete and a create of one name are two objects")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.delete("widgets", "a", quiet=True)
    await api.create("widgets", widget("a", size=2), quiet=True)
    await api.watch("widgets", {"resourceVersion": version(made)}, 2)


@case("a watch of config maps")
async def _(api: Api) -> None:
    made = await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    await api.patch("configmaps", "a", {"data": {"x": "1"}}, quiet=True)
    await api.delete("configmaps", "a", quiet=True)
    await api.watch("configmaps", {"resourceVersion": version(made)}, 2)


@case("the path of an object is read, not watched")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    made = await api.patch("widgets", "a", {"spec": {"size": 2}}, quiet=True)
    await api.get("widgets", "a", query={"watch": "true", "resourceVersion": version(made)})


@case("a watch of a missing namespace is silent")
async def _(api: Api) -> None:
    await api.watch("widgets", {}, 0)


@case("a deleted collection is an event for each object")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    await api.create("widgets", widget("b"), quiet=True)
    await api.call("DELETE", api.path("widgets"), quiet=True)
    events = await api.watch("widgets", {"resourceVersion": version(made)}, 3)
    events[1:] = sorted(events[1:], key=lambda event: str(event["object"]["metadata"]["name"]))
    for event in events[1:]:
        del event["object"]["metadata"]["resourceVersion"]


_STREAMED = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}


async def _bookmark(api: Api, plural: str, form: str, include: str) -> None:
    accept = f"application/json;as={form};g=meta.k8s.io"
    last = (await api.watch(plural, {**_STREAMED, "includeObject": include}, 1, accept=accept))[-1]["object"]
    for metadata in (last["metadata"], *((row["object"] or {}).get("metadata", {}) for row in last.get("rows", ()))):
        metadata.pop("resourceVersion", None)


table(
    [
        (f"a bookmark of {plural} as {form.replace(';', ' ')} with {include or 'the default'}", plural, form, include)
        for plural in ("widgets", "configmaps", "pods")
        for form, include in (
            ("Table;v=v1", ""),
            ("Table;v=v1beta1", "Object"),
            ("Table;v=v1", "None"),
            ("PartialObjectMetadata;v=v1beta1", ""),
        )
    ]
)(_bookmark)
