"""A flush, for each response of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.errors import Forbidden, NotSent, OutcomeUnknown
from reconciler.status import (
    StatusBatcher,
    StatusConflict,
    StatusError,
    StatusInvalid,
    StatusOutcomeUnknown,
    StatusRejected,
    StatusSubresourceMissing,
    StatusTooLarge,
    StatusUnavailable,
)
from tests.status.scripted import (
    ScriptedServer,
    api_error,
    late,
    lost,
    meanwhile,
    never_arrived,
    refused,
    then,
)

pytestmark = pytest.mark.virtual_time


def batcher(server: ScriptedServer, **options: object) -> StatusBatcher:
    return StatusBatcher(server.writer(), server.document(), **options)


# No write, or one.


async def test_a_block_without_change_makes_no_request(server):
    async with batcher(server) as status:
        pass
    assert (status.written, server.writes, server.reads) == (False, [], 0)
    assert status.statistics().suppressed == 1


async def test_an_equal_meaning_makes_no_request(server):
    server.status = {"phase": "Ready", "size": 1, "list": [{"a": 1}]}
    async with batcher(server) as status:
        status.set(phase="Ready", size=1.0, list=[{"a": 1, "b": None}], absent=None)
        status.increment("size", 1)
        status.increment("size", -1)
        status.remove("nothing.there")
    assert (status.written, server.writes) == (False, [])


async def test_whole_conditions_with_the_current_time_are_not_a_change_unless_a_status_changes(server):
    """Like controllers that build all their conditions in every reconcile."""

    def conditions(day: int, ready: str) -> list[dict[str, Any]]:
        time = f"2026-01-{day:02}T00:00:00Z"
        return [
            {"type": "Ready", "status": ready, "reason": "Tested", "lastTransitionTime": time},
            {"type": "Healthy", "status": "True", "reason": "Tested", "lastTransitionTime": time},
        ]

    for day, ready in enumerate(["True", "True", "True", "False", "False"], 1):
        async with batcher(server) as status:
            status.set(conditions=conditions(day, ready))
        async with batcher(server) as status:
            status.upsert("conditions", conditions(day + 1, ready)[1], key="type")
    assert len(server.writes) == 2
    assert [c["lastTransitionTime"] for c in server.status["conditions"]] == [
        "2026-01-04T00:00:00Z",
        "2026-01-01T00:00:00Z",
    ]


async def test_a_field_changed_from_1_to_true_is_written(server):
    server.status = {"ready": 1}
    async with batcher(server) as status:
        status.set(ready=True)
    assert server.status == {"ready": True}
    assert server.status["ready"] is True


async def test_many_mutations_are_one_conditional_patch_without_a_read(server):
    server.status = {"total": 1, "kept": {"deep": 1}}
    async with batcher(server) as status:
        for channel in "abc":
            status.append("attempts", {"channel": channel})
            status.increment("total")
        status.set("kept.other", 2)
    assert server.writes == [
        (
            {
                "metadata": {"resourceVersion": "100"},
                "status": {
                    "attempts": [{"channel": "a"}, {"channel": "b"}, {"channel": "c"}],
                    "total": 4,
                    "kept": {"other": 2},
                },
            },
            "merge",
            "status",
        )
    ]
    assert server.reads == 0
    assert status.written is True
    assert status.object["metadata"]["resourceVersion"] == "101"
    assert status.object["status"]["kept"] == {"deep": 1, "other": 2}


async def test_removed_fields_are_sent_as_null(server):
    server.status = {"error": "x", "a": {"b": 1, "c": 2}}
    async with batcher(server) as status:
        status.remove("error")
        status.set("a.b", None)
    assert server.writes[0][0]["status"] == {"error": None, "a": {"b": None}}
    assert server.status == {"a": {"c": 2}}


async def test_later_changes_to_the_callers_object_are_not_taken_for_what_was_read(server):
    server.status = {"phase": "New", "list": [1]}
    obj = server.document()
    async with StatusBatcher(server.writer(), obj) as status:
        obj["status"]["phase"] = "Ready"
        obj["status"]["list"].append(2)
        status.set(phase="Ready", list=obj["status"]["list"])
        obj["status"]["list"].append(3)
    assert server.status == {"phase": "Ready", "list": [1, 2]}


# By name, or without a version.


async def test_opened_by_name_reads_once_first(server):
    server.status = {"total": 7}
    async with StatusBatcher(server.writer(), "example.com/v1/Database", name="db1", namespace="prod") as status:
        assert status.current == {"total": 7}
        assert status.object["metadata"]["name"] == "db1"
        status.increment("total")
    assert (server.reads, len(server.writes), server.status) == (1, 1, {"total": 8})
    assert status.statistics().reads == 1


async def test_an_object_without_resource_version_is_read_first(server):
    obj = server.document()
    del obj["metadata"]["resourceVersion"]
    server.status = {"total": 7}
    async with StatusBatcher(server.writer(), obj) as status:
        status.increment("total")
    assert (server.reads, server.status) == (1, {"total": 8})


async def test_an_object_recreated_before_that_read_is_not_written(server):
    obj = server.document()
    del obj["metadata"]["resourceVersion"]
    server.recreate()
    async with StatusBatcher(server.writer(), obj) as status:
        status.set(phase="Ready")
    assert (status.written, server.writes, status.statistics().dropped) == (False, [], 1)


async def test_opening_an_object_that_does_not_exist_raises(server):
    server.delete()
    with pytest.raises(Exception, match="not found"):
        async with StatusBatcher(server.writer(), "example.com/v1/Database", name="db1", namespace="prod"):
            pytest.fail("the block must not run")


# Conflicts.


async def test_after_a_conflict_the_mutations_are_replayed_on_the_newer_version(server):
    server.status = {"total": 1, "log": ["x"], "theirs": 1}
    server.on_write.append(
        meanwhile(lambda s: s.foreign(lambda d: (d.update(total=5, theirs=2), d["log"].append("foreign"))))
    )
    async with batcher(server) as status:
        status.increment("total")
        status.append("log", "own")
        status.set(phase="Ready")
    assert server.status == {"total": 6, "log": ["x", "foreign", "own"], "theirs": 2, "phase": "Ready"}
    statistics = status.statistics()
    assert (statistics.attempts, statistics.conflicts, statistics.replays, statistics.reads) == (2, 1, 1, 1)


def record_both(status: StatusBatcher) -> None:
    status.increment("total")
    status.append("log", "secret")


async def test_conflicts_are_bounded_and_the_error_has_the_unsaved_mutations(server):
    server.on_write.extend(meanwhile(lambda s: s.annotate()) for _ in range(9))
    status = batcher(server)
    with pytest.raises(StatusConflict, match=r"Not saved: increment total; append log\.") as caught:
        async with status:
            record_both(status)
    assert len(server.writes) == 5
    assert server.reads == 4
    assert [m.verb for m in caught.value.unsaved] == ["increment", "append"]
    assert caught.value.retryable
    assert "secret" not in str(caught.value) + repr(caught.value.unsaved)
    assert status.written is None
    assert status.statistics().conflicts == 5


async def test_max_conflicts_sets_the_number_of_requests(server):
    server.on_write.extend(meanwhile(lambda s: s.annotate()) for _ in range(9))
    with pytest.raises(StatusConflict):
        async with batcher(server, max_conflicts=2) as status:
            status.increment("total")
    assert len(server.writes) == 2


async def test_a_recreated_object_is_never_written(server):
    server.on_write.append(meanwhile(lambda s: (s.delete(), s.recreate())))
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert server.status == {}
    assert (status.written, status.statistics().dropped, len(server.writes)) == (False, 1, 1)


async def test_a_replay_that_changes_nothing_sends_nothing(server):
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(phase="Ready"))))
    async with batcher(server) as status:
        status.set(phase="Ready")
    assert (status.written, len(server.writes)) == (False, 1)
    assert status.object["status"] == {"phase": "Ready"}


async def test_a_concurrent_spec_change_does_not_stop_the_flush(server):
    server.on_write.append(meanwhile(lambda s: s.change_spec()))
    async with batcher(server) as status:
        status.set(observedGeneration=1, phase="Ready")
        status.set_condition("Ready", True, reason="Done")
    assert server.status["observedGeneration"] == 1
    assert server.status["conditions"][0]["observedGeneration"] == 1
    assert server.generation == 2


# Refused before execution.


@pytest.mark.parametrize("error", [NotSent("refused"), api_error(429, "TooManyRequests")])
async def test_a_request_that_was_definitely_not_executed_is_sent_again(server, error):
    server.on_write.extend([refused(error), refused(error)])
    async with batcher(server) as status:
        status.increment("total")
    assert server.status == {"total": 1}
    assert server.reads == 0
    assert server.writes[0] == server.writes[1] == server.writes[2]
    assert (status.statistics().unknown, status.statistics().attempts) == (0, 3)


async def test_the_retry_after_of_an_overloaded_server_is_obeyed(server, request):
    import asyncio

    error = api_error(429, "TooManyRequests")
    error.retry_after = 4.0
    server.on_write.append(refused(error))
    start = asyncio.get_running_loop().time()
    async with batcher(server) as status:
        status.increment("total")
    assert asyncio.get_running_loop().time() - start == pytest.approx(4.0, abs=0.1)


async def test_a_wait_beyond_the_time_limit_fails_at_once(server):
    import asyncio

    error = api_error(429, "TooManyRequests")
    error.retry_after = 60.0
    server.on_write.append(refused(error))
    start = asyncio.get_running_loop().time()
    with pytest.raises(StatusUnavailable, match="TooManyRequests"):
        async with batcher(server) as status:
            status.increment("total")
    assert asyncio.get_running_loop().time() == start
    assert server.status == {}


async def test_an_unreachable_server_ends_in_an_error_that_says_nothing_was_written(server):
    server.on_write.extend(refused(NotSent("connection refused")) for _ in range(9))
    with pytest.raises(StatusUnavailable, match="connection refused") as caught:
        async with batcher(server) as status:
            status.increment("total")
    assert len(server.writes) == 5
    assert caught.value.retryable


# A lost response.

LOST = [None, api_error(500), api_error(504, "Timeout"), TimeoutError(), ConnectionResetError()]


@pytest.mark.parametrize("error", LOST, ids=repr)
async def test_a_lost_answer_is_read_back_and_not_counted_twice(server, error):
    server.status = {"total": 1}
    server.on_write.append(lost(error))
    async with batcher(server) as status:
        status.increment("total")
        status.append("log", "x")
    assert server.status == {"total": 2, "log": ["x"]}
    statistics = status.statistics()
    assert (len(server.writes), statistics.unknown, statistics.read_backs, statistics.conflicts) == (1, 1, 1, 0)
    assert status.written is True


async def test_the_same_bytes_are_sent_again_if_the_version_is_unchanged(server):
    server.on_write.append(never_arrived())
    async with batcher(server) as status:
        status.increment("total")
    assert server.writes[0] == server.writes[1]
    assert server.status == {"total": 1}


async def test_a_late_first_copy_is_harmless(server):
    server.on_write.append(late(1))  # executed after the read back, before the second send
    async with batcher(server) as status:
        status.increment("total")
    assert server.status == {"total": 1}
    assert status.statistics().conflicts == 0, "the 409 was caused by our own first copy"
    assert status.written is True


async def test_a_409_after_an_unknown_outcome_is_our_own_success(server):
    """A lower layer sent it twice: the second copy conflicts with the first."""
    server.on_write.extend([never_arrived(), then(lost(api_error(409, "Conflict")), meanwhile(lambda s: None))])
    async with batcher(server) as status:
        status.increment("total")
    assert server.status == {"total": 1}
    assert status.statistics().conflicts == 0


async def test_an_increment_is_not_repeated_after_an_unknown_outcome(server):
    server.status = {"total": 1}
    server.on_write.append(
        lambda s, execute: (execute(), s.foreign(lambda d: d.update(total=9)), never_arrived()(s, execute))[0]
    )
    with pytest.raises(StatusOutcomeUnknown, match="count twice") as caught:
        async with batcher(server) as status:
            status.increment("total")
    assert server.status == {"total": 9}
    assert [m.verb for m in caught.value.unsaved] == ["increment"]
    assert status.written is None


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.append("log", "x"),
        lambda s: s.increment("total"),
        lambda s: s.mutate(lambda d: d.update(total=2)),
    ],
    ids=["keyless append", "increment", "function"],
)
async def test_mutations_that_are_not_idempotent_are_never_repeated_after_an_unknown_outcome(server, verb):
    server.on_write.append(then(meanwhile(lambda s: s.foreign(lambda d: d.update(theirs=1))), never_arrived()))
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server) as status:
            verb(status)
    assert len(server.writes) == 1


async def test_idempotent_mutations_are_replayed_after_an_unknown_outcome(server):
    server.status = {"list": [{"id": 1}]}
    server.on_write.append(then(meanwhile(lambda s: s.foreign(lambda d: d["list"].append({"id": 9}))), never_arrived()))
    async with batcher(server) as status:
        status.set(phase="Ready")
        status.merge(sub={"a": 1})
        status.remove("nothing")
        status.upsert("list", {"id": 1, "n": 1}, key="id")
        status.append("list", {"id": 2}, key="id")
        status.set_condition("Ready", True, reason="Done")
    assert server.status["list"] == [{"id": 1, "n": 1}, {"id": 9}, {"id": 2}]
    assert server.status["phase"] == "Ready"
    assert len(server.writes) == 2


async def test_an_equal_sum_made_by_another_writer_is_not_mistaken_for_ours(server):
    server.status = {"total": 1}
    server.on_write.append(then(meanwhile(lambda s: s.foreign(lambda d: d.update(total=2))), never_arrived()))
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server) as status:
            status.increment("total")
    assert server.status == {"total": 2}


async def test_with_a_token_an_increment_that_was_not_applied_is_repeated(server):
    server.status = {"total": 1}
    server.on_write.append(then(meanwhile(lambda s: s.foreign(lambda d: d.update(total=2))), never_arrived()))
    async with batcher(server, token="lastWrite") as status:
        status.increment("total")
    assert server.status["total"] == 3


async def test_with_a_token_an_applied_write_is_recognized_below_a_foreign_one(server):
    server.status = {"total": 1}
    server.on_write.append(
        lambda s, execute: (execute(), s.foreign(lambda d: d.update(total=9)), never_arrived()(s, execute))[0]
    )
    async with batcher(server, token="lastWrite") as status:
        status.increment("total")
    assert server.status["total"] == 9
    assert len(server.writes) == 1
    assert status.written is True


async def test_a_token_alone_does_not_cause_a_write(server):
    server.status = {"total": 1, "lastWrite": "x"}
    async with batcher(server, token="lastWrite") as status:
        status.set(total=1)
    assert server.writes == []


async def test_each_flush_leaves_a_new_token(server):
    tokens = []
    for _ in range(2):
        async with batcher(server, token="meta.lastWrite") as status:
            status.increment("total")
        tokens.append(server.status["meta"]["lastWrite"])
    assert tokens[0] != tokens[1]


async def test_an_object_deleted_after_a_lost_answer_is_gone(server):
    server.on_write.append(lambda s, execute: (s.delete(), never_arrived()(s, execute))[0])
    async with batcher(server) as status:
        status.increment("total")
    assert (status.written, status.statistics().dropped) == (False, 1)


async def test_an_object_recreated_after_a_lost_answer_is_gone(server):
    server.on_write.append(lambda s, execute: (s.recreate(), never_arrived()(s, execute))[0])
    async with batcher(server) as status:
        status.increment("total")
    assert (server.status, status.statistics().dropped) == ({}, 1)


async def test_a_checkpoint_that_a_token_shows_was_not_applied_is_a_conflict(server):
    server.on_write.append(lambda s, execute: (s.annotate(), never_arrived()(s, execute))[0])
    async with batcher(server, token="lastWrite") as status:
        status.increment("total")
        with pytest.raises(StatusConflict):
            await status.flush()
        assert server.status == {}
    assert server.status["total"] == 1


async def test_a_refused_read_after_a_conflict_says_what_the_role_needs(server):
    server.on_write.append(meanwhile(lambda s: s.annotate()))
    server.on_read.append(refused(api_error(403, "Forbidden")))
    with pytest.raises(StatusRejected, match="must allow to get the main resource"):
        async with batcher(server) as status:
            status.increment("total")


async def test_an_object_deleted_during_the_read_after_a_conflict_is_gone(server):
    server.on_write.append(meanwhile(lambda s: s.annotate()))
    server.on_read.append(meanwhile(lambda s: s.delete()))
    async with batcher(server) as status:
        status.increment("total")
    assert status.statistics().dropped == 1


async def test_a_read_back_that_is_refused_leaves_the_outcome_unknown(server):
    server.on_write.append(lost())
    server.on_read.append(refused(api_error(403, "Forbidden")))
    with pytest.raises(StatusOutcomeUnknown, match="could not be read back") as caught:
        async with batcher(server) as status:
            status.increment("total")
    assert isinstance(caught.value.__cause__, Forbidden)


async def test_a_failed_read_back_is_retried(server):
    server.on_write.append(lost())
    server.on_read.extend([refused(api_error(500)), never_arrived(), refused(NotSent("no")), refused(api_error(429))])
    async with batcher(server) as status:
        status.increment("total")
    assert server.status == {"total": 1}
    assert status.written is True


async def test_reads_are_bounded(server):
    server.on_write.append(lost())
    server.on_read.extend(refused(api_error(500)) for _ in range(9))
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server) as status:
            status.increment("total")
    assert server.reads == 5


# Refused permanently.


async def test_422_names_the_fields_and_what_was_recorded(server):
    error = api_error(422, "Invalid", "is invalid", causes=[{"field": "status.phase", "reason": "FieldValueInvalid"}])
    server.on_write.append(refused(error))
    with pytest.raises(StatusInvalid, match=r"status\.phase.*Not saved: set phase") as caught:
        async with batcher(server) as status:
            status.set(phase="Nonsense")
    assert caught.value.fields == ("status.phase",)
    assert not caught.value.retryable
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "message",
    [
        "failed to create typed patch object (prod/db1): .status.x: field not declared in schema",
        'strconv.ParseUint: parsing "x": invalid syntax',
    ],
)
async def test_a_permanent_500_is_a_refusal(server, message):
    server.on_write.append(refused(api_error(500, "", message)))
    with pytest.raises(StatusRejected) as caught:
        async with batcher(server) as status:
            status.increment("total")
    assert (len(server.writes), server.reads) == (1, 0)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "error", [api_error(500, "", "etcdserver: request is too large"), api_error(413, "RequestEntityTooLarge")], ids=str
)
async def test_an_object_that_is_too_large_says_what_to_trim(server, error):
    server.on_write.append(refused(error))
    with pytest.raises(StatusTooLarge, match=r"attempts \(\d+ KiB\), .*keep_last=") as caught:
        async with batcher(server) as status:
            status.set(attempts=["x" * 1000] * 100, phase="Ready")
    assert (len(server.writes), server.reads) == (1, 0)
    assert not caught.value.retryable


@pytest.mark.parametrize(("strategy", "verb"), [("merge", "patch"), ("update", "update"), ("apply", "patch")])
async def test_403_says_what_the_role_needs(server, strategy, verb):
    server.foreign(lambda d: d.update(theirs=1))
    server.on_write.append(refused(api_error(403, "Forbidden", "may not")))
    with pytest.raises(StatusRejected, match=rf"may not.*must allow to {verb} the status subresource"):
        async with batcher(server, strategy=strategy) as status:
            status.set(phase="Ready")
    assert server.reads == 0


async def test_refused_credentials_are_a_refusal(server):
    server.on_write.append(refused(api_error(401, "Unauthorized")))
    with pytest.raises(StatusRejected, match=r"401 Unauthorized: no\. The credentials were not accepted"):
        async with batcher(server) as status:
            status.set(phase="Ready")
    assert (len(server.writes), server.reads) == (1, 0)


NOT_CALLED = 'failed calling webhook "v.example.com": failed to call webhook: Post "https://v.example.com/": '


@pytest.mark.parametrize("code", [400, 403, 404, 408, 409, 422, 429, 500, 503, 504])
@pytest.mark.parametrize(
    ("message", "retryable"),
    [
        (f"Internal error occurred: {NOT_CALLED}dial tcp 10.0.0.1:443: connect: connection refused", True),
        (f"Internal error occurred: {NOT_CALLED}context deadline exceeded", True),
        ('admission webhook "v.example.com" denied the request: not today', False),
    ],
    ids=["down", "slow", "denied"],
)
async def test_a_write_that_admission_stopped_is_refused_whatever_its_status(server, code, message, retryable):
    server.on_write.append(refused(api_error(code, "Conflict" if code == 409 else "InternalError", message)))
    start = asyncio.get_running_loop().time()
    with pytest.raises(StatusRejected) as caught:
        async with batcher(server) as status:
            status.increment("total")
    assert (len(server.writes), server.reads) == (1, 0)
    assert asyncio.get_running_loop().time() == start
    assert caught.value.retryable is retryable
    assert (status.statistics().unknown, status.statistics().conflicts) == (0, 0)


async def test_a_refusal_in_admission_after_a_lost_answer_leaves_the_outcome_unknown(server):
    server.on_write.extend([late(2), refused(api_error(500, "InternalError", NOT_CALLED + "EOF"))])
    with pytest.raises(StatusOutcomeUnknown):
        async with batcher(server) as status:
            status.increment("total")


# 404 has three meanings.


async def test_404_of_a_deleted_object_drops_what_was_recorded(server):
    server.delete()
    async with StatusBatcher(server.writer(), server.document()) as status:
        status.set(phase="Ready")
    assert (status.written, status.statistics().dropped, server.reads) == (False, 1, 1)


async def test_404_of_a_recreated_object_drops_what_was_recorded(server):
    obj = server.document()
    server.has_subresource = False
    server.recreate()
    async with StatusBatcher(server.writer(), obj) as status:
        status.set(phase="Ready")
    assert status.statistics().dropped == 1


async def test_404_of_an_existing_object_means_that_the_status_subresource_is_missing(server):
    server.has_subresource = False
    with pytest.raises(StatusSubresourceMissing, match=r"subresources: \{status: \{\}\}") as caught:
        async with batcher(server) as status:
            status.set(phase="Ready")
    assert not caught.value.retryable
    assert (server.reads, len(server.writes)) == (1, 1)


async def test_without_a_subresource_the_main_resource_is_written(server):
    server.has_subresource = False
    for _ in range(2):
        async with batcher(server, subresource=None) as status:
            status.increment("total")
    assert server.status == {"total": 2}
    assert [subresource for _, _, subresource in server.writes] == [None, None]


async def test_the_main_resource_of_a_kind_with_the_subresource_is_refused(server):
    with pytest.raises(StatusRejected, match="has the status subresource"):
        async with batcher(server, subresource=None) as status:
            status.increment("total")


async def test_404_of_a_kind_that_is_not_served_is_an_error(server):
    from reconciler.errors import error_from_response

    server.on_write.append(refused(error_from_response(404, None, text="404 page not found")))
    with pytest.raises(StatusRejected, match="does not serve this kind"):
        async with batcher(server) as status:
            status.set(phase="Ready")
    assert server.reads == 0


async def test_an_error_that_does_not_come_from_the_server_is_logged_and_raised_if_it_persists(server, caplog):
    server.on_write.append(refused(ZeroDivisionError()))
    server.on_read.append(refused(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        async with batcher(server) as status:
            status.set(phase="Ready")
    assert "ZeroDivisionError of the client does not show whether the status of" in caplog.text


def test_every_error_is_a_status_error():
    for cls in (StatusConflict, StatusInvalid, StatusOutcomeUnknown, StatusTooLarge, StatusUnavailable):
        assert issubclass(cls, StatusError)
    assert not issubclass(StatusError, OutcomeUnknown)
