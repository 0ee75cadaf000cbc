"""A model test: after any requests, watches replay to what lists show, versions rise, and past versions can be read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.testing import virtual_time
from tests.apiserver.api import WIDGETS, Api, definition, widget
from tests.depth import examples

_names = st.sampled_from("abcd")
_labels = st.none() | st.sampled_from(["red", "blue"])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), _names, _labels),
        st.tuples(st.just("size"), _names, st.integers(1, 3)),
        st.tuples(st.just("status"), _names, st.integers(1, 3)),
        st.tuples(st.just("label"), _names, _labels),
        st.tuples(st.just("hold"), _names, st.booleans()),
        st.tuples(st.just("delete"), _names, st.just(None)),
        st.tuples(st.just("collection"), _labels, st.just(None)),
        st.tuples(st.just("watch"), st.just("x"), st.just(None)),
    ),
    max_size=25,
)


async def _step(api: Api, step: tuple[str, Any, Any]) -> None:
    what, name, value = step
    place = f"{WIDGETS}/{name}"
    if what == "create":
        await api.post(WIDGETS, widget(name, meta={"labels": {"team": value}} if value else {}))
    elif what == "size":
        await api.patch(place, {"spec": {"size": value}})
    elif what == "status":
        await api.patch(f"{place}/status", {"status": {"n": value}})
    elif what == "label":
        await api.patch(place, {"metadata": {"labels": {"team": value}}})
    elif what == "hold":
        await api.patch(place, {"metadata": {"finalizers": ["example.com/held"] if value else None}})
    elif what == "delete":
        await api.delete(place)
    elif what == "collection":
        await api.delete(WIDGETS, labelSelector=f"team={name}" if name else "!team")


class _Replay:
    """The state that a watch describes."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.objects: dict[str, Any] = {}
        self.versions: list[int] = []

    def take(self, chunk: bytes) -> None:
        for line in chunk.splitlines():
            event = json.loads(line)
            found = event["object"]
            name = found["metadata"]["name"]
            self.versions.append(int(found["metadata"]["resourceVersion"]))
            if event["type"] == "DELETED":
                assert name in self.objects
                del self.objects[name]
            else:
                assert (event["type"] == "ADDED") is (name not in self.objects)
                self.objects[name] = found

    async def drain(self) -> None:
        while True:
            try:
                self.take(await asyncio.wait_for(anext(self.response.chunks), 1.0))
            except TimeoutError:
                return


@given(_steps, st.sampled_from(["after", "before", "late", "seeded"]))
@settings(deadline=None, max_examples=examples(60))
def test_watches_replay_to_what_lists_show(steps: list[tuple[str, Any, Any]], order: Any) -> None:
    async def run() -> None:
        async with APIServer(event_order=order) as server:
            await server.apply(definition())
            api = Api(server)
            replays = [(_Replay(await api.send("GET", WIDGETS, watch="1")), "")]
            snapshots: list[tuple[str, list[Any]]] = []
            for step in steps:
                before = await api.get(WIDGETS)
                if step[0] == "watch":
                    for selector in ("", "team=red", "team!=red"):
                        response = await api.send("GET", WIDGETS, watch="1", labelSelector=selector)
                        replays.append((_Replay(response), selector))
                    continue
                await _step(api, step)
                after = await api.get(WIDGETS)
                assert int(after.version) >= int(before.version)
                assert (before["items"] == after["items"]) or int(after.version) > int(before.version)
                snapshots.append((after.version, after["items"]))
            for replay, selector in replays:
                await replay.drain()
                shown = (await api.get(WIDGETS, labelSelector=selector))["items"]
                assert [replay.objects[name] for name in sorted(replay.objects)] == shown
            assert replays[0][0].versions == sorted(set(replays[0][0].versions))
            for version, items in snapshots:
                past = await api.get(WIDGETS, resourceVersion=version, resourceVersionMatch="Exact")
                assert past["items"] == items

    with virtual_time():
        asyncio.run(run())


@given(_steps)
@settings(deadline=None, max_examples=examples(20))
def test_the_same_requests_get_the_same_responses(steps: list[tuple[str, Any, Any]]) -> None:
    async def run() -> list[Any]:
        async with APIServer(seed=11, event_order="seeded") as server:
            await server.apply(definition())
            api = Api(server)
            for step in steps:
                await _step(api, step)
            return [entry.summary() for entry in server.requests()] + (await api.get(WIDGETS))["items"]

    def once() -> list[Any]:
        with virtual_time():
            return asyncio.run(run())

    assert once() == once()
