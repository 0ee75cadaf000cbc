"""Read time: the only module that does.

Delays are measured in monotonic seconds, stamps are aware UTC datetimes; both come from one `Clock`, so that a test can
move them together. Parts take ``clock=None`` and fall back to `current_clock()`, which is the system's clock unless a
test has put another in force with `use_clock`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock", "boottime_of", "current_clock", "use_clock"]


class Clock(Protocol):
    """Tell the two times that controllers need."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back, and is the event loop's time."""
        ...

    def now(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...


def _boottime() -> float:
    """Return seconds that go on while the machine is suspended, where the system tells them."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """Read the machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Return seconds as asyncio's loops count them; the function itself, for the queue asks thrice a key."""

    boottime = staticmethod(_boottime)
    """Return seconds that go on while the machine is suspended; those of `monotonic` where there is no such clock."""

    def now(self) -> datetime:
        """Return the machine's wall time in UTC."""
        return datetime.now(UTC)


_system: Clock = SystemClock()
_in_force: Clock = _system


def current_clock() -> Clock:
    """Return the clock in force in this process."""
    return _in_force


def boottime_of(clock: Clock) -> Callable[[], float]:
    """Return the function that tells a clock's seconds, those counted in during which the machine was suspended.

    For promises to other machines, such as a lease: their time goes on. A clock without ``boottime`` is never
    suspended, and its `monotonic` is returned. The start is arbitrary: never compare the two.
    """
    return getattr(clock, "boottime", None) or clock.monotonic


@contextlib.contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Put a clock in force for the whole process until the block ends."""
    global _in_force  # noqa: PLW0603 - one process has one time
    before, _in_force = _in_force, clock
    try:
        yield clock
    finally:
        _in_force = before
