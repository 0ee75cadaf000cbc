"""Move the event loop's time and the wall time together, at once, whenever there is nothing else to do.

A sleep of an hour then takes no time, and timers fire in order at exact moments. Only what lives inside the process can
be driven this way: sockets are real, so a client over sockets refuses to work under virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from unittest import mock

from reconciler.clock import use_clock
from reconciler.errors import MissingExtra

__all__ = ["EPOCH", "VirtualClock", "new_virtual_loop", "virtual_time"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The wall time at loop time 0."""


class VirtualClock:
    """Tell the time of a virtual loop, and as wall time `EPOCH` plus that.

    Attributes:
        virtual: True, so that parts which cannot work under virtual time can say so.
    """

    virtual = True

    def __init__(self, epoch: datetime = EPOCH) -> None:
        self.epoch = epoch
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the time of `loop` from now on."""
        self._loop = loop

    def monotonic(self) -> float:
        """Return the loop's time in seconds; 0.0 before there is a loop."""
        return self._loop.time() if self._loop is not None else 0.0

    def now(self) -> datetime:
        """Return `epoch` plus the loop's time."""
        return self.epoch + timedelta(seconds=self.monotonic())


def new_virtual_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop with virtual time that starts at 0.

    Raises:
        MissingExtra: looptime is not installed.
    """
    return _exact(_looptime().new_event_loop(start=0.0))


def _looptime() -> ModuleType:
    try:
        import looptime
    except ModuleNotFoundError as error:
        raise MissingExtra("looptime", extra="testing", purpose="virtual time") from error
    return looptime


_TICK = 1e-6
"""Seconds; looptime counts in these."""


def _exact(loop: asyncio.BaseEventLoop) -> asyncio.BaseEventLoop:
    """Make a loop's time reach that of a timer before it fires, although it moves in ticks.

    Otherwise a timer fires a rounding error early, and code that waits until its time has come, and looks, and waits
    again, goes round for ever, because time does not move while there is something to do.
    """

    class ExactLoop(type(loop)):  # type: ignore[misc]  # mypy knows no class that is made at run time
        _scheduled: list[asyncio.TimerHandle]
        reached = 0.0

        def time(self) -> float:
            now: float = super().time()
            if self._scheduled and now < self._scheduled[0].when() < now + _TICK:
                now = self._scheduled[0].when()
            self.reached = max(self.reached, now)
            return self.reached

        async def shutdown_default_executor(self, *_: object) -> None:
            # Python 3.12 and newer give the threads five minutes to end, which would be over at once.
            await super().shutdown_default_executor()

    loop.__class__ = ExactLoop
    return loop


@contextlib.contextmanager
def virtual_time(epoch: datetime = EPOCH) -> Iterator[VirtualClock]:
    """Give every loop that is made inside the block virtual time: put it around `asyncio.run`.

    ::

        with virtual_time():
            asyncio.run(main())

    Args:
        epoch: the wall time at loop time 0, aware.

    Raises:
        MissingExtra: looptime is not installed.
    """
    _looptime()  # before the block has made a coroutine that nobody would run
    clock = VirtualClock(epoch)

    def make() -> asyncio.AbstractEventLoop:
        loop = new_virtual_loop()
        clock.follow(loop)
        return loop

    with use_clock(clock), mock.patch.object(asyncio.events, "new_event_loop", make):
        yield clock
