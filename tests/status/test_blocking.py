# ruff: noqa: PT012 - the block under test is what raises, at its end
"""The special properties of a blocking client; test_flush has the semantics of a flush."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from reconciler.clock import SystemClock
from reconciler.status import StatusBatcher, StatusConflict, StatusOutcomeUnknown, StatusUnavailable
from tests.status.scripted import BlockingWriter, ScriptedServer, api_error, lost, meanwhile, never_arrived, refused


class Time(SystemClock):
    """A clock that only requests advance."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


class Slow(BlockingWriter):
    def __init__(self, server: ScriptedServer, clock: Time, seconds: float) -> None:
        super().__init__(server, "kube-reconciler")
        self.clock, self.seconds = clock, seconds

    def write(self, body: Any, **options: Any) -> Any:
        self.clock.time += self.seconds
        return super().write(body, **options)


def batcher(server: ScriptedServer, **options: Any) -> StatusBatcher:
    return StatusBatcher(server.blocking_writer(), server.document(), **options)


def test_the_pauses_between_requests_grow_and_have_jitter(server, slept):
    server.on_write.extend(meanwhile(lambda s: s.annotate()) for _ in range(9))
    with pytest.raises(StatusConflict), batcher(server, rng=random.Random(1)) as status:
        status.increment("total")
    assert len(slept) == 4
    for pause, exact in zip(slept, [0.01, 0.04, 0.16, 0.64], strict=True):
        assert exact * 0.5 <= pause <= exact * 1.5
    assert slept != [0.01, 0.04, 0.16, 0.64]


def test_a_lost_answer_is_read_back(server):
    server.on_write.append(lost())
    with batcher(server) as status:
        status.increment("total")
    assert server.status == {"total": 1}
    assert status.statistics().unknown == 1


def test_no_request_starts_when_the_time_is_up(server):
    clock = Time()
    server.on_write.append(never_arrived())
    batcher = StatusBatcher(Slow(server, clock, 3.0), server.document(), clock=clock, flush_timeout=2.0)
    with pytest.raises(StatusOutcomeUnknown, match="no response came in time"), batcher as status:
        status.increment("total")
    assert len(server.writes) == 1
    assert server.reads == 0


def test_a_pause_beyond_the_time_limit_is_not_started(server, slept):
    error = api_error(429)
    error.retry_after = 60.0
    server.on_write.append(refused(error))
    with pytest.raises(StatusUnavailable), batcher(server) as status:
        status.increment("total")
    assert slept == []


def test_an_exception_in_the_block_is_raised_after_the_blocking_flush(server):
    with pytest.raises(ZeroDivisionError), batcher(server) as status:
        status.increment("total")
        raise ZeroDivisionError
    assert server.status == {"total": 1}


def test_a_failed_flush_becomes_a_note_on_the_blocks_exception(server):
    server.on_write.append(refused(api_error(403)))
    with pytest.raises(ZeroDivisionError) as caught, batcher(server) as status:
        status.increment("total")
        raise ZeroDivisionError
    assert "could not be written either" in caught.value.__notes__[0]
    assert status.failure is not None


def test_an_interrupt_during_the_write_is_raised(server):
    server.on_write.append(refused(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), batcher(server) as status:
        status.increment("total")
    assert status.statistics().failed == 1


def test_a_checkpoint_has_ended_when_it_returns(server):
    with batcher(server) as status:
        status.set(phase="A")
        status.flush()
        assert server.status == {"phase": "A"}
        status.set(phase="B")
    assert server.status == {"phase": "B"}


async def test_a_checkpoint_of_a_blocking_client_can_be_awaited_too(server):
    with batcher(server) as status:
        status.set(phase="A")
        await status.flush()
    assert len(server.writes) == 1


def test_several_threads_record_and_write_checkpoints_and_nothing_is_lost_or_sent_twice(server):
    barrier = threading.Barrier(4)

    def work(status: StatusBatcher[Any], number: int) -> None:
        barrier.wait()
        for step in range(20):
            status.increment("total")
            status.append("log", f"{number}-{step}")
            if step % 5 == number:
                status.flush()

    with batcher(server) as status:
        threads = [threading.Thread(target=work, args=[status, number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.status["total"] == 80
    for number in range(4):
        mine = [entry for entry in server.status["log"] if entry.startswith(f"{number}-")]
        assert mine == [f"{number}-{step}" for step in range(20)]
    versions = [int(body["metadata"]["resourceVersion"]) for body, _, _ in server.writes]
    assert versions == list(range(100, 100 + len(versions))), "each write is based on the one before"
    assert status.statistics().conflicts == 0
