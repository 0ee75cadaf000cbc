"""The clock: one source of both times, replaced as a whole."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.clock import SystemClock, current_clock, use_clock


class Frozen:
    def monotonic(self) -> float:
        return 5.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def test_the_system_s_wall_time_is_aware_and_utc() -> None:
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)


def test_the_system_s_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


async def test_the_system_s_monotonic_time_is_the_loop_s() -> None:
    before = asyncio.get_running_loop().time()
    between = SystemClock().monotonic()
    assert before <= between <= asyncio.get_running_loop().time()


def test_without_a_block_the_systems_clock_is_current() -> None:
    assert isinstance(current_clock(), SystemClock)


def test_a_block_replaces_the_clock_and_restores_it() -> None:
    outer, inner = Frozen(), Frozen()
    before = current_clock()
    with use_clock(outer) as given:
        assert given is outer
        assert current_clock() is outer
        with use_clock(inner):
            assert current_clock() is inner
        assert current_clock() is outer
    assert current_clock() is before


def test_a_block_left_by_an_error_restores_the_clock() -> None:
    before = current_clock()
    with pytest.raises(ZeroDivisionError), use_clock(Frozen()):
        raise ZeroDivisionError
    assert current_clock() is before


async def test_tasks_and_threads_share_the_current_clock() -> None:
    with use_clock(Frozen()) as clock:
        assert await asyncio.to_thread(current_clock) is clock
