"""Lost responses with other writers before the read back: nothing is applied twice or lost silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler import Client, Model, ObjectMeta, Resource
from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.status import StatusBatcher, StatusContested, StatusError, StatusOutcomeUnknown
from tests.depth import examples
from tests.status.scripted import ScriptedServer, Trouble, api_error, lost, meanwhile, never_arrived, refused, then

Doc = dict[str, Any]


class CountedStatus(Model):
    tries: int = 0


class Counted(Resource[Model, CountedStatus], group="example.com", version="v1"):
    pass


class Watched(ScriptedServer):
    """A server that counts how often the item X is added to the log."""

    additions = 0

    def _store(self, before: Doc, after: Doc, manager: str) -> None:
        super()._store(before, after, manager)
        self.additions += count(after) - count(before) > 0


def count(status: Doc) -> int:
    return sum(item["id"] == "X" for item in status.get("log", []))


def appended(number: int, keep_last: int = 3) -> Callable[[Doc], None]:
    def change(status: Doc) -> None:
        status["log"] = [*status.get("log", []), {"id": f"foreign {number}"}][-keep_last:]

    return change


def foreign(*changes: Callable[[Doc], object]) -> Trouble:
    return meanwhile(lambda server: [server.foreign(change) for change in changes])


def batcher(server: ScriptedServer, **options: Any) -> StatusBatcher:
    return StatusBatcher(server.blocking_writer(), server.document(), **options)


@pytest.mark.parametrize("error", [ValueError("Expecting value: line 1"), KeyError("status"), OSError("broken pipe")])
@pytest.mark.parametrize("outcome", [lost, never_arrived])
def test_an_exception_that_a_writer_should_not_raise_counts_nothing_twice_and_loses_nothing(
    outcome: Callable[[Exception], Trouble], error: Exception
) -> None:
    """As of a response that is not JSON: the write may have been applied."""
    server = ScriptedServer(status={"tries": 1})
    server.on_write.append(outcome(error))
    with batcher(server) as status:
        status.increment("tries")
    assert server.status == {"tries": 2}
    assert (status.written, status.statistics().unknown) == (True, 1)


OLD = {"log": [{"id": f"old {number}"} for number in range(3)]}


@pytest.mark.parametrize("outcome", [lost, never_arrived])
@pytest.mark.parametrize("begin", [OLD, {}, {"log": [{"id": "old"}]}])
def test_a_bounded_list_that_wrapped_does_not_show_whether_the_item_was_added(outcome, begin):
    server = Watched(status={**begin})
    server.on_write.append(outcome())
    server.on_read.append(foreign(*map(appended, range(3))))
    with pytest.raises(StatusOutcomeUnknown, match="count twice"), batcher(server) as status:
        status.append("log", {"id": "X"}, key="id", keep_last=3)
    assert server.additions == (outcome is lost)


@pytest.mark.parametrize("outcome", [lost, never_arrived])
@pytest.mark.parametrize("foreign_appends", [1, 2])
def test_a_bounded_list_that_did_not_wrap_shows_whether_the_item_was_added(outcome, foreign_appends):
    server = Watched(status={**OLD})
    server.on_write.append(outcome())
    server.on_read.append(foreign(*map(appended, range(foreign_appends))))
    with batcher(server) as status:
        status.append("log", {"id": "X"}, key="id", keep_last=3)
    assert server.additions == 1
    assert count(server.status) == 1


def test_a_token_decides_when_the_list_cannot():
    for outcome in (lost, never_arrived):
        server = Watched(status={**OLD})
        server.on_write.append(outcome())
        server.on_read.append(foreign(*map(appended, range(3))))
        with batcher(server, token="lastWrite") as status:
            status.append("log", {"id": "X"}, key="id", keep_last=3)
        assert server.additions == 1


def test_a_certain_conflict_is_replayed_on_a_list_that_wrapped():
    server = Watched(status={**OLD})
    server.on_write.append(foreign(*map(appended, range(3))))
    with batcher(server) as status:
        status.append("log", {"id": "X"}, key="id", keep_last=3)
    assert count(server.status) == server.additions == 1


def test_the_error_names_a_bounded_append_as_not_repeatable():
    server = Watched(status={**OLD})
    server.on_write.extend([never_arrived()] * 5)
    with pytest.raises(StatusOutcomeUnknown, match="count twice"), batcher(server) as status:
        status.append("log", {"id": "X"}, key="id", keep_last=3)
    server.on_write.extend([never_arrived()] * 5)
    with pytest.raises(StatusOutcomeUnknown, match="harmless"), batcher(server) as status:
        status.append("log", {"id": "X"}, key="id")


@pytest.mark.parametrize("verb", ["set", "merge", "remove"])
def test_a_value_that_another_writer_restored_is_not_overwritten(verb):
    server = ScriptedServer()
    server.foreign(lambda d: d.update(phase="Pending"), manager="kube-reconciler")
    server.on_write.append(lost())
    server.on_read.append(foreign(lambda d: d.update(phase="Pending")))
    with pytest.raises(StatusContested), batcher(server) as status:
        {
            "set": lambda: status.set(phase="Ready"),
            "merge": lambda: status.merge(phase="Ready"),
            "remove": lambda: status.remove("phase"),
        }[verb]()
    assert server.status == {"phase": "Pending"}


def test_a_value_that_was_never_written_is_written_again():
    server = ScriptedServer()
    server.foreign(lambda d: d.update(phase="Pending"), manager="kube-reconciler")
    server.on_write.append(never_arrived())
    server.on_read.append(foreign(lambda d: d.update(other=1)))
    with batcher(server) as status:
        status.set(phase="Ready")
    assert server.status == {"phase": "Ready", "other": 1}


def test_a_sum_without_a_known_owner_is_not_mistaken_for_our_write():
    server = ScriptedServer(status={"total": 1}, track_owners=False)
    server.on_write.append(never_arrived())
    server.on_read.append(foreign(lambda d: d.update(total=2)))
    with pytest.raises(StatusOutcomeUnknown), batcher(server) as status:
        status.increment("total")


def beside(server: ScriptedServer, field: str, **options: Any) -> Trouble:
    """Another batcher of the same client, opened on the present version, writes before a request is executed."""
    other = batcher(server, join=False, **options)

    def write(_: ScriptedServer) -> None:
        with other as status:
            status.increment(field)

    return meanwhile(write)


def count_beside(outcome: Trouble, moment: str, field: str, **options: Any) -> ScriptedServer:
    """Increment a number while another batcher increments a field, before the write or before the read back."""
    server = ScriptedServer(status={"total": 0, "other": 0})
    counting, other = batcher(server, **options), beside(server, field, **options)
    server.on_write.append(then(other, outcome) if moment == "write" else outcome)
    server.on_read.extend([other] if moment == "read back" else [])
    with counting as status:
        status.increment("total")
    return server


@pytest.mark.parametrize(
    ("outcome", "moment"), [(lost, "write"), (never_arrived, "write"), (never_arrived, "read back")]
)
def test_what_another_batcher_of_the_client_wrote_does_not_prove_a_lost_write(outcome, moment):
    """The values are the computed ones, and their owner is the batcher's own field manager."""
    with pytest.raises(StatusOutcomeUnknown):
        count_beside(outcome(), moment, "total")


@pytest.mark.parametrize("moment", ["write", "read back"])
@pytest.mark.parametrize("outcome", [lost, never_arrived])
def test_the_marks_of_a_token_prove_each_write_of_the_client(outcome, moment):
    assert count_beside(outcome(), moment, "total", token="marks").status["total"] == 2


def test_another_batchers_write_of_other_fields_is_no_reason_to_doubt():
    server = count_beside(lost(), "read back", "other")
    assert server.status == {"total": 1, "other": 1}


@pytest.mark.parametrize("outcome", [lost, never_arrived])
@pytest.mark.parametrize("writes", [1, 7, 8])
def test_later_writes_with_the_same_token_leave_the_evidence(outcome, writes):
    server = ScriptedServer(status={"total": 0})
    with batcher(server, token="marks") as status:
        status.increment("total")

    def write_on(_: ScriptedServer) -> None:
        for _ in range(writes):
            with batcher(server, token="marks", join=False) as status:
                status.increment("total")

    server.on_write.append(outcome())
    server.on_read.append(meanwhile(write_on))
    if writes < 8:
        with batcher(server, token="marks") as status:
            status.increment("total")
    else:
        with pytest.raises(StatusOutcomeUnknown), batcher(server, token="marks") as status:
            status.increment("total")
    assert server.status["total"] == 1 + writes + (writes < 8 or outcome is lost)
    assert len(server.status["marks"].split()) == min(2 + writes, 8)


ours = st.lists(st.sampled_from(["bounded", "keyed", "increment", "upsert"]), min_size=1, max_size=3, unique=True)
theirs = st.lists(st.sampled_from(["append", "append with a smaller bound", "increment", "annotate"]), max_size=5)
outcomes = st.lists(st.sampled_from([lost, never_arrived]), max_size=3)


@settings(deadline=None, max_examples=examples(300))
@given(ours, st.lists(theirs, max_size=4), outcomes, st.integers(0, 4), st.booleans())
def test_nothing_is_counted_twice_or_lost_silently_whatever_others_write(verbs, rounds, troubles, length, token):
    server = Watched(status={"log": [{"id": f"old {n}"} for n in range(length)][-3:]})
    server.foreign(lambda d: d.update(total=0))
    added = 0

    def act(action: str, number: int) -> None:
        nonlocal added
        if action == "increment":
            added += 1
            server.foreign(lambda d: d.update(total=d["total"] + 1))
        elif action == "annotate":
            server.annotate()
        else:
            server.foreign(appended(number, 3 if action == "append" else 2))

    for index, actions in enumerate(rounds):
        acts = [(action, 10 * index + number) for number, action in enumerate(actions)]
        server.on_read.append(meanwhile(lambda _, acts=acts: [act(*each) for each in acts]))
    server.on_write.extend(trouble() for trouble in troubles)
    error: StatusError | None = None
    try:
        with batcher(server, token="mark" if token else None) as status:
            for verb in verbs:
                if verb == "increment":
                    status.increment("total")
                elif verb == "upsert":
                    status.upsert("rows", {"id": "X"}, key="id")
                else:
                    status.append("log", {"id": "X"}, key="id", keep_last=3 if verb == "bounded" else None)
    except StatusError as raised:
        error = raised
    event(type(error).__name__)
    counted = server.status["total"] - added
    if error is None:
        assert counted == ("increment" in verbs)
        assert len(server.status.get("rows", [])) == ("upsert" in verbs)
        assert (server.additions > 0) == bool({"bounded", "keyed"} & set(verbs))
    assert counted <= 1
    if "bounded" in verbs:
        assert server.additions <= 1


@pytest.mark.parametrize("code", [403, 422])
def test_a_refused_retry_after_a_lost_answer_leaves_the_outcome_unknown(code):
    """The first request may still be applied, and mutations that must not be repeated are kept nowhere else."""
    server = ScriptedServer(status={"total": 0})
    server.on_write += [never_arrived(), refused(api_error(code, "Invalid" if code == 422 else "Forbidden"))]
    with pytest.raises(StatusOutcomeUnknown, match="its repetition was refused") as caught, batcher(server) as status:
        status.increment("total")
    assert len(caught.value.unsaved) == 1


@pytest.mark.parametrize("code", [403, 422])
def test_a_refused_retry_is_a_refusal_if_repeating_is_harmless(code):
    server = ScriptedServer(status={})
    server.on_write += [never_arrived(), refused(api_error(code, "Invalid" if code == 422 else "Forbidden"))]
    with pytest.raises(StatusError) as caught, batcher(server) as status:
        status.set(phase="Ready")
    assert not isinstance(caught.value, StatusOutcomeUnknown)


@pytest.mark.parametrize("code", [403, 422])
def test_a_refusal_is_certain_if_the_token_shows_that_nothing_was_applied(code):
    server = ScriptedServer(status={"total": 0})
    server.on_write += [never_arrived(), refused(api_error(code, "Invalid" if code == 422 else "Forbidden"))]
    server.on_read.append(foreign(lambda status: status.update(other=1)))
    with pytest.raises(StatusError) as caught, batcher(server, token="token") as status:
        status.increment("total")
    assert not isinstance(caught.value, StatusOutcomeUnknown)


class _Garbling:
    """A transport that replaces the response to the first write, which was executed."""

    def __init__(self, inner: Transport, body: bytes) -> None:
        self._inner = inner
        self._bodies = [body]

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self._inner.send(request)
        if request.method == "PATCH" and self._bodies:
            response.body = self._bodies.pop()
        return response


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "body",
    [
        b"<html>sign in</html>",
        b"",
        b"[" * 100_000,
        b'{"metadata": 5}',
        b'{"a": "\xff"}',
        b'{"kind": "Status", "status": "Success"}',
    ],
)
async def test_a_success_without_the_object_is_not_a_refusal(body: bytes) -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Counted)
        made = await client.create(Counted(metadata=ObjectMeta(name="a", namespace="default"), spec=Model()))
        garbled = client.through(lambda inner: _Garbling(inner, body))
        async with StatusBatcher(garbled, made) as status:
            status.increment("tries")
        assert (await client.get(Counted, "a", "default")).status.tries == 1
    assert (status.written, status.statistics().unknown) == (True, 1)
