"""Watches of a kind that is no longer served; an informer must notice, and resume when the kind is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import Cache
from reconciler.client import Client
from reconciler.meta import Request
from tests.apiserver.api import DEFINITIONS, Api, definition

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("order", ["before", "after", "late"])
async def test_watch_shows_the_deletions_and_ends(order: Any) -> None:
    async with APIServer(event_order=order) as server:
        await server.apply(definition())
        api = Api(server)
        await api.make("a")
        stream = await api.watch()
        assert (await stream.take(1))[0]["type"] == "ADDED"
        await api.delete(f"{DEFINITIONS}/widgets.example.com")
        rest = await stream.all()
    assert [event["type"] for event in rest] == ["DELETED"]


async def test_watch_of_a_version_that_is_withdrawn_ends_and_others_go_on(server: APIServer, api: Api) -> None:
    document = definition()
    document["spec"]["versions"].append({**document["spec"]["versions"][0], "name": "v2", "storage": False})
    await server.apply(document)
    kept, withdrawn = await api.watch(), await api.watch("/apis/example.com/v2/namespaces/default/widgets")
    document["spec"]["versions"][1]["served"] = False
    await server.apply(document)
    assert await withdrawn.all() == []
    await api.make("a")
    assert [event["type"] for event in await kept.take(1)] == ["ADDED"]


async def test_informer_finds_a_kind_that_was_removed_and_installed_again(server: APIServer, api: Api) -> None:
    async with Client(server) as client, Cache(client) as cache:
        informer = await cache.informer("example.com/v1/Widget")
        await informer.wait_synced(10)
        await api.make("a")
        await asyncio.sleep(1)
        assert len(informer.store) == 1
        await api.delete(f"{DEFINITIONS}/widgets.example.com")
        await asyncio.sleep(300)
        assert len(informer.store) == 0
        assert informer.last_error is not None
        await server.apply(definition())
        await api.make("b")
        await asyncio.sleep(60)
        assert Request("b", "default") in informer.store
        assert informer.last_error is None
