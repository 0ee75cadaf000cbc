"""Selectors and paging (10)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case, names, widget

# 10 selectors and paging


async def _many(api: Api) -> None:
    for number in range(5):
        body = widget(f"w{number}", mode="Fast" if number % 2 else "Safe")
        body["metadata"]["labels"] = {"n": str(number), **({"odd": ""} if number % 2 else {})}
        await api.create("widgets", body, quiet=True)


@case("10.01", "label selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("n=1", "n!=1", "n in (1,2)", "n notin (1,2)", "odd", "!odd", "n==3,odd", "n>2"):
        found = await api.list("widgets", {"labelSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": names(found)})


@case("10.02", "a broken label selector is refused")
async def _(api: Api) -> None:
    await api.list("widgets", {"labelSelector": "n in 1"})


@case("10.03", "field selectors")
async def _(api: Api) -> None:
    await _many(api)
    for selector in ("metadata.name=w3", "metadata.name!=w3", "spec.mode=Fast", "spec.mode=Fast,metadata.name=w1"):
        found = await api.list("widgets", {"fieldSelector": selector}, quiet=True)
        api.transcript.append({"selector": selector, "found": names(found)})
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
            "pages": [names(page) for page in (first, second, third)],
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
