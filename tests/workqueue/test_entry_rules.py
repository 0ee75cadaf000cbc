"""One entry per key: in progress or not, ready or waiting, reasons, priority."""

from __future__ import annotations

import asyncio
import math

import pytest

from reconciler.workqueue import WorkQueue
from reconciler.workqueue.order import MAX_REASONS, STARVATION_LIMIT
from reconciler.workqueue.queue import InProgress

pytestmark = pytest.mark.virtual_time


async def take(queue: WorkQueue[str]) -> str:
    """Get a key that must be ready now."""
    async with asyncio.timeout(0):
        return await queue.get()


async def run(queue: WorkQueue[str]) -> str:
    """Get a key that must be ready now, and mark it done."""
    key = await take(queue)
    queue.done(key)
    return key


async def run_all(queue: WorkQueue[str]) -> list[str]:
    return [await run(queue) for _ in range(len(queue))]


async def nothing_to_take(queue: WorkQueue[str]) -> bool:
    try:
        async with asyncio.timeout(0):
            await queue.get()
    except TimeoutError:
        return True
    return False


# Exclusivity


async def test_a_key_in_progress_is_not_returned_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await take(queue) == "a"
    queue.add("a")
    assert await nothing_to_take(queue)


async def test_other_keys_overtake_a_key_in_progress() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", priority=10)
    queue.add("b")
    assert await take(queue) == "b"


async def test_added_while_in_progress_is_processed_once_more_after_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a")
    queue.add("a")
    queue.done("a")
    assert await run(queue) == "a"
    assert await nothing_to_take(queue)


async def test_added_while_in_progress_goes_to_the_tail() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a")
    queue.add("b")
    queue.done("a")
    assert await run_all(queue) == ["b", "a"]


async def test_a_waiting_worker_gets_the_key_that_was_added_while_in_progress() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    waiting = asyncio.create_task(queue.get())
    queue.add("a")
    await asyncio.sleep(1)
    assert not waiting.done()
    queue.done("a")
    assert await waiting == "a"


async def test_done_of_a_key_that_is_not_in_progress_is_an_error() -> None:
    queue: WorkQueue[str] = WorkQueue()
    with pytest.raises(ValueError, match="'a' is not in progress"):
        queue.done("a")
    queue.add("a")
    with pytest.raises(ValueError, match="'a' is not in progress"):
        queue.done("a")
    assert len(queue) == 1


async def test_item_always_marks_the_key_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")

    async def fail() -> None:
        async with queue.item() as key:
            assert queue.in_progress(key) is not None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert queue.in_progress("a") is None
    queue.add("a")
    assert await run(queue) == "a"


# Several adds, order


async def test_several_adds_are_processed_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a")
    assert len(queue) == 1
    assert await run_all(queue) == ["a"]


async def test_first_in_first_out() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "cabac":
        queue.add(key)
    assert await run_all(queue) == ["c", "a", "b"]


async def test_a_processed_key_leaves_nothing_behind() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="x", priority=5)
    await run(queue)
    queue.add("a")
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset(), 0, asyncio.get_running_loop().time())
    queue.done("a")
    assert queue.keys() == []


# Timers


async def test_a_delay_makes_ready_at_its_time() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=1.5)
    assert len(queue) == 0
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() == 1.5


async def test_a_delay_keeps_the_earlier_of_two_times() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("later first", after=20)
    queue.add("later first", after=10)
    queue.add("later last", after=11)
    queue.add("later last", after=30)
    loop = asyncio.get_running_loop()
    assert [(await queue.get(), loop.time()) for _ in range(2)] == [("later first", 10), ("later last", 11)]
    queue.done("later first")
    queue.done("later last")
    await asyncio.sleep(100)
    assert len(queue) == 0


async def test_a_plain_add_makes_ready_and_drops_the_timer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=10)
    queue.add("a")
    assert await run(queue) == "a"
    await asyncio.sleep(100)
    assert len(queue) == 0


async def test_a_delay_on_a_ready_key_changes_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("a", after=10)
    assert await run_all(queue) == ["a", "b"]
    await asyncio.sleep(100)
    assert len(queue) == 0


async def test_a_delay_while_in_progress_counts_from_the_add() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", after=10)
    await asyncio.sleep(4)
    queue.done("a")
    assert len(queue) == 0
    await queue.get()
    assert asyncio.get_running_loop().time() == 10


async def test_a_timer_that_expires_while_in_progress_is_processed_once_more_after_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", after=1)
    await asyncio.sleep(5)
    assert await nothing_to_take(queue)
    queue.done("a")
    assert await run(queue) == "a"


async def test_processing_clears_an_earlier_timer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=10)
    queue.add("a")
    await take(queue)
    queue.add("a", after=300)
    queue.done("a")
    await asyncio.sleep(299)
    assert len(queue) == 0
    await asyncio.sleep(1)
    assert len(queue) == 1


@pytest.mark.parametrize("after", [0, 0.0, -1])
async def test_no_delay_is_now(after: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=100)
    queue.add("a", after=after)
    assert await run(queue) == "a"


@pytest.mark.parametrize("after", [math.nan, math.inf, -math.inf])
async def test_a_delay_must_be_finite(after: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    with pytest.raises(ValueError, match="after must be seconds, a timedelta or a text"):
        queue.add("a", after=after)
    with pytest.raises(ValueError, match="after must be seconds, a timedelta or a text"):
        queue.add_threadsafe("a", after=after)
    assert queue.keys() == []


async def test_waiting_keys_become_ready_in_the_order_of_their_times() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key, after in {"c": 3, "a": 1, "b": 2}.items():
        queue.add(key, after=after)
    await asyncio.sleep(5)
    assert await run_all(queue) == ["a", "b", "c"]


async def test_more_timers_than_one_turn_processes_all_fire() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for key in range(2500):
        queue.add(key, after=1)
    await asyncio.sleep(2)
    assert len(queue) == 2500


async def test_a_very_long_delay_is_kept() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=30 * 86_400)
    await queue.get()
    assert asyncio.get_running_loop().time() == 30 * 86_400


async def test_the_loop_has_one_timer_for_any_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    armed: list[asyncio.TimerHandle] = []
    call_at = loop.call_at

    def counting(*args, **kwargs):
        armed.append(call_at(*args, **kwargs))
        return armed[-1]

    monkeypatch.setattr(loop, "call_at", counting)
    queue: WorkQueue[int] = WorkQueue()
    for key in range(1000):
        queue.add(key, after=1000 - key)
    for key in range(1000, 2000):
        queue.add(key, after=2000)
    assert len(armed) == 1000, "a later time does not touch the timer"
    assert [handle.cancelled() for handle in armed].count(False) == 1


# Reasons


async def test_a_key_in_progress_has_all_its_reasons() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="timer")
    queue.add("a", reason="event", priority=3)
    queue.add("a", after=1, reason="resync")
    queue.add("a")
    assert queue.reasons("a") == {"timer", "event", "resync"}
    await asyncio.sleep(2)
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"timer", "event", "resync"}), 3, 2.0)
    assert queue.reasons("a") == frozenset()


async def test_an_add_without_delay_after_the_timer_made_the_key_ready_as_well() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=5, reason="enqueue")
    await asyncio.sleep(6)
    queue.add("a", after=5, reason="enqueue")  # its processing covers this one
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"enqueue"}), 0, 6.0, by_timer=True)
    queue.add("a", after=1, reason="enqueue")
    await asyncio.sleep(2)
    queue.add("a", reason="enqueue")
    queue.done("a")
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"enqueue"}), 0, 8.0)


async def test_a_timer_that_has_not_ended_is_not_a_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=3600, reason="period")
    queue.add("a", after=5, reason="retry")
    assert (queue.reasons("a"), queue.explain("a").next_reasons) == ({"period", "retry"}, {"retry"})
    await queue.get()
    assert queue.in_progress("a") == InProgress("a", frozenset({"retry"}), 0, 5.0, by_timer=True)
    queue.done("a")

    queue.add("a", after=3600, reason="period")
    queue.add("a", reason="event")
    assert queue.explain("a").next_reasons == {"event"}
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"event"}), 0, 5.0)
    queue.done("a")
    assert queue.keys() == [], "the timer was replaced"


async def test_a_timer_that_ends_while_the_key_is_ready_is_a_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=5, reason="period")
    queue.add("a", reason="event")
    queue.add("a", after=60, reason="retry")
    await asyncio.sleep(10)
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"event", "period"}), 0, 10.0)


@pytest.mark.parametrize("first", [None, 60])
async def test_a_reason_given_with_and_without_a_delay_is_due(first: float | None) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    for after in (first, None if first else 60):
        queue.add("a", after=after, reason="period")
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"event", "period"}), 0, 0.0)


async def test_a_timer_brought_forward_by_an_add_that_was_retracted_is_the_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=60, reason="period")
    queue.add("a", reason="event")
    queue.retract("a", "event")
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset({"period"}), 0, 0.0)


@pytest.mark.parametrize(("again", "reasons"), [(60, {"event"}), (5, {"event", "period"})])
async def test_a_reason_added_again_after_a_retract_has_its_new_time(again: float, reasons: set[str]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    queue.add("a", after=10, reason="period")
    assert queue.retract("a", "period")
    queue.add("a", after=again, reason="period")
    await asyncio.sleep(20)
    await take(queue)
    assert queue.in_progress("a") == InProgress("a", frozenset(reasons), 0, 20.0)


async def test_reasons_while_in_progress_belong_to_the_next_processing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="first")
    await take(queue)
    queue.add("a", reason="second")
    assert queue.reasons("a") == {"second"}
    assert queue.in_progress("a") == InProgress("a", frozenset({"first"}), 0, 0.0)


async def test_retract_of_the_last_reason_removes_the_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    queue.add("b")
    assert queue.retract("a", "event")
    assert queue.keys() == ["b"]
    assert await run_all(queue) == ["b"]


async def test_retract_keeps_a_key_with_another_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    queue.add("a", reason="owned")
    queue.add("a", reason="channel")
    assert queue.retract("a", "event")
    assert queue.retract("a", "owned")
    assert await run_all(queue) == ["a"]


async def test_retract_keeps_an_add_without_a_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    queue.add("a")
    queue.retract("a", "event")
    assert queue.reasons("a") == frozenset()
    assert len(queue) == 1
    assert queue.retract("a", "")
    assert len(queue) == 0


async def test_retract_for_a_key_in_progress_drops_the_next_processing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    await take(queue)
    queue.add("a", reason="echo")
    assert queue.retract("a", "echo")
    queue.done("a")
    assert await nothing_to_take(queue)
    assert queue.keys() == []


async def test_retract_for_a_key_in_progress_keeps_other_reasons() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", reason="echo")
    queue.add("a", reason="foreign")
    queue.retract("a", "echo")
    queue.done("a")
    assert await run(queue) == "a"


async def test_a_delay_set_after_a_retract_holds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a", reason="echo")
    queue.retract("a", "echo")
    queue.add("a", after=30, reason="requeue")
    queue.done("a")
    await queue.get()
    assert asyncio.get_running_loop().time() == 30


async def test_retract_removes_a_timer_without_another_reason() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=1, reason="resync")
    assert queue.retract("a", "resync")
    await asyncio.sleep(5)
    assert len(queue) == 0
    assert queue.keys() == []


async def test_a_delayed_reason_on_a_ready_key_is_not_lost_by_a_retract() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="event")
    queue.add("a", after=10, reason="requeue")
    queue.retract("a", "event")
    assert await run(queue) == "a"


async def test_retract_of_an_unknown_reason_changes_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert not queue.retract("a", "event")
    queue.add("a", reason="one")
    assert not queue.retract("a", "event")
    queue.add("a", reason="two")
    assert not queue.retract("a", "event")
    assert await take(queue) == "a"
    assert not queue.retract("a", "one")
    assert queue.in_progress("a") is not None


async def test_reasons_beyond_the_limit_still_keep_the_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(MAX_REASONS + 10):
        queue.add("a", reason=str(number))
    assert len(queue.reasons("a")) == MAX_REASONS
    for number in range(MAX_REASONS + 10):
        queue.retract("a", str(number))
    assert await run(queue) == "a"


# Priority


async def test_higher_priorities_go_first_and_each_is_first_in_first_out() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key, priority in {"a": 0, "b": 10, "c": -100, "d": 10, "e": 0}.items():
        queue.add(key, priority=priority)
    assert await run_all(queue) == ["b", "d", "a", "e", "c"]


async def test_a_priority_only_rises_and_a_raised_key_goes_last_in_its_new_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b", priority=5)
    queue.add("a", priority=5)
    queue.add("b", priority=1)
    assert await run_all(queue) == ["b", "a"]


async def test_the_same_priority_keeps_the_place() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=1)
    queue.add("b", priority=1)
    queue.add("a", priority=1)
    assert await run_all(queue) == ["a", "b"]


async def test_a_delayed_add_raises_a_ready_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("b", after=10, priority=1)
    assert await run_all(queue) == ["b", "a"]


async def test_a_waiting_key_becomes_ready_with_its_highest_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=1, priority=1)
    queue.add("a", after=5, priority=7)
    queue.add("b", priority=5)
    await asyncio.sleep(2)
    assert await run_all(queue) == ["a", "b"]


async def test_a_priority_applies_to_one_processing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=10)
    await take(queue)
    queue.add("a", priority=-5)
    queue.add("b")
    queue.done("a")
    assert await run_all(queue) == ["b", "a"]


async def test_a_key_in_progress_is_raised_for_its_next_processing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await take(queue)
    queue.add("a")
    queue.add("b")
    queue.add("a", priority=1)
    queue.done("a")
    assert await run_all(queue) == ["a", "b"]


async def test_retracted_and_added_again_starts_at_the_tail_with_its_own_priority() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="x", priority=3)
    queue.add("b")
    queue.retract("a", "x")
    queue.add("a")
    assert await run_all(queue) == ["b", "a"]


async def test_a_low_priority_does_not_starve() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("high", priority=1)
    queue.add("low")
    order = []
    for _ in range(STARVATION_LIMIT + 2):
        key = await take(queue)
        order.append(key)
        if key == "high":
            queue.add("high", priority=1)
        queue.done(key)
    assert order.index("low") == STARVATION_LIMIT
    assert order.count("high") == STARVATION_LIMIT + 1


@pytest.mark.parametrize("patient", ["middle", "low"])
async def test_no_priority_starves_beside_two_busy_ones(patient: str) -> None:
    priorities = {"high": 1, "middle": 0, "low": -1}
    queue: WorkQueue[str] = WorkQueue()
    for key, priority in priorities.items():
        queue.add(key, priority=priority)
    seen = set()
    for _ in range(2 * STARVATION_LIMIT + 2):
        key = await take(queue)
        seen.add(key)
        if key != patient:
            queue.add(key, priority=priorities[key])
        queue.done(key)
    assert seen == {"high", "middle", "low"}


async def test_starvation_limit_counts_only_while_a_lower_priority_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(2 * STARVATION_LIMIT):
        queue.add("high", priority=1)
        await run(queue)
    queue.add("low")
    queue.add("high", priority=1)
    assert await run(queue) == "high"
    assert await run(queue) == "low"


# Groups that take turns


def fair(*keys: str, **priorities: int) -> WorkQueue[str]:
    queue: WorkQueue[str] = WorkQueue(fair_by=lambda key: key[0])
    for key in keys:
        queue.add(key, priority=priorities.get(key, 0))
    return queue


async def test_groups_take_turns_and_each_is_first_in_first_out() -> None:
    queue = fair("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert [await queue.get() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_priority_counts_within_its_group_and_gains_nothing_over_others() -> None:
    queue = fair("a1", "a2", "a3", "b1", "b2", a2=100, a3=100, b1=-100)
    assert [await queue.get() for _ in range(5)] == ["a2", "b2", "a3", "b1", "a1"]


async def test_a_new_group_does_not_wait_for_a_thousand_keys_of_another() -> None:
    queue = fair(*(f"a{number}" for number in range(1000)))
    queue.done(await queue.get())
    queue.add("b")
    queue.add("a0")
    assert {await queue.get(), await queue.get()} == {"a1", "b"}


async def test_a_group_gains_nothing_by_adding_one_key_at_a_time() -> None:
    queue = fair(*(f"a{number}" for number in range(10)))
    order = []
    for _ in range(10):
        queue.add("b")
        key = await queue.get()
        order.append(key[0])
        queue.done(key)
    assert order == ["a", "b"] * 5


async def test_empty_groups_leave_nothing_behind() -> None:
    queue = fair(*(f"{chr(97 + number % 20)}{number}" for number in range(100)))
    queue.retract("a0", "")
    while len(queue):
        queue.done(await queue.get())
    assert queue.statistics().ready_by_priority == {}
    assert len(queue._order._groups) == 0  # type: ignore[union-attr]


# Arguments that cannot be used


@pytest.mark.parametrize("priority", ["high", None, 1.5, math.nan])
async def test_a_priority_that_is_not_an_integer_is_refused_and_changes_nothing(priority: object) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    for add in (queue.add, queue.add_threadsafe, queue.add_rate_limited):
        with pytest.raises(TypeError, match="priority must be an integer, not"):
            add("b", priority=priority)  # type: ignore[operator]
    queue.add_threadsafe("c")
    await asyncio.sleep(0)
    assert await run_all(queue) == ["a", "c"]


@pytest.mark.parametrize("after", [None, 1.0], ids=["ready", "waiting"])
async def test_a_key_whose_group_cannot_be_found_is_not_lost(after: float | None, caplog) -> None:
    groups = {"a": 1, "c": []}  # b is missing, and a list cannot be a group
    queue: WorkQueue[str] = WorkQueue(fair_by=lambda key: groups[key])
    for key in ("a", "b", "c"):
        queue.add(key, after=after)
    await asyncio.sleep(2)
    assert sorted(await run_all(queue)) == ["a", "b", "c"]
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1
    assert "fair_by failed on b, which is in the group None now: KeyError: 'b'" in caplog.text


def test_groups_of_a_coroutine_function_are_refused() -> None:
    async def group_of(key: str) -> str:
        return key

    with pytest.raises(TypeError, match="fair_by must be a plain function"):
        WorkQueue(fair_by=group_of)


async def test_a_group_may_change_while_its_key_is_ready() -> None:
    group = "before"
    queue: WorkQueue[str] = WorkQueue(fair_by=lambda _: group)
    for key in ("a", "b"):
        queue.add(key, reason="added")
    group = "after"
    queue.add("a", priority=1)
    assert queue.retract("b", "added")
    assert await run_all(queue) == ["a"]
