"""Log lines of failed reconciles: each error once with its traceback, each key once, and then counts."""

from __future__ import annotations

import asyncio
import io
import logging
import tracemalloc
from collections.abc import Iterator

import pytest

from reconciler.clock import current_clock
from reconciler.controller.reconcile.cycle import ReconcileRun
from reconciler.controller.reconcile.reports import FailureLog
from reconciler.controller.result import Completion
from reconciler.errors import TerminalError
from reconciler.meta import Request
from reconciler.telemetry import TextFormatter
from tests.controller.conftest import KeyReconciler, Widget, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


def run_of(number: int) -> ReconcileRun:
    return ReconcileRun("widget", Request(f"w{number}", "ns"), frozenset(), 0, 0)


class Log(logging.StreamHandler[io.StringIO]):
    """The log as `reconciler run` writes it."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(TextFormatter())
        self.setLevel(logging.INFO)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def errors(self) -> list[str]:
        return [line.partition("] ")[2].partition(" reasons=")[0] for line in self.lines if " ERROR " in line]


@pytest.fixture
def log() -> Iterator[Log]:
    handler = Log()
    logger = logging.getLogger("reconciler.controller")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def broken_part(size: int) -> None:
    raise ValueError(f"size {size} is too large")


async def test_eleven_broken_objects_are_eleven_lines_and_one_traceback(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        broken_part(int(request.name[1:]))

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for number in range(11):
        controller.enqueue(Request(f"w{number}", "ns"))
    await quiet(4)
    assert controller.statistics().results["error"] > 100
    assert log.errors[3] == "widget failed on ns/w3 and is retried with backoff: ValueError: size 3 is too large"
    assert len(log.errors) == 11
    assert sum(line.startswith("Traceback") for line in log.lines) == 1
    assert len(log.lines) < 25
    assert "    broken_part(int(request.name[1:]))" in log.lines
    assert sum("/reconciler/" in line for line in log.lines if line.startswith("  File")) == 0


async def test_key_that_keeps_failing_is_counted_and_repeated_ever_more_rarely(world: World, log: Log) -> None:
    times = []

    async def body(reconciler: KeyReconciler, request: Request) -> None:
        times.append(asyncio.get_running_loop().time())
        broken_part(1)

    controller = await world.start(KeyReconciler(body), resource=Widget, rate_limiter=None)
    controller.enqueue(KEY)
    await quiet(3600)
    assert log.errors[0] == "widget failed on ns/w and is retried with backoff: ValueError: size 1 is too large"
    late = sum(time <= 10 for time in times)
    assert log.errors[1].startswith(f"widget failed again on ns/w ({late + 1} times, same error) and is retried")
    assert len(log.errors) < len(times)


async def test_traceback_comes_again_after_five_minutes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        raise TerminalError("invalid")

    controller = await world.start(KeyReconciler(body), resource=Widget)
    traced = []
    for minute in (0, 1, 4, 6, 7):
        await quiet(minute * 60 - asyncio.get_running_loop().time())
        caplog.clear()
        controller.enqueue(Request(f"w{minute}", "ns"))
        await asyncio.sleep(0.001)
        traced += [minute for record in caplog.records if record.exc_info]
    assert traced == [0, 6]


async def test_another_error_is_logged_at_once(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        runs = len(reconciler.runs)
        if runs == 3:
            raise OSError("no network")
        if runs < 6:
            broken_part(runs)

    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    await quiet(5)
    assert [line.rpartition("backoff: ")[2] for line in log.errors] == [
        "ValueError: size 1 is too large",
        "OSError: no network",
        "ValueError: size 4 is too large",
    ]
    assert sum(line.startswith("Traceback") for line in log.lines) == 2


async def test_success_ends_the_count(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        if len(reconciler.runs) != 2:
            raise TerminalError("invalid")

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for _ in range(3):
        controller.enqueue(KEY)
        await quiet(1)
    assert log.errors == ["widget failed on ns/w and is not retried: TerminalError: invalid"] * 2


async def test_same_text_raised_elsewhere_is_another_error(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        if request.name == "a":
            raise TerminalError("no")
        raise TerminalError("no")

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for name in "abab":
        controller.enqueue(Request(name, "ns"))
    await quiet(1)
    assert sum(line.startswith("Traceback") for line in log.lines) == 2


async def test_name_of_a_key_in_a_word_of_the_text_is_no_other_error(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        raise TerminalError(f"allocation of {request.name} and {request.name}_pool failed")

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for name in ("all", "fail", "loc", "w"):
        controller.enqueue(Request(name, "ns"))
    await quiet(1)
    assert len(log.errors) == 4
    assert sum(line.startswith("Traceback") for line in log.lines) == 1


def test_memory_of_a_failing_key_does_not_depend_on_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "reconciler.controller")  # its records would be measured as well

    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise TerminalError("no")

    try:
        fail(100)
    except TerminalError as raised:
        error, completion = raised, Completion(error=raised)
    log = FailureLog(clock=current_clock(), blocked=lambda key: False)
    for number in range(10):
        log.report(run_of(number), completion, error)
    runs = [run_of(number) for number in range(10, 510)]
    tracemalloc.start()
    for run in runs:
        log.report(run, completion, error)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(runs) < 1000, used / len(runs)


async def test_parts_of_a_group_and_causes_tell_errors_apart(world: World, log: Log) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        part = ValueError("no") if request.name == "a" else OSError("no")
        if request.name == "c":
            raise TerminalError("no") from part
        if request.name == "d":
            raise TerminalError("no") from ValueError("no")
        raise ExceptionGroup("parts", [part])

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for name in "abcd":
        controller.enqueue(Request(name, "ns"))
    await quiet(0.001)
    assert sum("Traceback" in line and "Group" in line for line in log.lines) == 2
    assert len(log.errors) == 4
    assert "retried with backoff: ExceptionGroup: parts (1 sub-exception): ValueError: no" in "".join(log.lines)


async def test_other_failures_are_in_the_debug_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def body(reconciler: KeyReconciler, request: Request) -> None:
        broken_part(1)

    caplog.set_level(logging.DEBUG, "reconciler.controller")
    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    await quiet(1)
    failures = [record for record in caplog.records if " failed " in record.getMessage()]
    assert len(failures) == controller.statistics().results["error"]
    assert [record.levelno for record in failures[:3]] == [logging.ERROR, logging.DEBUG, logging.DEBUG]
