"""The garbage collector does not walk over what was there when the manager had started."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from reconciler import Manager
from reconciler.client import Client

pytestmark = pytest.mark.virtual_time


class Cycle:
    """Refer to itself, so that only the collector ends it."""

    def __init__(self) -> None:
        self.me = self


async def test_a_running_manager_leaves_old_objects_to_themselves_and_new_garbage_is_collected(client: Client) -> None:
    before = gc.get_threshold()
    manager = Manager(client)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 10_000
    garbage = weakref.ref(Cycle())
    gc.collect()
    assert garbage() is None
    manager.stop()
    await running
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


async def test_what_the_program_has_chosen_stays(client: Client) -> None:
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


async def test_a_block_of_a_program_that_does_other_things_changes_nothing(client: Client) -> None:
    async with Manager(client).running():
        assert gc.get_freeze_count() == 0
