# ruff: noqa: PT012 - the block under test is what raises, at its end
"""The reports of a batcher to the running reconcile, and the mutations passed from one reconcile to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import current_cycle
from reconciler.status import (
    StatusBatcher,
    StatusConflict,
    StatusContested,
    StatusError,
    StatusOutcomeUnknown,
    StatusRejected,
)
from reconciler.status.replay import Unsaved
from tests.status.scripted import GVK, KEY, ScriptedServer, api_error, lost, meanwhile, never_arrived, refused

pytestmark = pytest.mark.virtual_time


@dataclass
class FakeCycle:
    gvk: GroupVersionKind = GVK
    request: Request = KEY
    seen: list[Any] = field(default_factory=list)
    writes: list[Any] = field(default_factory=list)
    unsaved: dict[str, Any] = field(default_factory=dict)
    warnings: list[Any] = field(default_factory=list)
    stopping: bool = False
    status_metrics: Any = None

    def saw(self, gvk: Any, request: Any, uid: str, version: Any) -> None:
        self.seen.append((uid, version))

    def wrote(self, gvk: Any, request: Any, uid: str, *, before: Any, after: Any, exact: bool) -> None:
        self.writes.append((before, after, exact))

    def may_write(self, gvk: Any, request: Any, document: Any) -> bool:
        return True

    def warn(self, reason: str, message: str) -> None:
        self.warnings.append((reason, message))

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        self.unsaved[uid] = mutations

    def take_unsaved(self, uid: str) -> object | None:
        return self.unsaved.pop(uid, None)


@pytest.fixture
def cycle() -> Iterator[FakeCycle]:
    cycle = FakeCycle()
    token = current_cycle.set(cycle)
    yield cycle
    current_cycle.reset(token)


def batcher(server: ScriptedServer, **options: Any) -> StatusBatcher:
    return StatusBatcher(server.writer(), server.document(), **options)


async def test_a_batcher_without_metrics_uses_those_of_the_reconcile(server, cycle):
    heard: list[str] = []

    class Metrics:
        def __init__(self, name: str) -> None:
            self.name = name

        def flushed(self, **values: Any) -> None:
            heard.append(self.name)

    cycle.status_metrics = Metrics("the cycle's")
    async with batcher(server) as status:
        status.set(phase="A")
    async with batcher(server, metrics=Metrics("its own")) as status:
        status.set(phase="B")
    assert heard == ["the cycle's", "its own"]


# saw, wrote


async def test_the_given_object_is_reported_as_observed_and_the_write_as_based_on_it(server, cycle):
    async with batcher(server) as status:
        status.set(phase="Ready")
        assert cycle.seen == [("uid-1", 100)]
    assert cycle.writes == [(100, 101, True)]


async def test_an_object_opened_by_name_is_reported_as_it_was_read(server, cycle):
    async with StatusBatcher(server.writer(), "example.com/v1/Database", name="db1", namespace="prod") as status:
        status.set(phase="Ready")
    assert (cycle.seen, cycle.writes) == ([("uid-1", 100)], [(100, 101, True)])


async def test_checkpoints_are_a_chain_of_writes(server, cycle):
    async with batcher(server) as status:
        status.set(phase="A")
        await status.flush()
        status.set(phase="B")
    assert cycle.writes == [(100, 101, True), (101, 102, True)]
    assert cycle.seen == [("uid-1", 100)]


async def test_a_replay_is_reported_on_its_version_and_the_read_for_it_is_not_reported(server, cycle):
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(x=1))))
    async with batcher(server) as status:
        status.increment("total")
    assert cycle.seen == [("uid-1", 100)]
    assert cycle.writes == [(101, 102, True)]


async def test_a_no_op_answer_has_the_version_it_was_sent_with(server, cycle):
    server.unknown_fields = frozenset({"extra"})
    async with batcher(server) as status:
        status.set(extra=1)
    assert cycle.writes == [(100, 100, False)]


async def test_an_answer_with_another_status_is_not_exact(server, cycle):
    server.unknown_fields = frozenset({"extra"})
    for number in range(2):
        async with batcher(server) as status:
            status.set(extra=1, phase=str(number))
    assert cycle.writes == [(100, 101, False), (101, 102, True)], "what is known to be left out is not computed"


def webhook(change):
    """Change the object while it is written, so that the response differs from what was sent."""

    def trouble(_server, execute):
        answer = execute()
        change(answer)
        return answer

    return trouble


async def test_an_answer_with_another_generation_is_not_exact(server, cycle):
    server.on_write.append(webhook(lambda answer: answer["metadata"].update(generation=2)))
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert cycle.writes == [(100, 101, False)]


async def test_a_write_of_the_main_resource_is_exact_although_it_raises_the_generation(server, cycle):
    server.has_subresource = False
    async with batcher(server, subresource=None) as status:
        status.set(phase="Ready")
    assert server.generation == 2
    assert cycle.writes == [(100, 101, True)]


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer["spec"].update(size=2),
        lambda answer: answer["metadata"].update(labels={"by": "webhook"}),
        lambda answer: answer.update(data={}),
        lambda answer: answer["status"].update(phase="Other"),
    ],
)
async def test_a_write_of_the_main_resource_that_changed_more_is_not_exact(server, cycle, change):
    server.has_subresource = False
    async with batcher(server, subresource=None) as status:
        status.set(phase="Ready")
    server.on_write.append(webhook(change))
    async with batcher(server, subresource=None) as status:
        status.set(phase="Failed")
    assert cycle.writes == [(100, 101, True), (101, 102, False)]


async def test_no_generation_is_observed_where_each_write_raises_it(server, cycle):
    server.has_subresource = False
    async with batcher(server, subresource=None) as status:
        assert status.observed_generation is None
        status.set_condition("Ready", True, reason="Done")
    assert "observedGeneration" not in server.status["conditions"][0]
    async with batcher(server) as status:
        assert status.observed_generation == 2


async def test_a_write_found_by_reading_back_is_not_reported(server, cycle):
    server.on_write.append(lost())
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert status.written
    assert cycle.writes == []


async def test_the_same_bytes_sent_again_and_answered_are_reported(server, cycle):
    server.on_write.append(never_arrived())
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert cycle.writes == [(100, 101, True)]


async def test_another_object_of_the_kind_is_not_reported(server, cycle):
    cycle.request = Request("db2", "prod")
    cycle.unsaved["uid-1"] = Unsaved((), {})
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert (cycle.seen, cycle.writes) == ([], [])
    assert "uid-1" in cycle.unsaved


async def test_another_version_of_the_api_is_the_same_object(server, cycle):
    cycle.gvk = GroupVersionKind("example.com", "v2", "Database")
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert cycle.writes == [(100, 101, True)]


async def test_a_batcher_that_continues_alone_no_longer_reports_to_the_reconcile(server, cycle):
    async with batcher(server):
        inner = await batcher(server).__aenter__()
    inner.set(phase="Late")
    await inner.__aexit__(None, None, None)
    assert server.status == {"phase": "Late"}
    assert cycle.writes == []


def test_a_blocking_batcher_reports_as_well(server, cycle):
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.set(phase="Ready")
    assert (cycle.seen, cycle.writes) == ([("uid-1", 100)], [(100, 101, True)])


# Unsaved mutations.


async def fail_with(server: ScriptedServer, error: Exception, *calls: Any) -> None:
    server.on_write.append(refused(error))
    with pytest.raises(StatusError):
        await write(server, *calls)


async def write(server: ScriptedServer, *calls: Any, **options: Any) -> StatusBatcher:
    async with batcher(server, **options) as status:
        for call in calls:
            call(status)
    return status


@pytest.mark.parametrize("code", [403, 413, 422])
async def test_unsaved_mutations_are_applied_in_the_next_reconcile_and_written_with_it(server, cycle, code):
    await fail_with(server, api_error(code), lambda s: s.append("log", 1), lambda s: s.increment("total"))
    unsaved = cycle.unsaved["uid-1"]
    assert isinstance(unsaved, Unsaved)
    assert unsaved.paths == ("log", "total")
    assert len(unsaved) == 2
    async with batcher(server) as status:
        assert status.current == {"log": [1], "total": 1}
        status.append("log", 2)
    assert server.status == {"log": [1, 2], "total": 1}
    assert cycle.unsaved == {}


async def test_an_empty_block_saves_what_an_earlier_reconcile_could_not(server, cycle):
    await fail_with(server, api_error(403), lambda s: s.append("log", 1))
    async with batcher(server) as status:
        pass
    assert status.written is True
    assert server.status == {"log": [1]}


async def test_mutations_that_fail_again_are_kept_with_the_new_ones(server, cycle):
    for number in range(3):
        await fail_with(server, api_error(403), lambda s, n=number: s.append("log", n))
    await write(server)
    assert server.status == {"log": [0, 1, 2]}


async def test_an_object_with_another_uid_does_not_get_unsaved_mutations(server, cycle):
    await fail_with(server, api_error(403), lambda s: s.append("log", 1))
    server.recreate()
    await write(server, lambda s: s.set(phase="New"))
    assert server.status == {"phase": "New"}


async def test_unsaved_mutations_do_not_overwrite_another_writers_value(server, cycle):
    server.status = {"phase": "New"}
    await fail_with(server, api_error(403), lambda s: s.set(phase="Retrying"), lambda s: s.append("log", 1))
    server.foreign(lambda d: d.update(phase="Cancelled"))
    status = await write(server)
    assert server.status == {"phase": "Cancelled", "log": [1]}
    assert status.statistics().contested == 1


async def test_a_contested_value_is_not_kept_but_the_rest_is(server, cycle):
    server.status = {"phase": "New"}
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(phase="Cancelled"))))
    with pytest.raises(StatusContested):
        await write(server, lambda s: s.set(phase="Retrying"), lambda s: s.append("log", 1))
    await write(server)
    assert server.status == {"phase": "Cancelled", "log": [1]}


async def test_only_idempotent_mutations_are_kept_after_an_unknown_outcome(server, cycle):
    server.on_write.append(lambda s, execute: (s.annotate(), never_arrived()(s, execute))[0])
    with pytest.raises(StatusOutcomeUnknown):
        await write(server, lambda s: s.increment("total"), lambda s: s.append("log", {"id": 1}, key="id"))
    await write(server)
    assert server.status == {"log": [{"id": 1}]}


async def test_only_idempotent_mutations_are_kept_if_time_runs_out_during_a_request(server, cycle):
    server.latency = 100.0
    with pytest.raises(StatusOutcomeUnknown):
        await write(server, lambda s: s.increment("total"), lambda s: s.set(phase="Ready"))
    assert [m.verb for m in cycle.unsaved["uid-1"].mutations] == ["set"]


async def test_a_function_that_fails_later_is_dropped_and_logged(server, cycle, caplog):
    server.status = {"queue": [1]}
    await fail_with(server, api_error(403), lambda s: s.mutate(lambda d: d["queue"].pop(0)))
    server.foreign(lambda d: d.pop("queue"))
    status = await write(server, lambda s: s.set(phase="Ready"))
    assert server.status == {"phase": "Ready"}
    assert status.statistics().contested == 1
    assert "can no longer be applied" in caplog.text


async def test_an_exception_in_the_body_does_not_prevent_keeping_unsaved_mutations(server, cycle):
    server.on_write.append(refused(api_error(403)))
    with pytest.raises(ZeroDivisionError):
        async with batcher(server) as status:
            status.append("log", 1)
            raise ZeroDivisionError
    await write(server)
    assert server.status == {"log": [1]}


async def test_discarding_a_failing_body_does_not_discard_unsaved_mutations(server, cycle):
    await fail_with(server, api_error(403), lambda s: s.append("log", 1))
    with pytest.raises(ZeroDivisionError):
        async with batcher(server, on_error="discard") as status:
            status.append("log", 2)
            raise ZeroDivisionError
    assert server.status == {"log": [1]}


async def test_a_checkpoint_that_conflicts_returns_only_the_callers_mutations(server, cycle):
    await fail_with(server, api_error(403), lambda s: s.append("log", "earlier"))
    server.on_write.append(meanwhile(lambda s: s.annotate()))
    async with batcher(server) as status:
        status.append("log", "intent")
        with pytest.raises(StatusConflict) as caught:
            await status.flush()
        assert [m.item for m in caught.value.unsaved] == ["intent"]
        assert status.current == {"log": ["earlier", "intent"]}
    assert server.status == {"log": ["earlier", "intent"]}


async def test_a_checkpoint_that_is_refused_and_not_handled_is_kept(server, cycle):
    server.on_write.extend([refused(api_error(403)), refused(api_error(403))])
    with pytest.raises(StatusRejected):
        async with batcher(server) as status:
            status.append("log", 1)
            await status.flush()
    assert len(server.writes) == 2, "the end of the block tries once more"
    await write(server)
    assert server.status == {"log": [1]}


async def test_a_checkpoint_that_is_refused_and_recorded_again_is_not_kept_twice(server, cycle):
    server.on_write.append(refused(api_error(403)))
    with pytest.raises(ZeroDivisionError):
        async with batcher(server) as status:
            status.increment("total")
            try:
                await status.flush()
            except StatusRejected as error:
                status.record(*error.unsaved)
            raise ZeroDivisionError
    await write(server)
    assert server.status == {"total": 1}


async def test_a_refused_checkpoint_that_was_corrected_is_written_at_the_end(server, cycle):
    server.on_write.append(refused(api_error(422)))
    async with batcher(server) as status:
        status.set(phase="Wrong")
        status.increment("total")
        with pytest.raises(StatusRejected):
            await status.flush()
        status.set(phase="Right")
    assert server.status == {"phase": "Right", "total": 1}
    assert cycle.unsaved == {}


async def test_a_handled_checkpoint_is_kept_if_the_end_fails(server, cycle):
    server.on_write.extend([refused(api_error(403)), refused(api_error(403))])
    with pytest.raises(StatusRejected):
        async with batcher(server) as status:
            status.append("log", "checkpoint")
            with pytest.raises(StatusRejected):
                await status.flush()
            status.append("log", "end")
    await write(server)
    assert server.status == {"log": ["checkpoint", "end"]}


async def test_unsaved_mutations_of_a_checkpoint_and_of_the_end_are_kept_together(server, cycle):
    server.on_write.extend([refused(api_error(403)), refused(api_error(403))])
    with pytest.raises(ZeroDivisionError):
        async with batcher(server) as status:
            status.append("log", "checkpoint")
            with pytest.raises(StatusRejected):
                await status.flush()
            status.append("log", "end")
            raise ZeroDivisionError
    await write(server)
    assert server.status == {"log": ["checkpoint", "end"]}


async def test_kept_mutations_are_bounded_and_the_oldest_are_dropped(server, cycle, monkeypatch):
    from reconciler.status import replay as _unsaved

    monkeypatch.setattr(_unsaved, "MAX_MUTATIONS", 3)
    await fail_with(server, api_error(403), *[lambda s, n=n: s.append("log", n) for n in range(5)])
    assert cycle.unsaved["uid-1"].dropped == 2
    await write(server)
    assert server.status == {"log": [2, 3, 4]}


async def test_outside_a_reconcile_only_the_error_has_the_unsaved_mutations(server):
    server.on_write.append(refused(api_error(403)))
    with pytest.raises(StatusRejected) as caught:
        await write(server, lambda s: s.append("log", 1))
    await write(server, lambda s: s.record(*caught.value.unsaved))
    assert server.status == {"log": [1]}


async def lose_the_answer_of_a_checkpoint(server: ScriptedServer, status: StatusBatcher, **foreign: Any) -> None:
    """Write a checkpoint whose response is lost; another writer changes other fields before it is read back."""
    server.on_write.append(lost())
    server.on_read.append(meanwhile(lambda s: s.foreign(lambda d: d.update(foreign))))
    status.set(phase="Working")
    await status.flush()
    assert status.written


async def test_a_conflict_found_before_the_first_request_leaves_the_rest_to_the_next_reconcile(server, cycle):
    with pytest.raises(StatusContested, match="another writer changed size"):
        async with batcher(server) as status:
            await lose_the_answer_of_a_checkpoint(server, status, size=9)
            status.set(size=1)
            status.append("log", 1)
    assert len(server.writes) == 1
    assert status.statistics().failed == 1
    await write(server)
    assert server.status == {"phase": "Working", "size": 9, "log": [1]}


async def test_a_checkpoint_that_conflicts_before_its_first_request_returns_the_mutations(server, cycle):
    async with batcher(server) as status:
        await lose_the_answer_of_a_checkpoint(server, status, size=9)
        status.append("log", 1)
        with pytest.raises(StatusConflict) as caught:
            await status.flush()
        assert [mutation.item for mutation in caught.value.unsaved] == [1]
        assert status.current == {"phase": "Working", "log": [1]}
    assert server.status == {"phase": "Working", "size": 9, "log": [1]}
    assert status.statistics().failed == 1


@pytest.mark.parametrize("outcome", [lost, never_arrived])
async def test_a_read_from_before_an_unanswered_write_does_not_show_whether_it_was_applied(server, cycle, outcome):
    stale = server.document()
    async with batcher(server, token="marks") as status:
        status.set(phase="A")
    server.on_write.append(outcome())
    server.on_read.extend([never_arrived()] * 5)
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server, token="marks") as status:
            status.increment("total")
    async with StatusBatcher(server.writer(), stale, token="marks") as status:
        assert status.current["total"] == 1
    assert server.status["total"] == 1
