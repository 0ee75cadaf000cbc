"""The batcher inside a real kopf operator: the requests when nothing fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest

from reconciler.client import Client
from reconciler.status import StatusBatcher
from tests.status.kopf_world import Database, Server, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Server() as server, Client(server) as client:
        await server.listen()
        await server.apply(Database)
        yield World(server, client)


async def test_five_attempts_in_a_handler_are_one_patch_of_the_status(world):
    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            for attempt in range(5):
                status.append("log", f"attempt {attempt}")
                status.increment("total")
            status.set(phase="Ready")
            status.set_condition("Ready", True, reason="Done")
        assert status.written is None

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Ready")
    status = await world.status()
    assert (status["total"], len(status["log"]), status["phase"]) == (5, 5, "Ready")
    assert status["conditions"][0]["observedGeneration"] == 1
    assert world.status_patches() == [200]
    assert world.other_patches() == 1, "the annotation of kopf itself"


async def test_a_plain_handler_in_a_thread_uses_the_same_batcher(world):
    @world.on("create")
    def work(body, patch, **_):
        with StatusBatcher(patch, body) as status:
            for _ in range(5):
                status.increment("total")

    async with world.operator():
        await world.make()
        await world.until_handled(total=5)
    assert (await world.status())["total"] == 5
    assert world.status_patches() == [200]


async def test_kopf_makes_as_many_requests_without_a_batcher(world):
    @world.on("create")
    async def work(patch, **_):
        patch.status["phase"] = "Ready"

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Ready")
    assert (world.status_patches(), world.other_patches()) == ([200], 1)


@pytest.mark.parametrize("how", ["result", "patch"])
async def test_a_merge_patch_of_kopf_is_a_separate_request(world, how):
    @world.on("create", id="phase")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
        if how == "patch":
            patch.status["phase"] = "Ready"
        return "Ready" if how == "result" else None

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Ready", total=1)
    assert world.status_patches() == [200, 200]


async def test_helpers_and_later_blocks_of_a_handler_share_the_patch_and_see_each_other(world):
    seen: list[Any] = []

    async def helper(patch: Any, body: Any) -> None:
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            seen.append(status.joined)

    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            await helper(patch, body)
        patch.status["phase"] = "Seen"
        async with StatusBatcher(patch, body) as status:
            seen.append((status.current["total"], status.current["phase"]))
            status.increment("total")
        del patch["status"]

    async with world.operator():
        await world.make()
        await world.until_handled(total=3)
    assert seen == [True, (2, "Seen")]
    assert (await world.status())["total"] == 3
    assert world.status_patches() == [200]


async def test_handlers_of_one_cycle_share_the_patch_and_see_earlier_changes(world):
    @world.on("create", id="one")
    async def one(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            status.set(phase="One")

    @world.on("create", id="two")
    async def two(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            status.set(phase=status.current["phase"] + "Two")

    async with world.operator(lifecycle=kopf.lifecycles.all_at_once):
        await world.make()
        await world.until_handled(phase="OneTwo")
    assert await world.status() == {"total": 2, "phase": "OneTwo"}
    assert world.status_patches() == [200]


async def test_handlers_of_several_cycles_make_one_patch_each(world):
    for name in ("one", "two", "three"):

        @world.on("create", id=name)
        async def work(body, patch, **_):
            async with StatusBatcher(patch, body) as status:
                status.increment("total")

    async with world.operator():  # by default kopf runs one handler per cycle
        await world.make()
        await world.until_handled(total=3)
    assert (await world.status())["total"] == 3
    assert world.status_patches() == [200, 200, 200]


async def test_a_status_that_does_not_change_is_not_patched(world):
    written: list[bool | None] = []

    @world.on("create")
    @world.on("update")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.set(phase="Ready")
            status.set_condition("Ready", True, reason="Done")
            status.mutate(lambda s: s["conditions"][0].pop("observedGeneration", None))
        written.append(status.written)

    async with world.operator():
        await world.make()
        await world.until_handled(1, phase="Ready")
        await world.resize(2)
        await world.until_handled(2)
    assert written == [None, False]
    assert world.status_patches() == [200]


async def test_mutations_recorded_before_an_error_are_written_and_the_retry_adds_to_them(world):
    @world.on("create", backoff=0.1)
    async def work(body, patch, retry, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            if retry == 0:
                raise kopf.TemporaryError("not yet", delay=0.1)
            if retry == 1:
                raise ValueError("any other error")
            status.set(phase="Ready")

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Ready")
    assert await world.status() == {"total": 3, "phase": "Ready"}
    assert world.status_patches() == [200, 200, 200]


async def test_a_handler_that_gives_up_writes_what_was_recorded_by_default(world):
    @world.on("create", id="flush")
    async def flush(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.set(phase="Failed")
            raise kopf.PermanentError("no")

    @world.on("create", id="discard")
    async def discard(body, patch, **_):
        async with StatusBatcher(patch, body, on_error="discard") as status:
            status.set(phase="Half")
            raise kopf.PermanentError("no")

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Failed")
    assert await world.status() == {"phase": "Failed"}
    assert world.status_patches() == [200]


async def test_a_checkpoint_in_a_handler_goes_over_a_client(world, tmp_path):
    kubeconfig = world.server.write_kubeconfig(tmp_path / "kubeconfig")
    during: list[Any] = []

    @world.on("create")
    async def work(body, patch, **_):
        async with Client.from_config(kubeconfig=kubeconfig) as client, StatusBatcher(client, body) as status:
            status.set(phase="Intended")
            await status.flush()
            during.append(await world.here(world.status()))
            status.set(phase="Done")

    async with world.operator():
        await world.make()
        await world.until_handled(phase="Done")
    assert during == [{"phase": "Intended"}]
    assert world.status_patches() == []


async def test_a_timer_patches_once_per_run_and_not_if_nothing_changed(world):
    runs: list[int] = []
    quiet = asyncio.Semaphore(0)

    @world.on("timer", interval=0.05)
    def check(body, patch, **_):
        with StatusBatcher(patch, body, token="mark") as status:  # the body of the second run may be older
            if len(runs) < 2:
                status.increment("total")
                status.increment("total")
            status.set(phase="Checked")
        runs.append(1)
        world.loop.call_soon_threadsafe(quiet.release)

    async with world.operator():
        await world.make()
        await world.until(lambda o: (o.get("status") or {}).get("total") == 4)
        patches = world.status_patches()
        for _ in range(len(runs) + 3):
            await quiet.acquire()
    status = await world.status()
    assert (status["total"], status["phase"]) == (4, "Checked")
    assert world.status_patches() == patches
    assert patches.count(200) <= 2


async def test_mutations_of_a_daemon_are_written_when_its_function_returns(world):
    during: list[dict[str, Any]] = []

    @world.on("daemon")
    async def guard(body, patch, **_):
        # kopf's own write of its finalizer would be a conflict, and kopf drops what a daemon has left in the patch
        # at its end.
        while not body.metadata.get("finalizers"):  # noqa: ASYNC110 - the body is live
            await asyncio.sleep(0.01)
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
        during.append(await world.here(world.status()))

    async with world.operator():
        await world.make()
        await world.until(lambda o: o.get("status"))
    assert during == [{}]
    assert (await world.status())["total"] == 1
    assert world.status_patches() == [200]


async def test_a_kind_without_the_subresource_is_written_with_kopfs_other_changes(world):
    crd = Database.crd()
    del crd["spec"]["versions"][0]["subresources"]
    await world.server.apply(crd)

    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")

    async with world.operator():
        await world.make()
        await world.until_handled(total=1)
    assert await world.status() == {"total": 1}
    assert world.status_patches() == []


async def test_an_object_deleted_in_the_meantime_is_not_an_error(world, caplog):
    gone = asyncio.Event()

    async def delete() -> None:
        await world.client.delete(Database, "db1", "default")
        gone.set()

    world.server.before = delete

    @world.on("create")
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            status.increment("total")

    async with world.operator():
        await world.make()
        await asyncio.wait_for(gone.wait(), 30)
    assert world.status_patches() == [404]
    assert "Traceback" not in caplog.text
