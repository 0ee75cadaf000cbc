"""Watches (8)."""

from __future__ import annotations

from tests.conformance.api import Api
from tests.conformance.cases._case import case, version, widget

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
