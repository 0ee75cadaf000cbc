"""The verbs: what each does to a status, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest

from reconciler.meta import PathError
from reconciler.status import StatusBatcher, StatusNotOpen
from tests.status.scripted import ScriptedServer, lost, meanwhile


def recorded(status: dict[str, Any], *calls: Any, **options: Any) -> dict[str, Any]:
    """Return the stored status after a block with these calls."""
    server = ScriptedServer(status=status)
    with StatusBatcher(server.blocking_writer(), server.document(), **options) as batcher:
        for call in calls:
            call(batcher)
    return server.status


def refused(status: dict[str, Any], call: Any, error: type[Exception], match: str | None = None) -> None:
    """The call raises, and the block continues as if it had not been made."""
    server = ScriptedServer(status=status)
    with StatusBatcher(server.blocking_writer(), server.document()) as batcher:
        with pytest.raises(error, match=match):
            call(batcher)
        assert batcher.current == status
    assert server.writes == []


# set


def test_set_accepts_keywords_a_path_or_a_mapping():
    assert recorded({}, lambda s: s.set(phase="Ready", size=3)) == {"phase": "Ready", "size": 3}
    assert recorded({}, lambda s: s.set("a.b.c", 1)) == {"a": {"b": {"c": 1}}}
    assert recorded({}, lambda s: s.set(("a", "b.c/d"), 1)) == {"a": {"b.c/d": 1}}
    assert recorded({}, lambda s: s.set({"phase": "Ready"})) == {"phase": "Ready"}


def test_set_replaces_nested_values_as_a_whole():
    assert recorded({"a": {"b": 1, "c": 2}, "l": [1, 2]}, lambda s: s.set(a={"b": 3}, l=[3])) == {
        "a": {"b": 3},
        "l": [3],
    }


def test_set_to_none_removes():
    assert recorded({"error": "x", "a": 1}, lambda s: s.set(error=None)) == {"a": 1}


def test_set_of_an_untyped_object_keeps_names_as_they_are():
    assert recorded({}, lambda s: s.set(total_size=1)) == {"total_size": 1}


def test_a_field_named_overwrite_is_set_by_its_path():
    assert recorded({}, lambda s: s.set("overwrite", 1)) == {"overwrite": 1}


def test_a_field_may_have_the_name_of_any_other_argument():
    assert recorded({}, lambda s: s.set(target=1, value=2, model=3, path=4, self=5)) == {
        "target": 1,
        "value": 2,
        "model": 3,
        "path": 4,
        "self": 5,
    }


def test_observed_generation_never_decreases():
    assert recorded({"observedGeneration": 5}, lambda s: s.set(observedGeneration=4)) == {"observedGeneration": 5}
    assert recorded({"observedGeneration": 5}, lambda s: s.set(observedGeneration=6)) == {"observedGeneration": 6}


def test_set_needs_a_value_for_a_path():
    refused({}, lambda s: s.set("phase"), TypeError, "needs a value")
    refused({}, lambda s: s.set(3), TypeError, "a model or a mapping, not a int")


def test_a_path_through_a_value_other_than_an_object_is_refused_at_the_call():
    refused({"a": [1]}, lambda s: s.set("a.b", 1), PathError, "leads through 'a'")
    refused({"a": 1}, lambda s: s.increment("a.b"), PathError, "leads through")
    refused({"a": 1}, lambda s: s.append("a.b.c", 1), PathError, "leads through")
    refused({}, lambda s: s.set("", 1), PathError, "is not a valid path")
    refused({}, lambda s: s.set("a..b", 1), PathError, "is not a valid path")


# Values.


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    when: datetime


class Model:
    """The part of a pydantic model that the batcher uses."""

    def model_dump(self, *, mode: str, by_alias: bool, exclude_unset: bool) -> dict[str, Any]:
        assert (mode, by_alias, exclude_unset) == ("json", True, True)
        return {"wireName": 1}


def test_values_become_json():
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    status = recorded(
        {},
        lambda s: s.set(
            enum=Color.RED,
            time=when,
            micro=when.replace(microsecond=7),
            data=Point(1, when),
            model=Model(),
            tuple=(1, 2),
            set={"b", "a"},
            none_inside={"a": None},
            number=1.5,
        ),
    )
    assert status == {
        "enum": "red",
        "time": "2026-01-02T02:04:05Z",
        "micro": "2026-01-02T02:04:05.000007Z",
        "data": {"x": 1, "when": "2026-01-02T03:04:05+01:00"},
        "model": {"wireName": 1},
        "tuple": [1, 2],
        "set": ["a", "b"],
        "none_inside": {},
        "number": 1.5,
    }


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (object(), TypeError, r"x is a object, which JSON cannot represent"),
        ({"a": [1, object()]}, TypeError, r"x\.a\[1\] is a object"),
        ({1: 2}, TypeError, "keys are strings"),
        (math.nan, ValueError, "not a finite number"),
        (math.inf, ValueError, "not a finite number"),
        (datetime(2026, 1, 1), ValueError, r"without a time zone; write datetime.now\(UTC\)"),  # noqa: DTZ001 - on purpose
    ],
)
def test_a_value_that_json_cannot_represent_is_refused_at_the_call(value, error, match):
    refused({}, lambda s: s.set("x", value), error, match)


def test_a_recorded_value_is_a_copy():
    item: dict[str, Any] = {"a": [1]}

    def calls(status: Any) -> None:
        status.set(x=item)
        status.append("l", item)
        item["a"].append(2)
        status.append("x.a", 3)

    assert recorded({}, calls) == {"x": {"a": [1, 3]}, "l": [{"a": [1]}]}


def test_current_is_a_copy_with_everything_recorded_applied():
    server = ScriptedServer(status={"a": 1})
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        assert status.current == {"a": 1}
        status.increment("a")
        status.append("l", 1)
        status.current["l"].append(2)
        assert status.current == {"a": 2, "l": [1]}
    assert status.current == {"a": 2, "l": [1]}


def test_get_returns_one_field_with_everything_recorded_applied():
    server = ScriptedServer(status={"a": {"b": 1}, "l": [1], "none": None})
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        assert (status.get("a.b"), status.get(("a", "b"))) == (1, 1)
        assert (status.get("missing"), status.get("a.missing", 7), status.get("none", 8)) == (None, 7, 8)
        status.get("l").append(2)
        status.increment("a.b", by=2)
        status.remove("l")
        assert (status.get("a.b"), status.get("l", "gone")) == (3, "gone")
    with pytest.raises(PathError):
        status.get("")


def test_get_returns_what_an_earlier_checkpoint_wrote():
    server = ScriptedServer(status={"n": 1})
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.increment("n")
        status.flush()
        assert status.get("n") == 2
    assert server.status == {"n": 2}


# merge


def test_merge_replaces_members_and_removes_by_null():
    status = {"a": {"b": 1, "c": 2, "l": [1]}, "d": 1}
    assert recorded(status, lambda s: s.merge("a", {"b": 3, "c": None, "l": [2]})) == {"a": {"b": 3, "l": [2]}, "d": 1}
    assert recorded(status, lambda s: s.merge(a={"c": {"x": 1}})) == {"a": {"b": 1, "c": {"x": 1}, "l": [1]}, "d": 1}
    assert recorded(status, lambda s: s.merge({"d": None}, e=1)) == {"a": status["a"], "e": 1}


def test_merge_of_nothing_records_nothing():
    assert recorded({"a": 1}, lambda s: s.merge({}), lambda s: s.merge()) == {"a": 1}


def test_merge_accepts_only_objects():
    refused({}, lambda s: s.merge("a", 1), TypeError, "merge takes an object")
    refused({}, lambda s: s.merge("a"), TypeError, "merge takes an object")


# append, upsert


def test_append_creates_the_list_and_keeps_the_last_items():
    status = recorded({}, *[lambda s, n=n: s.append("a.log", n, keep_last=3) for n in range(5)])
    assert status == {"a": {"log": [2, 3, 4]}}


def test_entries_dropped_by_keep_last_are_counted_once(server):
    server.status = {"log": [1, 2, 3]}
    server.on_write.append(lambda s, execute: (s.annotate(), execute())[1])
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.append("log", 4, keep_last=2)
    assert server.status == {"log": [3, 4]}
    assert status.statistics().trimmed == 2


def test_entries_dropped_by_keep_last_can_be_counted_in_the_status():
    appends = [lambda s, n=n: s.append("log", n, keep_last=3, count_dropped="dropped.log") for n in range(5)]
    assert recorded({}, *appends) == {"log": [2, 3, 4], "dropped": {"log": 2}}
    assert recorded({"log": [8, 9], "dropped": {"log": 7}}, *appends) == {"log": [2, 3, 4], "dropped": {"log": 11}}
    assert recorded({}, appends[0]) == {"log": [0]}


def test_the_count_of_dropped_entries_adds_up_over_a_conflict(server):
    server.status = {"log": ["a", "b"], "dropped": 3}
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d.update(log=["a", "b", "c"], dropped=5))))
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.append("log", "own", keep_last=2, count_dropped="dropped")
    assert server.status == {"log": ["c", "own"], "dropped": 7}
    assert status.statistics().trimmed == 2


def test_a_count_of_dropped_entries_needs_a_bound_and_a_number():
    with pytest.raises(ValueError, match="pass both"):
        recorded({}, lambda s: s.append("log", 1, count_dropped="dropped"))
    status = {"log": [1], "dropped": "many"}
    with pytest.raises(TypeError, match="'dropped' holds a str, not a number"):
        recorded(status, lambda s: s.append("log", 2, keep_last=1, count_dropped="dropped"))


def test_append_with_a_key_adds_nothing_if_the_key_exists():
    item = {"channel": "a", "attempt": 1, "result": "ok"}
    status = recorded(
        {"log": [{"channel": "a", "attempt": 1}]},
        lambda s: s.append("log", item, key=["channel", "attempt"]),
        lambda s: s.append("log", {**item, "attempt": 2}, key=["channel", "attempt"]),
        lambda s: s.append("log", {**item, "attempt": 2, "result": "no"}, key=["channel", "attempt"]),
    )
    assert status == {"log": [{"channel": "a", "attempt": 1}, {**item, "attempt": 2}]}


def test_upsert_replaces_in_place_or_adds():
    status = recorded(
        {"channels": [{"name": "a", "n": 1, "old": True}, {"name": "b"}]},
        lambda s: s.upsert("channels", {"name": "a", "n": 2}, key="name"),
        lambda s: s.upsert("channels", {"name": "c"}, key="name"),
    )
    assert status == {"channels": [{"name": "a", "n": 2}, {"name": "b"}, {"name": "c"}]}


def test_a_key_of_1_is_not_a_key_of_true():
    status = recorded({"l": [{"id": True}]}, lambda s: s.upsert("l", {"id": 1}, key="id"))
    assert status == {"l": [{"id": True}, {"id": 1}]}


def test_lists_refuse_unsupported_values():
    refused({"log": 1}, lambda s: s.append("log", 1), TypeError, "holds a int, not a list")
    refused({"log": {}}, lambda s: s.upsert("log", {"a": 1}, key="a"), TypeError, "holds a dict, not a list")
    refused({}, lambda s: s.append("log", 1, keep_last=0), ValueError, "keep_last must be 1 or more")
    refused({}, lambda s: s.append("log", {"a": 1}, key="b"), TypeError, "the item has no b")
    refused({}, lambda s: s.append("log", 1, key="b"), TypeError, "the item has no b")
    refused({}, lambda s: s.upsert("log", {"a": 1}, key=()), TypeError, "at least one member")


def test_a_null_list_is_an_empty_one():
    assert recorded({"log": None}, lambda s: s.append("log", 1)) == {"log": [1]}


# increment, remove


def test_increment_counts_from_zero():
    assert recorded({}, lambda s: s.increment("a.n"), lambda s: s.increment("a.n", 2)) == {"a": {"n": 3}}
    assert recorded({"n": 1.5}, lambda s: s.increment("n", -0.5)) == {"n": 1.0}


def test_increment_refuses_anything_but_numbers():
    refused({"n": "1"}, lambda s: s.increment("n"), TypeError, "holds a str, not a number")
    refused({"n": True}, lambda s: s.increment("n"), TypeError, "holds a bool, not a number")
    refused({}, lambda s: s.increment("n", True), TypeError, "not a bool")
    refused({}, lambda s: s.increment("n", "1"), TypeError, "not a str")
    refused({}, lambda s: s.increment("n", math.inf), ValueError, "finite")


def test_removing_a_missing_field_is_not_a_change():
    assert recorded({"a": {"b": 1}, "c": 1}, lambda s: s.remove("a.b"), lambda s: s.remove("x.y")) == {"a": {}, "c": 1}


# set_condition


def test_items_of_a_list_are_removed_by_their_members():
    status = {"list": [{"name": "a", "n": 1}, {"name": "b", "n": True}, {"name": "a", "n": 2}, "a"]}
    assert recorded(status, lambda s: s.remove("list", item={"name": "a"})) == {"list": [{"name": "b", "n": True}, "a"]}
    assert recorded(status, lambda s: s.remove("list", item={"name": "a", "n": 2}))["list"][0] == status["list"][0]
    assert recorded(status, lambda s: s.remove("list", item={"n": 1}))["list"][0] == status["list"][1]
    assert recorded(status, lambda s: s.remove("list", item={"name": "c"})) == status
    assert recorded({}, lambda s: s.remove("list", item={"name": "c"})) == {}


def test_removing_an_item_leaves_other_writers_items_and_may_be_repeated(server):
    server.status = {"list": [{"name": "a"}, {"name": "b"}]}
    server.on_write.append(meanwhile(lambda s: s.foreign(lambda d: d["list"].append({"name": "theirs"}))))
    server.on_write.append(lost())
    server.on_read.append(meanwhile(lambda s: None))
    server.on_read.append(meanwhile(lambda s: s.foreign(lambda d: d["list"].append({"name": "more"}))))
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.remove("list", item={"name": "a"})
    assert [item["name"] for item in server.status["list"]] == ["b", "theirs", "more"]


def test_removing_items_refuses_non_lists_and_empty_members():
    with pytest.raises(TypeError, match="'a' holds a int, not a list"):
        recorded({"a": 1}, lambda s: s.remove("a", item={"name": "x"}))
    for item in ({}, "x"):
        with pytest.raises(ValueError, match="item names the members"):
            recorded({}, lambda s, i=item: s.remove("a", item=i))


def test_the_transition_time_changes_only_with_the_conditions_status():
    earlier = "2020-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True", "reason": "A", "message": "a", "lastTransitionTime": earlier}
    server = ScriptedServer(status={"conditions": [ready]}, generation=4)
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.set_condition("Ready", True, reason="B", message="b")
        status.set_condition("Other", "Unknown", reason="C")
    first, second = server.status["conditions"]
    assert first == {**ready, "reason": "B", "message": "b", "observedGeneration": 4}
    assert second["status"] == "Unknown"
    assert second["observedGeneration"] == 4
    assert second["lastTransitionTime"] != earlier
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.set_condition("Ready", False, reason="B", message="b")
    assert server.status["conditions"][0]["lastTransitionTime"] != earlier


def test_the_same_condition_again_is_not_a_change():
    server = ScriptedServer()
    for _ in range(2):
        with StatusBatcher(server.blocking_writer(), server.document()) as status:
            status.set_condition("Ready", True, reason="Done", message="1 of 1")
    assert len(server.writes) == 1


def test_a_condition_has_the_generation_that_was_read_which_never_decreases():
    ready = {"type": "Ready", "status": "True", "reason": "A", "message": "", "observedGeneration": 9}
    server = ScriptedServer(
        status={"conditions": [{**ready, "lastTransitionTime": "2020-01-01T00:00:00Z"}]}, generation=4
    )
    with StatusBatcher(server.blocking_writer(), server.document()) as status:
        status.set_condition("Ready", True, reason="B")
    assert server.status["conditions"][0]["observedGeneration"] == 9


def test_a_condition_of_a_kind_without_a_generation_has_none():
    server = ScriptedServer()
    obj = server.document()
    del obj["metadata"]["generation"]
    with StatusBatcher(server.blocking_writer(), obj) as status:
        status.set_condition("Ready", True, reason="B")
    assert "observedGeneration" not in server.status["conditions"][0]


def test_message_of_a_condition_that_cannot_be_encoded_is_repaired():
    made = recorded({}, lambda s: s.set_condition("Ready", False, reason="No", message="no file \udcff.txt, é"))
    assert made["conditions"][0]["message"] == "no file ?.txt, é"


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.set(phase="\udcff"),
        lambda s: s.set("a", {"b": ["c", {"\udcff": 1}]}),
        lambda s: s.set(("a", "\udcff"), 1),
        lambda s: s.append("log", {"error": "\udcff"}),
        lambda s: s.upsert("log", {"id": "\udcff"}, key="id"),
        lambda s: s.merge({"a": {"\udcff": 1}}),
        lambda s: s.mutate(lambda status: status.update(a="\udcff")),
        lambda s: s.set_condition("Ready", False, reason="\udcff"),
    ],
)
def test_a_lone_surrogate_is_refused_at_the_call(call):
    """Recorded, it would fail this flush and each later one of the object, which starts with what is not saved."""
    refused({"kept": 1}, call, ValueError, "lone surrogate|is not a valid path")


def test_conditions_refuse_an_error_in_place_of_its_text():
    secret = ValueError("p4ssw0rd")
    for call in (
        lambda s: s.set_condition("Ready", False, reason="Failed", message=secret),
        lambda s: s.set_condition("Ready", False, reason=secret),
        lambda s: s.set_condition("Ready", False, reason="Failed", message=None),
    ):
        with pytest.raises(TypeError, match="of a condition") as caught:
            recorded({}, call)
        assert "p4ssw0rd" not in str(caught.value)


def test_conditions_may_be_elsewhere():
    status = recorded({}, lambda s: s.set_condition("Ready", True, reason="Done", path="parts.conditions"))
    assert [condition["type"] for condition in status["parts"]["conditions"]] == ["Ready"]
    assert recorded(status, lambda s: s.set_condition("Ready", True, reason="Done", path="parts.conditions")) == status


def test_conditions_refuse_what_the_api_refuses():
    refused({}, lambda s: s.set_condition("Ready", "yes", reason="A"), ValueError, "must be a bool")
    refused({}, lambda s: s.set_condition("Ready", True, reason=""), ValueError, "needs a reason")
    refused({"conditions": {}}, lambda s: s.set_condition("Ready", True, reason="A"), TypeError, "not a list")
    refused({"conditions": [1]}, lambda s: s.set_condition("Ready", True, reason="A"), TypeError, "not objects")


# mutate


def test_mutate_changes_a_private_copy_and_its_return_value_is_ignored():
    seen = []
    status = recorded({"queue": [1, 2]}, lambda s: s.mutate(lambda d: seen.append(d) or d["queue"].pop(0)))
    assert status == {"queue": [2]}
    seen[0]["queue"].append(9)
    assert status == {"queue": [2]}


def test_a_function_that_raises_is_not_recorded():
    def halfway(status: dict[str, Any]) -> None:
        status["x"] = 1
        raise ZeroDivisionError

    refused({"a": 1}, lambda s: s.mutate(halfway), ZeroDivisionError)


def test_mutate_accepts_only_plain_functions():
    async def coroutine(status: dict[str, Any]) -> None: ...

    refused({}, lambda s: s.mutate(coroutine), TypeError, "plain function")
    refused({}, lambda s: s.mutate({"a": 1}), TypeError, "takes a function")
    refused({}, lambda s: s.mutate(lambda d: d.update(x=object())), TypeError, "JSON cannot represent")


def test_a_function_may_call_verbs_of_its_batcher_without_a_deadlock():
    def calls(status: Any) -> None:
        status.mutate(lambda d: d.update(n=len(status.current)))

    assert recorded({"a": 1}, calls) == {"a": 1, "n": 1}


# Outside the block.


def test_verbs_outside_the_block_are_refused():
    server = ScriptedServer()
    status = StatusBatcher(server.blocking_writer(), server.document())
    with pytest.raises(StatusNotOpen):
        status.set(a=1)
    with pytest.raises(StatusNotOpen):
        _ = status.current
    with status:
        pass
    for call in (lambda: status.set(a=1), status.flush, lambda: status.increment("n")):
        with pytest.raises(StatusNotOpen):
            call()
    assert server.writes == []


def test_an_apply_outside_the_block_is_refused_before_the_list_that_it_would_take_over():
    server = ScriptedServer()
    status = StatusBatcher(server.blocking_writer(), server.document(), strategy="apply")
    with pytest.raises(StatusNotOpen):
        status.append("items", 1)


def test_a_batcher_can_be_entered_only_once():
    server = ScriptedServer()
    status = StatusBatcher(server.blocking_writer(), server.document())
    with status, pytest.raises(RuntimeError, match="entered only once"):
        status.__enter__()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"strategy": "put"}, "'merge', 'update' or 'apply'"),
        ({"subresource": "auto"}, "must be 'status' or None"),
        ({"strategy": "update", "subresource": None}, "needs subresource='status'"),
        ({"on_error": "ignore"}, "'flush', 'ledgers' or 'discard'"),
        ({"flush_timeout": 0}, "flush_timeout must be seconds above 0"),
        ({"flush_timeout": math.nan}, "flush_timeout must be seconds above 0"),
        ({"max_conflicts": 0}, "1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, match):
    server = ScriptedServer()
    with pytest.raises(ValueError, match=match):
        StatusBatcher(server.blocking_writer(), server.document(), **options)


def test_the_time_of_a_condition_is_that_of_the_clock():
    class Stopped:
        def now(self) -> datetime:
            return datetime(2030, 1, 1, tzinfo=UTC)

        def monotonic(self) -> float:
            return 0.0

    status = recorded({}, lambda s: s.set_condition("Ready", True, reason="A"), clock=Stopped())
    assert status["conditions"][0]["lastTransitionTime"] == "2030-01-01T00:00:00Z"
