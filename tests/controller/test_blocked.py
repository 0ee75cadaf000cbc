"""A status that the server refuses must not block an object: a new spec is reconciled, and a deletion succeeds."""

from __future__ import annotations

import pytest

from reconciler.errors import NotFound, TerminalError
from reconciler.meta import Request
from tests.controller.conftest import Widget, WidgetReconciler, World, quiet

KEY = Request("w", "ns")


class WidgetFinalizer(WidgetReconciler):
    """A reconciler whose `finalize` is the function of a test."""

    def __init__(self, body=None, clean_up=None) -> None:
        super().__init__(body)
        self.clean_up = clean_up
        self.finalized = 0

    async def finalize(self, obj, status, /):
        self.finalized += 1
        status.set(phase="Gone")
        return await self.clean_up(self, obj, status) if self.clean_up is not None else None


async def write_nonsense(reconciler, obj, status):
    """A reconciler that records an invalid status until the spec changes."""
    status.increment("runs")
    status.set("seenSize", "no number" if obj.spec.size == 1 else obj.spec.size)


async def write_too_much(reconciler, obj, status):
    status.increment("runs")
    status.set("foreign", "x" * 2_000_000 if obj.spec.size == 1 else "")


async def is_gone(world: World) -> bool:
    try:
        await world.read()
    except NotFound:
        return True
    return False


@pytest.mark.virtual_time
@pytest.mark.parametrize("body", [write_nonsense, write_too_much])
async def test_new_spec_is_reconciled_and_fixes_a_refused_status(world: World, body) -> None:
    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget(size=1)
    await quiet(60)
    assert reconciler.sizes == [1]
    await world.resize(2)
    await quiet(600)
    assert reconciler.sizes == [1, 2]
    status = (await world.read()).status
    assert (status.runs, status.seen_size) == (2, 2)  # what the first run recorded is not lost
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 0


@pytest.mark.virtual_time
async def test_new_spec_runs_once_while_the_server_still_refuses(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = await world.start(reconciler)
    world.server.faults.add(subresource="status", status=403, times=None)
    await world.widget(size=1)
    await quiet(60)
    await world.resize(2)
    await quiet(600)
    assert reconciler.sizes == [1, 2]
    assert controller.statistics().unsaved.blocked == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("status", [403, 422])
async def test_refused_status_does_not_block_a_deletion(world: World, status) -> None:
    reconciler = WidgetFinalizer()
    controller = await world.start(reconciler)
    world.server.faults.add(subresource="status", status=status, times=None)
    await world.widget()
    await quiet(60)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert await is_gone(world)
    assert reconciler.finalized == 1
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 0


@pytest.mark.virtual_time
async def test_refused_status_does_not_block_the_finalizer_removal_without_finalize(world: World) -> None:
    await world.start(WidgetReconciler(write_nonsense))
    await world.widget(finalizers=["example.com/widget"])
    await quiet(60)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert await is_gone(world)


@pytest.mark.virtual_time
async def test_finalize_that_keeps_the_object_runs_again_although_its_status_is_refused(world: World) -> None:
    async def third_time(reconciler, obj, status):
        if reconciler.finalized < 3:
            raise RuntimeError("still there")

    reconciler = WidgetFinalizer(clean_up=third_time)
    await world.start(reconciler)
    await world.widget()
    await quiet(1)
    world.server.faults.add(subresource="status", status=403, times=None)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert await is_gone(world)
    assert reconciler.finalized == 3


@pytest.mark.virtual_time
async def test_misuse_of_the_batcher_in_finalize_keeps_the_object(world: World) -> None:
    async def misuse(reconciler, obj, status):
        status.set(nonsense=1)

    reconciler = WidgetFinalizer(clean_up=misuse)
    await world.start(reconciler)
    await world.widget()
    await quiet(1)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert not await is_gone(world)
    assert reconciler.finalized > 3


@pytest.mark.virtual_time
async def test_unreachable_server_keeps_the_object_until_its_status_is_written(world: World) -> None:
    reconciler = WidgetFinalizer()
    await world.start(reconciler)
    await world.widget()
    await quiet(1)
    world.server.faults.add(subresource="status", status=429, times=8)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(600)
    assert await is_gone(world)
    assert reconciler.finalized == 2


@pytest.mark.virtual_time
async def test_status_that_finalize_saved_no_longer_counts_as_refused(world: World) -> None:
    """Also while the finalizer is still being removed."""
    reconciler = WidgetFinalizer()
    controller = await world.start(reconciler)
    refusal = world.server.faults.add(subresource="status", status=403, times=None)
    await world.widget()
    await quiet(60)
    assert controller.statistics().unsaved.blocked == 1
    refusal.remove()
    world.server.faults.add(verb="patch", name="w", user_agent="controller", subresource="", latency=30)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(10)
    assert (await world.read()).status.phase == "Gone"
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 0
    await quiet(60)
    assert await is_gone(world)


@pytest.mark.virtual_time
async def test_refused_status_is_blocked_although_the_terminal_error_has_no_text(world: World) -> None:
    class Rude(TerminalError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def refuse(reconciler, obj, status):
        raise Rude

    reconciler = WidgetReconciler(refuse)
    world.server.faults.add(subresource="status", status=403, times=None)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert controller.statistics().unsaved.blocked == 1
    assert len(reconciler.runs) == 1
