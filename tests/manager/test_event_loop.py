"""Code that blocks the event loop is named in the log and counted."""

from __future__ import annotations

import asyncio
import logging
import pdb  # noqa: T100 - the test halts itself
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.client import Client
from reconciler.clock import SystemClock
from reconciler.manager import Manager, event_loop
from reconciler.manager.event_loop import BlockedLoopDetector, BlockedLoopWatchdog
from reconciler.meta import Request
from reconciler.telemetry.registry import EventLoopCounters
from tests.manager.working import RecordingReconciler, config_map

LONG = 30.0


class Reported(logging.Handler):
    """A handler that sets an event when a block is reported, in the thread that reports it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "blocked" in record.getMessage():
            self.lines.append(record.getMessage())
            self.event.set()


@pytest.fixture
def reported() -> Iterator[Reported]:
    handler = Reported()
    logger = logging.getLogger("reconciler.manager")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "event loop watchdog"]


@pytest.fixture(autouse=True)
def threads_of_earlier_tests_have_ended() -> None:
    for each in threads():  # it ends within its interval
        each.join(LONG)


async def test_blocking_reconcile_is_named_and_counted(client: Client, reported: Reported) -> None:
    def call_a_slow_service() -> None:
        assert reported.event.wait(LONG)

    async def block(request: Request) -> None:
        call_a_slow_service()
        reconciled.set()

    manager = Manager(client)
    reconciled = asyncio.Event()
    manager.add_controller(RecordingReconciler(block), resource="v1/ConfigMap")
    async with manager.running():
        (watchdog,) = threads()
        await client.create(config_map("a"))
        async with asyncio.timeout(LONG):
            await reconciled.wait()
        _, body = manager.metrics.render()
        assert "reconciler_event_loop_blocked_total 1.0" in body.decode()
    (line,) = reported.lines
    assert "blocked for more than 1 s by" in line
    assert "test_event_loop.py:" in line
    assert "call_a_slow_service), which called" in line
    assert "threading.py" in line
    assert "in the task 'reconcile configmap default/a'" in line
    assert "asyncio.to_thread" in line
    watchdog.join(LONG)
    assert not watchdog.is_alive()


@pytest.mark.virtual_time
async def test_there_is_no_thread_under_virtual_time(client: Client) -> None:
    async with Manager(client).running():
        assert threads() == []


async def test_same_line_is_logged_once_and_counted_each_time(reported: Reported) -> None:
    counters = EventLoopCounters()
    watchdog = BlockedLoopWatchdog(SystemClock(), counters)
    watchdog.start()
    async with asyncio.timeout(LONG):
        while counters.blocked < 2:
            before = counters.blocked
            while counters.blocked == before:  # blocks until it is noticed
                pass
            await asyncio.sleep(2 * event_loop.INTERVAL)
    watchdog.stop()
    assert len(reported.lines) == 1


def test_loop_that_does_not_run_is_not_blocked(reported: Reported) -> None:
    """As between the steps of a test, or in a notebook."""
    loop = asyncio.new_event_loop()
    watchdog = BlockedLoopWatchdog(SystemClock(), EventLoopCounters())

    async def start() -> None:
        watchdog.start()

    loop.run_until_complete(start())
    (thread,) = threads()
    assert not reported.event.wait(event_loop.LIMIT + 3 * event_loop.INTERVAL)
    loop.close()
    thread.join(LONG)
    assert not thread.is_alive()


async def test_halt_in_a_debugger_is_not_reported(reported: Reported, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = EventLoopCounters()
    watchdog = BlockedLoopWatchdog(SystemClock(), counters)
    looked = threading.Event()
    report = watchdog._report

    def report_and_tell(*arguments: Any) -> None:
        report(*arguments)
        looked.set()

    monkeypatch.setattr(watchdog, "_report", report_and_tell)
    watchdog.start()
    debugger = pdb.Pdb(readrc=False)
    monkeypatch.setattr(debugger, "cmdloop", lambda: looked.wait(LONG))
    debugger._cmdloop()
    watchdog.stop()
    assert looked.is_set()
    assert reported.lines == []
    assert counters.blocked == 0


def test_loop_that_waits_for_events_is_told_from_code_that_blocks_in_a_selector() -> None:
    loop = asyncio.SelectorEventLoop()
    blocking, unblock = threading.Event(), socket.socketpair()

    def block() -> None:  # as subprocess does
        with selectors.DefaultSelector() as selector:
            selector.register(unblock[0], selectors.EVENT_READ)
            blocking.set()
            selector.select(LONG)
        loop.stop()

    def waits() -> bool:
        return event_loop._waits_for_events(sys._current_frames().get(thread.ident or 0))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert any(waits() or blocking.wait(0.01) for _ in range(1000))
    loop.call_soon_threadsafe(block)
    assert blocking.wait(LONG)
    assert not waits()
    unblock[1].send(b"x")
    thread.join(LONG)
    loop.close()
    for each in unblock:
        each.close()


def test_loop_that_waits_for_events_is_told_from_a_callback_that_blocks_in_native_code() -> None:
    loop = asyncio.SelectorEventLoop()
    started, lock = threading.Event(), threading.Lock()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    loop.call_soon(started.set)
    loop.call_soon(lock.acquire)  # in the same turn, so that the loop does not look for events in between
    with lock:
        thread.start()
        assert started.wait(LONG)
        looks = [event_loop._waits_for_events(sys._current_frames().get(thread.ident or 0)) for _ in range(10_000)]
    assert not any(looks)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LONG)
    loop.close()


def ticks(detector: BlockedLoopDetector, number: int, *, elapsed: float = 0.2, cpu: float = 0.0) -> int:
    return sum(detector.check(alive=False, elapsed=elapsed, cpu=cpu) for _ in range(number))


def test_block_is_reported_once_after_more_than_a_second() -> None:
    detector = BlockedLoopDetector()
    assert ticks(detector, 5, elapsed=0.2) == 0
    assert ticks(detector, 1) == 1
    assert ticks(detector, 100) == 0


def test_sign_of_life_ends_a_block() -> None:
    detector = BlockedLoopDetector()
    assert ticks(detector, 4) == 0
    detector.check(alive=True, elapsed=0.2, cpu=0.0)
    assert ticks(detector, 4) == 0
    assert ticks(detector, 2) == 1
    detector.check(alive=True, elapsed=0.2, cpu=0.0)
    assert ticks(detector, 6) == 1


def test_stopped_process_is_not_blocked() -> None:
    """After SIGSTOP and SIGCONT, or in a suspended machine, much time has passed and no CPU time."""
    assert ticks(BlockedLoopDetector(), 5, elapsed=600.0) == 0


def test_native_code_that_holds_the_interpreter_lock_is_noticed_when_it_is_done() -> None:
    assert ticks(BlockedLoopDetector(), 1, elapsed=6.0, cpu=5.9) == 1
