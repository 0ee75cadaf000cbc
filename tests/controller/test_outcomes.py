"""The table of outcomes: the state of a key after its reconcile."""

from __future__ import annotations

import asyncio
import logging
import uuid

import pytest

from reconciler.controller import Result
from reconciler.controller.reconcile.cycle import ReconcileRun
from reconciler.errors import TerminalError
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff
from tests.controller.conftest import KeyReconciler, Widget, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


def failing(*errors: BaseException | None):
    """Return a body that raises one of these per reconcile; None returns; afterwards it succeeds."""
    left = list(errors)

    async def body(reconciler, request):
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return body


async def started(world: World, body=None, **options):
    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget, **options)
    return reconciler, controller


async def test_none_waits_for_the_next_event(world: World) -> None:
    reconciler, controller = await started(world)
    await world.widget()
    await quiet(3600)
    assert len(reconciler.runs) == 1
    assert controller.statistics().results == {"success": 1}
    assert not controller.queue.keys()


async def test_error_backs_off_exponentially(world: World) -> None:
    reconciler, controller = await started(
        world, failing(*[RuntimeError("no")] * 5), rate_limiter=ExponentialBackoff(1, 1000)
    )
    controller.enqueue(KEY)
    await quiet(100)
    assert reconciler.times == [0, 1, 3, 7, 15, 31]
    assert controller.queue.retries(KEY) == 0
    assert controller.statistics().results == {"error": 5, "success": 1}


async def test_attempt_counts_failures_in_a_row(world: World) -> None:
    attempts = []

    async def body(reconciler, request):
        attempts.append((reconciler.run.attempt, sorted(reconciler.run.reasons)))
        if len(attempts) < 3:
            raise RuntimeError("no")

    _, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet()
    controller.enqueue(KEY)
    await quiet()
    assert attempts == [(0, ["enqueue"]), (1, ["retry"]), (2, ["retry"]), (0, ["enqueue"])]


async def test_event_during_backoff_is_reconciled_at_once_and_keeps_the_failures(world: World) -> None:
    reconciler, controller = await started(
        world, failing(*[RuntimeError("no")] * 2), rate_limiter=ExponentialBackoff(10, 1000)
    )
    controller.enqueue(KEY)
    await quiet(1)
    controller.enqueue(KEY)
    await quiet(100)
    assert reconciler.times == [0, 1, 21]


async def test_terminal_error_is_not_retried_and_forgotten(world: World) -> None:
    reconciler, controller = await started(world, failing(RuntimeError("no"), TerminalError("never")))
    controller.enqueue(KEY)
    await quiet(3600)
    assert len(reconciler.runs) == 2
    assert controller.queue.retries(KEY) == 0
    assert controller.statistics().terminal_errors == 1


async def test_group_of_terminal_errors_is_terminal_and_a_mixed_one_is_not(world: World) -> None:
    reconciler, controller = await started(
        world,
        failing(
            ExceptionGroup("mixed", [TerminalError("never"), OSError("perhaps")]),
            ExceptionGroup("all", [TerminalError("never")]),
        ),
    )
    controller.enqueue(KEY)
    await quiet(3600)
    assert len(reconciler.runs) == 2
    assert controller.statistics().terminal_errors == 1


async def test_requeue_after_forgets_failures_and_sets_the_timer(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            raise RuntimeError("no")
        return Result(requeue_after=10)

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(25)
    assert reconciler.times == [0, 0.005, 10.005, 20.005]
    assert controller.queue.retries(KEY) == 0
    assert controller.statistics().results == {"error": 1, "requeue_after": 3}


async def test_again_reconciles_once_more_after_ready_keys(world: World) -> None:
    async def body(reconciler, request):
        if request.name == "a" and len(reconciler.runs) == 1:
            return Result(again=True)
        return None

    reconciler, controller = await started(world, body)
    for name in "ab":
        controller.enqueue(Request(name, "ns"))
    await quiet()
    assert reconciler.keys == ["ns/a", "ns/b", "ns/a"]
    assert reconciler.runs[2][2] == {"again"}
    assert controller.statistics().results["requeue"] == 1


async def test_error_leaves_the_timer_of_the_outcome_before(world: World) -> None:
    """The backoff is much longer than the rest of the timer; the timer still fires."""

    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            return Result(requeue_after=10)
        if len(reconciler.runs) == 2:
            raise RuntimeError("no")
        return None

    reconciler, controller = await started(world, body, rate_limiter=ExponentialBackoff(500, 1000))
    controller.enqueue(KEY)
    await quiet(4)
    controller.enqueue(KEY)
    await quiet(1000)
    assert reconciler.times == [0, 4, 10]


class Refused(TerminalError):
    """An error of user code."""


def nested() -> Exception:
    return ExceptionGroup("all", [TerminalError("never"), ExceptionGroup("inner", [Refused("no")])])


@pytest.mark.parametrize("error", [TerminalError("never"), Refused("no"), nested()])
async def test_terminal_error_clears_the_timer_of_the_outcome_before(world: World, error: Exception) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            return Result(requeue_after=10)
        if len(reconciler.runs) == 2:
            raise error
        return None

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(4)
    controller.enqueue(KEY)
    await quiet(1000)
    assert reconciler.times == [0, 4]
    assert not controller.queue.keys()


async def test_terminal_error_clears_the_timer_that_an_error_left(world: World) -> None:
    """The timer of the first outcome and the backoff of the second; the failures are forgotten as well."""

    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            return Result(requeue_after=100)
        if len(reconciler.runs) == 2:
            raise RuntimeError("perhaps")
        raise TerminalError("never")

    reconciler, controller = await started(world, body, rate_limiter=ExponentialBackoff(500, 1000))
    for _ in range(3):
        controller.enqueue(KEY)
        await quiet(4)
    await quiet(2000)
    assert reconciler.times == [0, 4, 8]
    assert controller.queue.retries(KEY) == 0


async def test_terminal_error_keeps_what_others_enqueued_during_the_reconcile(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            return Result(requeue_after=10)
        if len(reconciler.runs) == 2:
            controller.enqueue(request, "somebody", after=60)
            raise TerminalError("never")
        return None

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(4)
    controller.enqueue(KEY)
    await quiet(1000)
    assert reconciler.times == [0, 4, 64]
    assert reconciler.runs[-1][2] == {"enqueue: somebody"}


async def test_error_that_was_raised_from_a_terminal_one_is_retried(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            raise RuntimeError("perhaps") from TerminalError("never")

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(1000)
    assert len(reconciler.runs) == 2


async def test_terminal_error_of_a_nested_task_is_terminal(world: World) -> None:
    async def refuse() -> None:
        raise TerminalError("never")

    async def body(reconciler, request):
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())
            group.create_task(asyncio.sleep(100))

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(1000)
    assert len(reconciler.runs) == 1
    assert controller.statistics().terminal_errors == 1


async def test_success_clears_the_timer_of_the_outcome_before(world: World) -> None:
    async def body(reconciler, request):
        return Result(requeue_after=10) if len(reconciler.runs) == 1 else None

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet(4)
    controller.enqueue(KEY)
    await quiet(1000)
    assert reconciler.times == [0, 4]


async def test_cleared_timer_does_not_come_back_with_a_later_error(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            return Result(requeue_after=100)
        if len(reconciler.runs) == 3:
            raise RuntimeError("no")
        return None

    reconciler, controller = await started(world, body, rate_limiter=ExponentialBackoff(500, 1000))
    for _ in range(3):
        controller.enqueue(KEY)
        await quiet(10)
    await quiet(1000)
    assert reconciler.times == [0, 10, 20, 520]


async def test_priority_is_kept_through_errors_and_replaced_by_the_result(world: World) -> None:
    priorities = []

    async def body(reconciler, request):
        priorities.append(reconciler.run.priority)
        if len(priorities) == 1:
            raise RuntimeError("no")
        return Result(again=True, priority=7) if len(priorities) == 2 else None

    _, controller = await started(world, body)
    controller.enqueue(KEY, priority=3)
    await quiet()
    assert priorities == [3, 3, 7]


async def test_timeout_cancels_and_counts_as_an_error(world: World) -> None:
    ends = []

    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            try:
                await asyncio.sleep(100)
            finally:
                ends.append(asyncio.get_running_loop().time())

    reconciler, controller = await started(world, body, timeout=5)
    controller.enqueue(KEY)
    await quiet(100)
    assert ends == [5]
    assert reconciler.times == [0, 5.005]
    statistics = controller.statistics()
    assert (statistics.timeouts, statistics.results["error"]) == (1, 1)


async def test_timeout_that_the_body_suppresses_still_counts(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                return Result(requeue_after=1)
        return None

    _, controller = await started(world, body, timeout=5)
    controller.enqueue(KEY)
    await quiet(100)
    assert controller.statistics().timeouts == 1


async def test_the_bodys_own_timeout_is_a_plain_error(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            async with asyncio.timeout(1):
                await asyncio.sleep(100)

    _, controller = await started(world, body, timeout=5)
    controller.enqueue(KEY)
    await quiet(100)
    statistics = controller.statistics()
    assert (statistics.timeouts, statistics.results["error"]) == (0, 1)


async def test_awaiting_a_cancelled_task_does_not_end_the_worker(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            task = asyncio.create_task(asyncio.sleep(100))
            task.cancel()
            await task

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet()
    assert len(reconciler.runs) == 2
    statistics = controller.statistics()
    assert (statistics.results, statistics.panics) == ({"error": 1, "success": 1}, 1)


class Strange(BaseException):
    """A BaseException, like that of `pytest.fail`; SystemExit would end the loop."""


async def test_what_is_no_exception_ends_the_worker_and_is_raised(world: World) -> None:
    _, controller = await started(world, failing(Strange("odd")))
    controller.enqueue(KEY)
    with pytest.raises(Strange, match="odd"):
        await controller.finished()
    assert controller.queue.in_progress(KEY) is None
    assert controller.statistics().results == {}


async def test_reconcile_that_cancels_its_own_task_does_not_end_the_worker(world: World) -> None:
    async def body(reconciler, request):
        if len(reconciler.runs) == 1:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    reconciler, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet()
    assert len(reconciler.runs) == 2
    assert controller.statistics().results == {"error": 1, "success": 1}


async def test_invalid_return_value_is_an_error(world: World, caplog) -> None:
    async def body(reconciler, request):
        return {"requeue": True} if len(reconciler.runs) == 1 else None

    _, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet()
    assert controller.statistics().results["error"] == 1
    assert "must return None or a Result, not dict" in caplog.text


async def test_log_records_carry_id_reasons_and_attempt(world: World, caplog) -> None:
    ids = []

    async def body(reconciler, request):
        ids.append(reconciler.run.reconcile_id)
        if len(ids) == 1:
            raise RuntimeError("no")

    caplog.set_level(logging.DEBUG, "reconciler.controller")
    _, controller = await started(world, body)
    controller.enqueue(KEY)
    await quiet()
    failed = next(record for record in caplog.records if record.levelno == logging.ERROR)
    passed = next(record for record in caplog.records if "reconciled in" in record.message)
    assert failed.reconcile_id == ids[0] != ids[1] == passed.reconcile_id
    assert (failed.reasons, failed.attempt, failed.controller) == (["enqueue"], 0, "widget")
    assert (passed.reasons, passed.attempt) == (["retry"], 1)
    assert (passed.object_name, passed.object_namespace) == ("w", "ns")


async def test_context_variables_of_a_reconcile_do_not_reach_the_next(world: World) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    async def body(reconciler, request):
        seen.append(variable.get())
        variable.set("dirty")

    _, controller = await started(world, body)
    for name in "ab":
        controller.enqueue(Request(name, "ns"))
    await quiet()
    assert seen == ["clean", "clean"]


def test_the_id_of_a_reconcile_is_a_random_uuid() -> None:
    ids = [ReconcileRun("widget", Request("w"), frozenset(), 0, 0).reconcile_id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(str(uuid.UUID(text)) == text, uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {
        (True, 4, uuid.RFC_4122)
    }
