# ruff: noqa: PT012 - the block under test is what raises, at its end
"""The end of a block: after an exception, after a cancellation, and after a checkpoint."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import NotSent
from reconciler.status import (
    StatusBatcher,
    StatusConflict,
    StatusError,
    StatusNotOpen,
    StatusOutcomeUnknown,
    StatusRejected,
    StatusUnavailable,
)
from tests.status.scripted import ScriptedServer, api_error, lost, meanwhile, never_arrived, refused

pytestmark = pytest.mark.virtual_time


def batcher(server: ScriptedServer, **options: Any) -> StatusBatcher:
    return StatusBatcher(server.writer(), server.document(), **options)


async def test_an_attribute_is_not_a_status_field(server):
    async with batcher(server) as status:
        with pytest.raises(AttributeError, match="phase"):
            status.phase = "Ready"


# An exception in the block.


async def test_an_exception_in_the_block_is_raised_after_the_flush(server):
    with pytest.raises(ZeroDivisionError) as caught:
        async with batcher(server) as status:
            status.increment("total")
            raise ZeroDivisionError
    assert server.status == {"total": 1}
    assert status.written is True
    assert not hasattr(caught.value, "__notes__")
    assert status.failure is None


async def test_a_failed_flush_becomes_a_note_on_the_blocks_exception(server, caplog):
    server.on_write.append(refused(api_error(403, "Forbidden", "may not")))
    with pytest.raises(ZeroDivisionError) as caught:
        async with batcher(server) as status:
            status.increment("total")
            raise ZeroDivisionError
    assert "could not be written either" in caught.value.__notes__[0]
    assert "403 Forbidden" in caught.value.__notes__[0]
    assert "could not be written either" in caplog.text
    assert isinstance(status.failure, StatusRejected)


async def test_on_error_discard_writes_nothing_of_a_failing_block(server):
    with pytest.raises(ZeroDivisionError):
        async with batcher(server, on_error="discard") as status:
            status.increment("total")
            raise ZeroDivisionError
    assert server.writes == []
    async with batcher(server, on_error="discard") as status:
        status.increment("total")
    assert server.status == {"total": 1}


async def test_on_error_ledgers_writes_counters_lists_and_conditions_of_a_failing_block(server):
    server.status = {"old": 1}
    with pytest.raises(ZeroDivisionError):
        async with batcher(server, on_error="ledgers") as status:
            status.increment("total")
            status.set(phase="Half")
            status.append("log", 1)
            status.upsert("ledger", {"id": 1}, key="id")
            status.merge(sub={"a": 1})
            status.remove("old")
            status.set_condition("Ready", False, reason="Broken")
            raise ZeroDivisionError
    assert server.status.keys() == {"old", "total", "log", "ledger", "conditions"}


# Cancellation.


async def cancelled_in_the_block(server: ScriptedServer, times: int, **options: Any) -> StatusBatcher:
    status = batcher(server, **options)
    started = asyncio.Event()

    async def work() -> None:
        async with status:
            status.increment("total")
            started.set()
            await asyncio.sleep(1000)

    task = asyncio.create_task(work())
    await started.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await task
    return status


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_the_flush_is_shielded_from_repeated_cancellation(server, times):
    server.latency = 5.0
    status = await cancelled_in_the_block(server, times)
    assert server.status == {"total": 1}
    assert status.written is True


async def test_the_shield_is_bounded_in_time(server):
    server.latency = 100.0
    start = asyncio.get_running_loop().time()
    status = await cancelled_in_the_block(server, 2)
    assert asyncio.get_running_loop().time() - start == pytest.approx(10.0, abs=0.3)
    assert status.written is None
    assert status.statistics().failed == 1


async def test_cancellation_during_the_flush_waits_for_it_and_is_raised(server):
    server.latency = 5.0

    async def work() -> None:
        async with batcher(server) as status:
            status.increment("total")

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.status == {"total": 1}


async def test_a_flush_that_fails_during_cancellation_becomes_a_note(server):
    server.latency = 5.0
    server.on_write.append(refused(api_error(403, "Forbidden")))

    async def work() -> None:
        async with batcher(server) as status:
            status.increment("total")

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert "403" in caught.value.__notes__[0]


async def test_a_timeout_around_the_block_does_not_shorten_the_flush(server):
    server.latency = 3.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), batcher(server) as status:
            status.increment("total")
            await status.flush()
            pytest.fail("the timeout fired inside the flush and must not be lost")
    assert server.status == {"total": 1}


async def test_the_outcome_is_unknown_if_time_runs_out_during_a_request(server):
    server.latency = 100.0
    with pytest.raises(StatusOutcomeUnknown, match="no response came in time"):
        async with batcher(server, flush_timeout=2) as status:
            status.increment("total")


async def test_nothing_was_applied_if_time_runs_out_between_requests(server):
    error = api_error(429)
    error.retry_after = 1.5
    server.on_write.extend([refused(error)] * 9)
    with pytest.raises(StatusUnavailable, match="not written in time"):
        async with batcher(server, flush_timeout=2) as status:
            status.increment("total")
    assert server.status == {}


class Impatient:
    """A writer with its own timeout for each request, of one kind or another, like those of HTTP libraries."""

    def __init__(self, server: ScriptedServer, bounded: Any) -> None:
        self._writer: Any = server.writer()
        self._bounded = bounded
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def read(self) -> Any:
        return await self._writer.read()

    async def write(self, body: Any, **options: Any) -> Any:
        self.tries += 1
        return await self._bounded(self._writer.write(body, **options))


async def by_a_timeout(request: Any) -> Any:
    try:
        async with asyncio.timeout(0.1):
            return await request
    except TimeoutError:
        raise NotSent("the request took too long") from None


async def by_a_task_group(request: Any) -> Any:
    async def fail() -> None:
        await asyncio.sleep(0.1)
        raise NotSent("the request took too long")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            return await request
    except* NotSent:
        raise NotSent("the request took too long") from None


@pytest.mark.parametrize("bounded", [by_a_timeout, by_a_task_group])
async def test_a_writer_that_cancels_its_own_task_ends_the_request_but_not_the_flush(server, bounded):
    server.latency = 1.0
    writer = Impatient(server, bounded)
    with pytest.raises(StatusUnavailable):
        async with StatusBatcher(writer, server.document()) as status:
            status.increment("total")
    assert writer.tries == 5
    assert server.writes == []


async def test_a_flush_ends_in_time_although_its_requests_have_their_own_timeouts(server):
    server.latency = 1.0
    began = asyncio.get_running_loop().time()
    with pytest.raises(StatusError):
        async with StatusBatcher(Impatient(server, by_a_timeout), server.document(), flush_timeout=0.3) as status:
            status.increment("total")
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.3, abs=0.05)


async def test_flush_timeout_may_be_lowered_while_the_block_runs(server):
    server.latency = 100.0
    start = asyncio.get_running_loop().time()
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server) as status:
            status.increment("total")
            status.flush_timeout = 1.0
    assert 0.5 < asyncio.get_running_loop().time() - start <= 1.0


# Checkpoints.


async def test_a_checkpoint_writes_what_is_recorded_and_the_end_writes_the_rest(server):
    async with batcher(server) as status:
        status.set(phase="Sending")
        await status.flush()
        assert server.status == {"phase": "Sending"}
        assert status.written is True
        assert status.object["metadata"]["resourceVersion"] == "101"
        status.increment("total")
        assert status.current == {"phase": "Sending", "total": 1}
    assert server.status == {"phase": "Sending", "total": 1}
    assert [w[0]["metadata"]["resourceVersion"] for w in server.writes] == ["100", "101"]
    assert server.reads == 0
    assert status.statistics().flushes == 2


async def test_checkpoints_without_change_make_no_request(server):
    async with batcher(server) as status:
        await status.flush()
        status.set(phase="A")
        await status.flush()
        await status.flush()
        status.set(phase="A")
    assert len(server.writes) == 1


async def test_a_checkpoint_raises_on_a_conflict_instead_of_replaying(server):
    server.status = {"total": 1}
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(total=5))))
    async with batcher(server) as status:
        status.increment("total")
        with pytest.raises(StatusConflict, match="a checkpoint does not replay") as caught:
            await status.flush()
        assert [m.verb for m in caught.value.unsaved] == ["increment"]
        assert (len(server.writes), server.reads) == (1, 0)
        assert server.status == {"total": 5}
        assert status.current == {"total": 2}, "it stays recorded"
    assert server.status == {"total": 6}, "and the end of the block replays it"


async def test_what_a_checkpoint_left_recorded_is_not_recorded_twice(server):
    server.status = {"total": 1}
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(total=5))))
    async with batcher(server) as status:
        status.increment("total")
        try:
            await status.flush()
        except StatusConflict as error:
            status.record(*error.unsaved)
    assert server.status == {"total": 6}


def a_conflict(server):
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(theirs=1))))


@pytest.mark.parametrize(
    "trouble",
    [
        a_conflict,
        lambda s: s.on_write.append(refused(api_error(403))),
        lambda s: s.on_write.append(refused(api_error(401))),
        lambda s: s.on_write.append(refused(api_error(422))),
        lambda s: s.on_write.extend([refused(NotSent("connection refused"))] * 5),
    ],
)
async def test_a_failed_checkpoint_leaves_what_sibling_tasks_recorded(server, trouble):
    async with batcher(server) as status:

        async def sibling() -> None:
            async with batcher(server) as mine:
                assert mine.joined
                mine.increment("total")
                mine.append("log", "sibling")

        await asyncio.create_task(sibling())
        trouble(server)
        status.append("log", "caller")
        with pytest.raises(StatusError):
            await status.flush()
        status.append("log", "later")
    server.status.pop("theirs", None)
    assert server.status == {"total": 1, "log": ["sibling", "caller", "later"]}


@pytest.mark.parametrize("applied", [True, False])
async def test_with_a_token_a_checkpoint_without_response_stays_recorded_and_is_counted_once(server, applied):
    server.on_write.append(lost() if applied else never_arrived())
    server.on_read.extend([refused(api_error(503))] * 5)
    async with batcher(server, token="mark") as status:
        status.increment("total")
        with pytest.raises(StatusOutcomeUnknown):
            await status.flush()
        status.append("log", 1)
    del server.status["mark"]
    assert server.status == {"total": 1, "log": [1]}


async def at_most_once(server: ScriptedServer, status: StatusBatcher, attempt: int, sent: list[int]) -> None:
    """Record an intent, then act; docs/status-batcher.md has this pattern."""
    async with batcher(server, on_error="discard") as intent:
        intent.append("attempts", {"attempt": attempt, "result": "intended"}, key="attempt")
        intent.set(started=attempt)
        await intent.flush()
    sent.append(attempt)
    status.upsert("attempts", {"attempt": attempt, "result": "sent"}, key="attempt")


async def test_a_failed_intent_withdraws_itself_and_not_the_result_of_the_one_before(server):
    sent: list[int] = []
    with pytest.raises(StatusConflict):
        async with batcher(server) as status:
            await at_most_once(server, status, 1, sent)
            a_conflict(server)
            await at_most_once(server, status, 2, sent)
    assert server.status == {"attempts": [{"attempt": 1, "result": "sent"}], "started": 1, "theirs": 1}
    async with batcher(server) as status:
        await at_most_once(server, status, status.get("started") + 1, sent)
    assert sent == [1, 2]
    assert [each["result"] for each in server.status["attempts"]] == ["sent", "sent"]


async def test_what_a_failing_block_withdraws_is_not_restored_by_a_checkpoint_in_progress(server):
    server.latency = 1.0
    with pytest.raises(ZeroDivisionError):
        async with batcher(server, on_error="ledgers") as status:
            status.set(phase="A")
            status.append("log", 1)
            a_conflict(server)
            task = asyncio.create_task(status.flush())
            await asyncio.sleep(0.5)
            raise ZeroDivisionError
    assert server.status == {"theirs": 1, "log": [1]}
    with pytest.raises(StatusConflict):
        await task


async def test_a_checkpoint_with_a_lost_answer_is_read_back_and_not_repeated_if_its_outcome_is_unknown(server):
    server.on_write.append(lost())
    async with batcher(server) as status:
        status.increment("total")
        await status.flush()
        status.increment("total")
    assert server.status == {"total": 2}
    server.on_write.append(lambda s, execute: (s.annotate(), never_arrived()(s, execute))[0])
    async with batcher(server) as status:
        status.set(phase="A")
        status.increment("total")
        with pytest.raises(StatusOutcomeUnknown) as caught:
            await status.flush()
        assert [m.verb for m in caught.value.unsaved] == ["set", "increment"]
    assert server.status == {"total": 2, "phase": "A"}, "what must not be repeated is only in the error"


async def test_a_foreign_change_found_by_reading_back_a_checkpoint_is_still_contested(server):
    """The version read back contains another writer's change that the body has not seen."""
    server.status = {"phase": "New"}

    def trouble(s: ScriptedServer, execute: Any) -> Any:
        execute()
        s.foreign(lambda d: d.update(phase="Cancelled"))
        raise api_error(504)

    server.on_write.append(trouble)
    with pytest.raises(StatusError, match="changed phase"):
        async with batcher(server) as status:
            status.append("log", {"id": 1}, key="id")
            await status.flush()
            assert status.current["phase"] == "New"
            status.set(phase="Done")
    assert server.status == {"phase": "Cancelled", "log": [{"id": 1}]}


async def test_a_further_checkpoint_on_such_a_version_is_a_conflict(server):
    def trouble(s: ScriptedServer, execute: Any) -> Any:
        execute()
        s.foreign(lambda d: d.update(theirs=1))
        raise api_error(504)

    server.on_write.append(trouble)
    async with batcher(server) as status:
        status.append("log", {"id": 1}, key="id")
        await status.flush()
        status.append("log", {"id": 2}, key="id")
        with pytest.raises(StatusConflict):
            await status.flush()
        status.append("log", {"id": 3}, key="id")
    assert server.status == {"theirs": 1, "log": [{"id": 1}, {"id": 2}, {"id": 3}]}
    assert len(server.writes) == 2


async def test_mutations_recorded_during_a_checkpoint_are_written_later(server):
    server.latency = 5.0
    async with batcher(server) as status:
        status.append("log", 1)
        checkpoint = asyncio.create_task(status.flush())
        await asyncio.sleep(1)
        status.append("log", 2)
        assert status.current == {"log": [1, 2]}
        await checkpoint
        assert server.status == {"log": [1]}
        assert status.current == {"log": [1, 2]}
    assert server.status == {"log": [1, 2]}


async def test_mutations_of_a_checkpoint_in_progress_are_visible(server):
    server.status = {"attempts": 1}
    server.latency = 1
    async with StatusBatcher(server.writer(), server.document()) as status:

        async def attempt() -> None:
            status.set(attempts=status.get("attempts", 0) + 1)
            await status.flush()

        first = asyncio.create_task(attempt())
        await asyncio.sleep(0.5)
        assert status.get("attempts") == status.current["attempts"] == 2
        status.set(attempts=status.get("attempts", 0) + 1)
        await first
        assert status.get("attempts") == 3
    assert server.status["attempts"] == 3


async def test_flushes_of_several_tasks_take_turns(server):
    server.latency = 1.0
    async with batcher(server) as status:
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                status.append("log", number)
                group.create_task(status.flush())
                await asyncio.sleep(0.3)
        status.append("log", "end")
    assert server.status == {"log": [0, 1, 2, 3, 4, "end"]}
    assert status.statistics().conflicts == 0


async def test_the_end_waits_for_a_checkpoint_that_a_task_left_in_progress(server):
    server.latency = 1.0
    async with batcher(server) as status:
        status.append("log", 1)
        task = asyncio.create_task(status.flush())
        await asyncio.sleep(0.1)
        status.append("log", 2)
    assert server.status == {"log": [1, 2]}
    await task
    assert status.statistics().conflicts == 0


async def test_a_checkpoint_of_a_closed_batcher_is_refused(server):
    async with batcher(server) as status:
        pass
    with pytest.raises(StatusNotOpen):
        await status.flush()


# Threads, logs, metrics, forms.


async def test_recording_from_threads_loses_nothing(server):
    async with batcher(server) as status:

        def work(name: str) -> None:
            for number in range(200):
                status.increment("total")
                status.append("log", f"{name}-{number}")

        await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abcd"))
    assert server.status["total"] == 800
    assert len(set(server.status["log"])) == 800
    for name in "abcd":
        mine = [entry for entry in server.status["log"] if entry.startswith(name)]
        assert mine == [f"{name}-{n}" for n in range(200)], "in the order of the calls"


def test_the_order_of_mutations_is_the_order_of_the_calls_over_threads():
    server = ScriptedServer()
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        turn = threading.Barrier(2)

        def other() -> None:
            turn.wait()
            status.append("log", "second")
            turn.wait()

        thread = threading.Thread(target=other)
        thread.start()
        status.append("log", "first")
        turn.wait()
        turn.wait()
        status.append("log", "third")
        thread.join()
    assert server.status["log"] == ["first", "second", "third"]


async def test_each_flush_is_one_debug_line_without_values(server, caplog):
    caplog.set_level(logging.DEBUG, "reconciler.status")
    async with batcher(server) as status:
        status.set(phase="secret")
        status.set(["a.b", "c"], "secret")
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(theirs=1))))
    async with batcher(server) as status:
        status.set(phase="secret 2")
    async with batcher(server) as status:
        status.set(phase="secret 2")
    async with batcher(server) as status:
        status.mutate(lambda s: s.update({f"k{n:02}": "secret" for n in range(14)}))
    server.on_write.append(refused(api_error(403)))
    with pytest.raises(StatusRejected):
        await batcher_that_sets(server, phase="secret 3")
    what = "status of example.com/v1/Database prod/db1: "
    names = ", ".join(f"k{number:02}" for number in range(12))
    assert [r.getMessage().removeprefix(what).replace(" in 0.000 s", "") for r in caplog.records] == [
        "written, 1 writes, 0 reads, 0 conflicts, 0 replays, 2 fields: phase, [a.b].c",
        f"written in {caplog.records[1].args[2]:.3f} s, 2 writes, 1 reads, 1 conflicts, 1 replays, 1 fields: phase",
        "unchanged, 0 writes, 0 reads, 0 conflicts, 0 replays, 0 fields",
        f"written, 1 writes, 0 reads, 0 conflicts, 0 replays, 14 fields: {names}, and 2 more",
        "StatusRejected, 1 writes, 0 reads, 0 conflicts, 0 replays, 0 fields",
    ]
    assert "secret" not in "".join(r.getMessage() for r in caplog.records)


async def batcher_that_sets(server: ScriptedServer, **fields: Any) -> None:
    async with batcher(server) as status:
        status.set(**fields)


async def test_metrics_are_notified_of_every_flush(server):
    heard: list[dict[str, Any]] = []

    class Metrics:
        def flushed(self, **values: Any) -> None:
            heard.append(values)

    server.on_write.append(meanwhile(lambda s: s.annotate()))
    async with batcher(server, metrics=Metrics()) as status:
        status.increment("total")
        await_nothing = status.flush()
        with pytest.raises(StatusConflict):
            await await_nothing
        status.increment("total")
    server.on_write.append(meanwhile(lambda s: s.annotate()))
    async with batcher(server, metrics=Metrics()) as status:
        status.increment("total")
    async with batcher(server, metrics=Metrics()) as status:
        pass
    server.unknown_fields = frozenset({"extra"})
    async with batcher(server, metrics=Metrics()) as status:
        status.set(extra=1)
    kinds = [(h["written"], h["suppressed"], h["conflicts"], h["replays"], h["fields"]) for h in heard]
    assert kinds == [
        (False, False, 1, 0, 0),
        (True, False, 1, 1, 1),
        (True, False, 1, 1, 1),
        (False, True, 0, 0, 0),
        (False, False, 0, 0, 1),
    ]
    assert all(h["seconds"] >= 0 for h in heard)


async def test_the_wrong_kind_of_with_names_the_right_one(server):
    with pytest.raises(TypeError, match="asynchronous client: write 'async with"), batcher(server):
        pass
    with pytest.raises(TypeError, match="blocking client: write 'with StatusBatcher"):
        async with StatusBatcher(server.blocking_writer(), server.document()):
            pass


def test_an_unknown_client_is_named():
    with pytest.raises(TypeError, match=r"does not support the client builtins\.object: pass a reconciler\.Client"):
        StatusBatcher(object(), {})


def test_object_and_name_are_mutually_exclusive():
    server = ScriptedServer()
    with pytest.raises(TypeError, match="a kind with name="):
        StatusBatcher(server.writer(), "v1/Pod")
    with pytest.raises(TypeError, match="has its own name"):
        StatusBatcher(server.writer(), server.document(), name="db1")


async def test_an_unsupported_object_is_named(server):
    with pytest.raises(TypeError, match="int is not a Kubernetes object"):
        StatusBatcher(server.writer(), 3)
    with pytest.raises(TypeError, match="or 'group/version/Kind' with name="):
        StatusBatcher(Client(APIServer()), 3)
