"""Validation, defaulting and pruning (5 and 6)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case, widget

# 5 validation


@case("bounds, enums, patterns and lengths")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", size=0))
    await api.create("widgets", widget("a", size=101))
    await api.create("widgets", widget("a", ratio=0))
    await api.create("widgets", widget("a", mode="Slow"))
    await api.create("widgets", widget("a", code="ABC"))
    await api.create("widgets", widget("a", code="x"))
    await api.create("widgets", widget("a", code="toolong"))


@case("types")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", size="1"))
    await api.create("widgets", widget("a", on="yes"))
    await api.create("widgets", widget("a", size=1.5))


@case("required fields")
async def _(api: Api) -> None:
    await api.create("widgets", {"metadata": {"name": "a"}, "spec": {}})
    await api.create("widgets", widget("a", ports=[{"number": 1}]))


@case("sets and maps refuse duplicates")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["x", "x"]))
    await api.create("widgets", widget("a", ports=[{"name": "p"}, {"name": "p"}]))


@case("too many items")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", tags=["1", "2", "3", "4"]))


@case("a rule over two fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", low=3, high=2))


@case("a transition rule")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", fixed="x"), keep=["spec"])
    await api.patch("widgets", "a", {"spec": {"fixed": "y"}})
    await api.patch("widgets", "a", {"spec": {"fixed": "x", "size": 2}}, keep=["spec"])


@case("status is validated too")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"status": {"count": "many"}}, "status")


@case("date-time must be one")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", since="yesterday"))
    await api.create("widgets", widget("a", since="2026-01-01T00:00:00.123456Z"), keep=["spec"])


@case("strict field validation refuses unknown fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", bogus=1), query={"fieldValidation": "Strict"})
    await api.create("widgets", widget("a", bogus=1), query={"fieldValidation": "Warn"}, keep=["spec"])
    await api.create("widgets", widget("b", bogus=1), query={"fieldValidation": "Ignore"}, keep=["spec"])
    await api.patch("widgets", "a", {"status": {"bogus": 1}}, "status", keep=["status"])


@case("int or string")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", either="50%"), keep=["spec"])
    await api.create("widgets", widget("b", either=50), keep=["spec"])
    await api.create("widgets", widget("c", either=True))


@case("labels and annotations have a form")
async def _(api: Api) -> None:
    for labels in ({"bad key": "x"}, {"good": "bad value!"}):
        body = widget("a")
        body["metadata"]["labels"] = labels
        await api.create("widgets", body)
    body = widget("a")
    body["metadata"]["annotations"] = {"bad key": "x"}
    await api.create("widgets", body)


@case("a body that is not JSON")
async def _(api: Api) -> None:
    response = await api.call("POST", api.path("widgets"), b"{", keep=["code"])
    assert response["code"] == 400
    api.transcript[-1]["body"].pop("message", None)


# 6 defaulting and pruning


@case("defaults are filled in, nested ones only where the parent is")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", nested={}, ports=[{"name": "p"}]), keep=["spec"])
    await api.create("widgets", widget("b"), keep=["spec"])


@case("unknown fields are pruned, but not below preserve-unknown-fields")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", bogus=1, free={"any": {"thing": [1, None]}}, plain=[{"a": "x", "z": 1}]))


@case("null is dropped where it is not allowed and kept where it is")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", mode=None, maybe=None), keep=["spec"])


@case("unknown members of metadata are dropped")
async def _(api: Api) -> None:
    body = widget("a")
    body["metadata"]["bogus"] = "x"
    await api.create("widgets", body, keep=["metadata.bogus"])


@case("a label that is null is refused or dropped")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": "y", "z": None}}}, keep=["metadata.labels"])
    await api.patch("widgets", "a", {"metadata": {"labels": {"x": None}}}, keep=["metadata.labels"])
