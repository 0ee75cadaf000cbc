"""The clock for promises to other machines goes on while this one sleeps."""

from __future__ import annotations

import time

import pytest

from reconciler.clock import SystemClock, boottime_of, current_clock


def test_the_system_s_boot_time_counts_suspensions_in() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime_of(SystemClock())() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_such_a_clock_it_is_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = time.monotonic()
    assert before <= boottime_of(SystemClock())() <= time.monotonic()


@pytest.mark.virtual_time
async def test_a_virtual_clock_is_never_suspended() -> None:
    clock = current_clock()
    assert boottime_of(clock)() == clock.monotonic()
