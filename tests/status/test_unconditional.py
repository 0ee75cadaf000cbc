"""``conditional=False``: said aloud, for fields that one controller alone decides; and never more than was said."""

from __future__ import annotations

from typing import Any

import kopf
import pytest

from reconciler.errors import OutcomeUnknown
from reconciler.meta import current_cycle
from reconciler.status import StatusBatcher, StatusOutcomeUnknown, StatusRejected, Unsaved
from reconciler.status.record.mutations import Increment
from tests.status.scripted import ScriptedServer, api_error, lost, meanwhile, never_arrived, refused
from tests.status.test_cycle import FakeCycle

pytestmark = pytest.mark.virtual_time


def batcher(server: ScriptedServer, **options: Any) -> StatusBatcher[Any]:
    return StatusBatcher(server.writer(), server.document(), conditional=False, **options)


async def write(server: ScriptedServer, **fields: Any) -> StatusBatcher[Any]:
    async with batcher(server) as status:
        status.set(**fields)
    return status


async def test_the_patch_names_no_version_and_overwrites_only_the_fields_that_are_set(server):
    server.status = {"phase": "New", "theirs": {"a": 1}}

    def foreign(status: dict[str, Any]) -> None:
        status.update(phase="Theirs", theirs={"a": 2, "b": 3})

    server.on_write.append(meanwhile(lambda s: s.foreign(foreign)))
    status = await write(server, phase="Ready")
    assert server.writes == [({"status": {"phase": "Ready"}}, "merge", "status")]
    assert server.status == {"phase": "Ready", "theirs": {"a": 2, "b": 3}}
    assert (status.written, status.statistics().conflicts, server.reads) == (True, 0, 0)


async def test_nothing_changed_is_no_request(server):
    server.status = {"phase": "Ready"}
    status = await write(server, phase="Ready")
    assert (status.written, server.writes) == (False, [])


async def test_merge_and_remove_are_taken_too(server):
    server.status = {"old": 1, "deep": {"a": 1, "b": 1}}
    async with batcher(server) as status:
        status.remove("old")
        status.merge("deep", {"a": None})
        status.set("deep.c", 2)
    assert server.status == {"deep": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.append("log", 1),
        lambda s: s.append("log", {"id": 1}, key="id"),
        lambda s: s.upsert("log", {"id": 1}, key="id"),
        lambda s: s.remove("log", item={"id": 1}),
        lambda s: s.increment("total"),
        lambda s: s.set_condition("Ready", True, reason="Done"),
        lambda s: s.mutate(lambda d: None),
    ],
)
async def test_what_depends_on_what_is_there_is_refused_at_the_call(server, call):
    async with batcher(server) as status:
        with pytest.raises(TypeError, match="conditional=False takes set, merge and remove of fields only"):
            call(status)
    assert server.writes == []


@pytest.mark.parametrize("trouble", [lost(), never_arrived(), lost(api_error(500))])
async def test_a_lost_answer_is_sent_again_without_a_look(server, trouble):
    server.on_write.append(trouble)
    status = await write(server, phase="Ready")
    assert server.status == {"phase": "Ready"}
    assert (status.statistics().attempts, server.reads) == (2, 0)


async def test_a_server_that_never_answers_ends_in_an_error_that_says_it_may_be_repeated(server):
    server.on_write.extend([lost(OutcomeUnknown("reset"))] * 5)
    with pytest.raises(StatusOutcomeUnknown, match="Repeating it is harmless"):
        await write(server, phase="Ready")
    assert len(server.writes) == 5


async def test_a_conflict_of_another_kind_is_a_refusal(server):
    server.on_write.append(refused(api_error(409, "Conflict", "an admission webhook said so")))
    with pytest.raises(StatusRejected, match="an admission webhook said so"):
        await write(server, phase="Ready")


async def test_a_write_into_an_object_that_was_made_anew_is_said_so(server, caplog):
    server.on_write.append(meanwhile(lambda s: s.recreate()))
    await write(server, phase="Ready")
    assert server.status == {"phase": "Ready"}
    assert "was deleted and made again meanwhile" in caplog.text


async def test_it_is_never_reported_as_a_link_in_the_chain_of_writes(server):
    cycle = FakeCycle()
    token = current_cycle.set(cycle)
    await write(server, phase="Ready")
    current_cycle.reset(token)
    assert (cycle.seen, cycle.writes) == ([("uid-1", 100)], [])


async def test_what_an_earlier_cycle_left_that_needs_the_condition_keeps_it(server):
    cycle = FakeCycle()
    cycle.unsaved["uid-1"] = Unsaved((Increment(("total",), 1),), {})
    token = current_cycle.set(cycle)
    await write(server, phase="Ready")
    current_cycle.reset(token)
    assert server.writes[0][0]["metadata"] == {"resourceVersion": "100"}
    assert server.status == {"phase": "Ready", "total": 1}


async def test_it_joins_no_conditional_one(server):
    async with StatusBatcher(server.writer(), server.document()) as outer, batcher(server) as inner:
        assert not inner.joined
        outer.increment("total")


async def test_an_apply_is_always_conditional(server):
    with pytest.raises(ValueError, match="goes with strategy='merge'"):
        batcher(server, strategy="apply")


def test_inside_kopf_the_write_is_kopfs_own():
    body = ScriptedServer().document()
    with pytest.raises(ValueError, match="so does conditional=False"):
        StatusBatcher(kopf.Patch(), body, conditional=False)
