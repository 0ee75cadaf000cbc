"""Carry out the effects of a flush: one driver for the event loop, one for blocking clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import Any

from reconciler.clock import Clock
from reconciler.errors import OutcomeUnknown
from reconciler.status.flush.budget import Budget
from reconciler.status.flush.effects import Effect, Flushed, Read, Sleep, Write
from reconciler.status.flush.session import Pending
from reconciler.status.writer import StatusWriter, SyncStatusWriter

__all__ = ["drive", "drive_blocking", "outlast"]


async def drive(pending: Pending, writer: StatusWriter, budget: Budget) -> Flushed:
    """Run a flush on the event loop within its budget.

    Cancellation leaves the request in flight, its outcome unknown.

    Raises:
        StatusError: it failed, or its time is up.
    """
    effect = pending.effect
    while True:
        advance = await _carried_out(pending, effect, writer, budget)
        try:
            effect = advance()
        except StopIteration as stop:
            flushed: Flushed = stop.value
            return flushed


async def _carried_out(pending: Pending, effect: Effect, writer: StatusWriter, budget: Budget) -> Callable[[], Effect]:
    now = asyncio.get_running_loop().time
    try:
        result: dict[str, Any] | None = None
        if isinstance(effect, Sleep):
            if not budget.allows(now(), effect.seconds):
                raise pending.flush.abandoned()
            await asyncio.sleep(effect.seconds)
        else:
            result = await _answered(effect, writer, budget.request(now()))
    except Exception as error:  # noqa: BLE001 - the flush decides what it means, and raises what it does not know
        return partial(pending.flow.throw, error)
    return partial(pending.flow.send, result)


async def _answered(effect: Read | Write, writer: StatusWriter, limit: asyncio.Timeout) -> dict[str, Any]:
    try:
        async with limit:
            if isinstance(effect, Read):
                return await writer.read()
            return await writer.write(effect.body, strategy=effect.strategy, subresource=effect.subresource)
    except TimeoutError:
        if limit.expired():
            raise OutcomeUnknown("no answer within the request's share of the time for the flush") from None
        raise


def drive_blocking(
    pending: Pending, writer: SyncStatusWriter, budget: Budget, clock: Clock, *, hurry: Callable[[], None]
) -> Flushed:
    """Run a flush on this thread. No request begins when the budget is used up.

    A request ends within its share of the budget if the writer has a ``request_timeout``.

    Args:
        pending: the flush.
        writer: sends its requests.
        budget: its time.
        clock: measures it.
        hurry: called before each request and each pause; it may shorten the budget.

    Raises:
        StatusError: it failed, or its time is up.
    """
    effect = pending.effect
    while True:
        hurry()
        try:
            result = _block_on(effect, writer, pending, clock, budget)
        except Exception as error:  # noqa: BLE001 - as above
            advance = partial(pending.flow.throw, error)
        else:
            advance = partial(pending.flow.send, result)
        try:
            effect = advance()
        except StopIteration as stop:
            flushed: Flushed = stop.value
            return flushed


def _block_on(effect: Effect, writer: Any, pending: Pending, clock: Clock, budget: Budget) -> dict[str, Any] | None:
    now = clock.monotonic()
    pause = effect.seconds if isinstance(effect, Sleep) else 0.0
    if not budget.allows(now, pause):
        raise pending.flush.abandoned()
    if isinstance(effect, Sleep):
        sleep(pause)
        return None
    if hasattr(writer, "request_timeout"):
        writer.request_timeout = budget.share(now)
    if isinstance(effect, Read):
        read: dict[str, Any] = writer.read()
        return read
    written: dict[str, Any] = writer.write(effect.body, strategy=effect.strategy, subresource=effect.subresource)
    return written


async def outlast(
    task: asyncio.Task[None], *, on_cancel: Callable[[], None], ended: asyncio.Future[None] | None = None
) -> None:
    """Wait for a task that is not cancelled with the caller, however often that is; then pass the cancellation on.

    The task has to bound its own time; `on_cancel` may shorten it. Raises what it raised.

    Args:
        task: what to wait for.
        on_cancel: called at each cancellation.
        ended: resolved by the task in its last step, which wakes the caller a turn of the loop before its end could.
    """
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    while not task.done():
        if ended is None or ended.done():
            ended = loop.create_future()  # what asyncio.wait does, for one task alone
        task.add_done_callback(lambda _, ended=ended: ended.done() or ended.set_result(None))  # type: ignore[misc]
        try:
            await ended
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            on_cancel()
    if cancelled is None:
        task.result()
        return
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        cancelled.add_note(f"the status could not be written either: {failure}")
    raise cancelled
