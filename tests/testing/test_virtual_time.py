"""Virtual time: sleeping takes no time; timestamps and timers advance together."""

import asyncio
import time
from datetime import timedelta

import pytest
import pytest_asyncio

from reconciler.clock import current_clock
from reconciler.testing import VirtualClock, virtual_time


@pytest_asyncio.fixture
async def waited() -> float:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(3600)
    return loop.time() - before


@pytest.mark.virtual_time
async def test_a_marked_test_sleeps_an_hour_in_no_time() -> None:
    clock = current_clock()
    wall, real = clock.now(), time.monotonic()
    await asyncio.sleep(3600)
    assert clock.now() - wall == timedelta(hours=1)
    assert clock.monotonic() == asyncio.get_running_loop().time()
    assert time.monotonic() - real < 600


@pytest.mark.virtual_time
async def test_async_fixtures_of_a_marked_test_use_virtual_time(waited: float) -> None:
    assert waited == 3600


async def test_an_unmarked_test_keeps_the_real_clock() -> None:
    assert not hasattr(current_clock(), "virtual")


def test_the_block_around_asyncio_run_is_virtual() -> None:
    async def main() -> tuple[float, timedelta]:
        clock = current_clock()
        wall = clock.now()
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time(), clock.now() - wall

    with virtual_time() as clock:
        assert asyncio.run(main()) == (86_400, timedelta(days=1))
        assert current_clock() is clock
    assert current_clock() is not clock


@pytest.mark.virtual_time
async def test_a_timer_never_fires_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(70.504339)
    due = loop.time() + 60.0  # 130.50433900000002, between two ticks of the loop
    looks = 0
    while loop.time() < due and looks < 10:
        woken = loop.create_future()
        loop.call_at(due, woken.set_result, None)
        await woken
        looks += 1
    assert looks == 1
    assert loop.time() == pytest.approx(due)


@pytest.mark.virtual_time
async def test_a_jump_takes_few_rounds_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, rounds = asyncio.get_running_loop(), 0
    run_once = loop._run_once  # type: ignore[attr-defined]

    def counted() -> None:
        nonlocal rounds
        rounds += 1
        run_once()

    monkeypatch.setattr(loop, "_run_once", counted)
    for _ in range(100):
        await asyncio.sleep(1)
    assert rounds <= 400


def test_the_wall_clock_is_stepped_by_seconds_or_a_timedelta() -> None:
    clock = VirtualClock()
    before = clock.now()
    clock.step(60)
    clock.step(timedelta(hours=1))
    assert clock.now() - before == timedelta(minutes=61)
