"""The clock: the only module that reads time.

Delays use monotonic seconds, timestamps are aware UTC datetimes. Both come from one `Clock`, so that a test can move
them together. Components take ``clock=None`` and fall back to `current_clock()`: the system's clock, unless a test
replaced it with `use_clock`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "current_clock"]


class Clock(Protocol):
    """The two times that controllers need."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never decreases, and equals the event loop's time."""
        ...

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...


def _boottime() -> float:
    """Return seconds that include time suspended, if the system provides them."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Return seconds as asyncio's loops count them.

    This is the function itself, since the queue calls it three times per key.
    """

    boottime = staticmethod(_boottime)
    """Return seconds that include time suspended; those of `monotonic` if there is no such clock."""

    def now(self) -> datetime:
        """Return the machine's wall time in UTC."""
        return datetime.now(UTC)


process_time = time.process_time
"""Return the seconds of CPU time that this process has used; none are used while it is stopped."""

_system: Clock = SystemClock()
_in_force: Clock = _system


class _OfThread(threading.local):
    clock: Clock | None = None


_of_thread = _OfThread()


def current_clock() -> Clock:
    """Return the clock that this process uses, or the machine's in a thread that called `keep_system_clock`."""
    return _of_thread.clock or _in_force


def keep_system_clock() -> None:
    """Let this thread use the machine's clock even while another one is used, for sockets beside virtual time."""
    _of_thread.clock = _system


def boottime_of(clock: Clock) -> Callable[[], float]:
    """Return a function that returns a clock's seconds, including those during which the machine was suspended.

    Use it for promises to other machines, such as a lease: their clocks continue to run. A clock without ``boottime``
    is never suspended, and its `monotonic` is returned. The start is arbitrary: never compare the two.
    """
    return getattr(clock, "boottime", None) or clock.monotonic


def held_while(busy: Callable[[], bool], stop: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """Return a context in which virtual time does not jump while `busy` returns True; real clocks ignore it.

    Enter it in the event loop. Use it for a thread, whose work the loop cannot see. `stop` tells the thread to end; it
    is called if a test ends the program, which cannot end a thread.
    """
    hold: Callable[[Callable[[], bool], Callable[[], None]], contextlib.AbstractContextManager[None]] | None
    hold = getattr(_in_force, "held_while", None)
    return contextlib.nullcontext() if hold is None else hold(busy, stop)


@contextlib.contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Replace the clock of the whole process until the block ends."""
    global _in_force  # noqa: PLW0603 - one process has one clock
    before, _in_force = _in_force, clock
    try:
        yield clock
    finally:
        _in_force = before
