"""Carry out the effects of a flush: one driver for the event loop, one for blocking clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import Any

from reconciler.clock import Clock
from reconciler.status._effects import Effect, Flushed, Read, Sleep, Write
from reconciler.status._session import Pending
from reconciler.status._writer import StatusWriter, SyncStatusWriter

__all__ = ["drive", "drive_blocking", "outlast"]


async def drive(pending: Pending, writer: StatusWriter, budget: asyncio.Timeout) -> Flushed:
    """Run a flush on the event loop within its time, which may be shortened meanwhile.

    Cancellation leaves the request in flight, its outcome unknown.

    Raises:
        StatusError: it failed, or its time is up.
    """
    try:
        async with budget:
            effect = pending.effect
            while True:
                advance = await _carried_out(pending, effect, writer, budget.when() or 0.0)
                try:
                    effect = advance()
                except StopIteration as stop:
                    flushed: Flushed = stop.value
                    return flushed
    except TimeoutError:
        if budget.expired():
            raise pending.flush.abandoned() from None
        raise


async def _carried_out(pending: Pending, effect: Effect, writer: StatusWriter, deadline: float) -> Callable[[], Effect]:
    try:
        result: dict[str, Any] | None = None
        if isinstance(effect, Read):
            result = await writer.read()
        elif isinstance(effect, Write):
            result = await writer.write(effect.body, strategy=effect.strategy, subresource=effect.subresource)
        elif asyncio.get_running_loop().time() + effect.seconds >= deadline:
            raise pending.flush.abandoned()
        else:
            await asyncio.sleep(effect.seconds)
    except Exception as error:  # noqa: BLE001 - the flush decides what it means, and raises what it does not know
        return partial(pending.flow.throw, error)
    return partial(pending.flow.send, result)


def drive_blocking(pending: Pending, writer: SyncStatusWriter, seconds: float, clock: Clock) -> Flushed:
    """Run a flush on this thread; no request begins after a budget of seconds.

    Raises:
        StatusError: it failed, or its time is up.
    """
    deadline = clock.monotonic() + seconds
    effect = pending.effect
    while True:
        try:
            result = _block_on(effect, writer, pending, clock, deadline)
        except Exception as error:  # noqa: BLE001 - as above
            advance = partial(pending.flow.throw, error)
        else:
            advance = partial(pending.flow.send, result)
        try:
            effect = advance()
        except StopIteration as stop:
            flushed: Flushed = stop.value
            return flushed


def _block_on(
    effect: Effect, writer: SyncStatusWriter, pending: Pending, clock: Clock, deadline: float
) -> dict[str, Any] | None:
    pause = effect.seconds if isinstance(effect, Sleep) else 0.0
    if clock.monotonic() + pause >= deadline:
        raise pending.flush.abandoned()
    if isinstance(effect, Read):
        return writer.read()
    if isinstance(effect, Write):
        return writer.write(effect.body, strategy=effect.strategy, subresource=effect.subresource)
    sleep(pause)
    return None


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
