"""Patches (7)."""

from __future__ import annotations

from tests.conformance.api import JSON_PATCH, STRATEGIC, Api
from tests.conformance.cases._case import case, widget

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
