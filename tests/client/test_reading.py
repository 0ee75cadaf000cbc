"""Lists, pages, bytes, watches."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from reconciler import Model, Resource, Unstructured
from reconciler.client import Client, ListResult, WatchEvent
from reconciler.errors import APIError, Expired, Forbidden, InvalidResponse, OutcomeUnknown


class DatabaseSpec(Model):
    size: int


class Database(Resource[DatabaseSpec], group="example.com", version="v1"):
    pass


def item(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "prod", "resourceVersion": str(version)}, "spec": {"size": 1}}


def page(*names: str, token: str = "", version: str = "9") -> dict[str, Any]:
    metadata = {"resourceVersion": version, **({"continue": token} if token else {})}
    return {"kind": "DatabaseList", "metadata": metadata, "items": [item(name) for name in names]}


def line(type_: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script)


# lists


async def test_a_list_is_a_sequence_with_a_version(script: Any, client: Client) -> None:
    script.answers(page("a", "b"))
    found = await client.list(Database, "prod")
    assert isinstance(found, ListResult)
    assert [db.name for db in found] == ["a", "b"]
    assert all(type(db) is Database for db in found)
    assert (len(found), found[1].name, found[-1].name, [db.name for db in found[:1]]) == (2, "b", "b", ["a"])
    assert found.resource_version == "9"
    assert found == ListResult(list(found))
    assert repr(found) == "<ListResult of 2 at '9'>"


async def test_items_of_a_list_know_their_kind(script: Any, client: Client) -> None:
    script.answers({"kind": "ConfigMapList", "metadata": {}, "items": [{"metadata": {"name": "c"}}]})
    (config_map,) = await client.list("v1/ConfigMap")
    assert isinstance(config_map, Unstructured)
    assert str(config_map.gvk) == "v1/ConfigMap"
    assert script.last.path == "/api/v1/configmaps"


async def test_a_list_follows_its_pages(script: Any, client: Client) -> None:
    script.answers(page("a", token="t1")).answers(page("b", token="t2")).answers(page("c"))
    found = await client.list(Database, "prod", label_selector="x in (y)", field_selector={"metadata.name": "z"})
    assert [db.name for db in found] == ["a", "b", "c"]
    selectors = {"labelSelector": "x in (y)", "fieldSelector": "metadata.name=z", "limit": "500"}
    assert [dict(request.query) for request in script.requests] == [
        selectors,
        {**selectors, "continue": "t1"},
        {**selectors, "continue": "t2"},
    ]


async def test_a_list_never_asks_for_version_0(script: Any, client: Client) -> None:
    script.answers(page())
    await client.list(Database, limit=0)
    assert script.query == {}


async def test_a_list_whose_pages_expire_is_read_once_more_without_pages(script: Any, client: Client) -> None:
    script.answers(page("a", token="t1")).refuses(410, "Expired").answers(page("b", "c"))
    assert [db.name for db in await client.list(Database, "prod", limit=1)] == ["b", "c"]
    assert script.query == {}
    script.answers(page("a", token="t1")).refuses(410, "Expired").refuses(410, "Expired")
    with pytest.raises(Expired):
        await client.list(Database, "prod", limit=1)


async def test_pages_that_repeat_do_not_go_on_forever(script: Any, client: Client) -> None:
    """As of an aggregated API server that knows the limit, but not the token."""
    script.answers(page("a", token="t")).answers(page("a", token="t"))
    with pytest.raises(InvalidResponse, match=r"two pages have the same continue token.*limit=0"):
        await client.list(Database, "prod")
    assert len(script.requests) == 2


# bytes


async def test_raw_list_returns_the_bytes_of_one_page(script: Any, client: Client) -> None:
    rt = await client.resource_type("v1/Pod")
    script.says(b'{"items":[]}')
    assert await client.session.raw_list(rt, "prod", {"limit": "2"}) == b'{"items":[]}'
    assert (script.last.path, script.query) == ("/api/v1/namespaces/prod/pods", {"limit": "2"})
    script.says(b"{}")
    await client.session.raw_list(rt, metadata_only=True)
    assert script.last.headers["accept"].startswith("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")


async def test_open_watch_returns_the_stream_of_a_successful_answer(script: Any, client: Client) -> None:
    rt = await client.resource_type("v1/Pod")
    script.streams(b"ab", b"c")
    response = await client.session.open_watch(rt, "prod", [("resourceVersion", "5")], metadata_only=True)
    assert response.chunks is not None
    assert [chunk async for chunk in response.chunks] == [b"ab", b"c"]
    assert script.last.stream
    assert script.query == {"watch": "true", "resourceVersion": "5"}
    assert "as=PartialObjectMetadata;" in script.last.headers["accept"]
    script.refuses(403, "Forbidden")
    with pytest.raises(Forbidden):
        await client.session.open_watch(rt)


# watches


async def test_a_watch_yields_events_however_the_chunks_are_cut(script: Any, client: Client) -> None:
    data = line("ADDED", item("ä", 1)) + line("MODIFIED", item("ä", 2)) + b"\n" + line("DELETED", item("ä", 3))
    for size in (1, 7, len(data)):
        script.streams(*(data[at : at + size] for at in range(0, len(data), size)), b'{"type":"ADDED","obj')
        events = [event async for event in client.watch(Database, "prod", resource_version="0")]
        assert [(event.type, event.object.name, event.object.resource_version) for event in events] == [
            ("ADDED", "ä", "1"),
            ("MODIFIED", "ä", "2"),
            ("DELETED", "ä", "3"),
        ]
        assert all(type(event.object) is Database for event in events)
    assert script.closed == 3


async def test_a_watch_sends_its_options(script: Any, client: Client) -> None:
    for _ in range(3):
        script.streams()
    async for _ in client.watch(
        "v1/Node", resource_version="5", label_selector={"a": "b"}, field_selector="c=d", timeout=1.5
    ):
        pass
    assert script.query == {
        "watch": "true",
        "resourceVersion": "5",
        "allowWatchBookmarks": "true",
        "labelSelector": "a=b",
        "fieldSelector": "c=d",
        "timeoutSeconds": "2",
    }
    async for _ in client.watch("v1/Node", bookmarks=False):
        pass
    assert script.query == {"watch": "true"}
    async for _ in client.watch("v1/Node", send_initial_events=True, bookmarks=False):
        pass
    assert script.query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }


async def test_a_bookmark_is_unstructured_whatever_the_kind(script: Any, client: Client) -> None:
    script.streams(line("BOOKMARK", {"kind": "Database", "metadata": {"resourceVersion": "8"}}))
    (event,) = [event async for event in client.watch(Database)]
    assert event.type == "BOOKMARK"
    assert isinstance(event.object, Unstructured)
    assert event.object.resource_version == "8"


async def test_an_error_in_the_stream_is_a_typed_error(script: Any, client: Client) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (9)"}
    script.streams(line("ERROR", gone))
    with pytest.raises(Expired, match=r"watch /apis/example\.com/v1/databases: 410 Expired: too old"):
        async for _ in client.watch(Database):
            pass
    assert script.closed == 1


async def test_an_invalid_event_is_an_error(script: Any, client: Client) -> None:
    script.streams(b"<html>\n")
    with pytest.raises(APIError, match="invalid watch event"):
        async for _ in client.watch(Database):
            pass


async def test_an_event_of_an_unknown_type_is_an_error(script: Any, client: Client) -> None:
    script.streams(line("RENAMED", item("a")))
    with pytest.raises(APIError, match="invalid watch event: unknown type 'RENAMED'"):
        async for _ in client.watch(Database):
            pass


async def test_a_broken_watch_is_an_unknown_outcome(script: Any, client: Client) -> None:
    script.streams(line("ADDED", item("a")), then=OutcomeUnknown("reset"))
    seen: list[WatchEvent[Database]] = []
    with pytest.raises(OutcomeUnknown):  # noqa: PT012
        async for event in client.watch(Database):
            seen.append(event)
    assert len(seen) == 1


async def test_leaving_a_watch_early_closes_its_connection(script: Any, client: Client) -> None:
    script.streams(line("ADDED", item("a")), line("ADDED", item("b")))
    async with aclosing(client.watch(Database)) as events:
        async for _ in events:
            break
    assert script.closed == 1


async def test_a_watch_without_aclosing_closes_its_connection_soon(script: Any, client: Client) -> None:
    script.streams(line("ADDED", item("a")), line("ADDED", item("b")))
    async for _ in client.watch(Database):
        break
    for _ in range(3):
        await asyncio.sleep(0)
    assert script.closed == 1


# pages and parts


def nodes(*names: str, version: str = "7", token: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": version, **({"continue": token} if token else {})}
    return {"kind": "NodeList", "metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


async def test_pages_are_yielded_as_they_arrive_and_only_requested_when_needed(script: Any, client: Client) -> None:
    script.answers(nodes("a", "b", token="t")).answers(nodes("c"))
    async with aclosing(client.list_pages("v1/Node", limit=2)) as pages:
        first = await anext(pages)
        assert ([node.name for node in first], first.resource_version) == (["a", "b"], "7")
        assert len(script.requests) == 1
        assert [node.name for node in await anext(pages)] == ["c"]
    assert script.query == {"limit": "2", "continue": "t"}


async def test_expired_pages_are_raised_to_the_caller(script: Any, client: Client) -> None:
    script.answers(nodes("a", token="t")).refuses(410, "Expired")
    seen: list[str] = []
    pages = client.list_pages("v1/Node")
    seen += [node.name for node in await anext(pages)]
    with pytest.raises(Expired):
        await anext(pages)
    assert seen == ["a"]


async def test_only_metadata_is_requested_and_has_the_kind_of_the_object(script: Any, client: Client) -> None:
    part = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "n", "uid": "u"}}
    script.answers(part).answers({"metadata": {"resourceVersion": "7"}, "items": [part]})
    expected = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n", "uid": "u"}}
    assert (await client.get_metadata("v1/Node", "n")).to_dict() == expected
    assert "as=PartialObjectMetadata;" in script.last.headers["accept"]
    assert [found.to_dict() for found in await client.list_metadata("v1/Node")] == [expected]
    assert "as=PartialObjectMetadataList;" in script.last.headers["accept"]


async def test_a_server_without_partial_metadata_gives_the_same_result(script: Any, client: Client) -> None:
    script.answers({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}, "spec": {"a": 1}})
    assert (await client.get_metadata("v1/Node", "n")).keys() == {"apiVersion", "kind", "metadata"}


async def test_lists_of_metadata_recover_from_expired_pages(script: Any, client: Client) -> None:
    script.answers(nodes("a", token="t")).refuses(410, "Expired").answers(nodes("a", "b", version="9"))
    found = await client.list_metadata("v1/Node")
    assert ([node.name for node in found], found.resource_version) == (["a", "b"], "9")
    assert "limit" not in script.query
