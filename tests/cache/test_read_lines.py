"""Reading the lines of a watch: what counts as silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.cache.watch import WatchError, read_lines
from reconciler.http import HTTPResponse

pytestmark = pytest.mark.virtual_time


def stream(*waits: float) -> HTTPResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for number, seconds in enumerate(waits):
            await asyncio.sleep(seconds)
            yield b"%d\n" % number

    return HTTPResponse(200, {}, b"", chunks=chunks())


async def test_the_time_to_process_a_line_does_not_count_as_silence() -> None:
    lines: list[bytes] = []

    async def handle(line: bytes) -> None:
        await asyncio.sleep(100)
        lines.append(line)

    await read_lines(stream(1, 1, 1), lambda: 10.0, handle)
    assert lines == [b"0", b"1", b"2"]


async def test_silence_after_a_slow_line_is_detected() -> None:
    async def handle(line: bytes) -> None:
        await asyncio.sleep(100)

    began = asyncio.get_running_loop().time()
    with pytest.raises(WatchError, match="no data for 10 s"):
        await read_lines(stream(1, 1000), lambda: 10.0, handle)
    assert asyncio.get_running_loop().time() - began == pytest.approx(111, abs=1.1)
