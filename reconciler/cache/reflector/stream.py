"""Read a watch: lines of any length out of chunks, an eye on silence, and a breath for the rest of the loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from reconciler.cache.reflector.failures import WatchTrouble
from reconciler.http import HTTPResponse, LineSplitter

__all__ = ["read_lines"]

_REARM = 1.0
"""Seconds by which the alarm may ring early; moving it with every chunk would cost more than reading the chunk."""

_LINES_BETWEEN_YIELDS = 200
"""Lines handled before others get the loop: about 2 ms of work."""


async def read_lines(
    response: HTTPResponse, silence: Callable[[], float], handle: Callable[[bytes], Awaitable[None] | None]
) -> None:
    """Hand every line of a stream to `handle` until the stream ends.

    A line that the end cuts off is dropped: the watch is resumed before it. Cancellation stops between two lines; the
    caller closes the response.

    Args:
        response: the open stream.
        silence: gives the seconds without a byte after which the stream counts as dead; asked anew as bytes come.
        handle: takes a line; what it returns is awaited, and silence does not count meanwhile.

    Raises:
        WatchTrouble: the stream fell silent (kind ``"silent"``).
        InvalidResponse: a line is longer than 32 MiB.
    """
    if response.chunks is None:
        return
    limit = silence()
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            await _read(response, scope, silence, handle)
    except TimeoutError:
        if not scope.expired():
            raise
        raise WatchTrouble(f"no byte for {silence():.0f} s; the connection is taken for dead", kind="silent") from None


async def _read(
    response: HTTPResponse,
    scope: asyncio.Timeout,
    silence: Callable[[], float],
    handle: Callable[[bytes], Awaitable[None] | None],
) -> None:
    assert response.chunks is not None  # noqa: S101 - the caller has looked
    loop = asyncio.get_running_loop()
    splitter = LineSplitter()
    armed, handled = loop.time(), 0
    async for chunk in response.chunks:
        for line in splitter.feed(chunk):
            pending = handle(line)
            if pending is not None:
                scope.reschedule(None)
                await pending
                armed = -math.inf
            handled += 1
            if handled % _LINES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
        now = loop.time()
        if now - armed >= _REARM:
            # After the lines: a bookmark among them may have changed how long silence is borne.
            scope.reschedule(now + silence())
            armed = now
