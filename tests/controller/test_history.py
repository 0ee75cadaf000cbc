"""The history of a controller's reconciles, and the explanation of a key."""

from __future__ import annotations

import asyncio
import cProfile
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from reconciler.clock import SystemClock, current_clock
from reconciler.controller import Result, ensure_finalizer, generation_changed
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.reconcile.explanation import MAX_RUNS, KeyExplanation, RunHistory
from reconciler.controller.result import Completion
from reconciler.controller.wake.echo import EchoTracker
from reconciler.errors import TerminalError
from reconciler.meta import GroupVersionKind, Request
from reconciler.workqueue import ExponentialBackoff, TokenBucket
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


async def explain(world: World, body: Any = None, **options: Any) -> KeyExplanation:
    await world.widget()
    controller = await world.start(WidgetReconciler(body), **options)
    await quiet(5)
    return controller.explain(KEY)


async def test_an_idle_key_was_reconciled_for_its_event_and_waits_for_a_change(world: World) -> None:
    found = await explain(world)
    (run,) = found.runs
    assert (run.reasons, run.result, run.failure) == ({"event"}, "success", None)
    assert (run.writes, run.status_written, run.echoes, run.overtaken) == (1, True, 1, False)
    assert (found.state, found.exists, found.failures) == ("idle", True, 0)
    assert found.observed_version == found.cached_version
    assert found.waits_for == "a change of the object, or of an object that the controller watches for it"


async def test_a_reconcile_that_writes_nothing_says_so(world: World) -> None:
    async def again(*_: Any) -> Result:
        return Result(requeue_after=2)

    first, second, third = (await explain(world, again)).runs
    assert [run.status_written for run in (first, second, third)] == [True, False, False]
    assert (second.reasons, second.result, second.requeue_after) == ({"requeue_after"}, "requeue_after", 2)
    assert (second.started - first.started).total_seconds() == pytest.approx(2, abs=0.1)


async def test_a_finalizer_is_a_write_but_not_one_of_the_status(world: World) -> None:
    async def add(reconciler: Any, request: Request) -> None:
        obj = await reconciler.client.get(Widget, request.name, request.namespace)
        await ensure_finalizer(reconciler.client, Widget, obj, "example.com/clean")

    await world.widget()
    controller = await world.start(KeyReconciler(add), resource=Widget)
    await quiet()
    (run,) = controller.explain(KEY).runs
    assert (run.writes, run.status_written, run.echoes) == (1, False, 1)


async def test_a_failing_key_waits_for_its_backoff_and_says_where_it_failed(world: World) -> None:
    async def fail(*_: Any) -> None:
        raise LookupError("no disk\nof this size")

    found = await explain(world, fail, rate_limiter=ExponentialBackoff(3, 600))
    assert [run.reasons for run in found.runs] == [{"event"}, {"retry"}]
    assert (found.state, found.failures, found.next_reasons) == ("waiting", 2, {"retry"})
    assert found.due == pytest.approx(4, abs=0.1)
    assert found.waits_for == "the backoff after 2 failures in a row"
    failure, run = found.runs[-1].failure, found.runs[-1]
    assert failure is not None
    assert (failure.type, failure.message, failure.terminal) == ("LookupError", "no disk of this size", False)
    assert [frame.rpartition(" ")[2] for frame in failure.traceback] == ["reconcile_object", "fail"]
    assert failure.traceback[-1].startswith("controller/test_history.py:")
    assert len(run.reconcile_id or "") == 36


async def test_a_failing_key_waits_for_its_backoff_if_the_rate_limiter_does_not_count(world: World) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("no")

    found = await explain(world, fail, rate_limiter=TokenBucket(0.01, 1))
    assert found.waits_for == "the backoff after a failure"


async def test_a_further_step_waits_for_its_backoff(world: World) -> None:
    async def step(*_: Any) -> Result:
        return Result(again=True)

    found = await explain(world, step, rate_limiter=ExponentialBackoff(10, 10))
    assert (found.state, found.next_reasons, found.failures) == ("waiting", {"again"}, 0)
    assert found.waits_for == "the backoff between successive Result(again=True)"


async def test_a_terminal_error_is_remembered_and_waits_for_a_change(world: World) -> None:
    async def fail(*_: Any) -> None:
        raise TerminalError("size 3 is not supported")

    found = await explain(world, fail)
    assert (found.state, found.failures, len(found.runs)) == ("idle", 0, 1)
    assert "a TerminalError is not retried" in found.waits_for
    await quiet(1000)
    assert world.controllers[0].explain(KEY).runs[-1].failure == found.runs[-1].failure


async def test_a_timeout_is_a_failure(world: World) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.sleep(100)

    found = await explain(world, hang, timeout=1)
    assert found.runs[0].failure is not None
    assert (found.runs[0].failure.timed_out, found.runs[0].seconds) == (True, pytest.approx(1))


async def test_a_change_replaces_the_timer_and_the_timer_is_not_a_reason(world: World) -> None:
    async def later(*_: Any) -> Result:
        return Result(requeue_after=3600)

    assert (await explain(world, later)).waits_for == "the delay that a reconcile returned"
    await world.resize(2)
    await quiet()
    found = world.controllers[0].explain(KEY)
    assert [run.reasons for run in found.runs] == [{"event"}, {"event"}]
    assert (found.due, found.next_reasons) == (pytest.approx(3600, abs=2), {"requeue_after"})


async def test_a_key_in_steps_waits_for_the_backoff_between_them(world: World) -> None:
    async def step(*_: Any) -> Result:
        return Result(again=True)

    found = await explain(world, step, rate_limiter=ExponentialBackoff(60, 600))
    assert (len(found.runs), found.state, found.next_reasons, found.failures) == (2, "waiting", {"again"}, 0)
    assert found.waits_for == "the backoff between successive Result(again=True)"


async def test_a_backoff_that_ends_before_a_timer_is_the_only_reason(world: World) -> None:
    outcomes: list[Any] = [Result(requeue_after=3600), LookupError("no"), None]

    async def body(*_: Any) -> Any:
        if isinstance(outcome := outcomes.pop(0), Exception):
            raise outcome
        return outcome

    await explain(world, body)
    await world.resize(2)
    await quiet()
    found = world.controllers[0].explain(KEY)
    assert [run.reasons for run in found.runs] == [{"event"}, {"event"}, {"retry"}]


async def test_a_change_during_the_reconcile_is_recorded(world: World) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(1)

    await world.widget()
    controller = await world.start(WidgetReconciler(slow))
    await quiet(0.5)
    assert controller.explain(KEY).state == "in progress"
    assert controller.explain(KEY).current_reasons == {"event"}
    await world.resize(2)
    await quiet(5)
    assert [run.overtaken for run in controller.explain(KEY).runs] == [True, False]


async def test_a_change_that_a_predicate_filters_is_named(world: World) -> None:
    await explain(world, predicates=[generation_changed])
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"labels": {"a": "b"}}})
    await quiet()
    found = world.controllers[0].explain(KEY)
    assert found.waits_for.endswith(f"a predicate filtered the newest version, {found.cached_version}")


async def test_a_ready_key_waits_for_a_worker(world: World) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.sleep(100)

    await world.widget("a")
    await world.widget("w")
    controller = await world.start(WidgetReconciler(hang), workers=1)
    await quiet()
    assert controller.explain(KEY).waits_for == "a free worker (1 of 1 are busy; keys that are ready: 1)"
    assert str(controller.explain(KEY)).startswith("ns/w: ready; waits for a free worker")


async def test_explaining_a_ready_key_costs_the_same_with_many_groups(world: World) -> None:
    class Fair(WidgetReconciler):
        def fair_by(self, request: Request, /) -> str:
            return request.name

    async def hang(*_: Any) -> None:
        await asyncio.sleep(1000)

    def cost() -> int:
        profile = cProfile.Profile()
        profile.runcall(controller.explain, KEY)
        return int(sum(each.callcount for each in profile.getstats()))

    await world.widget("a")
    await world.widget("w")
    controller = await world.start(Fair(hang), workers=1)
    await quiet()
    cost()
    few = cost()
    for number in range(50):
        await world.widget(f"more-{number}")
    await quiet()
    assert len(controller.queue) == 51
    assert cost() <= few + 5


async def test_an_unknown_key_is_explained(world: World) -> None:
    await explain(world)
    found = world.controllers[0].explain(Request("other", "ns"))
    assert (found.state, found.exists, found.runs) == ("unknown", False, ())
    assert found.waits_for == "an object of this name: the cache of the controller has none"


async def test_a_reconcile_that_the_shutdown_cancelled_is_remembered(world: World) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.sleep(100)

    await explain(world, hang)
    await world.controllers[0].stop(grace=0)
    found = world.controllers[0].explain(KEY)
    assert (found.runs[-1].result, found.waits_for) == ("cancelled", "the next process: the controller is stopping")


async def test_the_latest_reconciles_of_a_key_are_kept(world: World) -> None:
    async def again(*_: Any) -> Result:
        return Result(requeue_after=1)

    await explain(world, again)
    await quiet(60)
    found = world.controllers[0].explain(KEY)
    assert len(found.runs) == MAX_RUNS
    assert (found.runs[-1].started - found.runs[0].started).total_seconds() == pytest.approx(MAX_RUNS - 1)


# What is not shown


async def test_values_that_the_server_rejects_are_not_in_the_message(world: World) -> None:
    async def reject(reconciler: Any, obj: Any, _: Any) -> None:
        await reconciler.client.patch(type(obj), obj.name, obj.namespace, patch={"spec": {"size": "hunter2"}})

    failure = (await explain(world, reject)).runs[-1].failure
    assert failure is not None
    assert failure.type == "Invalid"
    assert "spec.size" in failure.message
    assert "hunter2" not in repr(failure)


async def test_values_that_a_model_rejects_are_not_in_the_message(world: World) -> None:
    class Size(BaseModel):
        size: int

    async def reject(*_: Any) -> None:
        try:
            Size(size="hunter2")  # type: ignore[arg-type]
        except ValueError as error:
            raise RuntimeError(f"cannot read it: {error}") from error

    failure = (await explain(world, reject)).runs[-1].failure
    assert failure is not None
    assert failure.message == "cannot read it: Size is invalid: size: int_parsing"


# Bounds


def ended(name: str, *, writes: int = 0, seconds: float = 0.1, error: Exception | None = None) -> Reconcile:
    run = ReconcileRun("c", Request(name, "ns"), frozenset({"event"}), 0, 0)
    gvk = GroupVersionKind("example.com", "v1", "Widget")
    context = ReconcileContext(gvk, EchoTracker(), UnsavedStore(), asyncio.get_running_loop())
    reconcile = Reconcile(context, run)
    reconcile.writes, reconcile.completion = writes, Completion(error=error)
    reconcile.end(seconds)
    return reconcile


async def test_idle_keys_are_dropped_first_and_counted() -> None:
    history = RunHistory(lambda key: key.name == "0", current_clock(), capacity=100)
    for number in range(101):
        history.ended(ended(str(number)))
    assert len(history) == 90
    assert [len(history.runs(Request(name, "ns"))) for name in ("0", "1", "11", "12", "100")] == [1, 0, 0, 1, 1]
    assert history.dropped == 11


KEYS = st.one_of(st.integers(0, 4), st.integers(0, 60))


@given(
    steps=st.lists(st.tuples(KEYS, st.integers(0, 2), KEYS), min_size=60, max_size=300),
    pending=st.sets(KEYS, min_size=10),
)
async def test_what_is_dropped_mixes_nothing_up(steps: list[tuple[int, int, int]], pending: set[int]) -> None:
    history = RunHistory(lambda key: int(key.name) in pending, current_clock(), capacity=40)
    told: dict[int, list[int]] = {}  # of each key: the numbers of its reconciles
    echoes: Counter[int] = Counter()
    awaited: dict[int, int] = {}
    for number, (key, writes, echo) in enumerate(steps):
        history.ended(ended(str(key), writes=writes, seconds=float(number)))
        told.setdefault(key, []).append(number)
        if writes:
            awaited[key] = number
        history.echo(Request(str(echo), "ns"))
        if echo in awaited:
            echoes[awaited[echo]] += 1
            if echoes[awaited[echo]] == steps[awaited[echo]][1]:
                del awaited[echo]
    for key, numbers in told.items():
        kept = history.runs(Request(str(key), "ns"))
        assert [int(run.seconds) for run in kept] == numbers[len(numbers) - len(kept) :]
        assert [run.echoes for run in kept] == [echoes[int(run.seconds)] for run in kept]
    assert history.keys().keys() == {Request(str(key), "ns") for key in told if history.runs(Request(str(key), "ns"))}
    assert 20 <= len(history) <= 40 or len(steps) < 40


async def test_a_reconcile_began_at_one_time_until_the_clock_is_set() -> None:
    class Clock(SystemClock):
        ahead = timedelta()

        def now(self) -> datetime:
            return super().now() + self.ahead

    clock = Clock()
    history = RunHistory(lambda _: False, clock)
    history.ended(ended("w"))
    (started,) = {history.runs(KEY)[0].started for _ in range(1000)}
    clock.ahead = timedelta(hours=1)
    assert (history.runs(KEY)[0].started - started).total_seconds() == pytest.approx(3600, abs=1)


async def test_a_key_in_a_tight_loop_does_not_displace_others() -> None:
    history = RunHistory(lambda _: False, current_clock(), capacity=100)
    for name in ["quiet", *["busy"] * 1000]:
        history.ended(ended(name))
    assert len(history.runs(Request("quiet", "ns"))) == 1
    assert len(history.runs(Request("busy", "ns"))) == MAX_RUNS
    assert history.dropped == 0


async def test_pending_keys_are_bounded_as_well() -> None:
    history = RunHistory(lambda _: True, current_clock(), capacity=100)
    for number in range(1000):
        history.ended(ended(str(number), writes=1, error=LookupError(f"disk {number} " + "x" * 10_000)))
    assert len(history) <= 100
    (run,) = history.runs(Request("999", "ns"))
    assert run.failure is not None
    assert len(run.failure.message) == 500
    history.echo(Request("999", "ns"))
    history.echo(Request("0", "ns"))
    assert history.runs(Request("999", "ns"))[0].echoes == 1


async def test_keys_without_objects_have_a_history(world: World) -> None:
    controller = await world.start(KeyReconciler(), resource="v1/ConfigMap")
    controller.enqueue(Request("job"), "manual")
    await quiet()
    assert [run.reasons for run in controller.explain(Request("job")).runs] == [{"enqueue: manual"}]
