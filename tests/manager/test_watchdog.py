"""The watchdog thread that ends a process whose workers outlive its lease."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest

from reconciler.clock import current_clock
from reconciler.manager.election import Watchdog

LONG = 30.0


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        raise AssertionError("a lease goes on while the machine is suspended")

    def boottime(self) -> float:
        return self.time

    def now(self) -> datetime:
        raise NotImplementedError


def test_watchdog_ends_the_process_when_the_lease_expires() -> None:
    clock, ended = ManualClock(), threading.Event()
    watchdog = Watchdog(clock, end=ended.set)
    watchdog.extend(15.0)
    watchdog.start()
    clock.time = 14.9
    assert not ended.wait(0.3)
    clock.time = 15.0
    assert ended.wait(LONG)


def test_each_renewal_extends_the_watchdog() -> None:
    clock, ended = ManualClock(), threading.Event()
    watchdog = Watchdog(clock, end=ended.set)
    watchdog.extend(15.0)
    watchdog.start()
    watchdog.extend(25.0)
    clock.time = 24.9
    assert not ended.wait(0.3)
    clock.time = 25.1
    assert ended.wait(LONG)


def test_disarmed_watchdog_ends_its_thread_only() -> None:
    clock, ended = ManualClock(), threading.Event()
    watchdog = Watchdog(clock, end=ended.set)
    watchdog.extend(15.0)
    watchdog.start()
    watchdog.disarm()
    clock.time = 100.0
    assert watchdog._thread is not None
    watchdog._thread.join(LONG)
    assert not watchdog._thread.is_alive()
    assert not ended.is_set()


@pytest.mark.virtual_time
async def test_no_thread_under_virtual_time() -> None:
    watchdog = Watchdog(current_clock())
    watchdog.extend(0.0)
    watchdog.start()
    assert watchdog._thread is None
