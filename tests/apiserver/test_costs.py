"""The cost of a request does not grow with the number of stored objects or of earlier requests.

The tests count function calls, including Python's own, because times depend on the machine. The request rate is
measured by tests/benchmarks/apiserver_rate.py.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.store import ObjectStore
from tests.apiserver.api import WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time

FEW, MANY = 50, 2500
SLACK = 1.05
"""A bisection in many keys takes some steps more, and is one call all the same."""


class Costs:
    """The calls of each operation on a new server."""

    def __init__(self, server: APIServer) -> None:
        self.api = Api(server)
        self.number = 0

    def operations(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        api = self.api
        return {
            "get": lambda: api.get(f"{WIDGETS}/n7"),
            "create": lambda: api.post(WIDGETS, widget(self.fresh())),
            "update": self.update,
            "merge patch": lambda: api.patch(f"{WIDGETS}/n7", {"metadata": {"labels": {"a": self.fresh()}}}),
            "status patch": lambda: api.patch(f"{WIDGETS}/n7/status", {"status": {"phase": self.fresh()}}),
            "apply": lambda: api.apply(f"{WIDGETS}/n8", widget("n8", replicas=len(self.fresh()) + self.number)),
            "dry run": lambda: api.post(WIDGETS, widget("dry"), dryRun="All"),
            "refused": lambda: api.get(f"{WIDGETS}/nowhere"),
            "a page": lambda: api.get(WIDGETS, limit=10),
            "delete": self.delete,
            "an event to a watcher": self.watched,
        }

    def fresh(self) -> str:
        self.number += 1
        return f"f{self.number:06}"

    async def update(self) -> None:
        doc = (await self.api.get(f"{WIDGETS}/n9")).body
        doc["metadata"]["labels"] = {"a": self.fresh()}
        assert (await self.api.put(f"{WIDGETS}/n9", doc)).status == 200

    async def delete(self) -> None:
        name = self.fresh()
        await self.api.post(WIDGETS, widget(name))
        assert (await self.api.delete(f"{WIDGETS}/{name}")).status == 200

    async def watched(self) -> None:
        version = (await self.api.get(WIDGETS, limit=1)).version
        stream = await self.api.watch(resourceVersion=version)
        await self.api.post(WIDGETS, widget(self.fresh()))
        await stream.next()
        await stream.close()

    async def count(self) -> dict[str, int]:
        operations = self.operations()
        for operation in operations.values():
            await operation()  # what is made once, or owned from now on, is so in the second round
        return {name: await _calls(operation) for name, operation in operations.items()}


async def _calls(operation: Callable[[], Awaitable[Any]]) -> int:
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        await operation()
    finally:
        sys.setprofile(before)
    return calls


def _grown(first: dict[str, int], later: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (cost, later[name]) for name, cost in first.items() if later[name] > cost * SLACK + 5}


async def test_a_request_costs_the_same_among_many_objects() -> None:
    async with APIServer() as server:
        await server.apply(definition())
        costs = Costs(server)
        await costs.api.make(*(f"n{number}" for number in range(FEW)))
        few = await costs.count()
        await costs.api.make(*(f"n{number}" for number in range(FEW, MANY)))
        many = await costs.count()
    assert min(few.values()) > 20
    assert _grown(few, many) == {}


async def test_a_request_costs_the_same_after_many_requests() -> None:
    async with APIServer(history=64, log=200) as server:
        await server.apply(definition())
        costs = Costs(server)
        await costs.api.make(*(f"n{number}" for number in range(FEW)))
        first = await costs.count()
        for number in range(MANY):
            await costs.api.patch(f"{WIDGETS}/n{20 + number % 30}/status", {"status": {"n": number}})
        later = await costs.count()
        assert server.statistics().requests_dropped > 2000
    assert _grown(first, later) == {}


async def test_the_check_detects_a_growing_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ObjectStore.put

    def wrong(store: ObjectStore, new: Any) -> None:
        sum(map(len, store.objects))
        for key in list(store.objects):
            key.partition("/")
        right(store, new)

    monkeypatch.setattr(ObjectStore, "put", wrong)
    async with APIServer() as server:
        await server.apply(definition())
        costs = Costs(server)
        await costs.api.make(*(f"n{number}" for number in range(FEW)))
        few = await costs.count()
        await costs.api.make(*(f"n{number}" for number in range(FEW, 2 * FEW)))
        many = await costs.count()
    assert {"create", "status patch"} <= set(_grown(few, many))
    assert "get" not in _grown(few, many)


async def test_the_pages_of_a_list_share_one_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    right = ObjectStore._walk_back

    def counted(store: ObjectStore, position: int) -> Any:
        looked.append(position)
        return right(store, position)

    monkeypatch.setattr(ObjectStore, "_walk_back", counted)
    async with APIServer() as server:
        await server.apply(definition())
        api = Api(server)
        await api.make(*(f"n{number:03}" for number in range(100)))
        page = await api.get(WIDGETS, limit=10)
        names = page.names
        while page["metadata"].get("continue"):
            await api.make(f"m{len(names)}")  # others write in between
            page = await api.get(WIDGETS, limit=10, **{"continue": page["metadata"]["continue"]})
            names += page.names
    assert names == [f"n{number:03}" for number in range(100)]
    assert len(looked) == 1


async def test_users_and_roles_cost_nothing_when_nobody_asks_for_them() -> None:
    async with APIServer() as server:
        await server.apply(definition())
        costs = Costs(server)
        for name in ("n7", "n8", "n9"):
            await costs.api.make(name)
        for name, operation in costs.operations().items():
            called: list[str] = []

            def note(frame: Any, event: str, _argument: Any, called: list[str] = called) -> None:
                if event == "call" and frame.f_code.co_filename.endswith(("apiserver/access.py", "apiserver/users.py")):
                    called.append(frame.f_code.co_qualname)

            before = server.statistics().requests
            sys.setprofile(note)
            try:
                await operation()
            finally:
                sys.setprofile(None)
            # One call for each request, which sees that there are no credentials.
            assert called == ["AccessControl.admit"] * (server.statistics().requests - before), name
