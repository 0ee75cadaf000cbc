"""Reconciles that do not end: the place where they wait is shown at any time, and reported after a while."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.controller import Controller, Reconciler
from reconciler.controller.reconcile.watchdogs import CodePlace
from tests.controller.conftest import WidgetReconciler, World, quiet
from tests.controller.test_failure_events import events

pytestmark = pytest.mark.virtual_time

NEVER = "asyncio/locks.py"


async def never() -> None:
    await asyncio.Event().wait()


async def endless() -> AsyncIterator[int]:
    await never()
    yield 1


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[None]:
    await never()
    yield


class Awaitable:
    def __await__(self) -> Any:
        return never().__await__()


async def in_a_call() -> None:
    await never()


async def in_a_loop() -> None:
    async for _ in endless():
        pass


async def in_a_context() -> None:
    async with connection():
        pass


async def in_a_task() -> None:
    await asyncio.create_task(never())


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(never())


async def in_a_gather() -> None:
    await asyncio.gather(asyncio.sleep(0), never())


async def in_a_wait() -> None:
    await asyncio.wait({asyncio.create_task(never())})


async def in_a_wait_for() -> None:
    await asyncio.wait_for(never(), 1e6)


async def in_an_awaitable() -> None:
    await Awaitable()


WAYS = (
    in_a_call,
    in_a_loop,
    in_a_context,
    in_a_task,
    in_a_group,
    in_a_gather,
    in_a_wait,
    in_a_wait_for,
    in_an_awaitable,
)


async def stuck(world: World, body: Any, **options: Any) -> tuple[Controller, Any]:
    controller = await world.start(WidgetReconciler(body), **options)
    widget = await world.widget()
    await quiet(1)
    return controller, widget.key


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_line_that_waits_is_shown_at_any_time(world: World, way: Any) -> None:
    controller, key = await stuck(world, lambda *_: way())
    place = controller.explain(key).place
    assert place is not None
    assert place.frames[0].startswith("controller/conftest.py:")
    assert any(way.__name__ in frame for frame in place.frames)
    assert "controller/test_stuck.py" in place.frames[-1]
    assert place.frames[-1].endswith(" in never")
    assert (place.waits_in or "").startswith(NEVER)
    assert (place.waits_in or "").endswith(" in Event.wait")


async def test_a_thread_has_a_place(world: World) -> None:
    release, begun = threading.Event(), threading.Event()

    class Threaded(Reconciler):
        def reconcile(self, request: Any, /) -> None:
            begun.set()
            release.wait()

    controller = await world.start(Threaded(), resource="example.com/v1/Widget")
    widget = await world.widget()
    while not begun.is_set():  # noqa: ASYNC110 - of a thread
        await asyncio.sleep(0)
    place = controller.explain(widget.key).place
    release.set()
    await quiet(1)
    assert place is not None
    assert place.frames[-1].endswith("Threaded.reconcile")
    assert (place.waits_in or "").startswith("threading.py:") or "/threading.py:" in (place.waits_in or "")
    assert controller.explain(widget.key).place is None


async def test_a_stuck_reconcile_is_reported_and_its_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconciler.controller")
    go = asyncio.Event()

    async def body(*_: Any) -> None:
        await go.wait()

    _, key = await stuck(world, body)

    def reports() -> list[str]:
        return [record.getMessage() for record in caplog.records if str(key) in record.getMessage()]

    await quiet(58)
    assert reports() == []
    await quiet(2)
    [line] = reports()
    assert line.startswith(f"widget: the reconcile of {key} is in progress for 60 s, at controller/test_stuck.py:")
    assert ", which waits in asyncio/locks.py:" in line
    [(kind, reason, message)] = await events(world)
    assert (kind, reason) == ("Warning", "ReconcileStuck")
    assert message.startswith("the reconcile is in progress for 60 s, at controller/test_stuck.py:")
    await quiet(24 * 3600)
    assert 24 < len(reports()) < 32  # at most once an hour
    go.set()
    await quiet(1)
    assert reports()[-1] == f"widget: the reconcile of {key} ended after 24.0 h"


async def test_the_threshold_is_an_option(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await stuck(world, lambda *_: never(), stuck_after=5)
    await quiet(5)
    assert "in progress for 5 s" in caplog.text


async def test_without_a_threshold_nothing_is_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await stuck(world, lambda *_: never(), stuck_after=None)
    await quiet(1e5)
    assert "in progress" not in caplog.text


def test_a_place_is_one_clause() -> None:
    assert str(CodePlace(("a.py:1 in f", "a.py:2 in g"), "b.py:3 in h")) == "a.py:2 in g, which waits in b.py:3 in h"
    assert str(CodePlace((), "b.py:3 in h")) == "b.py:3 in h"
