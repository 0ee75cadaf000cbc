"""The clock for promises to other machines continues while this one is suspended."""

from __future__ import annotations

import time

import pytest

from reconciler.clock import SystemClock, boottime_of, current_clock


def test_the_systems_boot_time_includes_suspensions() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime_of(SystemClock())() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_a_boot_time_clock_the_monotonic_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before = time.monotonic()
    assert before <= boottime_of(SystemClock())() <= time.monotonic()


@pytest.mark.virtual_time
async def test_a_virtual_clock_is_never_suspended() -> None:
    clock = current_clock()
    assert boottime_of(clock)() == clock.monotonic()
