"""A busy operator reads few requests from the server before its calls, and takes no stale one for current."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.notification import NotificationRequest
from tests.notification.world import DOWN, Recorder, World, virtual, world


async def reads(w: World) -> int:
    return len(w.server.requests(verb="get", resource="notificationrequests"))


@virtual
async def test_a_busy_operator_reads_few_requests_from_the_server_and_calls_each_once() -> None:
    pager = Recorder("pager")
    async with world() as w:
        for number in range(100):
            await w.create("pager", name=f"n-{number}")
        async with w.operator(pager, workers=10):
            await asyncio.sleep(10)
        assert await reads(w) < 50  # the first ones of each worker, until the watch delivers a write
        assert w.writes == 100
    assert sorted(message.name for message in pager.messages) == sorted(f"n-{number}" for number in range(100))


@virtual
async def test_an_operator_that_was_idle_reads_each_request() -> None:
    pager = Recorder("pager")
    async with world() as w, w.operator(pager):
        for number in range(10):
            await w.create("pager", name=f"n-{number}")
            await asyncio.sleep(1)
        assert await reads(w) == 10


@pytest.mark.parametrize("change", ["delete", "deliver"])
@virtual
async def test_own_writes_that_the_watch_has_not_delivered_do_not_make_a_stale_request_current(change: str) -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w:
        async with w.operator(pager):
            for number in range(10):
                await w.create("pager", name=f"n-{number}")
            await asyncio.sleep(10)
        w.server.faults.add(verb="watch", resource="notificationrequests", stall=True, times=None)
        async with w.operator(pager):
            await asyncio.sleep(5)
            for number in range(5, 10):  # behind the operator's back, as another process would
                await CHANGES[change](w, f"n-{number}")
            await asyncio.sleep(30)  # all are due; the operator writes the first five, and then comes to the others
        assert [message.name for message in pager.messages[10:]] == [f"n-{number}" for number in range(5)]


@virtual
async def test_a_request_that_changes_while_its_reconcile_waits_in_place_is_not_delivered() -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w:
        async with w.operator(pager):
            await w.create("pager")
            await asyncio.sleep(10)
        async with w.operator(pager, workers=2) as (_, reconciler):
            await asyncio.sleep(19.96)
            await w.annotate("early")  # the reconcile begins, and waits for the due time
            await w.create("pager", name="other")  # whose status the operator writes
            await asyncio.sleep(0.01)
            await _deliver(w, "disk-full")
            await asyncio.sleep(1)
            assert [message.name for message in pager.messages] == ["disk-full", "other"]
            assert reconciler.statistics().stale == 1


async def _delete(w: World, name: str) -> None:
    await w.client.delete(NotificationRequest, name, "default")


async def _deliver(w: World, name: str) -> None:
    (channel,) = (await w.status(name))["channels"]
    sent = channel | {"state": "Delivered", "attempts": 2}
    await w.client.patch(
        NotificationRequest, name, "default", patch={"status": {"channels": [sent]}}, subresource="status"
    )


CHANGES: dict[str, Any] = {"delete": _delete, "deliver": _deliver}
