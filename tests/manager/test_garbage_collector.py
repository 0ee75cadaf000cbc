"""The garbage collector ignores objects that existed when the manager had started."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from reconciler import Manager
from reconciler.client import Client

pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_program() -> Iterator[None]:
    """Undo what the suite has set: a manager changes nothing in a program that has frozen objects itself."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # the default of Python 3.11
    gc.unfreeze()
    yield
    gc.set_threshold(*before)
    gc.collect()
    gc.freeze()


class ReferenceCycle:
    """An object that refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.me = self


async def test_running_manager_freezes_old_objects_and_collects_new_garbage(client: Client) -> None:
    before = gc.get_threshold()
    manager = Manager(client)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 2_000
    garbage = weakref.ref(ReferenceCycle())
    gc.collect()
    assert garbage() is None
    manager.stop()
    await running
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


async def test_thresholds_set_by_the_program_are_kept(client: Client) -> None:
    before = gc.get_threshold()
    gc.set_threshold(5_000, 20, 30)
    try:
        manager = Manager(client)
        running = asyncio.create_task(manager.run())
        await asyncio.sleep(1)
        assert gc.get_threshold() == (5_000, 20, 30)
        manager.stop()
        await running
    finally:
        gc.set_threshold(*before)


async def test_objects_frozen_by_the_program_stay_frozen(client: Client) -> None:
    before = gc.get_threshold()
    gc.freeze()
    try:
        manager = Manager(client)
        running = asyncio.create_task(manager.run())
        await asyncio.sleep(1)
        manager.stop()
        await running
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == before
    finally:
        gc.unfreeze()


async def test_running_block_does_not_change_the_garbage_collector(client: Client) -> None:
    async with Manager(client).running():
        assert gc.get_freeze_count() == 0


async def test_managers_that_overlap_restore_the_garbage_collector_together(client: Client) -> None:
    before = gc.get_threshold()
    first, second = Manager(client), Manager(client)
    running = [asyncio.create_task(each.run()) for each in (first, second)]
    await asyncio.sleep(1)
    first.stop()
    await running[0]
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 2_000
    second.stop()
    await running[1]
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before
