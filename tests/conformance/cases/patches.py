"""Patches (7)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import JSON_PATCH, STRATEGIC, Api
from tests.conformance.cases._case import case, table, widget

# 7 patches


@case("merge patch replaces lists and removes nulls")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["x", "y"], labels={"k": "v", "l": "w"}), quiet=True)
    await api.patch("widgets", "a", {"spec": {"tags": ["z"], "labels": {"k": None, "m": "n"}}}, keep=["spec"])


@case("merge patch strips null members inside list items")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"items": [{"a": "x", "e": None}]}}, "status", keep=["status"])


@case("JSON patch")
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


@case("a failing test in a JSON patch is Invalid")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", [{"op": "test", "path": "/spec/size", "value": 7}], content=JSON_PATCH)


@case("a JSON patch to a missing path is refused")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", [{"op": "remove", "path": "/spec/absent"}], content=JSON_PATCH)


@case("strategic merge patch is refused for custom resources")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"spec": {"size": 2}}, content=STRATEGIC)


@case("a patch of a missing object is NotFound")
async def _(api: Api) -> None:
    await api.patch("widgets", "absent", {"spec": {"size": 2}})


@case("a patch cannot rename or move")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"name": "b"}})
    await api.patch("widgets", "a", {"metadata": {"namespace": "b"}})


async def _patched(api: Api, patch: Any) -> None:
    body = widget("a", tags=["x", "y"], labels={"k": "v", "a/b": "c", "m~n": "o"}, plain=[{"a": "1"}, {"a": "2"}])
    await api.create("widgets", body, quiet=True)
    await api.patch("widgets", "a", patch, content=JSON_PATCH, keep=["spec"])


def _op(op: str, path: str, *value: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"op": op, "path": path, **({"value": value[0]} if value else {}), **more}]


table(
    [
        ("JSON patch: add to a list's end", _op("add", "/spec/tags/-", "z")),
        ("JSON patch: add into a list", _op("add", "/spec/tags/1", "z")),
        ("JSON patch: add beyond a list's end", _op("add", "/spec/tags/5", "z")),
        ("JSON patch: add at a negative index", _op("add", "/spec/tags/-1", "z")),
        ("JSON patch: replace an item", _op("replace", "/spec/tags/0", "z")),
        ("JSON patch: replace a missing item", _op("replace", "/spec/tags/9", "z")),
        ("JSON patch: replace a missing member", _op("replace", "/spec/low", 3)),
        ("JSON patch: add below a missing member", _op("add", "/spec/nested/depth", 3)),
        ("JSON patch: remove an item", _op("remove", "/spec/tags/0")),
        ("JSON patch: remove a missing item", _op("remove", "/spec/tags/9")),
        ("JSON patch: remove a member", _op("remove", "/spec/labels/k")),
        ("JSON patch: a slash in a name", _op("replace", "/spec/labels/a~1b", "new")),
        ("JSON patch: a tilde in a name", _op("replace", "/spec/labels/m~0n", "new")),
        ("JSON patch: move", _op("move", "/spec/labels/new", **{"from": "/spec/labels/k"})),
        ("JSON patch: move from nowhere", _op("move", "/spec/labels/new", **{"from": "/spec/labels/z"})),
        ("JSON patch: copy", _op("copy", "/spec/labels/new", **{"from": "/spec/labels/k"})),
        ("JSON patch: copy without from", _op("copy", "/spec/labels/new")),
        ("JSON patch: test an object", _op("test", "/spec/plain/0", {"a": "1"})),
        ("JSON patch: test against null where nothing is", _op("test", "/spec/low", None)),
        ("JSON patch: test a text as a number", _op("test", "/spec/labels/k", 1)),
        ("JSON patch: an unknown operation", _op("increment", "/spec/size", 1)),
        ("JSON patch: a path without a slash", _op("add", "spec/low", 1)),
        ("JSON patch: no path", [{"op": "add", "value": 1}]),
        ("JSON patch: no value", _op("add", "/spec/low")),
        ("JSON patch: null is stored where it may", _op("add", "/spec/maybe", None)),
        ("JSON patch: null where it may not", _op("add", "/spec/code", None)),
        ("JSON patch: nothing", []),
        ("JSON patch: an object", {"op": "add"}),
        ("JSON patch: the whole document", _op("replace", "", {"spec": {"size": 3}})),
        ("JSON patch: a value that is refused", _op("replace", "/spec/size", 1000)),
        ("JSON patch: the apiVersion", _op("replace", "/apiVersion", "v1")),
        ("JSON patch: the name", _op("replace", "/metadata/name", "b")),
        ("JSON patch: the uid", _op("replace", "/metadata/uid", "11111111-2222-3333-4444-555555555555")),
        (
            "JSON patch: several operations are one write",
            [*_op("add", "/spec/low", 1), *_op("replace", "/spec/low", 2)],
        ),
        ("JSON patch: the second operation fails", [*_op("add", "/spec/low", 1), *_op("remove", "/spec/high")]),
    ],
)(_patched)


async def _merged(api: Api, patch: Any) -> None:
    body = widget("a", tags=["x", "y"], labels={"k": "v"}, nested={"depth": 5}, free={"a": {"b": 1}})
    await api.create("widgets", body, quiet=True)
    await api.patch("widgets", "a", patch, keep=["spec"])


table(
    [
        ("merge patch: nothing", {}),
        ("merge patch: a list", [1]),
        ("merge patch: null", None),
        ("merge patch: an object replaces a text", {"spec": {"free": {"a": {"b": {"c": 1}}}}}),
        ("merge patch: a text replaces an object", {"spec": {"free": {"a": "x"}}}),
        ("merge patch: nulls in new values are dropped", {"spec": {"free": {"z": {"y": None, "x": 1}}}}),
        ("merge patch: null removes an object", {"spec": {"nested": None}}),
        ("merge patch: null for an absent field", {"spec": {"low": None}}),
        ("merge patch: null removes a default, which comes again", {"spec": {"mode": None}}),
        ("merge patch: null removes a required field", {"spec": {"size": None}}),
        ("merge patch: the spec is removed", {"spec": None}),
        ("merge patch: an empty list", {"spec": {"tags": []}}),
        ("merge patch: null inside of a list", {"spec": {"tags": ["x", None]}}),
        ("merge patch: the kind", {"kind": "Gadget"}),
        ("merge patch: an empty version", {"metadata": {"resourceVersion": ""}, "spec": {"low": 1}}),
        ("merge patch: null as a version", {"metadata": {"resourceVersion": None}, "spec": {"low": 1}}),
        ("merge patch: the generation", {"metadata": {"generation": 9}, "spec": {"low": 1}}),
        ("merge patch: the time of creation", {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}}),
        ("merge patch: metadata is removed", {"metadata": None}),
        ("merge patch: a number for the spec", {"spec": 5}),
    ],
)(_merged)


@case("a merge patch of built-in kinds")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"a": "1"}}, quiet=True)
    for patch in ({"data": {"a": None, "b": "2"}}, {"data": None}, {"metadata": {"labels": None}}, {"data": {"a": 1}}):
        await api.patch("configmaps", "a", patch)


@case("a JSON patch of built-in kinds")
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a"}, "data": {"a": "1"}}, quiet=True)
    for path, value in (("/data/b", "2"), ("/data/c", 3), ("/immutable", True), ("/data/d", "4")):
        await api.patch("configmaps", "a", _op("add", path, value), content=JSON_PATCH)


@case("patches with dry runs and field managers")
async def _(api: Api) -> None:
    api.with_owners = True
    await api.create("widgets", widget("a"), query={"fieldManager": "one"}, quiet=True)
    await api.patch("widgets", "a", {"spec": {"low": 1}}, query={"dryRun": "All", "fieldManager": "two"})
    await api.patch("widgets", "a", {"spec": {"low": 1}}, query={"dryRun": "Some"})
    await api.get("widgets", "a")
