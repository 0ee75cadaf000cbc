"""The choice between lists in pages, where the server answers them from memory, and streamed lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import Cache
from reconciler.client import Client
from reconciler.errors import NotSent
from reconciler.http import HTTPRequest, HTTPResponse, Transport

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        yield server


class Versioned:
    """A server of another version: a transport that answers ``/version``, and passes on everything else."""

    def __init__(self, below: Transport, *answers: tuple[int, Any] | Exception, hangs: bool = False) -> None:
        self._below = below
        self._hangs = hangs
        self._answers = answers
        self.asked = 0

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        if request.path != "/version":
            return await self._below.send(request)
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if self._hangs:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return HTTPResponse(answer[0], {"content-type": "application/json"}, msgspec.json.encode(answer[1]))


def version(**parts: str) -> tuple[int, dict[str, Any]]:
    return 200, {"major": "1", **parts}


async def verbs_of_first_lists(transport: Transport, server: APIServer, **options: Any) -> set[str]:
    kinds = ["v1/ConfigMap", "v1/Secret", "v1/Namespace"]
    async with Cache(Client(transport), **options) as cache:
        for kind in kinds:
            await cache.informer(kind)
        await cache.wait_synced(60)
    first: dict[str, str] = {}
    for entry in server.requests(verb=("list", "watch")):
        first.setdefault(entry.resource, entry.verb)
    assert len(first) == len(kinds)
    return set(first.values())


@pytest.mark.parametrize(
    ("answer", "verb"),
    [
        (version(minor="34"), "list"),
        (version(minor="36+", emulationMinor="36"), "list"),
        (version(minor="33"), "watch"),
        (version(minor="36", emulationMinor="33"), "watch"),  # behaves as 1.33: --emulated-version
        (version(minor="?"), "watch"),
        (version(), "watch"),
        (version(minor="3" * 5000), "watch"),
        ((403, {"kind": "Status", "reason": "Forbidden"}), "watch"),
        ((404, {}), "watch"),
        ((200, ["a proxy's page"]), "watch"),
    ],
)
async def test_kinds_are_listed_as_suits_the_server(server: APIServer, answer: Any, verb: str) -> None:
    transport = Versioned(server, answer)
    assert await verbs_of_first_lists(transport, server) == {verb}
    if "major" in answer[1]:
        assert transport.asked == 1, "once per server, not once per kind"


async def test_the_option_decides_without_asking_the_server(server: APIServer) -> None:
    transport = Versioned(server, version(minor="36"))
    assert await verbs_of_first_lists(transport, server, list_in_pages=False) == {"watch"}
    assert transport.asked == 0


async def test_a_server_that_cannot_be_reached_is_asked_again(server: APIServer) -> None:
    transport = Versioned(server, NotSent("connection refused"), version(minor="36"))
    begun = asyncio.get_running_loop().time()
    assert await verbs_of_first_lists(transport, server) == {"list"}
    assert asyncio.get_running_loop().time() > begun


@pytest.mark.parametrize("hangs", [False, True], ids=["cut off", "silent"])
async def test_a_proxy_that_lets_no_version_pass_prevents_no_list(server: APIServer, *, hangs: bool) -> None:
    transport = Versioned(server, NotSent("connection reset"), hangs=hangs)
    async with asyncio.timeout(30):
        assert await verbs_of_first_lists(transport, server) == {"watch"}
    assert transport.asked == 2


async def test_a_kind_that_may_be_watched_but_not_listed_is_streamed(server: APIServer) -> None:
    server.faults.add(verb="list", status=403, times=None)
    async with Cache(Client(server)) as cache:
        await cache.informer("v1/ConfigMap")
        await cache.wait_synced(60)
        await asyncio.sleep(86_400)
    lists = server.requests(verb="list", resource="configmaps")
    assert len(lists) == 1, "a lasting refusal is not asked for again"
