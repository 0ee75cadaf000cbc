"""Watches: what they show, when they end, and what they cost."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api

pytestmark = pytest.mark.virtual_time


def seen(events: list[dict]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def test_a_watch_from_a_version_receives_the_later_events(api: Api) -> None:
    (first,) = await api.make("a")
    await api.make("b")
    await api.patch(f"{WIDGETS}/a", {"spec": {"size": 2}})
    await api.delete(f"{WIDGETS}/b")
    stream = await api.watch(resourceVersion=first.version)
    events = await stream.take(3)
    assert seen(events) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions)
    assert versions[-1] == int((await api.get(WIDGETS)).version)  # a deletion has a version of its own
    await api.make("c")
    assert seen(await stream.take(1)) == [("ADDED", "c")]


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}])
async def test_a_watch_without_a_version_starts_with_the_existing_objects(api: Api, query: dict[str, str]) -> None:
    await api.make("b", "a")
    stream = await api.watch(**query)
    await api.make("c")
    assert seen(await stream.take(3)) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]


async def test_a_streamed_list_ends_with_a_marked_bookmark(api: Api) -> None:
    await api.make("a")
    stream = await api.watch(sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true")
    added, mark = await stream.take(2)
    assert added["type"] == "ADDED"
    assert mark == {
        "type": "BOOKMARK",
        "object": {
            "kind": "Widget",
            "apiVersion": "example.com/v1",
            "metadata": {
                "resourceVersion": (await api.get(WIDGETS)).version,
                "annotations": {"k8s.io/initial-events-end": "true"},
            },
        },
    }


async def test_without_initial_events_a_watch_starts_now(api: Api) -> None:
    await api.make("a")
    stream = await api.watch(sendInitialEvents="false", resourceVersionMatch="NotOlderThan")
    await api.make("b")
    assert seen(await stream.take(1)) == [("ADDED", "b")]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ({"resourceVersionMatch": "NotOlderThan"}, "forbidden for watch unless sendInitialEvents is provided"),
        ({"continue": "x"}, "resourceVersionMatch is forbidden when continue is provided"),
        ({"resourceVersion": "zz"}, 'strconv.ParseUint: parsing "zz": invalid syntax'),
        ({"timeoutSeconds": "x"}, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ({"labelSelector": "a b"}, "unable to parse requirement"),
    ],
)
async def test_an_invalid_watch(api: Api, query: dict[str, str], says: str) -> None:
    reply = await api.get(WIDGETS, watch="1", **query)
    assert reply.status in (400, 422, 500)
    assert says in reply["message"]


async def test_bookmarks_come_once_a_minute(api: Api) -> None:
    loop = asyncio.get_running_loop()
    stream = await api.watch(resourceVersion=(await api.get(WIDGETS)).version, allowWatchBookmarks="true")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "elsewhere"}})
    times = []
    for _ in range(3):
        event = await stream.next()
        assert (event["type"], event["object"]["metadata"]) == (
            "BOOKMARK",
            {"resourceVersion": (await api.get(WIDGETS)).version},
        )
        times.append(loop.time())
    assert times == [60.0, 120.0, 180.0]


async def test_a_watch_ends_after_its_timeout(api: Api) -> None:
    stream = await api.watch(timeoutSeconds="5")
    assert await stream.all() == []
    assert asyncio.get_running_loop().time() == 5.0


async def test_a_selector_makes_objects_enter_and_leave(api: Api) -> None:
    (made,) = await api.make("a", meta={"labels": {"team": "blue"}})
    stream = await api.watch(resourceVersion=made.version, labelSelector="team=red")
    for team in ("red", "red2", "red"):
        await api.patch(f"{WIDGETS}/a", {"metadata": {"labels": {"team": team}}})
    left = await api.patch(f"{WIDGETS}/a", {"metadata": {"labels": {"team": None}}, "spec": {"size": 9}})
    await api.delete(f"{WIDGETS}/a")
    await api.make("b", meta={"labels": {"team": "red"}})
    events = await stream.take(5)
    assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED", "DELETED", "ADDED"]
    last = events[3]["object"]
    assert last["metadata"]["labels"] == {"team": "red"}  # the old content
    assert last["spec"] == {"size": 1}
    assert last["metadata"]["resourceVersion"] == left.version  # the new version


async def test_a_watch_of_one_name_and_of_one_namespace(api: Api) -> None:
    await api.post("/api/v1/namespaces", {"metadata": {"name": "other"}})
    named = await api.watch(fieldSelector="metadata.name=b")
    placed = await api.watch("/api/v1/namespaces/other/configmaps")
    await api.make("a", "b")
    await api.post(CONFIG_MAPS, {"metadata": {"name": "here"}})
    await api.post("/api/v1/namespaces/other/configmaps", {"metadata": {"name": "there"}})
    assert seen(await named.take(1)) == [("ADDED", "b")]
    assert seen(await placed.take(1)) == [("ADDED", "there")]


async def test_an_expired_version_is_reported_inside_the_stream(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    await api.make("b")
    server.compact()
    (event,) = await (await api.watch(resourceVersion=made.version)).all()
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith(f"too old resource version: {made.version} (")


async def test_a_watch_from_a_future_version_is_silent_until_it_has_passed(api: Api) -> None:
    current = int((await api.get(WIDGETS)).version)
    stream = await api.watch(resourceVersion=current + 1)
    await api.make("a", "b")
    assert seen(await stream.take(1)) == [("ADDED", "b")]
    streamed = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "9999"}
    (event,) = await (await api.watch(**streamed)).all()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 504)


async def test_history_is_bounded_and_a_slow_reader_receives_410() -> None:
    async with APIServer(history=10) as server:
        api = Api(server)
        stream = await api.watch(CONFIG_MAPS)
        for index in range(100):
            await api.post(CONFIG_MAPS, {"metadata": {"name": f"n{index}"}})
        assert server.statistics().events_dropped >= 70
        assert [event["type"] for event in await stream.all()] == ["ERROR"]
        fresh = await api.watch(CONFIG_MAPS, resourceVersion=(await api.get(CONFIG_MAPS)).version)
        await api.post(CONFIG_MAPS, {"metadata": {"name": "new"}})
        assert seen(await fresh.take(1)) == [("ADDED", "new")]


async def test_history_is_bounded_in_bytes_too(server: APIServer, api: Api) -> None:
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a"}})
    text = "y" * 1_000_000
    for index in range(100):
        await api.patch(f"{CONFIG_MAPS}/a", {"data": {"x": f"{index}{text}"}})
    assert 30 <= server.statistics().events_dropped < 100


async def test_frames_are_encoded_once_for_all_watches(api: Api) -> None:
    streams = [await api.watch() for _ in range(3)]
    await api.make("a")
    chunks = [await anext(stream.response.chunks) for stream in streams]
    assert chunks[0] is chunks[1] is chunks[2] or chunks[0] == chunks[1] == chunks[2]


async def test_a_closed_stream_ends_its_reader_and_is_freed(server: APIServer, api: Api) -> None:
    stream = await api.watch()
    reader = asyncio.create_task(stream.all())
    await asyncio.sleep(1)
    assert server.statistics().watches == 1
    await stream.close()
    assert await reader == []
    assert server.statistics().watches == 0


async def test_a_stream_that_is_dropped_is_freed(server: APIServer, api: Api) -> None:
    stream = await api.watch(timeoutSeconds="3600", allowWatchBookmarks="true")
    reader = asyncio.create_task(stream.next())
    await asyncio.sleep(1)
    reader.cancel()
    await asyncio.wait([reader])
    watch = weakref.ref(stream.response.chunks)
    del stream, reader
    gc.collect()
    assert server.statistics().watches == 0
    assert watch() is None


async def test_a_cancelled_read_loses_no_event(api: Api) -> None:
    stream = await api.watch()
    assert await stream.quiet(1)
    await api.make("a")
    reader = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    if reader.cancelled():
        assert seen(await stream.take(1)) == [("ADDED", "a")]


async def test_many_initial_objects_come_in_several_chunks(api: Api) -> None:
    for index in range(300):
        await api.post(CONFIG_MAPS, {"metadata": {"name": f"n{index:03}"}})
    stream = await api.watch(CONFIG_MAPS)
    first = await anext(stream.response.chunks)
    assert first.count(b"\n") < 300
    stream.rest = first
    assert len(await stream.take(300)) == 300


async def test_metadata_and_tables_are_watched_too(api: Api) -> None:
    accept = "application/json;as={};v=v1;g=meta.k8s.io"
    metadata = await api.send("GET", WIDGETS, headers={"accept": accept.format("PartialObjectMetadata")}, watch="1")
    table = await api.send("GET", WIDGETS, headers={"accept": accept.format("Table")}, watch="1")
    await api.make("a", "b")
    assert b'"kind":"PartialObjectMetadata"' in await anext(metadata.chunks)
    rows = await anext(table.chunks)
    assert rows.count(b'"kind":"Table"') == 2
    assert rows.count(b'"name":"Name"') == 1  # columns are described once


@pytest.mark.parametrize(
    "path", ["apis/example.com/v1/watch/widgets", "apis/example.com/v1/watch/namespaces/default/widgets/a"]
)
async def test_the_older_form_of_a_watch(server: APIServer, api: Api, path: str) -> None:
    await api.make("a")
    response = await server.send(HTTPRequest("GET", f"/{path}", stream=True))
    assert response.chunks is not None
    assert b'"name":"a"' in await anext(response.chunks)
    await response.close()
    named = "/apis/example.com/v1/watch/namespaces/default/widgets/a"
    assert (await server.send(HTTPRequest("DELETE", named))).status == 405
    assert (await server.send(HTTPRequest("GET", f"{named}/status"))).status == 404
