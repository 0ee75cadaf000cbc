"""Fields and values that a server does not store as they were sent: reported once, and not sent again and again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.clock import SystemClock
from reconciler.meta.cycle import current_cycle
from reconciler.status import StatusBatcher, writer
from reconciler.status.writer import RETRY_AFTER, StatusMemory, memory_of
from tests.status.scripted import GVK, Identity, ScriptedServer, lost
from tests.status.test_cycle import FakeCycle


class Time(SystemClock):
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Time:
    return Time()


def cycle(server: ScriptedServer, clock: Time, *calls: Any) -> StatusBatcher:
    with StatusBatcher(server.blocking_writer(), server.document(), clock=clock) as status:
        for call in calls:
            call(status)
    return status


def test_pruned_fields_are_reported_once_and_the_batcher_converges(server, clock, caplog):
    server.unknown_fields = frozenset({"conditions", "extra"})
    writer = server.blocking_writer()
    for _ in range(3):
        clock.time += 1
        with StatusBatcher(writer, server.document(), clock=clock) as status:
            status.set(phase="Ready")
            status.set_condition("Ready", True, reason="Done")
            status.set("deep.extra", 1)
            status.set("deep.known", 1)
    assert len(server.writes) == 1, "in spite of the new transition time each time"
    assert server.status == {"phase": "Ready", "deep": {"known": 1}}
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == 1
    assert "status.conditions" in told[0]
    assert "status.deep.extra" in told[0]


def test_the_warning_header_is_named(server, clock, caplog):
    server.unknown_fields = frozenset({"extra"})

    class Telling:
        def __init__(self, inner: Any) -> None:
            self.__dict__.update(gvk=inner.gvk, request=inner.request, identity=inner.identity, inner=inner)
            self.read = inner.read
            self.write = inner.write
            self.warnings = inner.server.warnings

    with StatusBatcher(Telling(server.blocking_writer()), server.document(), clock=clock) as status:
        status.set(extra=1)
    assert 'Warning: unknown field "status.extra"' in caplog.text
    assert status.statistics().pruned == 1


def test_every_write_is_whole_whatever_was_pruned_before(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    cycle(server, clock, lambda s: s.set(extra=1, a=2))
    assert server.status == {"a": 2}
    assert server.writes[-1][0]["status"] == {"extra": 1, "a": 2}


def test_a_different_value_of_a_pruned_field_is_sent_once(server, clock):
    server.unknown_fields = frozenset({"extra"})
    for value in (1, 1, 2, 2):
        cycle(server, clock, lambda s, value=value: s.set(extra=value, a=1))
    assert len(server.writes) == 2


def test_an_unknown_field_in_list_items_does_not_block_the_list(server, clock):
    server.unknown_fields = frozenset({"extra"})
    for number in range(3):
        cycle(server, clock, lambda s, n=number: s.append("log", {"id": n, "extra": n + 1}))
    for _ in range(2):
        cycle(server, clock, lambda s: s.upsert("log", {"id": 0, "extra": 5}, key="id"))
    assert server.status == {"log": [{"id": 0}, {"id": 1}, {"id": 2}]}
    assert len(server.writes) == 4, "a different value is sent once"


def test_a_field_added_to_the_schema_reaches_an_object_with_its_next_change(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    server.unknown_fields = frozenset()
    cycle(server, clock, lambda s: s.set(extra=1, a=2))
    assert server.status == {"a": 2, "extra": 1}


def test_a_field_added_to_the_schema_reaches_an_unchanged_object_after_ten_minutes(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    server.unknown_fields = frozenset()
    cycle(server, clock, lambda s: s.set(extra=1))
    assert server.status == {"a": 1}
    clock.time += RETRY_AFTER
    cycle(server, clock, lambda s: s.set(extra=1))
    assert server.status == {"a": 1, "extra": 1}


def test_a_field_added_to_the_schema_reaches_a_new_object_at_once(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    server.unknown_fields = frozenset()
    server.recreate()
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    assert server.status == {"a": 1, "extra": 1}


def test_a_value_that_a_webhook_changed_in_one_object_is_written_in_another(server, clock):
    honest = server._pruned
    server._pruned = lambda value, path="status": {**value, "phase": "Other"}
    for _ in range(2):
        cycle(server, clock, lambda s: s.set(phase="Ready", a=1))
    assert len(server.writes) == 1, "converged"
    server._pruned = honest
    server.recreate()
    server.foreign(lambda d: d.update(phase="Other", a=1))
    cycle(server, clock, lambda s: s.set(phase="Ready", a=1))
    assert server.status == {"phase": "Ready", "a": 1}


def test_a_value_that_a_webhook_removes_does_not_block_another_value(server, clock):
    server._pruned = lambda value, path="status": {k: v for k, v in value.items() if v != "Bad"}
    for _ in range(2):
        cycle(server, clock, lambda s: s.set(phase="Bad", a=1))
    assert len(server.writes) == 1
    cycle(server, clock, lambda s: s.set(phase="Good", a=1))
    assert server.status == {"phase": "Good", "a": 1}


def test_another_managers_write_to_another_field_causes_no_request(server, clock):
    server.unknown_fields = frozenset({"extra"})
    for number in range(3):
        cycle(server, clock, lambda s: s.set(extra=1, a=1))
        server.foreign(lambda d, n=number: d.update(theirs=n))
    assert len(server.writes) == 1


def test_two_controllers_with_their_own_pruned_fields_both_converge(server, clock):
    server.unknown_fields = frozenset({"one", "two"})
    for _ in range(3):
        cycle(server, clock, lambda s: s.set(one=1))
        cycle(server, clock, lambda s: s.set(two=2))
    assert len(server.writes) == 2


def test_a_lost_answer_is_recognized_although_the_server_prunes(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1), lambda s: s.increment("total"))
    server.on_write.append(lost())
    status = cycle(server, clock, lambda s: s.set(extra=1), lambda s: s.increment("total"))
    assert server.status == {"total": 2}
    assert status.statistics().attempts == 1


def test_a_write_that_the_server_changes_as_before_is_exact(server, clock):
    server.unknown_fields = frozenset({"extra"})
    heard = FakeCycle()
    token = current_cycle.set(heard)
    try:
        for number in (1, 2):
            cycle(server, clock, lambda s, n=number: s.set(extra=1, a=n))
    finally:
        current_cycle.reset(token)
    assert [exact for _, _, exact in heard.writes] == [False, True]


def test_a_write_that_a_webhook_adds_to_is_not_exact(server, clock):
    heard = FakeCycle()
    token = current_cycle.set(heard)
    try:
        for number in (1, 2):
            server._pruned = lambda value, path="status", n=number: {**value, "added": n}
            cycle(server, clock, lambda s, n=number: s.set(a=n))
    finally:
        current_cycle.reset(token)
    assert [exact for _, _, exact in heard.writes] == [False, False]


def test_a_pruned_field_is_never_removed_from_an_object_that_has_it(server, clock):
    server.unknown_fields = frozenset({"extra"})
    cycle(server, clock, lambda s: s.set(extra=1, a=1))
    server.unknown_fields = frozenset()
    server.foreign(lambda d: d.update(extra=7))
    cycle(server, clock, lambda s: s.set(a=2))
    assert server.status == {"a": 2, "extra": 7}


def test_a_zero_that_the_server_omits_does_not_make_the_field_unknown(server, clock):
    server._pruned = lambda value, path="status": {k: v for k, v in value.items() if v != 0}
    cycle(server, clock, lambda s: s.set(ready=0, other=1))
    cycle(server, clock, lambda s: s.set(ready=0))
    assert len(server.writes) == 1, "converged"
    cycle(server, clock, lambda s: s.set(ready=3))
    assert server.status == {"ready": 3, "other": 1}


def test_a_list_that_the_server_fills_with_defaults_is_sent_once_for_the_same_value(server, clock):
    def with_defaults(value: Any, path: str = "status") -> Any:
        return {k: [{"kind": "x", **i} for i in v] if k == "list" else v for k, v in value.items()}

    server._pruned = with_defaults
    for _ in range(3):
        cycle(server, clock, lambda s: s.set(list=[{"a": 1}]))
    assert len(server.writes) == 1
    cycle(server, clock, lambda s: s.set(list=[{"a": 2}]))
    cycle(server, clock, lambda s: s.set(list=[{"a": 2}]))
    assert server.status == {"list": [{"kind": "x", "a": 2}]}
    assert len(server.writes) == 2
    cycle(server, clock, lambda s: s.set(list=[{"a": 1}]))
    assert server.status == {"list": [{"kind": "x", "a": 1}]}
    assert len(server.writes) == 3, "because of the different stored value, the first value is a change again"


def test_nulls_in_list_items_are_not_stored_and_are_not_a_difference(server, clock):
    for _ in range(2):
        cycle(server, clock, lambda s: s.set(list=[{"a": None, "b": 1}]))
    assert len(server.writes) == 1


def test_clients_do_not_share_what_was_learned(clock):
    one, two = ScriptedServer(unknown_fields=frozenset({"extra"})), ScriptedServer()
    cycle(one, clock, lambda s: s.set(extra=1))
    cycle(two, clock, lambda s: s.set(extra=1))
    assert two.status == {"extra": 1}


def test_a_write_of_which_the_server_stores_nothing_does_not_count_as_written(server, clock):
    server.unknown_fields = frozenset({"extra"})
    status = cycle(server, clock, lambda s: s.set(extra=1))
    assert status.written is False
    statistics = status.statistics()
    assert (statistics.attempts, statistics.written, statistics.suppressed, statistics.ignored) == (1, 0, 0, 1)
    status = cycle(server, clock, lambda s: s.set(extra=1, phase="Ready"))
    assert (status.written, status.statistics().written) == (True, 1)


def test_what_was_learned_over_one_client_does_not_affect_another(server, clock, caplog):
    server.unknown_fields = frozenset({"extra"})
    for _ in range(2):
        cycle(server, clock, lambda s: s.set(extra=1))
    server.identity = Identity()
    cycle(server, clock, lambda s: s.set(extra=1))
    assert len(server.writes) == 2
    assert len(caplog.records) == 2


def test_the_memory_ends_with_its_client():
    client = Identity()
    kept = memory_of(client)
    assert memory_of(client) is kept
    assert memory_of(Identity()) is not kept
    before = len(writer._memories)
    del client
    assert len(writer._memories) == before - 1
    assert memory_of(object()) is not memory_of(object()), "nothing is kept for a client without weak references"


def test_the_memory_is_bounded(monkeypatch, clock):
    monkeypatch.setattr(writer, "MAX_ANSWERS", 3)
    monkeypatch.setattr(writer, "MAX_KINDS", 4)
    monkeypatch.setattr(writer, "MAX_PATHS", 5)
    known = StatusMemory()
    for number in range(10):
        gvk = GVK._replace(kind=f"K{number}")
        known.learn("uid", [(f"f{number}",)], {}, {f"f{number}": 1}, clock)
        known.report(gvk, {f"f{n}": 1 for n in range(10)}, {})
    assert len(known.answers) == 3
    assert not known.foresees("uid", [("f0",)], {}, {"f0": 1}, clock)
    assert known.foresees("uid", [("f9",)], {}, {"f9": 1}, clock)
    assert len(known._reported) == 4
    assert all(len(paths) == 5 for paths in known._reported.values())


json_values = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["", "a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)),
    max_leaves=8,
)
statuses = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


@settings(deadline=None)
@given(statuses, statuses, st.frozensets(st.sampled_from("abcd"), max_size=2))
def test_the_same_value_again_is_not_a_change_whatever_the_server_prunes(base, wish, unknown) -> None:
    server, clock = ScriptedServer(unknown_fields=unknown), Time()
    server.status = server._pruned(base)
    for _ in range(3):
        cycle(server, clock, lambda s: s.set(wish))
    assert len(server.writes) <= 1
