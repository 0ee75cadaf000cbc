"""The batcher inside a real kopf operator with conflicts, lost responses and schema violations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.client import Client
from reconciler.status import StatusBatcher
from tests.status.kopf_world import KIND, Database, Server, World, annotations


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Server() as server, Client(server) as client:
        await server.listen()
        await server.apply(Database)
        yield World(server, client)


def counting(world: World, **options: object) -> None:
    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body, **options) as status:
            status.increment("total")
            status.append("log", "own")

    @world.on("update")
    async def update(**_):
        pass


async def test_another_writer_before_the_patch_keeps_its_fields_and_counters_add_up(world):
    counting(world)
    world.server.before = lambda: world.foreign({"total": 10, "log": ["theirs"], "phase": "Theirs"})
    async with world.operator():
        await world.make()
        await world.until_handled(total=11)
    assert await world.status() == {"total": 11, "log": ["theirs", "own"], "phase": "Theirs"}
    answers = world.status_patches()
    assert answers[0] == 422
    assert answers.count(200) == 1


async def test_another_writer_during_the_handler_is_not_a_conflict_and_counters_add_up(world):
    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            await world.here(world.foreign({"total": 10}))

    async with world.operator():
        await world.make()
        await world.until_handled(total=11)
    assert 200 in world.status_patches()


async def test_another_writers_value_stays_and_the_rest_is_written(world, caplog):
    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.set(phase="Ready")
            status.set("mark", "own", overwrite=True)
            status.increment("total")

    world.server.before = lambda: world.foreign({"phase": "Cancelled", "mark": "theirs"})
    async with world.operator():
        await world.make()
        await world.until_handled(total=1)
    assert await world.status() == {"phase": "Cancelled", "mark": "own", "total": 1}
    assert "another writer changed status.phase of kopf.example.com/v1/Database default/db1" in caplog.text


async def test_handlers_continue_if_nothing_is_left_to_write_after_a_conflict(world):
    """kopf runs no handlers for the event with which it repeats a patch, so it needs another event."""

    @world.on("create", id="one")
    async def one(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.set(phase="Ready")

    @world.on("create", id="two")
    async def two(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")

    world.server.before = lambda: world.foreign({"phase": "Cancelled"})
    async with world.operator():
        await world.make()
        await world.until_handled(total=1)
        await world.until(lambda o: "kopf.zalando.org/touch-dummy" not in annotations(o))
    assert await world.status() == {"phase": "Cancelled", "total": 1}


async def test_a_lost_answer_does_not_count_twice(world):
    counting(world)
    fault = world.server.faults.add(
        lost=True, after_commit=True, times=1, verb="patch", subresource="status", user_agent="kopf/"
    )
    async with world.operator():
        await world.make()
        await world.until_handled(total=1)
        await world.resize(2)  # kopf logs it after everything before
        await world.until_handled(2)
    assert fault.hits == 1
    assert await world.status() == {"total": 1, "log": ["own"]}
    assert world.status_patches()[:2] == [200, 422], "kopf repeated the same patch"


async def test_a_lost_answer_followed_by_another_write_does_not_count_twice(world):
    counting(world)
    world.server.faults.add(
        lost=True, after_commit=True, times=1, verb="patch", subresource="status", user_agent="kopf/"
    )
    world.server.after = lambda: world.foreign({"total": 11, "phase": "Theirs"})
    async with world.operator():
        await world.make()
        await world.until_handled(total=11)
        await world.resize(2)
        await world.until_handled(2)
    assert await world.status() == {"total": 11, "log": ["own"], "phase": "Theirs"}


async def test_a_status_that_the_schema_forbids_is_given_up_and_the_handlers_continue(world, caplog):
    @world.on("create")
    async def create(body, patch, **_):
        async with StatusBatcher(patch, body, max_conflicts=2, flush_timeout=0.001) as status:
            status.set(total="many")

    sizes: list[int] = []

    @world.on("update")
    async def update(spec, body, patch, **_):
        sizes.append(spec["size"])
        async with StatusBatcher(patch, body) as status:
            status.set(phase=f"Size{spec['size']}")

    async with world.operator():
        await world.make()
        await world.until_handled()
        for size in (2, 3, 4):
            await world.resize(size)
        await world.until_handled(4, phase="Size4")
    assert "could not write the status of kopf.example.com/v1/Database default/db1" in caplog.text
    assert "Not written: status.total" in caplog.text
    assert "many" not in caplog.text.replace("reconciler.status", "")
    assert sizes[-1] == 4


async def test_a_token_distinguishes_a_lost_answer_from_another_writers_equal_sum(world):
    counting(world, token="mark")
    world.server.faults.add(
        lost=True, after_commit=True, times=1, verb="patch", subresource="status", user_agent="kopf/"
    )
    async with world.operator():
        await world.make()
        await world.until_handled(total=1)
        await world.resize(2)
        await world.until_handled(2)
    status = await world.status()
    assert (status["total"], len(status["mark"])) == (1, 16)


async def test_mutations_that_a_stopped_operator_had_not_written_are_lost(world):
    entered = asyncio.Event()

    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            world.loop.call_soon_threadsafe(entered.set)
            await asyncio.sleep(3600)

    async with world.operator():
        await world.make()
        await asyncio.wait_for(entered.wait(), 30)
    assert await world.status() == {}
    assert world.status_patches() == []


async def test_a_recreated_object_is_not_written(world):
    async def recreate() -> None:
        await world.client.delete(KIND, "db1", "default")
        await world.make(size=7)

    world.server.before = recreate
    seen: list[int] = []

    @world.on("create")
    async def work(body, patch, spec, **_):
        seen.append(spec["size"])
        async with StatusBatcher(patch, body) as status:
            status.append("log", f"size {spec['size']}")

    async with world.operator():
        await world.make()
        await world.until_handled(7, log=["size 7"])
    assert seen == [1, 7]
    assert await world.status() == {"log": ["size 7"]}
