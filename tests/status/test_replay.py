"""Replay: which recorded values may be written on a version that the caller has not seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.status import StatusBatcher, StatusContested
from reconciler.status.mutations import (
    Append,
    Increment,
    Merge,
    Mutate,
    Remove,
    Set,
    SetCondition,
    Upsert,
    apply_all,
)
from reconciler.status.replay import compacted
from tests.depth import examples
from tests.status.scripted import ScriptedServer, meanwhile


def replayed(status: dict[str, Any], foreign: Any, *calls: Any, manager: str = "other") -> dict[str, Any]:
    """Record on one version, let another writer act, and return the final status."""
    server = ScriptedServer(status=status)
    server.on_write.append(meanwhile(lambda s: s.foreign(foreign, manager)))
    with StatusBatcher(server.blocking_writer(), server.document()) as batcher:
        for call in calls:
            call(batcher)
    return server.status


def contested(status: dict[str, Any], foreign: Any, *calls: Any) -> StatusContested:
    server = ScriptedServer(status=status)
    server.on_write.append(meanwhile(lambda s: s.foreign(foreign)))
    with pytest.raises(StatusContested) as caught:
        replay_on(server, calls)
    after = {**status}
    foreign(after)
    assert server.status == after, "nothing of a contested flush is written"
    return caught.value


def replay_on(server: ScriptedServer, calls: Any) -> None:
    with StatusBatcher(server.blocking_writer(), server.document()) as batcher:
        for call in calls:
            call(batcher)


def test_setting_a_field_that_another_writer_changed_is_contested():
    error = contested(
        {"phase": "New"},
        lambda d: d.update(phase="Cancelled"),
        lambda s: s.increment("n"),
        lambda s: s.set(phase="Done"),
    )
    assert error.paths == ("phase",)
    assert [m.verb for m in error.unsaved] == ["increment", "set"]
    assert error.retryable
    assert "overwrite=True" in str(error)


def test_a_field_that_another_writer_created_is_contested_too():
    assert contested({}, lambda d: d.update(phase="Cancelled"), lambda s: s.set(phase="Done")).paths == ("phase",)


def test_a_nested_path_is_contested_only_by_its_own_value():
    status = {"a": {"b": 1, "c": 1}}
    after = replayed(status, lambda d: d["a"].update(c=2), lambda s: s.set("a.b", 2))
    assert after == {"a": {"b": 2, "c": 2}}
    assert contested({"a": {"b": 1}}, lambda d: d.update(a={"b": 9}), lambda s: s.set("a.b", 2)).paths == ("a.b",)


def test_setting_a_whole_object_is_contested_by_a_change_inside_it():
    assert contested({"a": {"b": 1}}, lambda d: d.update(a={"b": 2}), lambda s: s.set(a={"x": 1})).paths == ("a",)


def test_removing_and_merging_are_contested_like_setting():
    assert contested({"error": "x"}, lambda d: d.update(error="y"), lambda s: s.remove("error")).paths == ("error",)
    merged = contested({"a": {"b": 1}}, lambda d: d.update(a={"b": 2}), lambda s: s.merge(a={"b": 3, "c": 1}))
    assert merged.paths == ("a.b",)


def test_a_path_that_leads_through_another_writers_value_is_contested():
    assert contested({}, lambda d: d.update(a=1), lambda s: s.set("a.b", 2)).unsaved


def test_a_field_that_nobody_else_changed_is_set_on_the_newer_version():
    after = replayed({"phase": "New"}, lambda d: d.update(theirs=1), lambda s: s.set(phase="Done", more=1))
    assert after == {"phase": "Done", "theirs": 1, "more": 1}


def test_a_field_that_another_writer_set_to_the_same_value_is_not_contested():
    after = replayed({"phase": "New"}, lambda d: d.update(phase="Done"), lambda s: s.set(phase="Done", n=1))
    assert after == {"phase": "Done", "n": 1}


def test_setting_the_current_value_requests_no_change_so_another_writers_change_stays():
    after = replayed(
        {"phase": "New", "a": {"b": 1, "c": 1}},
        lambda d: (d.update(phase="Cancelled"), d["a"].update(b=2)),
        lambda s: s.set(phase="New", n=1),
        lambda s: s.merge(a={"b": 1, "c": 3}),
    )
    assert after == {"phase": "Cancelled", "n": 1, "a": {"b": 2, "c": 3}}


def test_overwrite_true_overwrites_another_writers_change():
    after = replayed(
        {"phase": "New"}, lambda d: d.update(phase="Cancelled"), lambda s: s.set(phase="Done", overwrite=True)
    )
    assert after == {"phase": "Done"}


def test_a_change_made_under_the_batchers_field_manager_is_overwritten():
    after = replayed(
        {"phase": "New"}, lambda d: d.update(phase="Old"), lambda s: s.set(phase="Done"), manager="kube-reconciler"
    )
    assert after == {"phase": "Done"}


def test_overwrite_false_is_contested_even_under_the_same_field_manager():
    with pytest.raises(StatusContested):
        replayed(
            {"phase": "New"},
            lambda d: d.update(phase="Old"),
            lambda s: s.set(phase="Done", overwrite=False),
            manager="kube-reconciler",
        )


def test_the_last_of_several_sets_counts():
    after = replayed(
        {"phase": "New"},
        lambda d: d.update(phase="Done"),
        lambda s: s.set(phase="Working"),
        lambda s: s.set(phase="Done"),
    )
    assert after == {"phase": "Done"}


def test_generations_are_never_contested_and_never_decrease():
    assert replayed(
        {"observedGeneration": 1}, lambda d: d.update(observedGeneration=9), lambda s: s.set(observedGeneration=2, n=1)
    ) == {"observedGeneration": 9, "n": 1}


def test_lists_counters_conditions_and_functions_are_replayed():
    ready = {"type": "Ready", "status": "False", "reason": "No", "message": "", "observedGeneration": 1}
    status = {"log": ["a"], "n": 1, "ledger": [{"id": 1}], "sum": 1}
    after = replayed(
        status,
        lambda d: (
            d["log"].append("b"),
            d.update(n=5, sum=7, conditions=[{**ready, "lastTransitionTime": "2020-01-01T00:00:00Z"}]),
            d["ledger"].append({"id": 2}),
        ),
        lambda s: s.append("log", "own"),
        lambda s: s.increment("n"),
        lambda s: s.upsert("ledger", {"id": 1, "x": 1}, key="id"),
        lambda s: s.mutate(lambda d: d.update(sum=d["sum"] * 2)),
        lambda s: s.set_condition("Ready", True, reason="Yes"),
    )
    assert after["log"] == ["a", "b", "own"]
    assert after["n"] == 6
    assert after["ledger"] == [{"id": 1, "x": 1}, {"id": 2}]
    assert after["sum"] == 14
    assert [(c["status"], c["reason"]) for c in after["conditions"]] == [("True", "Yes")]


def test_a_value_is_replayed_as_it_was_recorded():
    after = replayed({}, lambda d: d.update(theirs=1), lambda s: s.set(a={"log": [1]}), lambda s: s.append("a.log", 2))
    assert after == {"theirs": 1, "a": {"log": [1, 2]}}


def test_a_function_that_fails_on_the_newer_version_fails_the_flush():
    error = contested({"queue": [1]}, lambda d: d.update(queue=[]), lambda s: s.mutate(lambda d: d["queue"].pop(0)))
    assert isinstance(error.__cause__, IndexError)


# Compaction.

START = datetime(2026, 1, 1, tzinfo=UTC)

paths = st.sampled_from([("a",), ("a", "b"), ("a", "b", "c"), ("a", "d"), ("e",)])
small = st.sampled_from([1, "x", {"b": 1}, {"b": {"c": 2}}, {}])
mutations = st.one_of(
    st.builds(Set, paths, small | st.none()),
    st.builds(Set, st.just(("observedGeneration",)), st.integers(1, 4)),
    st.builds(Remove, paths),
    st.builds(Increment, st.sampled_from([("total",), ("e",), ("a", "n")]), st.integers(1, 3)),
    st.builds(Merge, st.just(("a",)), st.sampled_from([{"b": 3}, {"b": None, "d": 4}])),
    st.builds(Append, st.just(("log",)), st.integers(1, 3), st.sampled_from([None, 2])),
    st.builds(Upsert, st.just(("items",)), st.fixed_dictionaries({"id": st.integers(1, 2), "v": st.integers(1, 3)})),
    st.just(Mutate(lambda status: status.update(seen=status.get("total")))),
).map(lambda each: Upsert(each.path, each.item, ("id",)) if isinstance(each, Upsert) else each)


def without_empty(value: Any) -> Any:
    """Leave out empty objects: a value that is set and removed again may leave its parent."""
    if not isinstance(value, dict):
        return value
    return {key: found for key, each in value.items() if (found := without_empty(each)) != {}}


@settings(deadline=None, max_examples=examples(1000))
@given(st.lists(mutations, max_size=10), st.sampled_from([{}, {"a": "text"}, {"a": {"b": {"c": 1}}, "total": 2}]))
def test_compacted_mutations_have_the_same_effect(recorded: list[Any], status: dict[str, Any]) -> None:
    try:
        expected, _ = apply_all(recorded, status)
    except (TypeError, ValueError):
        assume(False)
    fewer = compacted(recorded)
    assert len(fewer) <= len(recorded)
    assert without_empty(apply_all(fewer, status)[0]) == without_empty(expected)


def test_a_compacted_condition_keeps_the_time_of_its_transition():
    def condition(status: bool, minutes: int, generation: int) -> SetCondition:
        return SetCondition(
            ("conditions",), "Ready", status, "R", f"at {minutes}", generation, START + timedelta(minutes=minutes)
        )

    (found,) = compacted([condition(True, 1, 1), condition(False, 2, 2), condition(False, 3, 1)])
    assert found == SetCondition(("conditions",), "Ready", False, "R", "at 3", 2, START + timedelta(minutes=2))
