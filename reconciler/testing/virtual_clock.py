"""Virtual time: an event loop and a clock that jump to the next timer whenever there is nothing else to do.

A sleep of an hour then takes no time, and timers fire in order at exact times. Time does not jump while the thread of a
plain ``def`` reconcile works. Only code inside the process follows: sockets are real, so a client over sockets raises
under virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from unittest import mock

from reconciler._core.durations import DurationLike, seconds_of
from reconciler.clock import use_clock
from reconciler.errors import importing
from reconciler.meta.cycle import seeded_reconcile_ids
from reconciler.testing.life import stopped_with_life

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The wall time at loop time 0."""


class VirtualClock:
    """The clock of a virtual loop; its wall time is the epoch plus the loop's time, until `step` sets it.

    Args:
        epoch: the wall time at loop time 0.

    Attributes:
        epoch: as given, moved by each `step`.
        virtual: True, so that code that cannot work under virtual time can raise.
    """

    virtual = True

    def __init__(self, epoch: datetime = EPOCH) -> None:
        self.epoch = epoch
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the time of `loop` from now on."""
        self._loop = loop

    def monotonic(self) -> float:
        """Return the loop's time in seconds; 0.0 before there is a loop."""
        return self._loop.time() if self._loop is not None else 0.0

    def now(self) -> datetime:
        """Return `epoch` plus the loop's time."""
        return self.epoch + timedelta(seconds=self.monotonic())

    def step(self, seconds: DurationLike) -> None:
        """Set the wall clock forward by seconds, or a timedelta, or back; the loop's time continues."""
        self.epoch += timedelta(seconds=seconds_of("seconds", seconds, signed=True))

    @contextlib.contextmanager
    def held_while(self, busy: Callable[[], bool], stop: Callable[[], None]) -> Iterator[None]:
        """Let time pass at most as fast as real time while `busy`, which is called in the loop, returns True.

        `stop` is called if the program's `Life` ends before the block.
        """
        loop = asyncio.get_running_loop()
        work = _ThreadWork(busy, loop)
        loop.run_in_executor(work, busy)  # type: ignore[arg-type]  # only its submit is called
        with stopped_with_life(stop):
            yield  # looptime refers to `work` weakly; this frame keeps it


class _ThreadWork(asyncio.Future[None]):
    """A future that is pending while a thread works. While a future of an executor is pending, looptime does not jump.

    It is the executor as well, so that looptime learns of it.
    """

    def __init__(self, busy: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._busy = busy

    def done(self) -> bool:
        return not self._busy()

    def submit(self, *_: object) -> _ThreadWork:
        return self


def new_virtual_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with virtual time that starts at 0.

    Raises:
        MissingExtra: looptime is not installed.
    """
    # A loop that waits for a timer has run everything that was ready, so the rounds without work that looptime makes
    # before it jumps find nothing, and cost ten times as much as the jump.
    return _exact(_looptime().new_event_loop(start=0.0, noop_cycles=0))


def _looptime() -> ModuleType:
    with importing(extra="testing", purpose="virtual time"):
        import looptime
    return looptime


_TICK = 1e-6
"""Seconds; the resolution of looptime."""


def _exact(loop: asyncio.BaseEventLoop) -> asyncio.BaseEventLoop:
    """Make a loop's time reach that of a timer before it fires, although time moves in ticks.

    Otherwise a timer fires a rounding error too early. Code that waits until a time, checks the clock and waits again
    would then loop forever, because time does not move while there is work to do.
    """

    class ExactLoop(type(loop)):  # type: ignore[misc]  # mypy does not support run-time base classes
        _scheduled: list[asyncio.TimerHandle]
        reached = 0.0

        def time(self) -> float:
            now: float = super().time()
            if self._scheduled and now < self._scheduled[0].when() < now + _TICK:
                now = self._scheduled[0].when()
            if now > self.reached:  # noqa: PLR1730 - asyncio reads the time in each turn, and a call doubles the cost
                self.reached = now
            return self.reached

        async def shutdown_default_executor(self, *_: object) -> None:
            # Python 3.12 and newer wait five minutes for the threads, which would pass in no time.
            await super().shutdown_default_executor()

    loop.__class__ = ExactLoop
    return loop


@contextlib.contextmanager
def virtual_time(epoch: datetime = EPOCH) -> Iterator[VirtualClock]:
    """Give virtual time to every loop created inside the block: put it around `asyncio.run`.

    The ids of reconciles are the same each time.

    ::

        with virtual_time():
            asyncio.run(main())

    Args:
        epoch: the wall time at loop time 0, aware.

    Raises:
        MissingExtra: looptime is not installed.
    """
    _looptime()  # raise before the block creates a coroutine that would never be awaited
    clock = VirtualClock(epoch)

    def make() -> asyncio.AbstractEventLoop:
        loop = new_virtual_loop()
        clock.follow(loop)
        return loop

    with use_clock(clock), seeded_reconcile_ids(), mock.patch.object(asyncio.events, "new_event_loop", make):
        yield clock
